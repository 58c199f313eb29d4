"""What a LeRobot v3 dataset says about itself: ``meta/info.json``, ``meta/episodes`` and ``meta/tasks.parquet``, checked."""

from __future__ import annotations

import json
import math
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.data.contained import contained, is_hidden
from uva_agents.data.readers.parquet import columns_of, read_table, rectangular
from uva_agents.errors import DataError
from uva_agents.utils.files import read_regular_text

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_LARGEST = 2**31
"""Of any number that counts something."""


@dataclass(frozen=True)
class Feature:
    """One entry of ``features``.

    Attributes:
        dtype: ``video``, ``image``, ``string``, or a numpy type.
        shape: of each row.
        names: of its axes or numbers, if they are a list.
        depth: whether its pictures are distances.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    depth: bool = False

    @property
    def is_camera(self) -> bool:
        """Whether it is pictures."""
        return self.dtype in ("video", "image")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of pictures; older writers put the channels first."""
        first = self.names[:1] in (("channels",), ("channel",)) or (self.shape[0] == 3 and self.shape[-1] != 3)
        height, width = self.shape[1:] if first else self.shape[:2]
        return height, width


@dataclass(frozen=True)
class Info:
    """``meta/info.json``, as far as it is read."""

    fps: float
    episodes: int
    frames: int
    data_path: str
    video_path: str
    features: Mapping[str, Feature]


@dataclass(frozen=True)
class EpisodeTable:
    """``meta/episodes``: a row per episode, in their order.

    Attributes:
        lengths: (E,) steps.
        data: (E, 2) chunk and file of their rows.
        videos: camera -> (E, 2) chunk and file of its frames.
        begins, ends: camera -> (E,) seconds from when to when in that file; ends are NaN where the table has none.
        tasks: per episode, ``None`` where the table has none.
    """

    lengths: np.ndarray
    data: np.ndarray
    videos: Mapping[str, np.ndarray]
    begins: Mapping[str, np.ndarray]
    ends: Mapping[str, np.ndarray]
    tasks: tuple[tuple[str, ...], ...] | None


def read_info(path: Path) -> Info:
    """``meta/info.json`` of the dataset in the folder ``path``.

    Raises:
        DataError: damaged, another version, or something in it is missing or of another kind than LeRobot writes.
    """
    file = path / "meta" / "info.json"
    try:
        info = json.loads(read_regular_text(contained(path, "meta/info.json")))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is damaged: {error}") from error
    except FileNotFoundError as error:
        raise DataError(f"{file} is missing: copy the dataset again") from error
    if not isinstance(info, dict):
        raise DataError(f"{file} is damaged: it holds no object but {type(info).__name__}")
    version = str(info.get("codebase_version", "unknown"))
    if not version.startswith("v3"):
        raise DataError(
            f"{path} is LeRobot {version[:40]}; v3 is read. Convert it with lerobot's own convert_dataset_v21_to_v30 script"
        )
    missing = [key for key in ("fps", "features", "total_episodes", "total_frames") if key not in info]
    if missing:
        raise DataError(f"{file} lacks {', '.join(missing)}")
    fps = info["fps"]
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not (math.isfinite(fps) and 0 < fps < 10_000):
        raise DataError(f"{file}: fps is {_shown(fps)}, frames per second above 0 belong there")
    features = info["features"]
    if not isinstance(features, dict) or not features:
        raise DataError(f"{file}: features is {_shown(features)}, an object with an entry per array belongs there")
    return Info(
        fps=float(fps),
        episodes=_count(info["total_episodes"], "total_episodes", file),
        frames=_count(info["total_frames"], "total_frames", file),
        data_path=_template(info.get("data_path") or DATA_PATH, "data_path", ("chunk_index", "file_index"), file),
        video_path=_template(
            info.get("video_path") or VIDEO_PATH, "video_path", ("video_key", "chunk_index", "file_index"), file
        ),
        features={key: _feature(value, key, file) for key, value in features.items()},
    )


