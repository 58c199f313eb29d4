"""Memory maps of shards: as many open as the system allows, and no more of them resident than a bound."""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np

from uva_agents.errors import DataError

NPY: Any = np.lib.format
"""Numpy's own reader and writer of headers, which has no types."""
RESIDENT_BYTES = 3 << 29
"""Of mapped files, in this process. What was read stays in the system's cache of files, which gives way where memory is needed."""
_AROUND = 1 << 16
"""Bytes that Linux maps when one of them is looked at."""
_MOST_OPEN = 512


class OpenMaps:
    """The maps of this process, by file.

    A map keeps its file open, and every page that was ever looked at counts as memory of the process until it is given back.

    Args:
        resident: bytes that may have been looked at before all is given back.
        most_open: files.
    """

    def __init__(self, resident: int = RESIDENT_BYTES, most_open: int | None = None) -> None:
        self.resident = resident
        self.most_open = _file_budget() if most_open is None else most_open
        self._open: OrderedDict[str, tuple[mmap.mmap, np.ndarray]] = OrderedDict()
        self._looked_at = 0
        self._mapped = 0
        self._lock = threading.Lock()

    def mapped(self, path: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """The array (n, ...) in a ``.npy`` file, read-only.

        Raises:
            DataError: it is not there any more, or another.
        """
        with self._lock:
            if (found := self._open.get(path)) is not None and found[1].shape == shape:
                self._open.move_to_end(path)
                return found[1]
            opened = _opened(path, shape, dtype)
            self._open[path] = opened
            self._mapped += opened[1].nbytes
            while len(self._open) > self.most_open:
                _, (_, gone) = self._open.popitem(last=False)  # unmapped as soon as nobody reads it
                self._mapped -= gone.nbytes
            return opened[1]

    def touched(self, rows: int, row_bytes: int) -> None:
        """Count rows that were looked at, and give the pages back when they are many."""
        self._looked_at += rows * (row_bytes + _AROUND)
        if self._looked_at <= self.resident or self._mapped <= self.resident:
            return
        with self._lock:
            self._looked_at = 0
            for found, _ in self._open.values():
                if hasattr(found, "madvise"):
                    found.madvise(mmap.MADV_DONTNEED)


def _opened(path: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[mmap.mmap, np.ndarray]:
    try:
        with open(path, "rb") as file:
            offset = data_offset(file, shape, dtype)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        array = np.frombuffer(mapped, dtype, int(np.prod(shape)), offset).reshape(shape)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; start again, it is made anew") from error
    return mapped, array


def data_offset(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Where the numbers begin in a ``.npy`` file of this shape.

    Raises:
        ValueError: it is another array.
    """
    NPY.read_magic(file)
    found, fortran, kind = NPY.read_array_header_1_0(file)
    if found != shape or kind != dtype or fortran:
        raise ValueError(f"it is {found} {kind} instead of {shape} {dtype}")
    return file.tell()


def _file_budget() -> int:
    """Half of what this process may open."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except (ImportError, OSError):
        return _MOST_OPEN // 4
    return _MOST_OPEN if limit == resource.RLIM_INFINITY else max(8, min(_MOST_OPEN, limit // 2))


MAPS = OpenMaps()
"""Those of this process."""
