"""InverseModel: frames to the actions that happened between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from uva_agents.agents.core import UVA
from uva_agents.agents.observations import check_pixels
from uva_agents.model import Context, SamplerConfig, Task, sample_actions


class InverseModel:
    """Reads actions off video (paper section VII-C); frames alone are enough, no proprioception.

    Args:
        uva: shared weights.
        steps: denoising steps.
        draws: samples that are averaged. What was done is one thing, not a distribution to sample from: the mean is nearest
            to it. They share the transformer's work.
        seed: of the sampling noise; the same frames give the same actions.
    """

    def __init__(self, uva: UVA, *, steps: int = 16, draws: int = 8, seed: int = 0) -> None:
        if draws < 1:
            raise ValueError(f"draws must be at least 1, got {draws}")
        self.uva = uva
        self.sampler = SamplerConfig(action_steps=steps)
        self.draws = draws
        self.seed = seed

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, device: str | torch.device = "auto", **options: Any) -> Self:
        """A shipped name or a weights folder; ``options`` go to the constructor."""
        return cls(UVA.from_pretrained(name_or_path, device=device), **options)

    @torch.no_grad()
    def infer(self, frames: Any) -> np.ndarray:
        """The action chunk that led through the frames.

        Args:
            frames: uint8 (F, H, W, 3) or (B, F, H, W, 3) at the model's frame stride (every 4th control step). The last 4
                are used; the first of those is 4 control steps after the first inferred action.

        Returns:
            (16, A) or (B, 16, A), environment units.

        Raises:
            ValueError: wrong shape or dtype, or fewer frames than the network takes.
        """
        pixels = check_pixels(frames, self.uva.bundle.spec.image_shape, video=True)
        batched = pixels.ndim == 5
        pixels = pixels if batched else pixels[None]
        c = self.uva.bundle.model.config
        if pixels.shape[1] < c.n_frames:
            raise ValueError(
                f"the inverse model takes {c.n_frames} frames, {c.frame_stride} control steps apart, got {pixels.shape[1]}"
            )
        pixels = pixels[:, -c.n_frames :]
        code = self.uva.encode(pixels.reshape(-1, *pixels.shape[2:]))
        tokens = code.tokens.view(*pixels.shape[:2], *code.tokens.shape[1:])
        points = None if code.points is None else code.points.view(*pixels.shape[:2], -1)
        generator = torch.Generator().manual_seed(self.seed)
        # The same noise for every video of a batch: an answer does not depend on its neighbours.
        noise = torch.randn(self.draws, c.action_steps, c.action_dim, generator=generator).repeat(len(tokens), 1, 1)
        chunks = sample_actions(
            self.uva.bundle.model,
            Context(future=tokens, future_points=points),
            task=Task.INVERSE,
            sampler=self.sampler,
            n=self.draws,
            noise=noise.to(self.uva.device),
        )
        chunk = chunks.view(len(tokens), self.draws, c.action_steps, c.action_dim).mean(1)
        actions = self.uva.environment_actions(chunk)
        return actions if batched else actions[0]
