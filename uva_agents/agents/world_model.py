"""WorldModel: what the camera will see, given actions or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from uva_agents.agents.arguments import seed_of, whole
from uva_agents.agents.encoding import ObservationEncoder
from uva_agents.agents.guards import Inputs
from uva_agents.agents.observations import to_floats
from uva_agents.agents.rollout import Rollout, frame_indices
from uva_agents.agents.stepper import RolloutEngine, Start, noise_scale
from uva_agents.agents.weights import Weights
from uva_agents.errors import InputError
from uva_agents.model import SamplerConfig, Task, frame_sampler

if TYPE_CHECKING:
    from uva_agents.agents.dream import DreamEnv, Starts
    from uva_agents.agents.dream_vector import DreamVectorEnv

__all__ = ["Rollout", "Start", "WorldModel"]

_ROWS = 1 << 16
"""Tokens that pass through the network together: more than this costs memory and no longer saves time."""


class WorldModel:
    """Predicts frames with the forward-dynamics and video tasks (paper sections IV-C, VII-B).

    Args:
        weights: shared weights.
        sampler: denoising steps and reveal iterations. By default, weights that render frames from actions give
            the most likely frames for those actions; others a draw.
        seed: of the sampling noise.
        batch_size: candidates imagined together; by default as many as is efficient for the size of the network.
    """

    def __init__(
        self, weights: Weights, *, sampler: SamplerConfig | None = None, seed: int = 0, batch_size: int | None = None
    ) -> None:
        batch_size = None if batch_size is None else whole(batch_size, "batch_size")
        c = weights.config
        self.weights = weights
        self.encoder = ObservationEncoder(weights)
        self.engine = RolloutEngine(weights)
        self.sampler = sampler or frame_sampler(c)
        self.seed = seed_of(seed)
        self.batch_size = batch_size or min(128, max(1, _ROWS // (c.n_frames * c.tokens_per_frame)))

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, device: str | torch.device = "auto", **options: Any) -> Self:
        """A shipped name, a weights folder or a released ``.ckpt`` file; ``options`` go to the constructor."""
        return cls(Weights.from_pretrained(name_or_path, device=device), **options)

    @property
    def action_space(self) -> gym.spaces.Box:
        """Of one action of a candidate."""
        return self.weights.spec.action_space

    @property
    def lookback(self) -> int:
        """Observations before the current one that a prediction may look at."""
        return self.encoder.frames_kept - 1

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its predictions, as JSON values."""
        return {"weights": self.weights.fingerprint, "sampler": dataclasses.asdict(self.sampler), "seed": self.seed}

    @torch.no_grad()
    def prepare(self, obs: Any, *, history: Any | None = None) -> Start:
        """What all candidates share, computed once: give it as ``obs`` to several :meth:`rollout` calls from one moment."""
        memories, batched = self.encoder.memories(obs, history)
        if batched:
            raise InputError("the world model takes one observation at a time (candidates are its batch)")
        start, memories = self.encoder.context(memories)
        memory = memories[0]
        return Start(start, memory.proprio[-1] if memory.proprio else None, memory.frames[-1], memory, self.weights)

    def rollout(
        self,
        obs: Any,
        actions: Any,
        *,
        history: Any | None = None,
        seed: int | None = None,
        frames: Sequence[int] | None = None,
        decode: bool = True,
        steps: int | None = None,
    ) -> Rollout:
        """What happens if these actions are taken.

        Args:
            obs: one observation, or what :meth:`prepare` made of it.
            actions: (S, T, A) or (T, A) in environment units; T a multiple of 16. Beyond 16 the predicted frames become history.
            history: earlier observations with a leading time axis, oldest first.
            seed: of the noise; the model's own when absent.
            frames: which frames of the future are wanted: indices, negative ones from the end. The others are neither sampled
                (where that is possible) nor decoded. ``None`` means all.
            decode: false leaves the frames in latent space.
            steps: denoising steps of the frames; the sampler's own when absent. 0 is the rendered prior alone, for weights
                that render frames from actions: no transformer, a first impression.

        Raises:
            ValueError: T is not a multiple of 16; actions that are not finite, of the wrong size or outside the action space; an
                unknown frame.
        """
        plans = self._checked(actions)
        return self._run(obs, history, Task.FORWARD, len(plans), plans, seed, frames, decode, self._with_steps(steps))

    def generate(self, obs: Any, *, n: int = 1, history: Any | None = None, seed: int | None = None) -> Rollout:
        """Plausible futures without actions: the video model. ``n`` samples of 16 steps."""
        return self._run(obs, history, Task.VIDEO, n, None, seed)

    def imagine(self, obs: Any, *, n: int = 1, history: Any | None = None, seed: int | None = None) -> Rollout:
        """Futures and the actions that go with them, sampled jointly (policy + video task)."""
        return self._run(obs, history, Task.POLICY_VIDEO, n, None, seed)

    def as_env(
        self,
        objective: Callable[[Rollout], Any],
        *,
        horizon: int = 64,
        hold: bool = True,
        success_cost: float | None = None,
        starts: Starts | None = None,
    ) -> DreamEnv:
        """A gymnasium environment that lives in this model.

        Args:
            objective, horizon, hold, success_cost: see :class:`~uva_agents.agents.dream.DreamRules`.
            starts: observations to begin from, a function of a random generator that gives one, or an environment to reset; by
                default the environment that the weights were trained for. ``reset(options={"obs": ..., "history": ...})`` says it
                for one episode.
        """
        from uva_agents.agents.dream import DreamEnv, DreamRules

        return DreamEnv(self, DreamRules(objective, horizon, hold, success_cost), starts=starts)

    def as_vector_env(
        self,
        num_envs: int,
        objective: Callable[[Rollout], Any],
        *,
        horizon: int = 64,
        hold: bool = True,
        success_cost: float | None = None,
        starts: Starts | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> DreamVectorEnv:
        """Several environments as in :meth:`as_env`, imagined in one batch.

        Args:
            autoreset_mode: when finished ones begin anew, see :class:`~uva_agents.agents.dream_vector.DreamVectorEnv`.
        """
        from uva_agents.agents.dream import DreamRules
        from uva_agents.agents.dream_vector import DreamVectorEnv

        rules = DreamRules(objective, horizon, hold, success_cost)
        return DreamVectorEnv(self, num_envs, rules, starts=starts, autoreset_mode=autoreset_mode)

    def _checked(self, actions: Any) -> np.ndarray:
        """(S, T, A) float32."""
        c, space = self.weights.config, self.action_space
        size = space.shape[0]
        plans = to_floats(actions, "actions")
        plans = plans[None] if plans.ndim == 2 else plans
        if plans.ndim != 3 or plans.shape[-1] != size or plans.shape[1] % c.action_steps or 0 in plans.shape:
            raise InputError(f"actions must be (S, T, {size}) with T a multiple of {c.action_steps}, got {plans.shape}")
        if not np.isfinite(plans).all():
            bad = int(np.flatnonzero(~np.isfinite(plans).all((1, 2)))[0])
            raise InputError(f"actions have NaN or infinity, first in candidate {bad} of {len(plans)} (counted from 0)")
        # Rounding is forgiven, another unit is not.
        slack = 1e-3 * np.where(np.isfinite(space.high - space.low), space.high - space.low, 0.0)
        outside = (plans < space.low - slack) | (plans > space.high + slack)
        if outside.any():
            worst = plans[outside][0]
            raise InputError(
                f"actions must be in environment units inside {space}, but {worst:g} is outside: "
                "clip them, or undo their normalisation"
            )
        return plans

    def _with_steps(self, steps: int | None) -> SamplerConfig | None:
        """The sampler with that many steps for frames; ``None`` for the rendered prior alone."""
        if steps is None:
            return self.sampler
        steps = whole(steps, "steps", least=0)
        guide = self.weights.net.guide
        if steps == 0 and (guide is None or not guide.renders):
            raise InputError("steps=0 is the rendered prior alone, and these weights render none: use at least 1")
        return replace(self.sampler, video_steps=steps) if steps else None

    @torch.no_grad()
    def _run(
        self,
        obs: Any,
        history: Any | None,
        task: Task,
        n: int,
        plans: np.ndarray | None,
        seed: int | None,
        frames: Sequence[int] | None = None,
        decode: bool = True,
        sampler: SamplerConfig | None = None,
    ) -> Rollout:
        self.weights.check()
        c = self.weights.config
        n, seed = whole(n, "n"), self.seed if seed is None else seed_of(seed)
        if isinstance(obs, Start) and history is not None:
            raise InputError("history= is part of what prepare() made already: give it there")
        start = obs if isinstance(obs, Start) else self.prepare(obs, history=history)
        steps = c.action_steps if plans is None else plans.shape[1]
        if steps > c.action_steps and not c.sees_frames_alone:
            raise InputError(
                f"these weights need proprioception or a wrist camera at every step, which nobody has measured in imagined "
                f"frames: roll out {c.action_steps} steps at a time"
            )
        sampler = self.sampler if plans is None else sampler
        all_steps = np.arange(1, steps // c.frame_stride + 1) * c.frame_stride
        wanted = frame_indices(frames, len(all_steps))
        actions = None if plans is None else self.weights.normalize_actions(plans, start.pose)
        generator = torch.Generator(device=self.weights.device).manual_seed(seed)
        noise, size = self._noise(task, n, max(wanted, default=0) // c.n_frames + 1, sampler, generator)

        def inputs(i: int, begin: int = 0) -> Inputs:
            what = f"future {begin + i} of {n} (counted from 0)"
            given = {**start.arrays, "actions": None if plans is None else plans[begin + i]}
            return Inputs(what, given, start.computed)

        parts = [
            self.engine.rollout(
                start,
                min(size, n - begin),
                task,
                actions=None if actions is None else actions[begin : begin + size],
                frames=wanted,
                decode=decode,
                sampler=sampler,
                generator=generator,
                noise=[] if noise is None else [x[begin : begin + size] for x in noise],
                inputs=partial(inputs, begin=begin),
            )
            for begin in range(0, n, size)
        ]
        latents = torch.cat([part.tokens for part in parts])
        self.weights.require_finite(latents, "video head", inputs)
        sampled = parts[0].actions
        return Rollout(
            frames=np.concatenate([part.frames for part in parts]),
            latents=latents,
            frame_steps=all_steps[wanted],
            actions=plans if sampled is None else self.weights.environment_actions(sampled, start.pose, inputs=inputs),
            all_steps=all_steps,
            now=start.now,
            keypoints=None
            if parts[0].keypoints is None
            else np.concatenate([np.asarray(part.keypoints) for part in parts]),
        )

    def _noise(
        self, task: Task, n: int, chunks: int, sampler: SamplerConfig | None, generator: torch.Generator
    ) -> tuple[list[Tensor] | None, int]:
        """Start noise (n, T, S, C) of each chunk, and how many candidates may be imagined together.

        Drawn for all candidates at once, so that a future does not depend on which others are in its batch. Samplers that draw
        more than that as they go get all candidates in one batch.
        """
        if task is not Task.FORWARD or not self.engine.draws_once(sampler):
            return None, n
        scale = 0.0 if sampler is None else noise_scale(sampler)
        shape, device = (n, *self.engine.noise_shape), self.weights.device
        if not scale:
            zero = torch.zeros(1, 1, 1, 1, device=device, dtype=torch.float32).expand(shape)
            return [zero] * chunks, min(n, self.batch_size)
        noise = []
        for _ in range(chunks):
            # The order of one iteration.
            torch.rand(n, self.weights.config.tokens_per_frame, generator=generator, device=device, dtype=torch.float32)
            noise.append(torch.randn(shape, generator=generator, device=device, dtype=torch.float32) * scale)
        return noise, min(n, self.batch_size)
