"""Windows that bring their frames instead of latents: for latents that are made in the training step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor

from uva_agents.data.augment import Variant
from uva_agents.data.dataset import Batch, LatentWindows
from uva_agents.data.episodes import Episodes
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.data.windows import WindowSpec


class ClipWindows(LatentWindows):
    """As :class:`~uva_agents.data.LatentWindows`; batches have ``frames`` (and ``wrist_frames``) and no tokens.

    Args:
        episodes: the data; its frames may be on disk.
        normalizer, spec: see :class:`~uva_agents.data.LatentWindows`.
        token_shape: (S, C) of the tokens that a frame becomes.
        wrist_key: of the second camera, where one is an input.
        options: the rest of what :class:`~uva_agents.data.LatentWindows` takes.
    """

    def __init__(
        self,
        episodes: Episodes,
        normalizer: LinearNormalizer,
        spec: WindowSpec,
        *,
        token_shape: tuple[int, int],
        wrist_key: str | None = None,
        **options: Any,
    ) -> None:
        # Rows that are never looked at: one for all of them.
        blank = as_strided(np.zeros(1, np.float16), (episodes.steps, *token_shape), (0, 0, 0))
        super().__init__(episodes, [blank], [Variant()], normalizer, spec, **options)
        self.cameras = {"frames": episodes.arrays["pixels"]}
        if wrist_key is not None:
            self.cameras["wrist_frames"] = episodes.arrays[wrist_key]

    def batch(
        self,
        windows: np.ndarray | Sequence[int],
        variant: np.ndarray | int = 0,
        *,
        tokens: bool = True,
        history: np.ndarray | None = None,
        start_noise: np.ndarray | None = None,
    ) -> Batch:
        """See :meth:`~uva_agents.data.LatentWindows.batch`; without ``tokens`` there are no frames."""
        windows = np.asarray(windows)
        batch = super().batch(windows, variant, tokens=False, history=history, start_noise=start_noise)
        if not tokens:
            return batch
        past = self.index.steps(windows, self.spec.history if history is None else history)
        rows = np.concatenate([past, self.index.steps(windows, self.spec.future)], axis=1)
        return dataclasses.replace(batch, **{name: _clips(frames, rows) for name, frames in self.cameras.items()})


def _clips(frames: np.ndarray, rows: np.ndarray) -> Tensor:
    """uint8 (B, F, H, W, 3) of rows (B, F)."""
    return torch.from_numpy(np.ascontiguousarray(frames[rows]))
