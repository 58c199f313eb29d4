"""Torch archives (``.ckpt``, ``.pt``, ``.pth``): the zip format, and the one before it. Nothing in them is run.

Tensors stay in the file. A record is read when its tensor is used, and checked by the checksum that the zip format keeps of it; the
older format has none.
"""

from __future__ import annotations

import io
import math
import os
import stat
import struct
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from uva_agents.checkpoints.official.pickles import MAX_BYTES, Interpreter, Name, UnsafeCheckpointError
from uva_agents.checkpoints.stored import DTYPES, StoredTensor
from uva_agents.errors import WeightsError

__all__ = ["UnsafeCheckpointError", "read_archive"]

_MAX_RECORDS = 100_000
RATIO, SLACK = 4, 64 << 20
"""What is read from a file may have this many times its size, and this much more. Weights do not compress."""
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""How files of the older format begin."""


@dataclass(frozen=True)
class _Storage:
    """A run of numbers in the file, as a pickle names it."""

    key: str
    dtype: torch.dtype
    count: int

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize


class _Source(Protocol):
    """Where the bytes of storages come from."""

    def check(self, storage: _Storage) -> None:
        """That it is there, and of the size that the pickle says. Raises ValueError."""

    def read(self, storage: _Storage) -> bytes:
        """Its content in this machine's byte order."""


class _Tensors:
    """What pickles are given for storages and tensors. Bounds what all reading together unpacks."""

    def __init__(self, path: Path, source: _Source) -> None:
        self._path, self._source = path, source
        self._left = RATIO * path.stat().st_size + SLACK
        self._last: tuple[str, bytes] | None = None

    def storage(self, identifier: Any) -> _Storage:
        storage = _storage(identifier)
        self._source.check(storage)
        return storage

    def tensor(self, storage: Any, offset: Any, shape: Any, stride: Any) -> StoredTensor:
        if not isinstance(storage, _Storage):
            raise TypeError("a tensor without a storage")
        shape, stride = tuple(shape), tuple(stride)
        if len(shape) != len(stride) or len(shape) > 16 or not all(_is_size(n) for n in (offset, *shape, *stride)):
            raise ValueError(f"a tensor of shape {str(shape)[:100]} and stride {str(stride)[:100]}")
        count = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if count else 0
        if last >= max(storage.count, 1) or count > storage.count:
            raise ValueError(f"a tensor of shape {shape} in a record of {storage.count} numbers")

        def load() -> Tensor:
            if not count:
                return torch.zeros(shape, dtype=storage.dtype)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # the buffer is read only, and so is what is done with it
                flat = torch.frombuffer(self._bytes(storage), dtype=storage.dtype)
            return flat.as_strided(shape, stride, offset)

        return StoredTensor(shape, storage.dtype, load)

    def _bytes(self, storage: _Storage) -> bytes:
        if self._last is None or self._last[0] != storage.key:
            self._left -= storage.nbytes
            if self._left < 0:
                raise UnsafeCheckpointError(f"{self._path} unpacks to more than {RATIO} times its size")
            try:
                self._last = storage.key, self._source.read(storage)
            except Exception as error:  # zipfile and its decompressors raise a dozen unrelated types
                raise _damaged(self._path, error) from error
        return self._last[1]


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _storage(identifier: Any) -> _Storage:
    if not isinstance(identifier, tuple) or len(identifier) < 5 or identifier[0] != "storage":
        raise ValueError("the pickle asks for something that is no storage")
    kind, key, count = identifier[1], identifier[2], identifier[4]
    if not isinstance(kind, Name) or not isinstance(key, str) or not _is_size(count) or any(identifier[5:]):
        raise ValueError("the pickle describes a storage that is none")
    name = kind.full.rsplit(".", 1)[-1].removesuffix("Storage")
    if name == "Untyped":
        return _Storage(key, torch.uint8, count)
    if name not in DTYPES:
        raise UnsafeCheckpointError(f"it has numbers of type {name[:50]!r}: weights are float16, bfloat16 or float32")
    return _Storage(key, DTYPES[name], count)


def _in_native_order(content: bytes, dtype: torch.dtype, *, big: bool) -> bytes:
    if not big or dtype.itemsize == 1:
        return content
    size = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
    return np.frombuffer(content, f">u{size}").astype(f"<u{size}").tobytes()


def read_archive(path: str | Path) -> Any:
    """The object in a torch archive: plain containers, and a :class:`StoredTensor` for every tensor.

    Raises:
        FileNotFoundError: no such file.
        WeightsError: truncated, damaged, or no torch archive.
        UnsafeCheckpointError: it asks for something outside the closed list, or unpacks to far more than it is.
    """
    path = Path(path)
    try:
        facts = os.stat(path)
    except OSError as error:
        raise FileNotFoundError(f"no file {str(path)[:500]} ({error.strerror})") from error
    if not stat.S_ISREG(facts.st_mode):
        what = "a folder" if stat.S_ISDIR(facts.st_mode) else "not a regular file"
        raise WeightsError(f"{path} is {what}, not a checkpoint")
    try:
        with path.open("rb") as file:
            head = file.read(4)
            mapped = zipfile.is_zipfile(file)
            if mapped:
                _check_directory(file)
        if mapped:
            return _read_zip(path)
        if head[:2] == b"PK":
            raise WeightsError(f"{path} is truncated: the end of its archive is missing; copy it again")
        if head[:1] != b"\x80":
            raise WeightsError(f"{path} is no torch checkpoint: it begins with {head!r}")
        return _read_legacy(path)
    except UnsafeCheckpointError as error:
        message = str(error)
        raise UnsafeCheckpointError(message if str(path) in message else f"{path}: {message}") from error
    except WeightsError:
        raise
    except Exception as error:  # a damaged file can make a parser raise anything
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> WeightsError:
    reason = f"{type(error).__name__}: {str(error)[:200]}"
    return WeightsError(f"{path} is damaged or truncated ({reason}); copy it again")


