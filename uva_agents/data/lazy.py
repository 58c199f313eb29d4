"""Frames that stay on disk until they are looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np


class FrameSource(Protocol):
    """Consecutive frames of one file."""

    def __len__(self) -> int:
        """How many frames."""
        ...

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3) of these rows (n,), increasing and different.

        Raises:
            ValueError: they cannot be read.
        """
        ...

    @property
    def identity(self) -> str:
        """Changes when the file does: path, size and time of change."""
        ...


class LazyFrames:
    """uint8 (N, H, W, 3) that reads rows when they are indexed: by number, slice, or an array of numbers of any shape.

    ``np.asarray`` reads everything. It stands in for an array in :class:`~uva_agents.data.Episodes`.

    Args:
        sources: one after another along time.
        frame_shape: (H, W, 3) of each.
        rows: which rows of the sources these are; all by default.
        change: applied to what was read, (n, H, W, 3) -> (n, h, w, 3), for example a flip.
        name: for messages and fingerprints; must tell ``change`` apart.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        sources: Sequence[FrameSource],
        frame_shape: tuple[int, int, int],
        *,
        rows: np.ndarray | None = None,
        change: Callable[[np.ndarray], np.ndarray] | None = None,
        name: str = "",
    ) -> None:
        self._sources = sources
        self._begins = np.concatenate([[0], np.cumsum([len(source) for source in sources])]).astype(np.int64)
        self._rows = np.arange(self._begins[-1]) if rows is None else rows
        self._change = change
        self._name = name
        self.shape = (len(self._rows), *frame_shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        rows = self._rows[first]
        frames = self._read(np.atleast_1d(rows).ravel()).reshape(*np.shape(rows), *self.shape[1:])
        return frames[(..., *rest, *[slice(None)] * (3 - len(rest)))] if rest else frames

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("frames on disk cannot be had without a copy")
        frames = self[:]
        return frames if dtype is None else frames.astype(dtype)

    def select(self, rows: np.ndarray) -> LazyFrames:
        """These rows (n,), still on disk."""
        return LazyFrames(
            self._sources, self._frame_shape(), rows=self._rows[rows], change=self._change, name=self._name
        )

    def changed(self, change: Callable[[np.ndarray], np.ndarray], name: str) -> LazyFrames:
        """The same, each changed once more as it is read; ``name`` tells the change apart from others."""
        before = self._change

        def both(frames: np.ndarray) -> np.ndarray:
            return change(frames if before is None else before(frames))

        return LazyFrames(self._sources, self._frame_shape(), rows=self._rows, change=both, name=f"{self._name}+{name}")

    @classmethod
    def joined(cls, parts: Sequence[LazyFrames]) -> LazyFrames:
        """Frames of one size, one after another.

        Raises:
            ValueError: they differ in size, or are changed in ways of their own.
        """
        first = parts[0]
        if any(part.shape[1:] != first.shape[1:] or part._change is not first._change for part in parts):
            raise ValueError(f"frames of one size are joined, got {sorted({part.shape[1:] for part in parts})}")
        begins = np.cumsum([0, *(int(part._begins[-1]) for part in parts)])
        rows = np.concatenate([part._rows + begin for part, begin in zip(parts, begins[:-1], strict=True)])
        sources = [source for part in parts for source in part._sources]
        return cls(sources, first._frame_shape(), rows=rows, change=first._change, name=first._name)

    @property
    def fingerprint(self) -> str:
        """Of the files' names, sizes and times and the rows: contents are not read."""
        digest = hashlib.sha256(self._rows.tobytes())
        digest.update(f"{self._name}{self.shape}".encode())
        for source in self._sources:
            digest.update(source.identity.encode())
        return digest.hexdigest()

    def as_array(self) -> np.ndarray:
        """Itself, for the type checker: whoever takes frames indexes them and asks for their shape, which works here too."""
        return cast(np.ndarray, self)

    def _frame_shape(self) -> tuple[int, int, int]:
        return self.shape[1], self.shape[2], self.shape[3]

    def _read(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        wanted, back = np.unique(rows, return_inverse=True)
        which = np.searchsorted(self._begins, wanted, side="right") - 1
        for number in np.unique(which):
            in_source = np.flatnonzero(which == number)
            frames = self._sources[number].read(wanted[in_source] - self._begins[number])
            if self._change is not None:
                frames = self._change(frames)
            if frames.shape[1:] != self.shape[1:] or frames.dtype != np.uint8:
                raise ValueError(
                    f"{self._sources[number].identity}: frames are {frames.dtype} {frames.shape[1:]}, "
                    f"not uint8 {self.shape[1:]}"
                )
            places = np.full(len(wanted), -1)
            places[in_source] = np.arange(len(in_source))
            here = places[back] >= 0
            out[here] = frames[places[back][here]]
        return out


def as_lazy(value: object) -> LazyFrames | None:
    """Itself if it is on disk: what a type checker takes for an array may be."""
    return value if isinstance(value, LazyFrames) else None


def file_identity(path: Any) -> str:
    """Path, size and time of change of a file or folder."""
    state = path.stat()
    return f"{path}:{state.st_size}:{state.st_mtime_ns}"