def read_episodes(path: Path, info: Info) -> EpisodeTable:
    """``meta/episodes``: every episode that ``meta/info.json`` counts, and no other.

    Raises:
        DataError: files or columns that are missing or damaged; episodes that are missing, come twice, or contradict the totals.
    """
    where = path / "meta" / "episodes"
    files = sorted(file.relative_to(path) for file in where.glob("*/*.parquet") if not is_hidden(file, where))
    if not files:
        raise DataError(f"{path} has no parquet file in meta/episodes: copy the dataset again")
    cameras = [key for key, feature in info.features.items() if feature.dtype == "video"]
    wanted = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    places = ("chunk_index", "file_index", "from_timestamp")
    for key in cameras:
        wanted += [f"videos/{key}/{what}" for what in places]
    optional = ["tasks", "dataset_from_index", "dataset_to_index", *(f"videos/{key}/to_timestamp" for key in cameras)]
    parts: dict[str, list[Any]] = {}
    for file in files:
        names = columns_of(path, file)[1]
        for key in cameras:
            absent = [name for name in (f"videos/{key}/{what}" for what in places) if name not in names]
            if absent:
                raise DataError(
                    f"{path / file} says nothing about the camera {key} that meta/info.json declares (it lacks "
                    f"{', '.join(absent)}): its videos cannot be found; copy the dataset again, or remove it from meta/info.json"
                )
        described = {name.split("/")[1] for name in names if re.fullmatch(r"videos/[^/]+/from_timestamp", name)}
        if unknown := sorted(described - set(info.features)):
            raise DataError(f"{path / file} has a camera {unknown[0]} that meta/info.json does not declare")
        table = read_table(path, file, columns=wanted, optional=optional)
        for name in table.column_names:
            values = (
                table[name].to_pylist() if name == "tasks" else _numbers(table[name], f"{path / file}: {name}", name)
            )
            parts.setdefault(name, []).append(values)
        if uneven := [name for name in parts if len(parts[name]) != len(parts["episode_index"])]:
            raise DataError(f"{path / file} has other columns than the files beside it: {uneven[0]}")
    columns = {name: np.concatenate(values) for name, values in parts.items() if name != "tasks"}
    tasks = [row for part in parts.get("tasks", ()) for row in part]
    # A recording names its files first and counts them last: what is not counted was cut off.
    order = np.argsort(columns["episode_index"], kind="stable")[: info.episodes]
    found = columns["episode_index"][order]
    lengths = columns["length"][order]
    _check(path, len(found) == info.episodes, f"has {len(found)} episodes, not {info.episodes}")
    for number, index in enumerate(found.tolist()):
        _check(path, index == number, f"lists episode {index} in meta/episodes where {number} should be")
    if (bad := np.flatnonzero((lengths < 1) | (lengths > _LARGEST))).size:
        raise DataError(f"{path}: episode {bad[0]} has a length of {lengths[bad[0]]} in meta/episodes")
    _check(path, int(lengths.sum()) == info.frames, f"has {lengths.sum()} rows, not {info.frames}")
    ends = np.cumsum(lengths)
    for name, expected in (("dataset_from_index", ends - lengths), ("dataset_to_index", ends)):
        if name in columns and (bad := np.flatnonzero(columns[name][order] != expected)).size:
            raise DataError(
                f"{path}: episode {bad[0]} has {name} {columns[name][order][bad[0]]} in meta/episodes, not {expected[bad[0]]}"
            )

    def place(prefix: str) -> np.ndarray:
        found: np.ndarray = np.stack(
            [columns[f"{prefix}/chunk_index"][order], columns[f"{prefix}/file_index"][order]], axis=1
        )
        if (bad := np.flatnonzero((found < 0).any(1) | (found >= _LARGEST).any(1))).size:
            raise DataError(
                f"{path}: episode {bad[0]} is in {prefix} chunk {found[bad[0], 0]}, file {found[bad[0], 1]}"
            )
        return found

    nothing = np.full(len(order), np.nan)
    return EpisodeTable(
        lengths=lengths,
        data=place("data"),
        videos={key: place(f"videos/{key}") for key in cameras},
        begins={key: columns[f"videos/{key}/from_timestamp"][order] for key in cameras},
        ends={
            key: columns[f"videos/{key}/to_timestamp"][order] if f"videos/{key}/to_timestamp" in columns else nothing
            for key in cameras
        },
        tasks=tuple(_texts(tasks[i], path, int(n)) for n, i in enumerate(order)) if tasks else None,
    )


