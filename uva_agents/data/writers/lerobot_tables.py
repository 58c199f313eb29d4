"""The tables, names and statistics of LeRobot v3, written without the lerobot package."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.data.readers.lerobot_meta import DATA_PATH, VIDEO_PATH
from uva_agents.data.readers.parquet import arrow
from uva_agents.data.writers.lerobot_names import FLAGS, feature_names, number_names

VERSION = "v3.0"
FILES_PER_CHUNK = 1000
DATA_MB, VIDEO_MB = 100, 200
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
Stats = Mapping[str, Mapping[str, np.ndarray]]
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
"""Statistics that LeRobot's policies normalise by, and their share of the numbers below them."""


def features(
    shapes: Mapping[str, Sequence[int]],
    fps: int,
    *,
    cameras: Mapping[str, str] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """What ``meta/info.json`` says of canonical arrays whose rows have these shapes.

    Args:
        cameras, names: see :mod:`uva_agents.data.writers.lerobot_names`.
    """
    found: dict[str, Any] = {}
    keys, numbers = feature_names(shapes, cameras), number_names(shapes, names)
    for name, given in shapes.items():
        shape, key = [int(n) for n in given], keys[name]
        if not name.startswith("pixels"):
            dtype = "bool" if key in FLAGS else "float32"
            columns = None if key.startswith("next.") else numbers.get(name)
            found[key] = {"dtype": dtype, "shape": shape, "names": columns}
        else:
            found[key] = {
                "dtype": "video",
                "shape": shape,
                "names": ["height", "width", "channels"],
                "info": {
                    "video.height": shape[0],
                    "video.width": shape[1],
                    "video.channels": 3,
                    "video.codec": "h264",
                    "video.pix_fmt": "yuv420p",
                    "video.is_depth_map": False,
                    "video.fps": fps,
                    "has_audio": False,
                },
            }
    found["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        found[name] = {"dtype": "int64", "shape": [1], "names": None}
    return found


def dataset_info(
    described: Mapping[str, Any], *, fps: int, episodes: int, frames: int, tasks: int, robot_type: str | None = None
) -> dict[str, Any]:
    """``meta/info.json`` of a new dataset.

    Args:
        described: see :func:`features`.
    """
    return {
        "codebase_version": VERSION,
        "robot_type": robot_type,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": DATA_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if any(value["dtype"] == "video" for value in described.values()) else None,
        "features": dict(described),
    }


def bookkeeping(count: int, *, fps: int, episode: int, first: int, task: int) -> dict[str, np.ndarray]:
    """The columns that every row has.

    Args:
        count: rows of the episode.
        first: number of its first row in the dataset.
    """
    return {
        "timestamp": (np.arange(count) / fps).astype(np.float32),
        "frame_index": np.arange(count),
        "episode_index": np.full(count, episode),
        "index": np.arange(first, first + count),
        "task_index": np.full(count, task),
    }


def episode_row(
    episode: int, *, task: str, first: int, count: int, place: tuple[int, int], videos: Mapping[str, Any], stats: Stats
) -> dict[str, Any]:
    """A row of ``meta/episodes``.

    Args:
        place: chunk and file of its rows.
        videos: see :func:`video_place`, of all cameras.
        stats: feature -> statistics.
    """
    row: dict[str, Any] = {"episode_index": episode, "tasks": [task], "length": count}
    row |= {"data/chunk_index": place[0], "data/file_index": place[1]}
    row |= {"dataset_from_index": first, "dataset_to_index": first + count}
    row |= videos
    for feature, values in stats.items():
        row |= {f"stats/{feature}/{what}": np.asarray(value).tolist() for what, value in values.items()}
    return row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}


def video_place(key: str, place: tuple[int, int], *, begin_s: float, end_s: float) -> dict[str, Any]:
    """Where a camera's frames of an episode are: chunk and file, and from when to when in it."""
    prefix = f"videos/{key}"
    return {
        f"{prefix}/chunk_index": place[0],
        f"{prefix}/file_index": place[1],
        f"{prefix}/from_timestamp": begin_s,
        f"{prefix}/to_timestamp": end_s,
    }


def picture_statistics(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Per channel of uint8 (n, H, W, 3), scaled to [0, 1], in LeRobot's shape (3, 1, 1)."""
    values = statistics((frames.astype(np.float64) / 255).reshape(-1, 3))
    values = {what: value if what == "count" else value.reshape(3, 1, 1) for what, value in values.items()}
    values["count"] = np.array([len(frames)])
    return values


def statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """Per column of (n, ...), as float64; ``count`` (1,)."""
    kept = values if values.ndim > 1 else values[:, None]
    return {
        "min": kept.min(0),
        "max": kept.max(0),
        "mean": kept.mean(0),
        "std": kept.std(0),
        "count": np.array([len(kept)]),
    } | dict(zip(QUANTILES, np.quantile(kept, list(QUANTILES.values()), axis=0), strict=True))


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Statistics of several episodes together; quantiles, if all have them, are means weighted by count, as in LeRobot."""
    counts = np.array([part["count"][0] for part in parts], np.float64)
    weights = (counts / counts.sum()).reshape(-1, *[1] * parts[0]["mean"].ndim)
    means, deviations = (np.stack([part[what] for part in parts]) for what in ("mean", "std"))
    mean = (weights * means).sum(0)
    variance = (weights * (deviations**2 + (means - mean) ** 2)).sum(0)
    return {
        "min": np.min([part["min"] for part in parts], axis=0).tolist(),
        "max": np.max([part["max"] for part in parts], axis=0).tolist(),
        "mean": mean.tolist(),
        "std": np.sqrt(variance).tolist(),
        "count": [int(counts.sum())],
    } | {
        what: (weights * np.stack([part[what] for part in parts])).sum(0).tolist()
        for what in QUANTILES
        if all(what in part for part in parts)
    }


def arrow_column(values: np.ndarray) -> Any:
    """Single numbers as a plain column, everything else as lists of lists, which is what LeRobot's tools store."""
    pa, _ = arrow()
    flat = values.reshape(len(values), -1) if values.shape[1:] == (1,) else values
    if flat.ndim == 1 or flat.shape[1:] == (1,):
        return pa.array(flat.reshape(-1))
    column = pa.array(np.ascontiguousarray(flat).reshape(-1))
    for size in reversed(flat.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


def write_episodes(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """``meta/episodes``, whole or not at all."""
    pa, _ = arrow()
    table = pa.Table.from_pylist(list(rows))
    write_table(folder / EPISODES_PATH, table)


def write_table(path: Path, table: Any) -> None:
    """A parquet file with checksums of its pages, whole or not at all."""
    _, pq = arrow()
    _replaced(path, lambda partial: pq.write_table(table, partial, write_page_checksum=True))


def write_tasks(folder: Path, tasks: Sequence[str]) -> None:
    """LeRobot reads this table with pandas, whose index is the text: the index is described in the file's metadata."""
    pa, _ = arrow()
    table = pa.table(
        {"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(list(tasks), pa.string())}
    )
    kind = {
        "field_name": "task_index",
        "name": "task_index",
        "pandas_type": "int64",
        "numpy_type": "int64",
        "metadata": None,
    }
    index = {"field_name": "task", "name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    described = {"index_columns": ["task"], "column_indexes": [], "columns": [kind, index], "pandas_version": "2.2.0"}
    table = table.replace_schema_metadata({"pandas": json.dumps(described)})
    write_table(folder / "meta" / "tasks.parquet", table)


def write_json(path: Path, value: object) -> None:
    """Whole or not at all."""
    _replaced(path, lambda partial: partial.write_text(json.dumps(value, indent=4), encoding="utf-8"))


def _replaced(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(
        f".{path.name}.partial"
    )  # after a kill LeRobot's readers, which take *.parquet, pass it over
    write(partial)
    os.replace(partial, path)
