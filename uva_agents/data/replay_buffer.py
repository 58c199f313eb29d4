"""Diffusion-policy replay buffers: a zarr group (format 2 or 3) with ``data/*`` and ``meta/episode_ends``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from uva_agents.data.episodes import Episodes
from uva_agents.data.fields import Field, as_float32, require_key
from uva_agents.data.holes import Hole, raise_first
from uva_agents.data.zarr_arrays import open_array, read_all, zarr_layout
from uva_agents.data.zarr_store import ZarrFiles
from uva_agents.errors import DataError

_CHUNK = 128
"""Rows per chunk of pictures."""
_CHUNK_BYTES = 2**18
"""Size of a chunk of numbers, before packing: many small ones are slow to open."""

_MOST_SINGLE_STEPS = 32
"""Of so many episodes one has more than a step, or they are none."""

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
    files = ZarrFiles(path)
    try:
        names = files.children("data")
        if not names:
            if not files.children(""):
                raise DataError(f"{path} is not a zarr group: there is nothing in it that zarr would know")
            raise DataError(f"{path} has no group data/: it is not a replay buffer (is the path one level off?)")
        arrays: dict[str, np.ndarray] = {}
        for name, field in fields.items():
            for key in field.keys:
                require_key(key, names, name=name, source=str(path), under="data/")
            opened = {key: open_array(files, f"data/{key}") for key in field.keys}
            if name.startswith("pixels"):
                stored = opened[field.keys[0]]
                layout = zarr_layout(stored)
                value = field.take(lambda key, opened=opened: read_all(opened[key]))  # type: ignore[misc]
                arrays[name] = value if layout is None else layout.convert(value, stored.name)
                continue
            for key, stored in opened.items():
                if stored.dtype.kind not in "fiub":
                    raise DataError(
                        f"{path}/data/{key} is {stored.dtype}, real numbers were expected: write it as float32"
                    )
            value = field.take(lambda key, opened=opened: read_all(opened[key]))  # type: ignore[misc]
            arrays[name] = as_float32(value, f"{path}: {name!r}")
        rows = {len(value) for value in arrays.values()}
        ends, holes = read_ends(files, max(rows, default=0))
    finally:
        files.close()
    if rows == {0}:
        raise DataError(f"{path}: the dataset is empty (0 steps)")
    raise_first(holes, path)
    return Episodes(arrays, ends, source=str(path))


def read_ends(files: ZarrFiles, rows: int) -> tuple[np.ndarray, list[Hole]]:
    """``meta/episode_ends`` (E,), and what is wrong with them. Where they cannot be used, everything is one episode.

    Args:
        rows: steps that the arrays have.
    """
    key = "meta/episode_ends"
    where = f"{files.path}/{key}"
    one = np.array([rows] if rows else [], np.int64)

    def wrong(text: str) -> tuple[np.ndarray, list[Hole]]:
        return one, [Hole(text, key)]

    if "episode_ends" not in files.children("meta"):
        return wrong(f"{files.path} has no meta/episode_ends: it is not a replay buffer")
    try:
        stored = open_array(files, key)
        if stored.dtype.kind not in "iuf" or len(stored.shape) != 1:
            return wrong(f"{where} is {stored.dtype} {stored.shape}: whole numbers, one per episode, were expected")
        values = read_all(stored)
    except DataError as error:
        return wrong(str(error))
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.floor(values))).all():
        odd = int(np.flatnonzero(~(np.isfinite(values) & (values == np.floor(values))))[0])
        return wrong(f"{where}: the end of episode {odd} is {values[odd]:g}, not a whole number: write the ends again")
    if not len(values):
        return values.astype(np.int64), []
    beyond = np.flatnonzero((values > rows) | (values <= 0))
    if len(beyond):
        odd = int(beyond[0])
        return wrong(
            f"{where}: episode {odd} ends at {values[odd]:g}, and the arrays have {rows} rows: write the ends again"
        )
    ends = values.astype(np.int64)
    falling = np.flatnonzero(np.diff(ends, prepend=0) <= 0)
    if len(falling):
        odd = int(falling[0])
        return wrong(
            f"{where} must increase, and episode {odd} ends at {ends[odd]} after {ends[odd - 1]}: write the ends again"
        )
    if ends[-1] != rows:
        return wrong(
            f"{where}: the last episode ends at {ends[-1]}, and the arrays have {rows} rows: write the ends again"
        )
    if len(ends) == rows and rows >= _MOST_SINGLE_STEPS:
        return wrong(
            f"{where} counts up by one: every one of {rows:,} episodes would have a single step; are these numbers of steps?"
        )
    return ends, []


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
        data.create_array(name, data=value, chunks=chunks, **_checked(root))
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
                    **_checked(root),
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


def _checked(root: zarr.Group) -> dict[str, Any]:
    """Compression with a checksum in every chunk, where a zarr of this format can have one."""
    return {"compressors": ZstdCodec(level=0, checksum=True)} if root.metadata.zarr_format == 3 else {}


def _rows_per_chunk(value: np.ndarray) -> int:
    row = max(1, int(math.prod(value.shape[1:]) * value.dtype.itemsize))
    return _CHUNK * max(1, _CHUNK_BYTES // (row * _CHUNK))


def _append(group: zarr.Group, name: str, rows: np.ndarray) -> None:
    if len(rows):
        array = group[name]
        assert isinstance(array, zarr.Array)
        array.append(rows)
