"""Rows of arrays in memory or in shards, behind one interface: what windows are cut from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class RowArray(Protocol):
    """(N, ...) that gives copies of rows: a numpy array, or :class:`~uva_agents.data.shards.ShardedArray`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def __getitem__(self, key: Any) -> Any:
        """Rows by slice, or by numbers of any shape (..., *row)."""
        ...


class JoinedRows:
    """Arrays one after another, indexed like one tensor: by numbers of any shape, or a slice.

    Args:
        parts: (n, ...) each, with the same rows.

    Raises:
        ValueError: there is none, or rows differ.
    """

    def __init__(self, parts: Sequence[RowArray]) -> None:
        shapes = {tuple(part.shape[1:]) for part in parts}
        if len(shapes) != 1:
            raise ValueError(f"arrays with the same rows are needed, got rows of {sorted(shapes)}")
        self.parts = tuple(parts)
        self._begins = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        self.shape = (int(self._begins[-1]), *shapes.pop())

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Tensor | np.ndarray | slice) -> Tensor:
        rows = np.arange(*key.indices(len(self))) if isinstance(key, slice) else np.asarray(key)
        return torch.from_numpy(self._gather(rows.reshape(-1)).reshape(*rows.shape, *self.shape[1:]))

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        if len(self.parts) == 1 or not len(rows):
            return np.asarray(self.parts[0][rows])
        which = np.searchsorted(self._begins, rows, side="right") - 1
        out: np.ndarray | None = None
        for number in np.unique(which):
            here = np.flatnonzero(which == number)
            found = self.parts[number][rows[here] - self._begins[number]]
            if out is None:
                out = np.empty((len(rows), *found.shape[1:]), found.dtype)
            out[here] = found
        assert out is not None
        return out


def standardized(rows: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Latents float16 (n, S, C) as the network sees them, with mean and standard deviation float32 (S, C)."""
    made: np.ndarray = ((rows.astype(np.float32) - mean) / std).astype(np.float16)
    return made


def token_statistics(
    arrays: Sequence[RowArray], *, every: int = 16, most_bytes: int = 256 << 20
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of float16 rows over all arrays, float32 each, in one pass over a sample of bounded size.

    Args:
        every: how manieth row is looked at, or fewer where those would be more than ``most_bytes``.
    """
    row = 4 * int(np.prod(arrays[0].shape[1:]))
    total = sum(len(array) for array in arrays)
    step = max(every, -(-total * row // most_bytes))
    sample = np.concatenate([np.asarray(array[::step]) for array in arrays]).astype(np.float32)
    return sample.mean(0), sample.std(0)
