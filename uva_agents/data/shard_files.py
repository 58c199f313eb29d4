"""Files of shards: as many open as the system allows, and no more of their maps resident than a bound."""

from __future__ import annotations

import mmap
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
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


@dataclass
class _Opened:
    """A file of this process."""

    file: BinaryIO
    offset: int
    mapped: mmap.mmap | None = None
    array: np.ndarray | None = None


class OpenShards:
    """The open files of this process: rows of several pages are read, small ones are looked at through maps.

    A map is faster where many rows lie on a page; but every page that was ever looked at counts as memory of the process until it
    is given back, and what lies around it is read from the disk with it.

    Args:
        resident: bytes of maps that may have been looked at before all is given back.
        most_open: files.
    """

    def __init__(self, resident: int = RESIDENT_BYTES, most_open: int | None = None) -> None:
        self.resident = resident
        self.most_open = _file_budget() if most_open is None else most_open
        self._open: OrderedDict[str, _Opened] = OrderedDict()
        self._looked_at = 0
        self._lock = threading.Lock()

    def mapped(self, path: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """The array (n, ...) in a ``.npy`` file, read-only.

        Raises:
            DataError: it is not there any more, or another.
        """
        with self._lock:
            found = self._opened(path, shape, dtype)
            if found.array is None:
                try:
                    mapped = mmap.mmap(found.file.fileno(), 0, access=mmap.ACCESS_READ)
                    found.array = np.frombuffer(mapped, dtype, int(np.prod(shape)), found.offset).reshape(shape)
                except (OSError, ValueError) as error:
                    raise DataError(f"{path} cannot be read: {error}; start again, it is made anew") from error
                if hasattr(mapped, "madvise"):
                    mapped.madvise(mmap.MADV_RANDOM)
                found.mapped = mapped
            return found.array

    def read(self, path: str, shape: tuple[int, ...], begin: int, out: np.ndarray) -> None:
        """Read the rows from ``begin`` on of a ``.npy`` file of this shape into ``out`` (n, ...), as many as it has.

        Raises:
            DataError: it is not there any more, or another, or cut short.
        """
        with self._lock:
            found = self._opened(path, shape, out.dtype)
        if not hasattr(os, "preadv"):
            out[:] = self.mapped(path, shape, out.dtype)[begin : begin + len(out)]
            return
        view = out.reshape(-1).view(np.uint8).data
        at = found.offset + begin * (out.nbytes // len(out))
        while len(view):
            try:
                count = os.preadv(found.file.fileno(), [view], at)
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error}") from error
            if not count:
                raise DataError(f"{path} cannot be read: it was cut short; start again, it is made anew")
            view, at = view[count:], at + count

    def forget(self, path: str) -> None:
        """Another file is at this place from now on."""
        with self._lock:
            self._open.pop(path, None)

    def touched(self, rows: int, row_bytes: int) -> None:
        """Count rows of maps that were looked at, and give the pages back when they are many."""
        self._looked_at += rows * (row_bytes + _AROUND)
        if self._looked_at <= self.resident:
            return
        with self._lock:
            self._looked_at = 0
            maps = [found.mapped for found in self._open.values() if found.mapped is not None]
            if sum(map(len, maps)) <= self.resident:
                return
            for found in maps:
                if hasattr(found, "madvise"):
                    found.madvise(mmap.MADV_DONTNEED)

    def _opened(self, path: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Opened:
        if (found := self._open.get(path)) is not None:
            self._open.move_to_end(path)
            return found
        try:
            file = open(path, "rb")  # noqa: SIM115 (it stays open)
            found = _Opened(file, data_offset(file, shape, dtype))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}; start again, it is made anew") from error
        self._open[path] = found
        while len(self._open) > self.most_open:
            self._open.popitem(last=False)  # closed and unmapped as soon as nobody reads it
        return found


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


FILES = OpenShards()
"""Those of this process."""
