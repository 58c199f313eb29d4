"""WorldModel: what the camera will see, given actions or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from uva_agents.agents.context import context, memories_from
from uva_agents.agents.core import UVA
from uva_agents.model import Context, SamplerConfig, Task, frame_sampler, sample_video


@dataclass(frozen=True)
class Rollout:
    """Imagined futures of S candidates.

    Attributes:
        frames: uint8 (S, F, H, W, 3).
        latents: (S, F, tokens, channels), network units.
        frame_steps: (F,) control steps from now at which the frames lie.
        actions: (S, 16, A) sampled along with the frames, environment units; only from :meth:`WorldModel.imagine`.
    """

    frames: np.ndarray
    latents: Tensor
    frame_steps: np.ndarray
    actions: np.ndarray | None = None


class WorldModel:
    """Predicts frames with the forward-dynamics and video tasks (paper sections IV-C, VII-B).

    Args:
        uva: shared weights.
        sampler: denoising steps and reveal iterations. By default, weights that draw frames from actions (``frame_sketch``) give
            the most likely frames for those actions; others a draw.
        seed: of the sampling noise.
    """

    def __init__(self, uva: UVA, *, sampler: SamplerConfig | None = None, seed: int = 0) -> None:
        self.uva = uva
        self.sampler = sampler or frame_sampler(uva.bundle.model.config)
        self.seed = seed

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, device: str | torch.device = "auto", **options: Any) -> Self:
        """A shipped name, a weights folder or a released ``.ckpt`` file; ``options`` go to the constructor."""
        return cls(UVA.from_pretrained(name_or_path, device=device), **options)

    def rollout(self, obs: Any, actions: Any, *, history: Any | None = None, seed: int | None = None) -> Rollout:
        """What happens if these actions are taken.

        Args:
            obs: one observation.
            actions: (S, T, A) or (T, A) in environment units; T a multiple of 16. Beyond 16 the predicted frames become history.
            history: earlier observations with a leading time axis, oldest first.
            seed: of the noise; the model's own when absent.

        Raises:
            ValueError: T is not a multiple of 16, or the actions are not finite or of the wrong size.
        """
        c = self.uva.bundle.model.config
        size = len(self.uva.bundle.spec.action_low)
        plans = np.asarray(actions, dtype=np.float32)
        plans = plans[None] if plans.ndim == 2 else plans
        if plans.ndim != 3 or plans.shape[-1] != size or plans.shape[1] % c.action_steps or not plans.shape[1]:
            raise ValueError(f"actions must be (S, T, {size}) with T a multiple of {c.action_steps}, got {plans.shape}")
        if not np.isfinite(plans).all():
            raise ValueError("actions have NaN or infinity")
        return self._run(obs, history, Task.FORWARD, len(plans), plans, seed)

    def generate(self, obs: Any, *, n: int = 1, history: Any | None = None, seed: int | None = None) -> Rollout:
        """Plausible futures without actions: the video model. ``n`` samples of 16 steps."""
        return self._run(obs, history, Task.VIDEO, n, None, seed)

    def imagine(self, obs: Any, *, n: int = 1, history: Any | None = None, seed: int | None = None) -> Rollout:
        """Futures and the actions that go with them, sampled jointly (policy + video task)."""
        return self._run(obs, history, Task.POLICY_VIDEO, n, None, seed)

    @torch.no_grad()
    def _run(
        self, obs: Any, history: Any | None, task: Task, n: int, plans: np.ndarray | None, seed: int | None
    ) -> Rollout:
        c = self.uva.bundle.model.config
        memories, batched = memories_from(self.uva, obs, history)
        if batched:
            raise ValueError("the world model takes one observation at a time (candidates are its batch)")
        steps = c.action_steps if plans is None else plans.shape[1]
        if steps > c.action_steps and (c.wrist_image or (c.proprio_dim and not c.proprio_maskable)):
            raise ValueError(
                f"these weights need proprioception or a wrist camera at every step, which nobody has measured in imagined "
                f"frames: roll out {c.action_steps} steps at a time"
            )
        start, memories = context(self.uva, memories)
        pose = memories[0].proprio[-1] if memories[0].proprio else None
        actions = None if plans is None else self.uva.normalize_actions(plans, pose)
        generator = torch.Generator(device=self.uva.device).manual_seed(self.seed if seed is None else seed)
        inputs = Context(**{key: _repeat(value, n) for key, value in vars(start).items()})
        parts, frames, sampled = [], [], None
        for begin in range(0, steps, c.action_steps):
            if actions is not None:
                inputs = replace(inputs, actions=actions[:, begin : begin + c.action_steps])
            sample = sample_video(self.uva.bundle.model, inputs, task=task, sampler=self.sampler, generator=generator)
            sampled = sample.actions
            parts.append(sample.tokens)
            frames.append(self.uva.decode(sample.tokens))
            # Predicted frames become the history of the next chunk; where the agent then is, nobody has measured.
            points = None
            if c.frame_points:
                points = self.uva.encode(frames[-1].reshape(-1, *frames[-1].shape[2:])).points
                points = None if points is None else points.view(n, c.n_frames, -1)
            inputs = Context(history=sample.tokens, history_points=points, text=inputs.text)
        latents = torch.cat(parts, dim=1)
        return Rollout(
            frames=np.concatenate(frames, axis=1),
            latents=latents,
            frame_steps=np.arange(1, latents.shape[1] + 1) * c.frame_stride,
            actions=None if sampled is None else self.uva.environment_actions(sampled, pose),
        )


def _repeat(x: Tensor | None, n: int) -> Tensor | None:
    return None if x is None else x.expand(n, *x.shape[1:])
