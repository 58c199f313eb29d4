"""Arrays in zarr groups, folder or ``.zip``, checked for chunks that are missing or cut short."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import zarr
from zarr.storage import ZipStore

from uva_agents.data.layouts import PictureLayout, picture_layout
from uva_agents.data.lazy import file_identity
from uva_agents.errors import DataError


def open_group(path: str | Path) -> zarr.Group:
    """The group at a folder or zip file, for reading.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: it is no zarr group.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no dataset at {path}")
    try:
        return zarr.open_group(ZipStore(path, mode="r") if path.is_file() else str(path), mode="r")
    except Exception as error:  # zarr raises several unrelated types for a folder that is not a group
        raise ValueError(f"{path} is not a zarr group: {error}") from error


def array_names(root: zarr.Group, path: Path) -> list[str]:
    """Names of the arrays directly under ``data/``, sorted.

    Raises:
        ValueError: there is no such group.
    """
    if "data" not in root or not isinstance(root["data"], zarr.Group):
        raise ValueError(f"{path} has no group data/: it is not a replay buffer (is the path one level off?)")
    return sorted(root["data"].array_keys())


def check_array(array: object, name: str) -> zarr.Array:
    """The array, complete as far as can be told without unpacking it.

    Raises:
        ValueError: not an array; chunks are missing, or shorter than they say.
    """
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{name} is a group, an array was expected")
    missing = array.nchunks - array.nchunks_initialized
    if missing:
        # zarr would silently fill absent chunks with zeros.
        raise ValueError(
            f"{name} is incomplete: {missing} of {array.nchunks} chunks are missing; copy the dataset again (or write it again "
            "with zarr's write_empty_chunks, if they were left out because they are all zero)"
        )
    _check_blosc_chunks(array, name)
    return array


def read_array(array: object, name: str) -> np.ndarray:
    """All of an array.

    Raises:
        ValueError: see :func:`check_array`, or a chunk cannot be unpacked.
    """
    checked = check_array(array, name)
    try:
        return np.asarray(checked[:])
    except Exception as error:  # codecs raise their own types on damaged chunks
        raise ValueError(f"{name} cannot be read, a chunk is damaged: {error}") from error


def zarr_layout(array: zarr.Array, source: str) -> PictureLayout | None:
    """The layout of an array of pictures, ``None`` for numbers.

    Raises:
        DataError: see :func:`~uva_agents.data.layouts.picture_layout`, or a chunk cannot be unpacked.
    """

    def sample(rows: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(array.oindex[rows])
        except Exception as error:  # codecs raise their own types on damaged chunks
            raise DataError(f"{source} cannot be read, a chunk is damaged: {error}") from error

    return picture_layout(tuple(map(int, array.shape)), array.dtype, sample, source)


class ZarrFrames:
    """Frames of one array of a zarr group.

    Args:
        path: folder or zip file.
        key: of an array of pictures.
        layout: how they are stored.
    """

    def __init__(self, path: Path, key: str, layout: PictureLayout) -> None:
        self.path, self.key, self.layout = path, key, layout
        self.identity = f"{file_identity(path)}:{key}"
        self._length = int(self._array().shape[0])

    def __len__(self) -> int:
        return self._length

    def read(self, rows: np.ndarray) -> np.ndarray:
        array, name = self._array(), f"{self.path}/{self.key}"
        try:
            if len(rows) == rows[-1] - rows[0] + 1:
                frames = np.asarray(array[int(rows[0]) : int(rows[-1]) + 1])
            else:
                frames = np.asarray(array.oindex[rows])
        except Exception as error:  # codecs raise their own types on damaged chunks
            raise ValueError(f"{name} cannot be read around row {rows[0]}, a chunk is damaged: {error}") from error
        return self.layout.convert(frames, name)

    def _array(self) -> zarr.Array:
        return _opened(self.path, self.key, self.identity, os.getpid())


@lru_cache(maxsize=16)
def _opened(path: Path, key: str, identity: str, process: int) -> zarr.Array:
    """Opening a large zip file takes a second, so it is done once for each file, its time of change, and process."""
    array = open_group(path)[key]
    assert isinstance(array, zarr.Array)
    return array


def _check_blosc_chunks(array: zarr.Array, name: str) -> None:
    """Blosc decodes a truncated chunk without complaint, from whatever memory follows it; its header knows better."""
    if not any("blosc" in type(codec).__name__.lower() for codec in array.compressors):
        return
    root = getattr(array.store, "root", None)
    if root is None:
        return  # not a folder on disk; entries of zip files have checksums
    for path in (Path(root) / array.path).rglob("*"):
        if not path.is_file() or path.name.startswith(".") or path.name == "zarr.json":
            continue
        with path.open("rb") as file:
            header = file.read(16)
        size = int.from_bytes(header[12:16], "little") if len(header) == 16 else -1
        if size != path.stat().st_size:
            raise ValueError(
                f"{name} is damaged: chunk {path.name} has {path.stat().st_size} bytes, its header says {size}; "
                "copy the dataset again"
            )
