"""The windows of a run that encodes frames in the training step: they bring frames, and held-out ones means of the posterior."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from uva_agents.data.clip_windows import ClipWindows
from uva_agents.data.dataset import Batch
from uva_agents.data.windows import WindowIndex
from uva_agents.errors import DataError
from uva_agents.model import VAE, patchify
from uva_agents.training.sources import Part
from uva_agents.utils.images import Resize, network_images

if TYPE_CHECKING:
    from uva_agents.training.uva.run import UVARun

RESIZE: Resize = "bilinear"
"""How frames are brought to the network's size in the training step, and therefore by agents."""
_TOGETHER = 64
"""Frames that are encoded at a time."""


class EncodedClipWindows(ClipWindows):
    """Windows whose frames are encoded as they are asked for, without augmentation or noise: for validation.

    Args:
        vae: the autoencoder.
        patch_size, image_size: of the network, see :class:`~uva_agents.model.UVAConfig`.
        options: see :class:`~uva_agents.data.clip_windows.ClipWindows`.
    """

    def __init__(self, *args: Any, vae: VAE, patch_size: int, image_size: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self.vae, self.patch_size, self.image_size = vae, patch_size, image_size

    def batch(
        self,
        windows: np.ndarray | Sequence[int],
        variant: np.ndarray | int = 0,
        *,
        tokens: bool = True,
        history: np.ndarray | None = None,
        start_noise: np.ndarray | None = None,
    ) -> Batch:
        """See :meth:`~uva_agents.data.LatentWindows.batch`."""
        batch = super().batch(windows, variant, tokens=tokens, history=history, start_noise=start_noise)
        if not tokens or batch.frames is None:
            return batch
        history_tokens, future = self._encoded(batch.frames)
        found = dataclasses.replace(batch, history=history_tokens, future=future, frames=None, wrist_frames=None)
        if batch.wrist_frames is None:
            return found
        history_tokens, future = self._encoded(batch.wrist_frames)
        return dataclasses.replace(found, wrist_history=history_tokens, wrist_future=future)

    @torch.no_grad()
    def _encoded(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, 2 T, H, W, 3) -> history and future, (B, T, S, C) each."""
        flat, device, tokens = frames.flatten(0, 1).numpy(), next(self.vae.parameters()).device, []
        for begin in range(0, len(flat), _TOGETHER):
            images = network_images(flat[begin : begin + _TOGETHER], self.image_size, resize=RESIZE, device=device)
            tokens.append(patchify(self.vae.encode(images), self.patch_size).float().cpu())
        joined = torch.cat(tokens).unflatten(0, frames.shape[:2])
        history, future = joined.split(frames.shape[1] // 2, dim=1)
        return history, future


def clip_windows(run: UVARun, dataset: int, part: Part, chosen: np.ndarray | None) -> ClipWindows:
    """Training windows of one of a run's datasets, the main one being 0.

    Raises:
        DataError: the dataset lacks the second camera.
    """
    return ClipWindows(part.episodes, run.normalizer_of(part), run.window, **_options(run, dataset, part, chosen))


def encoded_clip_windows(run: UVARun, dataset: int, part: Part, chosen: np.ndarray) -> EncodedClipWindows:
    """Held-out windows of one of a run's datasets."""
    c = run.recipe.model
    return EncodedClipWindows(
        part.episodes,
        run.normalizer_of(part),
        run.window,
        vae=run.vae,
        patch_size=c.patch_size,
        image_size=c.image_size,
        **_options(run, dataset, part, chosen),
    )


def count_windows(run: UVARun) -> int:
    """Training windows of all datasets of a run, which need not be made to be counted."""
    parts, chosen = [run.main, *run.others], [run.train, *(train for train, _ in run.more_splits)]
    trim = run.recipe.data.trim
    return sum(len(WindowIndex(p.episodes, run.window, c, trim)) for p, c in zip(parts, chosen, strict=True))


def _options(run: UVARun, dataset: int, part: Part, chosen: np.ndarray | None) -> dict[str, Any]:
    c, data = run.recipe.model, run.recipe.data
    if data.has_wrist and data.wrist_key not in part.episodes.arrays:
        raise DataError(f"{part.episodes.source} lacks the second camera, which recipe {run.recipe.name!r} trains on")
    return {
        "token_shape": (c.tokens_per_frame, c.token_dim),
        "wrist_key": data.wrist_key if data.has_wrist else None,
        "chosen": chosen,
        "proprio_key": data.proprio_key if part.has_actions else None,
        "frame_state_keys": data.frame_state_keys if part.has_actions else (),
        "world_size": run.recipe.world_size,
        "history_actions": c.history_actions,
        "action_dim": c.action_dim,
        "extras": run.extras(dataset, None),
    }
