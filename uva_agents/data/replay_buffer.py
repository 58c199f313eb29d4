"""Diffusion-policy replay buffers: a zarr group (format 2 or 3) with ``data/*`` and ``meta/episode_ends``."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from uva_agents.data.episodes import Episodes

_CHUNK = 128
"""Rows per chunk of what is written here."""


@dataclass(frozen=True)
class Field:
    """Where a canonical array comes from: a key under ``data/``, optionally some of its last axis, flattened or not."""

    key: str
    columns: slice | tuple[int, ...] | None = None
    flatten: bool = False


PUSHT_FIELDS: Mapping[str, Field] = {
    "pixels": Field("img"),
    "action": Field("action"),
    "agent_pos": Field("state", columns=slice(0, 2)),
    "keypoints": Field("keypoint", flatten=True),
}
"""The human PushT demonstrations: agent position is the first two numbers of the recorded state."""

BLOCK_PUSH_FIELDS: Mapping[str, Field] = {
    "pixels": Field("img"),
    "action": Field("action"),
    "agent_pos": Field("state", columns=slice(0, 2)),
    "keypoints": Field("state", columns=(2, 3, 5, 6, 10, 11, 13, 14)),
}
"""Block pushing, rendered: commanded positions as actions, the effector's position first in the state; metres. Key points are the
middles of the red and the green block, of the green and the red square."""


def read_replay_buffer(path: str | Path, fields: Mapping[str, Field] = PUSHT_FIELDS) -> Episodes:
    """All episodes of a replay buffer.

    Args:
        path: the ``.zarr`` folder.
        fields: canonical name -> where to find it.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: not a replay buffer, missing arrays, unreadable or truncated chunks, or see :class:`Episodes`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no dataset at {path}")
    try:
        root = zarr.open_group(str(path), mode="r")
    except Exception as error:  # zarr raises several unrelated types for a folder that is not a group
        raise ValueError(f"{path} is not a zarr group: {error}") from error
    keys = {name: root[f"data/{name}"] for name in _array_names(root, path)}
    if "meta/episode_ends" not in root:
        raise ValueError(f"{path} has no meta/episode_ends: it is not a replay buffer")
    arrays: dict[str, np.ndarray] = {}
    for name, field in fields.items():
        if field.key not in keys:
            close = difflib.get_close_matches(field.key, keys, n=1) or sorted(keys)
            raise ValueError(f"{path} has no data/{field.key} (wanted as {name!r}); found {', '.join(close)}")
        value = _read(keys[field.key], f"{path}/data/{field.key}")
        if field.columns is not None:
            value = value[..., list(field.columns) if isinstance(field.columns, tuple) else field.columns]
        if field.flatten:
            value = value.reshape(len(value), math.prod(value.shape[1:]))
        arrays[name] = _as_pixels(value, str(path)) if name == "pixels" else value.astype(np.float32)
    ends = _read(root["meta/episode_ends"], f"{path}/meta/episode_ends")
    return Episodes(arrays, ends, source=str(path))


def write_replay_buffer(
    path: str | Path, arrays: Mapping[str, np.ndarray], ends: np.ndarray, *, zarr_format: int = 3
) -> None:
    """Write arrays as they are under ``data/`` and ``ends`` under ``meta/episode_ends``."""
    root = zarr.open_group(str(path), mode="w", zarr_format=2 if zarr_format == 2 else 3)
    data, meta = root.create_group("data"), root.create_group("meta")
    for name, value in arrays.items():
        chunks = (min(len(value), _CHUNK) or 1, *value.shape[1:])
        data.create_array(name, data=value, chunks=chunks)
    meta.create_array("episode_ends", data=np.asarray(ends, dtype=np.int64))


def write_replay_buffer_by_episode(
    path: str | Path,
    episodes: Iterable[Mapping[str, np.ndarray]],
    *,
    meta: Mapping[str, np.ndarray] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Like :func:`write_replay_buffer` for more than fits into memory: one episode at a time is held.

    Args:
        path: folder to write; not atomic, write beside and rename.
        episodes: arrays of equal length for each; the same names, types and row shapes in all.
        meta: further arrays under ``meta/``, one entry per episode.
        attributes: of the root group.

    Raises:
        ValueError: no episode at all, or arrays of one episode differ in length.
    """
    root = zarr.open_group(str(path), mode="w")
    root.attrs.update(dict(attributes or {}))
    data = root.create_group("data")
    waiting: dict[str, np.ndarray] = {}
    ends: list[int] = []
    for arrays in episodes:
        lengths = {len(value) for value in arrays.values()}
        if len(lengths) != 1:
            raise ValueError(f"arrays of episode {len(ends)} have different lengths: {sorted(lengths)}")
        ends.append((ends[-1] if ends else 0) + lengths.pop())
        for name, value in arrays.items():
            if name not in waiting:
                data.create_array(
                    name, shape=(0, *value.shape[1:]), chunks=(_CHUNK, *value.shape[1:]), dtype=value.dtype
                )
                waiting[name] = value[:0]
            rows = np.concatenate([waiting[name], value])
            # Whole chunks only: a chunk that is appended to is read, unpacked and packed again.
            whole = len(rows) // _CHUNK * _CHUNK
            _append(data, name, rows[:whole])
            waiting[name] = rows[whole:]
    if not ends:
        raise ValueError(f"no episodes to write to {path}")
    for name, rows in waiting.items():
        _append(data, name, rows)
    group = root.create_group("meta")
    group.create_array("episode_ends", data=np.asarray(ends, dtype=np.int64))
    for name, value in (meta or {}).items():
        group.create_array(name, data=value)


def _append(group: zarr.Group, name: str, rows: np.ndarray) -> None:
    if len(rows):
        array = group[name]
        assert isinstance(array, zarr.Array)
        array.append(rows)


def _array_names(root: zarr.Group, path: Path) -> list[str]:
    if "data" not in root or not isinstance(root["data"], zarr.Group):
        raise ValueError(f"{path} has no group data/: it is not a replay buffer (is the path one level off?)")
    return sorted(root["data"].array_keys())


def _read(array: object, name: str) -> np.ndarray:
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{name} is a group, an array was expected")
    missing = array.nchunks - array.nchunks_initialized
    if missing:
        # zarr would silently fill absent chunks with zeros.
        raise ValueError(
            f"{name} is incomplete: {missing} of {array.nchunks} chunks are missing; copy the dataset again"
        )
    _check_blosc_chunks(array, name)
    try:
        return np.asarray(array[:])
    except Exception as error:  # codecs raise their own types on damaged chunks
        raise ValueError(f"{name} cannot be read, a chunk is damaged: {error}") from error


def _check_blosc_chunks(array: zarr.Array, name: str) -> None:
    """Blosc decodes a truncated chunk without complaint, from whatever memory follows it; its header knows better."""
    if not any("blosc" in type(codec).__name__.lower() for codec in array.compressors):
        return
    root = getattr(array.store, "root", None)
    if root is None:
        return  # not a folder on disk
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


def _as_pixels(value: np.ndarray, source: str) -> np.ndarray:
    """uint8 (N, H, W, 3) from uint8, or from floats in [0, 255]."""
    if value.dtype == np.uint8:
        return value
    low, high = float(value.min(initial=0)), float(value.max(initial=0))
    if not np.isfinite([low, high]).all():
        raise ValueError(f"{source}: pixels have NaN or infinity")
    if low < 0 or high > 255 or high <= 1.0:
        raise ValueError(
            f"{source}: float pixels must be in [0, 255], got [{low:g}, {high:g}]; multiply by 255 or fix them"
        )
    return np.round(value).astype(np.uint8)
