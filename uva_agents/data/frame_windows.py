"""Windows of raw frames: what networks that look at pixels train on. A batch is cut from memory, with no worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uva_agents.data.episodes import Episodes
from uva_agents.data.lazy import as_lazy
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.data.transforms import Transform
from uva_agents.data.window_numbers import WindowNumbers
from uva_agents.data.windows import WindowIndex, WindowSpec


@dataclass(frozen=True)
class FrameBatch:
    """One batch of windows.

    Attributes:
        frames: uint8 (B, K, h, w, 3), whole images or crops.
        corner: float32 (B, K, 2), x and y of the crops' upper left corners, pixels; ``None`` for whole images.
        actions: float32 (B, T, A), normalised and clipped to [-1, 1]: an environment clips them, too.
        proprio: float32 (B, K, P) normalised, or ``None``.
    """

    frames: Tensor
    corner: Tensor | None
    actions: Tensor
    proprio: Tensor | None


class FrameWindows:
    """Every step of every chosen episode as a 'now', as in :class:`~uva_agents.data.windows.WindowIndex`.

    Args:
        episodes: the data.
        pixels: its frames at the network's size, uint8 (N, S, S, 3), in memory or on disk; ``None`` where only the rest of a window
            is looked at.
        normalizer: has ``action`` and the proprioception key.
        spec: whose ``history`` and ``actions`` are taken.
        chosen: episode numbers to use.
        proprio_key: low-dimensional key given beside the frames.
        trim: see :class:`~uva_agents.data.windows.WindowIndex`.
        frame_offsets: steps of the frames relative to now, instead of the history's.
        action_transforms, proprio_transforms: conventions, see :mod:`uva_agents.data.transforms`.
        delay: see :class:`~uva_agents.data.window_numbers.WindowNumbers`.
    """

    def __init__(
        self,
        episodes: Episodes,
        pixels: np.ndarray | None,
        normalizer: LinearNormalizer,
        spec: WindowSpec,
        *,
        chosen: np.ndarray | None = None,
        proprio_key: str | None = None,
        trim: tuple[int, int] = (0, 0),
        frame_offsets: Sequence[int] | None = None,
        action_transforms: Sequence[Transform] = (),
        proprio_transforms: Sequence[Transform] = (),
        delay: int = 0,
    ) -> None:
        self.index = WindowIndex(episodes, spec, chosen, trim)
        self.spec = spec
        self.frame_offsets = spec.history if frame_offsets is None else np.asarray(frame_offsets)
        self.pixels = pixels
        self._actions = WindowNumbers(
            [episodes.arrays],
            "action",
            normalizer,
            action_transforms,
            pose_key=proprio_key,
            delay=delay,
            firsts=np.repeat(episodes.starts, np.diff(episodes.ends, prepend=0)),
        )
        self._proprio = None
        if proprio_key is not None:
            self._proprio = WindowNumbers(
                [episodes.arrays], proprio_key, normalizer, proprio_transforms, pose_key=proprio_key
            )

    def __len__(self) -> int:
        return len(self.index)

    def batch(
        self,
        windows: np.ndarray | Sequence[int],
        *,
        crop: int | None = None,
        rng: np.random.Generator | None = None,
        together: bool = False,
    ) -> FrameBatch:
        """The windows with these numbers (B,).

        Args:
            crop: side of a random part of every frame; whole frames without.
            rng: draws the places; needed with ``crop``.
            together: all frames of a window are cut at the same place.
        """
        if self.pixels is None:
            raise ValueError("these windows have no frames")
        windows = np.asarray(windows)
        rows = self.index.steps(windows, self.frame_offsets)
        corner = None
        if crop is None:
            frames = self.pixels[rows]
        else:
            if rng is None:
                raise ValueError("random crops need rng=")
            places = (len(rows), 1 if together else rows.shape[1], 2)
            corners = rng.integers(0, self.pixels.shape[1] - crop + 1, places)
            corners = np.broadcast_to(corners, (*rows.shape, 2))
            frames = cut(self.pixels, rows.reshape(-1), corners.reshape(-1, 2), crop)
            frames = frames.reshape(*rows.shape, *frames.shape[1:])
            corner = torch.from_numpy(corners.astype(np.float32))
        return FrameBatch(
            torch.from_numpy(frames),
            corner,
            self.actions(windows),
            self.proprio(windows),
        )

    def actions(self, windows: np.ndarray) -> Tensor:
        """Of the windows with these numbers (B,): (B, T, A), normalised and clipped."""
        rows = self.index.steps(windows, self.spec.actions)
        return self._actions.take(rows, *self._moments(windows)).clamp(-1, 1)

    def proprio(self, windows: np.ndarray) -> Tensor | None:
        """At the frames of these windows (B,): (B, K, P), normalised; ``None`` without proprioception."""
        if self._proprio is None:
            return None
        return self._proprio.take(self.index.steps(windows, self.frame_offsets), *self._moments(windows))

    def _moments(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of 'now' and of each episode's first step, (B,)."""
        return self.index.now[windows], self.index.first[windows]


def cut(pixels: np.ndarray, rows: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
    """Squares of images: (N, H, W, 3), rows (M,), corners (M, 2) as x and y -> (M, side, side, 3).

    A loop of block copies: an index of every pixel would take ten times as long. Frames that are on disk are read together first.
    """
    if as_lazy(pixels) is not None:
        pixels, rows = pixels[rows], np.arange(len(rows))
    out = np.empty((len(rows), side, side, pixels.shape[3]), pixels.dtype)
    for i, (row, (x, y)) in enumerate(zip(rows.tolist(), corners.tolist(), strict=True)):
        out[i] = pixels[row, y : y + side, x : x + side]
    return out
