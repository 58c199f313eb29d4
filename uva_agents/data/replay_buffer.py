"""Diffusion-policy replay buffers: a zarr group (format 2 or 3) with ``data/*`` and ``meta/episode_ends``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from uva_agents.data.episodes import Episodes
from uva_agents.data.fields import Field, require_key
from uva_agents.data.zarr_arrays import array_names, open_group, read_array, zarr_layout

_CHUNK = 128
"""Rows per chunk of pictures."""
_CHUNK_BYTES = 2**18
"""Size of a chunk of numbers, before packing: many small ones are slow to open."""

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
        path: the ``.zarr`` folder, or a ``.zarr.zip``.
        fields: canonical name -> where to find it.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: not a replay buffer, missing arrays, unreadable or truncated chunks, or see :class:`Episodes`.
    """
    path = Path(path)
    root = open_group(path)
    names = array_names(root, path)
    if "meta/episode_ends" not in root:
        raise ValueError(f"{path} has no meta/episode_ends: it is not a replay buffer")
    arrays: dict[str, np.ndarray] = {}
    for name, field in fields.items():
        for key in field.keys:
            require_key(key, names, name=name, source=str(path), under="data/")
        value = field.take(lambda key: read_array(root[f"data/{key}"], f"{path}/data/{key}"))
        if name.startswith("pixels"):
            stored = root[f"data/{field.keys[0]}"]
            assert isinstance(stored, zarr.Array)
            layout = zarr_layout(stored, f"{path}/data/{field.keys[0]}")
            arrays[name] = value if layout is None else layout.convert(value, f"{path}/data/{field.keys[0]}")
        else:
            arrays[name] = value.astype(np.float32)
    ends = read_array(root["meta/episode_ends"], f"{path}/meta/episode_ends")
    return Episodes(arrays, ends, source=str(path))


@contextmanager
def _every_chunk() -> Iterator[None]:
    """Otherwise zarr leaves out chunks of zeros, which then look like lost ones."""
    with zarr.config.set({"array.write_empty_chunks": True}):
        yield


@_every_chunk()
def write_replay_buffer(
    path: str | Path, arrays: Mapping[str, np.ndarray], ends: np.ndarray, *, zarr_format: int = 3
) -> None:
    """Write arrays as they are under ``data/`` and ``ends`` under ``meta/episode_ends``."""
    root = zarr.open_group(str(path), mode="w", zarr_format=2 if zarr_format == 2 else 3)
    data, meta = root.create_group("data"), root.create_group("meta")
    for name, value in arrays.items():
        chunks = (min(len(value), _rows_per_chunk(value)) or 1, *value.shape[1:])
        data.create_array(name, data=value, chunks=chunks)
    meta.create_array("episode_ends", data=np.asarray(ends, dtype=np.int64))


@_every_chunk()
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
                    name,
                    shape=(0, *value.shape[1:]),
                    chunks=(_rows_per_chunk(value), *value.shape[1:]),
                    dtype=value.dtype,
                )
                waiting[name] = value[:0]
            rows = np.concatenate([waiting[name], value])
            # Whole chunks only: a chunk that is appended to is read, unpacked and packed again.
            chunk = _rows_per_chunk(value)
            whole = len(rows) // chunk * chunk
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


def _rows_per_chunk(value: np.ndarray) -> int:
    row = max(1, int(math.prod(value.shape[1:]) * value.dtype.itemsize))
    return _CHUNK * max(1, _CHUNK_BYTES // (row * _CHUNK))


def _append(group: zarr.Group, name: str, rows: np.ndarray) -> None:
    if len(rows):
        array = group[name]
        assert isinstance(array, zarr.Array)
        array.append(rows)
