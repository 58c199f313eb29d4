"""Arrays of zarr datasets, opened one by one: what is wrong with one is named and leaves the others readable."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from uva_agents.data.holes import listed
from uva_agents.data.layouts import PictureLayout, picture_layout
from uva_agents.data.lazy import file_identity
from uva_agents.data.zarr_store import ChunkRule, ZarrFiles
from uva_agents.errors import DataError
from uva_agents.utils.memory import check_fits

_COMPRESSORS = ("blosc", "zstd", "lz4", "zlib", "gzip", "bz2", "lzma")
_CHECKS = ("crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3")
_FILTERS = ("delta", "fixedscaleoffset", "shuffle", "bitround", "quantize", "astype", "packbits")
_CODECS = frozenset((*_COMPRESSORS, *_CHECKS, *_FILTERS, "bytes", "transpose", "sharding_indexed", "pcodec", "zfpy"))
"""Codecs that only compute. Others, above all ``pickle``, would run what a file says."""
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
        _check_description(described, name, second is not None)
        array = zarr.open_array(files.store, path=key, mode="r", zarr_format=3 if second is None else 2)
        if array.ndim == 0:
            raise DataError(f"{name} cannot be read: it is a single number, not a row per step")
        if math.prod(map(int, array.shape)) and min(map(int, array.shards or array.chunks)) < 1:
            raise DataError(f"{name} cannot be read: its chunks are {_short(list(array.chunks))}; copy it again")
        rule = _rule(array, described)
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
        DataError: see :func:`~uva_agents.data.layouts.picture_layout`, or a chunk cannot be unpacked.
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


def _check_description(described: dict[str, Any], name: str, second: bool) -> None:
    """What decides what is allocated and run, before zarr sees it."""
    shape = described.get("shape")
    if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in shape) or len(shape) > 32:
        raise DataError(
            f"{name} cannot be read: its shape is {_short(shape)}, whole numbers were expected; copy it again"
        )
    if math.prod(max(n, 1) for n in shape) > 2**62:
        raise DataError(f"{name} cannot be read: its shape is {_short(shape)}, more than any disk holds")
    if second:
        chunks = described.get("chunks")
        if (
            not isinstance(chunks, list)
            or len(chunks) != len(shape)
            or any(type(n) is not int or n < min(1, size) for n, size in zip(chunks, shape, strict=False))
        ):
            raise DataError(f"{name} cannot be read: its chunks are {_short(chunks)} for a shape of {_short(shape)}")
        filters = described.get("filters") or []
        found = [described.get("compressor"), *(filters if isinstance(filters, list) else [filters])]
        codecs = [codec.get("id") if isinstance(codec, dict) else codec for codec in found if codec is not None]
    else:
        codecs = list(_names(described.get("codecs")))
    if any(isinstance(codec, str) and codec.startswith("imagecodecs_") for codec in codecs):
        _register_picture_codecs(name)
    for codec in codecs:
        known = isinstance(codec, str) and (
            codec.removeprefix("numcodecs.") in _CODECS or codec.startswith("imagecodecs_")
        )
        if not known:
            raise DataError(
                f"{name} cannot be read: it is packed with {_short(codec)}, which is not among the codecs that are read: "
                f"{', '.join(sorted(_CODECS)[:6])}, ..."
            )


def _register_picture_codecs(name: str) -> None:
    """JPEG 2000 and JPEG XL, unknown to zarr until a package adds them."""
    try:
        from imagecodecs.numcodecs import register_codecs
    except ImportError as error:
        from uva_agents.data.readers.dataset import MissingExtraError

        raise MissingExtraError(
            f"{name} is packed with codecs for pictures, which need imagecodecs: "
            "pip install 'uva-agents[data]' (or pip install imagecodecs)"
        ) from error
    register_codecs(verbose=False)


def _names(codecs: Any, depth: int = 0) -> Iterator[Any]:
    """Names of zarr 3's codecs, those inside of shards too."""
    for codec in codecs if isinstance(codecs, list) and depth < 4 else [codecs]:
        if not isinstance(codec, dict):
            yield codec
            continue
        yield codec.get("name")
        inner = codec.get("configuration")
        if isinstance(inner, dict):
            for part in ("codecs", "index_codecs"):
                if part in inner:
                    yield from _names(inner[part], depth + 1)


def _rule(array: zarr.Array, described: dict[str, Any]) -> ChunkRule:
    size = math.prod(int(n) for n in (array.shards or array.chunks)) * np.dtype(array.dtype).itemsize
    if "node_type" not in described:
        compressor = described.get("compressor") or {}
        name = str(compressor.get("id", ""))
        # A filter may change the type, and with it the size; pictures become files of their own.
        exact, known = not described.get("filters"), name in ("", *_COMPRESSORS)
        return ChunkRule(size, exact, name if known and (name or exact) else "other")
    names = list(_names(described.get("codecs")))
    if "sharding_indexed" in names:
        return ChunkRule(size, False, "other")
    packed = [name for name in names if name not in ("bytes", "transpose")]
    if len(packed) == 1 and packed[0] in _COMPRESSORS:
        return ChunkRule(size, True, packed[0])
    return ChunkRule(size, not packed, "other" if packed else "")


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
            f"{name} is damaged: it says {_short(shape)}, and there are chunks beyond that ({listed(extra, 3)}); "
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


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else f"{text[:57]}..."


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (text if len(text) <= 200 else f"{text[:197]}...") or type(error).__name__