# -- the zip format --------------------------------------------------------------------------------------------------


def _check_directory(file: Any) -> None:
    """That the zip's directory is one that can be read in a moment: it lies in memory as a whole."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - (1 << 16) - 22))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    count, length = struct.unpack_from("<HI", tail, end + 10)
    if count == 0xFFFF or length == 0xFFFFFFFF or tail[max(0, end - 20) : end].startswith(b"PK\x06\x07"):
        end = tail.rfind(b"PK\x06\x06")
        if end < 0:
            raise ValueError("the end of its directory is missing")
        count, length = struct.unpack_from("<QQ", tail, end + 32)
    if count > _MAX_RECORDS or length > 256 * _MAX_RECORDS:
        raise UnsafeCheckpointError(f"it has {count:,} records, a checkpoint has at most {_MAX_RECORDS:,}")


class _Zip:
    """Records of a zip archive."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        infos = archive.infolist()
        self._infos = {info.filename: info for info in infos}
        if len(self._infos) != len(infos) or sum(info.compress_size for info in infos) > path.stat().st_size:
            raise UnsafeCheckpointError("it has records of the same name, or in the same place")
        last = {name: name.rsplit("/", 1)[-1] for name in self._infos}
        if "constants.pkl" in last.values():
            raise UnsafeCheckpointError(f"{path} is a TorchScript program, not a checkpoint: it was not loaded")
        pickles = [name for name, end in last.items() if end == "data.pkl"]
        if not pickles:
            raise WeightsError(f"{path} is a zip archive, but not one that torch.save wrote")
        if len(pickles) > 1:
            raise UnsafeCheckpointError(f"it has {len(pickles)} records called data.pkl")
        self._prefix = pickles[0].removesuffix("data.pkl")
        self._big = False
        if f"{self._prefix}byteorder" in self._infos:
            order = self._record("byteorder", limit=16)
            if order not in (b"little", b"big"):
                raise ValueError(f"its byte order is {order!r}")
            self._big = order == b"big"

    def _record(self, name: str, *, limit: int) -> bytes:
        info = self._infos[self._prefix + name]
        if info.file_size > limit:
            raise UnsafeCheckpointError(f"its record {name!r} unpacks to {info.file_size:,} bytes, more than {limit:,}")
        return self._archive.read(info)  # compares the checksum

    def pickle(self) -> io.BytesIO:
        return io.BytesIO(self._record("data.pkl", limit=MAX_BYTES))

    def check(self, storage: _Storage) -> None:
        info = self._infos.get(f"{self._prefix}data/{storage.key}")
        if info is None or info.file_size != storage.nbytes:
            found = "missing" if info is None else f"{info.file_size:,} bytes"
            raise ValueError(f"record {storage.key[:50]!r} is {found}, its tensor has {storage.nbytes:,}")

    def read(self, storage: _Storage) -> bytes:
        content = self._record(f"data/{storage.key}", limit=storage.nbytes)
        return _in_native_order(content, storage.dtype, big=self._big)


def _read_zip(path: Path) -> Any:
    source = _Zip(path, zipfile.ZipFile(path))
    tensors = _Tensors(path, source)
    return Interpreter(tensors.storage, tensors.tensor).load(source.pickle())


# -- the format before it: pickles one after the other, then the numbers ---------------------------------------------


class _Runs:
    """Storages that lie one after the other at the end of a file."""

    def __init__(self, path: Path, *, big: bool) -> None:
        self._path, self._big = path, big
        self.named: dict[str, _Storage] = {}
        self._begins: dict[str, int] = {}

    def check(self, storage: _Storage) -> None:
        if self.named.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key[:50]!r} has two sizes")

    def locate(self, keys: Any, begin: int) -> None:
        """Find the numbers: for each key a count, and then as many."""
        if not isinstance(keys, list) or len(set(map(str, keys))) != len(keys) or set(keys) != set(self.named):
            raise ValueError("the list of its storages does not go with its tensors")
        size = self._path.stat().st_size
        with self._path.open("rb") as file:
            for key in keys:
                file.seek(begin)
                (count,) = struct.unpack(">q" if self._big else "<q", file.read(8))
                if count != self.named[key].count:
                    raise ValueError(f"storage {key[:50]!r} has {count} numbers, its tensor {self.named[key].count}")
                self._begins[key] = begin + 8
                begin += 8 + self.named[key].nbytes
        if begin > size:
            raise ValueError(f"{begin - size:,} bytes are missing at its end")

    def read(self, storage: _Storage) -> bytes:
        with self._path.open("rb") as file:
            file.seek(self._begins[storage.key])
            content = file.read(storage.nbytes)
        if len(content) != storage.nbytes:
            raise ValueError("its end is missing")
        return _in_native_order(content, storage.dtype, big=self._big)


def _read_legacy(path: Path) -> Any:
    with path.open("rb") as file:
        stream = io.BytesIO(file.read(MAX_BYTES))
    plain = Interpreter()
    magic, protocol, system = plain.load(stream), plain.load(stream), plain.load(stream)
    if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(system, dict):
        raise WeightsError(f"{path} is a pickle, but not one that torch.save wrote")
    runs = _Runs(path, big=system.get("little_endian") is False)
    tensors = _Tensors(path, runs)
    payload = Interpreter(tensors.storage, tensors.tensor).load(stream)
    runs.locate(plain.load(stream), stream.tell())
    return payload
