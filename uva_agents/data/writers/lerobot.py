"""LeRobot v3: numbers in parquet, pictures in H.264, many episodes per file; written without the lerobot package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.data.episodes import Episodes
from uva_agents.data.readers.lerobot_meta import DATA_PATH, VIDEO_PATH
from uva_agents.data.readers.parquet import arrow
from uva_agents.data.video import VideoWriter
from uva_agents.data.writers.lerobot_names import feature_names
from uva_agents.data.writers.lerobot_tables import (
    DATA_MB,
    FILES_PER_CHUNK,
    VIDEO_MB,
    arrow_column,
    bookkeeping,
    dataset_info,
    episode_row,
    features,
    joined,
    picture_statistics,
    statistics,
    video_place,
    write_episodes,
    write_json,
    write_tasks,
)
from uva_agents.errors import DataError, InputError

_BLOCK = 128
_SAME_RATE = 0.005


def write_lerobot(
    folder: Path,
    episodes: Episodes,
    *,
    control_hz: float,
    tasks: Sequence[str] | None = None,
    cameras: Mapping[str, str] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``episodes`` into a new folder; not atomic, write beside and rename.

    Args:
        control_hz: a whole number, up to what cameras round (59.94 is 60): LeRobot's tools take no other.
        tasks: an instruction per episode.
        cameras: canonical name -> LeRobot's, where it shall be another than ``observation.images.NAME``.
        names: canonical name -> a name for each of its numbers; ``dim_0`` and so on by default.

    Raises:
        InputError: a rate that is no whole number; ``cameras`` or ``names`` that do not fit; pictures with odd sides.
        MissingExtraError: pyarrow is not installed.
    """
    fps = max(1, round(control_hz))
    if abs(fps - control_hz) > _SAME_RATE * control_hz:
        raise InputError(
            f"control_hz={control_hz:g}: LeRobot datasets have a whole number of steps per second; "
            f"--hz {fps} says that this is meant"
        )
    shapes = {name: value.shape[1:] for name, value in episodes.arrays.items()}
    for name, shape in shapes.items():
        if name.startswith("pixels") and (shape[0] % 2 or shape[1] % 2):
            raise InputError(
                f"the pictures of {name} are {shape[0]} x {shape[1]}, and LeRobot's films need even sides (H.264 in "
                f"yuv420p): resize or crop them first, leave the camera out (--skip {name}), or write another format (--to zarr)"
            )
    described = features(shapes, fps, cameras=cameras, names=names)
    named = list(tasks) if tasks is not None else [""] * len(episodes)
    distinct = list(dict.fromkeys(named))
    rows: list[dict[str, Any]] = []
    totals: dict[str, list[dict[str, np.ndarray]]] = {}
    keys = feature_names(list(episodes.arrays), cameras)
    films = {name: _Videos(folder, key, fps) for name, key in keys.items() if name.startswith("pixels")}
    numbers = {name: key for name, key in keys.items() if name not in films}
    data = _DataFiles(folder)
    for i, (start, end) in enumerate(zip(episodes.starts.tolist(), episodes.ends.tolist(), strict=True)):
        count = end - start
        columns = {key: _as(described[key], episodes.arrays[name][start:end], key) for name, key in numbers.items()}
        columns |= bookkeeping(count, fps=fps, episode=i, first=start, task=distinct.index(named[i]))
        place = data.append(columns)
        found = {feature: statistics(values.astype(np.float64)) for feature, values in columns.items()}
        videos: dict[str, Any] = {}
        for name, camera in films.items():
            where, found[camera.key] = camera.append(episodes.arrays[name], start, end)
            videos |= where
        for feature, values in found.items():
            totals.setdefault(feature, []).append(values)
        rows.append(episode_row(i, task=named[i], first=start, count=count, place=place, videos=videos, stats=found))
        if progress is not None:
            progress(i + 1, len(episodes))
    data.close()
    for camera in films.values():
        camera.close()
    write_episodes(folder, rows)
    write_tasks(folder, distinct)
    write_json(folder / "meta" / "stats.json", {feature: joined(parts) for feature, parts in totals.items()})
    info = dataset_info(described, fps=fps, episodes=len(episodes), frames=episodes.steps, tasks=len(distinct))
    write_json(folder / "meta" / "info.json", info)


def _as(described: Mapping[str, Any], values: np.ndarray, key: str) -> np.ndarray:
    """In the type that is declared.

    Raises:
        DataError: a flag is neither 0 nor 1.
    """
    found = np.asarray(values)
    if described["dtype"] == "bool" and ((found != 0) & (found != 1)).any():
        raise DataError(
            f"{key} is yes or no in LeRobot, and there is {found[(found != 0) & (found != 1)][0]:g} in it: --skip it"
        )
    return found.astype(described["dtype"])


class _DataFiles:
    """Parquet files, one row group per episode, a new file when one is large."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number, self.bytes = folder, 0, 0
        self.writer: Any = None

    def append(self, columns: Mapping[str, np.ndarray]) -> tuple[int, int]:
        """An episode; returns its chunk and file."""
        pa, pq = arrow()
        if self.bytes > DATA_MB * 2**20:
            self.close()
            self.number, self.bytes = self.number + 1, 0
        table = pa.table({name: arrow_column(values) for name, values in columns.items()})
        chunk, file = divmod(self.number, FILES_PER_CHUNK)
        if self.writer is None:
            path = self.folder / DATA_PATH.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.writer = pq.ParquetWriter(path, table.schema, write_page_checksum=True)
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
        if self.writer is not None and self.writer.path.exists() and self.writer.path.stat().st_size > VIDEO_MB * 2**20:
            self.close()
            self.number += 1
        chunk, file = divmod(self.number, FILES_PER_CHUNK)
        if self.writer is None:
            path = self.folder / VIDEO_PATH.format(video_key=self.key, chunk_index=chunk, file_index=file)
            self.writer = VideoWriter(path, (frames.shape[1], frames.shape[2]), self.fps)
        first = self.writer.frames
        sampled = []
        for begin in range(start, end, _BLOCK):
            block = np.asarray(frames[begin : min(begin + _BLOCK, end)])
            self.writer.append(block)
            sampled.append(block[::16])
        ends = {"begin_s": first / self.fps, "end_s": self.writer.frames / self.fps}
        return video_place(self.key, (chunk, file), **ends), picture_statistics(np.concatenate(sampled))

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None
