"""Independent futures that advance a frame at a time, several side by side: what a dream's environments step through."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uva_agents.agents.guards import Inputs
from uva_agents.agents.rollout import Rollout
from uva_agents.agents.stepper import RolloutEngine, Start, noise_scale
from uva_agents.errors import InputError
from uva_agents.model import Context, SamplerConfig, Task


class Futures:
    """``n`` independent futures of one world model.

    A future advances by one frame (``frame_stride`` control steps). Within a chunk (16 control steps) every frame is predicted
    from the frames before the chunk and the actions so far, with the last one held for the rest; when the chunk is full, its
    frames become the history of the next. After whole chunks a future is therefore what ``WorldModel.rollout`` gives for the same
    actions and noise.

    Args:
        engine: that predicts.
        sampler: of its frames.
        n: futures.
    """

    def __init__(self, engine: RolloutEngine, sampler: SamplerConfig, n: int) -> None:
        self.engine, self.sampler = engine, sampler
        self._contexts: list[Context | None] = [None] * n
        self._poses: list[np.ndarray | None] = [None] * n
        self._actions: list[list[np.ndarray]] = [[] for _ in range(n)]
        self._generators = [torch.Generator(engine.weights.device) for _ in range(n)]
        self._frames: list[np.ndarray | None] = [None] * n

    def __getstate__(self) -> dict[str, Any]:
        streams = [(generator.device.type, generator.get_state()) for generator in self._generators]
        return {**self.__dict__, "_generators": streams}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # On the device that the weights have come to, which may be another one.
        self._generators = [torch.Generator(self.engine.weights.device) for _ in state["_generators"]]
        for generator, (device, stream) in zip(self._generators, state["_generators"], strict=True):
            if device == generator.device.type:
                generator.set_state(stream)

    def begin(self, row: int, start: Start, seed: int) -> None:
        """Future ``row`` starts over from here, with noise of its own."""
        self._contexts[row], self._poses[row] = start.context, start.pose
        self._actions[row] = []
        self._frames[row] = start.now
        self._generators[row].manual_seed(seed)

    @property
    def begun(self) -> bool:
        """Whether every future has a first frame."""
        return all(frame is not None for frame in self._frames)

    def frame(self, row: int) -> np.ndarray:
        """uint8 (H, W, 3), the newest frame of a future."""
        newest = self._frames[row]
        assert newest is not None, "begin() comes first"
        return newest

    @torch.no_grad()
    def advance(self, rows: list[int], actions: np.ndarray) -> list[Rollout]:
        """Futures ``rows`` by one frame.

        Args:
            actions: (R, frame_stride, A) environment units.

        Returns:
            One rollout of one candidate and one frame per row; its ``now`` is the frame before. What fails changes nothing.
        """
        streams = [self._generators[row].get_state() for row in rows]
        try:
            return self._advanced(rows, actions)
        except BaseException:
            for row, stream in zip(rows, streams, strict=True):
                self._generators[row].set_state(stream)
            raise

    def _advanced(self, rows: list[int], actions: np.ndarray) -> list[Rollout]:
        weights = self.engine.weights
        weights.check()
        c = weights.config
        # Nothing is remembered of a step that fails.
        done = [[*self._actions[row], chunk] for row, chunk in zip(rows, actions, strict=True)]
        plans = [np.concatenate(chunks) for chunks in done]
        held = [np.concatenate([p, np.repeat(p[-1:], c.action_steps - len(p), 0)]) for p in plans]
        given = torch.cat(
            [weights.normalize_actions(p[None], self._poses[row]) for p, row in zip(held, rows, strict=True)]
        )
        contexts = [context for row in rows if (context := self._contexts[row]) is not None]
        tokens = self.engine.chunk(
            stacked(contexts),
            Task.FORWARD,
            actions=given,
            sampler=self.sampler,
            generator=self._generators[rows[0]],
            noise=self._noise(rows),
        ).tokens
        at = [len(chunks) - 1 for chunks in done]
        newest = tokens[range(len(rows)), at][:, None]

        def inputs(i: int) -> Inputs:
            context = contexts[i]
            arrays = {"pixels": self._frames[rows[i]], "actions": np.asarray(actions[i])}
            computed = [("autoencoder", context.history), ("keypoint detector", context.history_keypoints)]
            return Inputs(f"future {rows[i]} (counted from 0)", arrays, computed)

        frames = weights.decode(newest, inputs=inputs)
        rollouts = []
        for i, row in enumerate(rows):
            rollouts.append(
                # Copies: what an objective writes into them does not change what is seen, or what comes next.
                Rollout(
                    frames=frames[i : i + 1].copy(),
                    latents=newest[i : i + 1].clone(),
                    frame_steps=np.array([c.frame_stride]),
                    actions=np.array(actions[i : i + 1], np.float32),
                    now=self.frame(row).copy(),
                )
            )
            self._frames[row] = frames[i, 0]
            self._actions[row] = done[i]
            if at[i] == c.n_frames - 1:
                self._begin_chunk(row, tokens[i : i + 1])
        return rollouts

    def _begin_chunk(self, row: int, tokens: Tensor) -> None:
        """A full chunk becomes history."""
        before = self._contexts[row]
        assert before is not None
        images = None if self.engine.weights.net.guide is None else self.engine.weights.decode(tokens)
        self._contexts[row] = self.engine.as_history(tokens, images, before.text)
        self._actions[row] = []

    def _noise(self, rows: list[int]) -> Tensor | None:
        """(R, T, S, C), each row from its own stream, where the sampler draws once; others share what they draw as they go."""
        if not self.engine.draws_once(self.sampler):
            return None
        scale = noise_scale(self.sampler)
        shape, device = self.engine.noise_shape, self.engine.weights.device
        if not scale:
            return torch.zeros(len(rows), *shape, device=device, dtype=torch.float32)
        return scale * torch.stack(
            [torch.randn(shape, generator=self._generators[row], device=device, dtype=torch.float32) for row in rows]
        )

    def agent_position(self, frames: np.ndarray) -> np.ndarray | None:
        """(N, P) proprioception read off frames uint8 (N, H, W, 3), for weights whose detector finds it; else ``None``."""
        weights = self.engine.weights
        c, key, guide = weights.config, weights.spec.proprio_key, weights.net.guide
        if guide is None or key is None or not c.proprio_keypoints or 2 * c.proprio_keypoints != c.proprio_dim:
            return None
        with torch.no_grad():
            keypoints = guide.detector(weights.images(frames))[:, : c.proprio_dim]
        position = np.asarray(weights.normalizer.unnormalize(key, keypoints.cpu()).numpy(), np.float32)
        weights.require_finite(position, "keypoint detector", lambda i: Inputs(f"frame {i}", {"pixels": frames[i]}))
        return position


def stacked(contexts: list[Context]) -> Context:
    """Contexts of one sample each as a batch; what only some of them know is unknown (NaN) for the others."""
    values: dict[str, Tensor | None] = {}
    for name in (f.name for f in fields(Context)):
        parts: list[Tensor | None] = [getattr(context, name) for context in contexts]
        known = [part for part in parts if part is not None]
        if not known:
            values[name] = None
        elif len(known) < len(parts) and name not in ("proprio", "history_actions"):
            raise InputError(f"some futures began with {name} and some without: begin all with it, or none")
        else:
            unknown = torch.full_like(known[0], float("nan"))
            values[name] = torch.cat([unknown if part is None else part for part in parts])
    return Context(**values)