def read_tasks(path: Path) -> dict[int, str] | None:
    """``meta/tasks.parquet``: number -> instruction; ``None`` if there is no such file.

    Raises:
        DataError: it is damaged, or holds no texts.
    """
    name = "meta/tasks.parquet"
    if not (path / name).exists():
        return None
    table = read_table(path, name)
    if "task_index" not in table.column_names:
        raise DataError(f"{path / name} lacks the columns task_index")
    others = [column for column in ("task", "__index_level_0__") if column in table.column_names]
    if not others:
        raise DataError(f"{path / name} has no texts in it")
    numbers = _numbers(table["task_index"], f"{path / name}: task_index", "task_index")
    texts = table[others[0]].to_pylist()
    if not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"{path / name}: tasks are {_shown(next(t for t in texts if not isinstance(t, str)))}, texts belong there"
        )
    return dict(zip(numbers.tolist(), texts, strict=True))


def _numbers(column: Any, source: str, name: str) -> np.ndarray:
    values = rectangular(column, None, source)
    if values.ndim != 1:
        raise DataError(f"{source} holds lists, one number per episode belongs there")
    if name.endswith("timestamp"):
        return values.astype(np.float64)
    if values.dtype.kind not in "iu":
        whole = values.astype(np.int64) if values.dtype.kind == "f" and np.isfinite(values).all() else None
        if whole is None or (whole != values).any():
            raise DataError(f"{source} holds {values.dtype}, whole numbers belong there")
        return whole
    return values.astype(np.int64)


def _texts(value: object, path: Path, episode: int) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise DataError(
            f"{path}: the tasks of episode {episode} in meta/episodes are {_shown(value)}, texts belong there"
        )
    return tuple(value)


def _feature(value: object, key: str, file: Path) -> Feature:
    if not isinstance(value, dict) or not isinstance(value.get("dtype"), str):
        raise DataError(f"{file}: the feature {key} is {_shown(value)}, an object with dtype and shape belongs there")
    shape = value.get("shape")
    if not isinstance(shape, list | tuple) or not all(_is_count(n) for n in shape) or len(shape) > 8:
        raise DataError(f"{file}: the shape of {key} is {_shown(shape)}, whole numbers belong there")
    if math.prod(shape) > _LARGEST:
        raise DataError(f"{file}: the shape of {key} is {_shown(shape)}, more than a row can hold")
    dtype, names, more = value["dtype"], value.get("names"), value.get("info")
    if dtype in ("video", "image") and (len(shape) != 3 or min(shape) < 1):
        raise DataError(
            f"{file}: the pictures {key} have the shape {_shown(shape)}, height, width and channels belong there"
        )
    listed = tuple(map(str, names)) if isinstance(names, list) else ()
    depth = isinstance(more, dict) and more.get("video.is_depth_map") is True
    return Feature(dtype, tuple(shape), listed, depth or value.get("video.is_depth_map") is True)


def _template(value: object, what: str, known: Sequence[str], file: Path) -> str:
    """A path with numbers to fill in, and nothing else to fill in: a width alone can ask for all the memory."""
    if not isinstance(value, str):
        raise DataError(f"{file}: {what} is {_shown(value)}, a text belongs there")
    try:
        parts = list(string.Formatter().parse(value))
    except ValueError as error:
        raise DataError(f"{file}: {what} is {_shown(value)}, which is no path to fill in: {error}") from error
    for _, name, spec, conversion in parts:
        plain = re.fullmatch("" if name == "video_key" else r"(0?[1-9])?d?", spec or "")
        if name is not None and (name not in known or conversion or not plain):
            raise DataError(f"{file}: {what} is {_shown(value)}; {', '.join(known)} can be filled in, plainly")
    return value


def _count(value: object, what: str, file: Path) -> int:
    if not _is_count(value):
        raise DataError(f"{file}: {what} is {_shown(value)}, a whole number belongs there")
    assert isinstance(value, int)
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check(path: Path, good: bool, problem: str) -> None:
    if not good:
        raise DataError(f"{path} {problem}: the dataset contradicts itself; copy it again")
