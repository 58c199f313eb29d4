"""LeRobot v3: numbers in parquet, pictures in H.264, many episodes per file; written without the lerobot package."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.data.episodes import Episodes
from uva_agents.data.readers.dataset import MissingExtraError
from uva_agents.data.readers.lerobot import DATA_PATH, VIDEO_PATH
from uva_agents.data.video import VideoWriter

VERSION = "v3.0"
_FILES_PER_CHUNK = 1000
_DATA_MB, _VIDEO_MB = 100, 200
_BLOCK = 128
_NAMES = {"pixels": "observation.images.main", "action": "action", "agent_pos": "observation.state"}


def feature_name(name: str) -> str:
    """LeRobot's name of a canonical array."""
    if name in _NAMES:
        return _NAMES[name]
    return f"observation.images.{name.removeprefix('pixels_')}" if name.startswith("pixels") else f"observation.{name}"


def feature_names(names: Iterable[str]) -> dict[str, str]:
    """LeRobot's names of these arrays, each another one: where two want the same, canonical arrays have it."""
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: name not in _NAMES):
        feature = feature_name(name)
        while feature in found.values():
            feature += "_"
        found[name] = feature
    return {name: found[name] for name in names}


def write_lerobot(
    folder: Path,
    episodes: Episodes,
    *,
    control_hz: float,
    tasks: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``episodes`` into a new folder; not atomic, write beside and rename.

    Args:
        control_hz: rounded to a whole number, which LeRobot's tools take.
        tasks: an instruction per episode.

    Raises:
        ValueError: pictures with odd sides.
        MissingExtraError: pyarrow is not installed.
    """
    fps = max(1, round(control_hz))
    named = list(tasks) if tasks is not None else [""] * len(episodes)
    distinct = list(dict.fromkeys(named))
    rows: list[dict[str, Any]] = []
    totals: dict[str, list[dict[str, np.ndarray]]] = {}
    names = feature_names(list(episodes.arrays))
    cameras = {name: _Videos(folder, key, fps) for name, key in names.items() if name.startswith("pixels")}
    numbers = {name: key for name, key in names.items() if name not in cameras}
    data = _DataFiles(folder)
    for i, (start, end) in enumerate(zip(episodes.starts, episodes.ends, strict=True)):
        count = int(end - start)
        columns = {feature: np.asarray(episodes.arrays[name][start:end]) for name, feature in numbers.items()}
        columns |= {
            "timestamp": (np.arange(count) / fps).astype(np.float32),
            "frame_index": np.arange(count),
            "episode_index": np.full(count, i),
            "index": np.arange(start, end),
            "task_index": np.full(count, distinct.index(named[i])),
        }
        place = data.append(columns)
        row: dict[str, Any] = {"episode_index": i, "tasks": [named[i]], "length": count}
        row |= {"data/chunk_index": place[0], "data/file_index": place[1]}
        row |= {"dataset_from_index": int(start), "dataset_to_index": int(end)}
        found = {feature: _statistics(values.astype(np.float64)) for feature, values in columns.items()}
        for name, camera in cameras.items():
            described, found[camera.key] = camera.append(episodes.arrays[name], int(start), int(end))
            row |= described
        for feature, values in found.items():
            totals.setdefault(feature, []).append(values)
            row |= {f"stats/{feature}/{what}": value.tolist() for what, value in values.items()}
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        rows.append(row)
        if progress is not None:
            progress(i + 1, len(episodes))
    data.close()
    for camera in cameras.values():
        camera.close()
    _write_episodes(folder, rows)
    _write_tasks(folder, distinct)
    _write_json(folder / "meta" / "stats.json", {feature: _joined(parts) for feature, parts in totals.items()})
    _write_json(
        folder / "meta" / "info.json",
        {
            "codebase_version": VERSION,
            "robot_type": None,
            "total_episodes": len(episodes),
            "total_frames": episodes.steps,
            "total_tasks": len(distinct),
            "chunks_size": _FILES_PER_CHUNK,
            "data_files_size_in_mb": _DATA_MB,
            "video_files_size_in_mb": _VIDEO_MB,
            "fps": fps,
            "splits": {"train": f"0:{len(episodes)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if cameras else None,
            "features": _features(episodes, numbers, fps),
        },
    )


class _DataFiles:
    """Parquet files, one row group per episode, a new file when one is large."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number, self.bytes = folder, 0, 0
        self.writer: Any = None

    def append(self, columns: Mapping[str, np.ndarray]) -> tuple[int, int]:
        """An episode; returns its chunk and file."""
        pa, pq = _arrow()
        if self.bytes > _DATA_MB * 2**20:
            self.close()
            self.number, self.bytes = self.number + 1, 0
        table = pa.table({name: _arrow_column(values) for name, values in columns.items()})
        chunk, file = divmod(self.number, _FILES_PER_CHUNK)
        if self.writer is None:
            path = self.folder / DATA_PATH.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.writer = pq.ParquetWriter(path, table.schema)
        self.writer.write_table(table, row_group_size=max(table.num_rows, 1))
        self.bytes += table.nbytes
        return chunk, file

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class _Videos:
    """One camera's files: episodes one after another, a new file when one is large."""

    def __init__(self, folder: Path, key: str, fps: int) -> None:
        self.folder, self.key, self.fps, self.number = folder, key, fps, 0
        self.writer: VideoWriter | None = None

    def append(self, frames: np.ndarray, start: int, end: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """An episode; returns where it is, and statistics of some of its frames."""
        if (
            self.writer is not None
            and self.writer.path.exists()
            and self.writer.path.stat().st_size > _VIDEO_MB * 2**20
        ):
            self.close()
            self.number += 1
        chunk, file = divmod(self.number, _FILES_PER_CHUNK)
        if self.writer is None:
            path = self.folder / VIDEO_PATH.format(video_key=self.key, chunk_index=chunk, file_index=file)
            self.writer = VideoWriter(path, (frames.shape[1], frames.shape[2]), self.fps)
        first = self.writer.frames
        sampled = []
        for begin in range(start, end, _BLOCK):
            block = np.asarray(frames[begin : min(begin + _BLOCK, end)])
            self.writer.append(block)
            sampled.append(block[::16])
        some = np.concatenate(sampled).astype(np.float64) / 255
        values = _statistics(some.reshape(-1, 3))
        values = {what: value if what == "count" else value.reshape(3, 1, 1) for what, value in values.items()}
        values["count"] = np.array([len(some)])
        prefix = f"videos/{self.key}"
        return {
            f"{prefix}/chunk_index": chunk,
            f"{prefix}/file_index": file,
            f"{prefix}/from_timestamp": first / self.fps,
            f"{prefix}/to_timestamp": self.writer.frames / self.fps,
        }, values

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def _features(episodes: Episodes, numbers: Mapping[str, str], fps: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in episodes.arrays.items():
        shape = [int(n) for n in value.shape[1:]]
        if name in numbers:
            found[numbers[name]] = {"dtype": "float32", "shape": shape, "names": None}
        else:
            found[feature_names(list(episodes.arrays))[name]] = {
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


def _statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """Per column of (n, ...), as float64; ``count`` (1,)."""
    kept = values if values.ndim > 1 else values[:, None]
    return {
        "min": kept.min(0),
        "max": kept.max(0),
        "mean": kept.mean(0),
        "std": kept.std(0),
        "count": np.array([len(kept)]),
    }


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Statistics of several episodes together."""
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
    }


def _arrow_column(values: np.ndarray) -> Any:
    """Single numbers as a plain column, everything else as lists of lists, which is what LeRobot's tools store."""
    pa, _ = _arrow()
    flat = values.reshape(len(values), -1) if values.shape[1:] == (1,) else values
    if flat.ndim == 1 or flat.shape[1:] == (1,):
        return pa.array(flat.reshape(-1))
    column = pa.array(np.ascontiguousarray(flat).reshape(-1))
    for size in reversed(flat.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


def _write_episodes(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    pa, pq = _arrow()
    path = folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def _write_tasks(folder: Path, tasks: Sequence[str]) -> None:
    """LeRobot reads this table with pandas, whose index is the text: the index is described in the file's metadata."""
    pa, pq = _arrow()
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
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(described)}), folder / "meta" / "tasks.parquet")


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=4))


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("writing LeRobot datasets needs pyarrow: pip install 'uva-agents[data]'") from error
    return pa, pq
