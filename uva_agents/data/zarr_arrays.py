"""Arrays of zarr datasets, opened one by one: what is wrong with one is named and leaves the others readable."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from uva_agents.data.holes import listed
from uva_agents.data.lazy import file_identity
from uva_agents.data.picture_layouts import PictureLayout, picture_layout
from uva_agents.data.zarr_description import check_description, chunk_rule, short
from uva_agents.data.zarr_store import ChunkRule, ZarrFiles
from uva_agents.errors import DataError
from uva_agents.utils.memory import check_fits

_MOST_CHUNK = 4 << 30
_MOST_LISTED = 1 << 20


@dataclass(frozen=True)
class StoredArray:
    """An array, looked over without unpacking it.

    Attributes:
        array: zarr's.
        name: path and key, for messages.
        bad: rows whose chunks are missing or cut short (n,).
        problem: what is wrong with those, empty if nothing is.
    """

    array: zarr.Array
    name: str
    bad: np.ndarray
    problem: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        return tuple(int(n) for n in self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        return np.dtype(self.array.dtype)

    @property
    def rows_per_chunk(self) -> int:
        """Rows that are stored together."""
        return int((self.array.shards or self.array.chunks)[0])


def is_array(files: ZarrFiles, key: str) -> bool | None:
    """Whether an array (true) or a group (false) is described there; ``None`` if neither is.

    Raises:
        DataError: the description is damaged.
    """
    if files.metadata(f"{key}/.zarray") is not None:
        return True
    found = files.metadata(f"{key}/zarr.json")
    if found is None:
        return False if files.metadata(f"{key}/.zgroup") is not None else None
    if not isinstance(found, dict) or found.get("node_type") not in ("array", "group"):
        raise DataError(f"{files.path}/{key}/zarr.json says neither array nor group: it is damaged")
    return bool(found["node_type"] == "array")


def open_array(files: ZarrFiles, key: str) -> StoredArray:
    """An array by its key, with its chunks counted.

    Raises:
        DataError: no description, or one that is damaged or contradicts itself; codecs that are unknown or run code.
    """
    name = f"{files.path}/{key}"
    try:
        second = files.metadata(f"{key}/.zarray")
        described = second if second is not None else files.metadata(f"{key}/zarr.json")
        if not isinstance(described, dict):
            what = "its description is missing" if described is None else f"its description is a {_kind(described)}"
            raise DataError(f"{name} cannot be read: {what}; copy the dataset again")
        check_description(described, name, second is not None)
        array = zarr.open_array(files.store, path=key, mode="r", zarr_format=3 if second is None else 2)
        if array.ndim == 0:
            raise DataError(f"{name} cannot be read: it is a single number, not a row per step")
        if math.prod(map(int, array.shape)) and min(map(int, array.shards or array.chunks)) < 1:
            raise DataError(f"{name} cannot be read: its chunks are {short(list(array.chunks))}; copy it again")
        rule = chunk_rule(array, described)
        files.store.rules[key] = rule
        if rule.size > _MOST_CHUNK:
            raise DataError(
                f"{name} cannot be read: its chunks have {rule.size:,} bytes, at most {_MOST_CHUNK:,} are read"
            )
    except (DataError, ImportError):
        raise
    except Exception as error:  # zarr raises its own and many others for what it does not understand
        raise DataError(f"{name} cannot be read: {_first_line(error)}") from error
    bad, problem = _look_over(files, key, array, rule)
    return StoredArray(array, name, bad, problem)


def read_numbers(stored: StoredArray) -> tuple[np.ndarray, np.ndarray, str]:
    """All rows, those that cannot be read (n,), and why. Unreadable rows are NaN, and the array then float64.

    Raises:
        DataError: no row can be read.
        MachineError: it is larger than the memory.
    """
    array = stored.array
    check_fits(math.prod(stored.shape) * stored.dtype.itemsize, stored.name)
    if not len(stored.bad):
        try:
            return np.asarray(array[:]), stored.bad, ""
        except Exception:  # codecs raise their own types; below it is found out where
            pass
    values = np.full(stored.shape, np.nan)
    bad, problem = np.zeros(len(values), bool), stored.problem
    bad[stored.bad] = True
    for begin in range(0, len(values), stored.rows_per_chunk):
        end = min(begin + stored.rows_per_chunk, len(values))
        if bad[begin]:
            continue
        try:
            values[begin:end] = array[begin:end]
        except Exception as error:
            bad[begin:end] = True
            problem = (
                problem or f"{stored.name} cannot be read around row {begin}, a chunk is damaged: {_first_line(error)}"
            )
    if bad.all():
        raise DataError(problem)
    return values, np.flatnonzero(bad), problem


def read_all(stored: StoredArray) -> np.ndarray:
    """All rows.

    Raises:
        DataError: some cannot be read.
    """
    values, _, problem = read_numbers(stored)
    if problem:
        raise DataError(problem)
    return values


def zarr_layout(stored: StoredArray) -> PictureLayout | None:
    """The layout of an array of pictures, ``None`` for numbers.

    Raises:
        DataError: see :func:`~uva_agents.data.picture_layouts.picture_layout`, or a chunk cannot be unpacked.
    """
    good = np.setdiff1d(np.arange(stored.shape[0]), stored.bad)

    def sample(rows: np.ndarray) -> np.ndarray:
        rows = good[np.unique(np.searchsorted(good, rows).clip(0, len(good) - 1))] if len(good) else rows
        try:
            return np.asarray(stored.array.oindex[rows])
        except Exception as error:  # codecs raise their own types on damaged chunks
            raise DataError(f"{stored.name} cannot be read, a chunk is damaged: {_first_line(error)}") from error

    return picture_layout(stored.shape, stored.dtype, sample, stored.name)


class ZarrFrames:
    """Frames of one array of a zarr dataset.

    Args:
        path: folder or zip file.
        key: of an array of pictures.
        layout: how they are stored.
    """

    def __init__(self, path: Path, key: str, layout: PictureLayout) -> None:
        self.path, self.key, self.layout = path, key, layout
        self.identity = f"{file_identity(path)}:{key}"
        self._length = self._array().shape[0]

    def __len__(self) -> int:
        return self._length

    def read(self, rows: np.ndarray) -> np.ndarray:
        """See :meth:`~uva_agents.data.lazy.FrameSource.read`."""
        stored, name = self._array(), f"{self.path}/{self.key}"
        try:
            if len(rows) == rows[-1] - rows[0] + 1:
                frames = np.asarray(stored.array[int(rows[0]) : int(rows[-1]) + 1])
            else:
                frames = np.asarray(stored.array.oindex[rows])
        except DataError as error:
            raise DataError(f"{name} cannot be read around row {rows[0]}: {error}") from error
        except Exception as error:  # codecs raise their own types on damaged chunks
            raise DataError(
                f"{name} cannot be read around row {rows[0]}, a chunk is damaged: {_first_line(error)}"
            ) from error
        return self.layout.convert(frames, name)

    def _array(self) -> StoredArray:
        return _opened(self.path, self.key, self.identity, os.getpid())


@lru_cache(maxsize=16)
def _opened(path: Path, key: str, identity: str, process: int) -> StoredArray:
    """Opening a large zip file takes a second, so it is done once for each file, its time of change, and process."""
    return open_array(ZarrFiles(path), key)


def _look_over(files: ZarrFiles, key: str, array: zarr.Array, rule: ChunkRule) -> tuple[np.ndarray, str]:
    """Rows whose chunks are missing or cut short, and what is wrong with them."""
    name = f"{files.path}/{key}"
    sizes = files.sizes(key)
    shape, chunks = tuple(map(int, array.shape)), tuple(map(int, array.shards or array.chunks))
    if not math.prod(shape):
        return np.zeros(0, np.int64), ""
    grid = tuple(-(-n // c) for n, c in zip(shape, chunks, strict=True))
    expected = math.prod(grid)
    advice = (
        "chunks are missing; copy the dataset again (or write it again with zarr's write_empty_chunks, if they were left out "
        "because they are all zero)"
    )
    if expected > 4 * len(sizes) + _MOST_LISTED:
        # Not worth counting one by one, and a description that lies could make it endless.
        raise DataError(f"{name} is incomplete: {expected - len(sizes):,} of {expected:,} {advice}")
    headed = rule.compressor in ("blosc", "zstd", "lz4")
    missing, faults, problem = 0, set(), ""
    wanted = set()
    for place in itertools.product(*map(range, grid)):
        chunk = array.metadata.encode_chunk_key(place)
        wanted.add(chunk)
        if chunk not in sizes:
            missing += 1
            faults.add(place[0])
            continue
        if headed and files.path.is_file() and sizes[chunk]:
            continue  # zip entries have checksums
        try:
            begin = _begin(files.path / key / chunk) if headed and sizes[chunk] else b""
            rule.check_header(begin, sizes[chunk], f"chunk {chunk}")
        except DataError as error:
            faults.add(place[0])
            problem = problem or f"{name} is damaged: {error}"
    if missing:
        problem = f"{name} is incomplete: {missing} of {expected} {advice}"
    beyond = sorted(set(sizes) - wanted)
    if beyond and not problem and any(_is_chunk(chunk) for chunk in beyond):
        extra = [chunk for chunk in beyond if _is_chunk(chunk)]
        raise DataError(
            f"{name} is damaged: it says {short(shape)}, and there are chunks beyond that ({listed(extra, 3)}); "
            "copy the dataset again"
        )
    rows = [np.arange(first * chunks[0], min((first + 1) * chunks[0], shape[0])) for first in sorted(faults)]
    return (np.concatenate(rows) if rows else np.zeros(0, np.int64)), problem


def _begin(path: Path) -> bytes:
    """A chunk's first bytes: its compressor's header."""
    with path.open("rb") as file:
        return file.read(32)


def _is_chunk(key: str) -> bool:
    return all(part.isdigit() for part in key.removeprefix("c/").removeprefix("c.").replace("/", ".").split("."))


def _kind(value: object) -> str:
    return {list: "list", str: "text", int: "number", float: "number", bool: "truth value"}.get(type(value), "null")


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (text if len(text) <= 200 else f"{text[:197]}...") or type(error).__name__
