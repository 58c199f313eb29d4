"""A LeRobot v3 dataset that grows by an episode at a time, and is whole after each.

Every episode has files of its own. They are written aside, moved into place, and only then counted: ``meta/info.json``, replaced
last, says how many episodes there are. Whatever a killed process leaves behind, the dataset is the one before or the one after.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.data.lerobot_tables import (
    EPISODES_PATH,
    FILES_PER_CHUNK,
    arrow,
    arrow_column,
    bookkeeping,
    dataset_info,
    episode_row,
    feature_names,
    features,
    joined,
    picture_statistics,
    statistics,
    video_place,
    write_episodes,
    write_json,
    write_tasks,
)
from uva_agents.data.readers.lerobot_meta import DATA_PATH, VIDEO_PATH
from uva_agents.data.video import VideoWriter

_ASIDE = ".recording"
_EVERY, _PIXELS = 16, 4
"""Statistics are of every 16th frame and every 4th pixel."""


class LeRobotAppender:
    """Adds episodes to a folder, which may hold some already. One process at a time.

    Args:
        folder: of the dataset; made with the first episode.
        control_hz: steps per second, a whole number.

    Raises:
        ValueError: the folder holds something else, or has another rate; a rate that is no whole number.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, folder: str | Path, *, control_hz: float) -> None:
        arrow()
        self.folder = Path(folder)
        self.fps = round(control_hz)
        if self.fps < 1 or abs(self.fps - control_hz) > 1e-6:
            raise ValueError(f"control_hz={control_hz}: LeRobot datasets have a whole number of steps per second")
        self._info: dict[str, Any] | None = None
        self._rows: list[dict[str, Any]] = []
        if self.folder.exists() and any(self.folder.iterdir()):
            self._open()
        shutil.rmtree(self.folder / _ASIDE, ignore_errors=True)

    def __len__(self) -> int:
        """Episodes so far."""
        return len(self._rows)

    def begin(self) -> EpisodeDraft:
        """A new episode, which belongs to the dataset once it is :meth:`kept <EpisodeDraft.keep>`. One at a time."""
        aside = self.folder / _ASIDE
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        return EpisodeDraft(self, aside)

    def _open(self) -> None:
        _, pq = arrow()
        file = self.folder / "meta" / "info.json"
        if not file.is_file():
            left = [
                child.name for child in self.folder.iterdir() if child.name not in (_ASIDE, "data", "videos", "meta")
            ]
            if left:
                raise ValueError(f"{self.folder} is no LeRobot dataset (it holds {left[0]}): record into a new folder")
            return  # killed before the first episode was named
        info = json.loads(file.read_text())
        if info.get("fps") != self.fps:
            raise ValueError(
                f"{self.folder} has {info.get('fps')} steps per second, not {self.fps}: record into another folder, or at its rate"
            )
        files = sorted((self.folder / "meta" / "episodes").glob("*/*.parquet"))
        rows = [row for path in files for row in pq.read_table(str(path), partitioning=None).to_pylist()]
        rows.sort(key=lambda row: row["episode_index"])
        self._info, self._rows = info, rows[: info["total_episodes"]]
        # All rows go into one file from now on.
        for path in files:
            if path != self.folder / EPISODES_PATH:
                raise ValueError(
                    f"{self.folder} keeps its episodes in several files ({path.name}): copy it with `uva data convert` first"
                )

    def _add(self, columns: dict[str, np.ndarray], videos: Mapping[str, _Film], task: str) -> int:
        """Move an episode into place and name it; returns its number."""
        number, count = len(self._rows), len(next(iter(columns.values())))
        shapes: dict[str, Any] = {name: value.shape[1:] for name, value in columns.items()}
        shapes |= {name: (*film.writer.size, 3) for name, film in videos.items()}
        self._check(features(shapes, self.fps))
        names = feature_names(shapes)
        first = sum(int(row["length"]) for row in self._rows)
        tasks = list(dict.fromkeys([text for row in self._rows for text in row["tasks"]] + [task]))
        rows = {names[name]: value for name, value in columns.items()}
        rows |= bookkeeping(count, fps=self.fps, episode=number, first=first, task=tasks.index(task))
        stats: dict[str, Any] = {key: statistics(value.astype(np.float64)) for key, value in rows.items()}
        place = self._free("data")
        self._write(DATA_PATH.format(chunk_index=place[0], file_index=place[1]), rows)
        described: dict[str, Any] = {}
        for name, film in videos.items():
            key = names[name]
            where = self._free(f"videos/{key}")
            target = self.folder / VIDEO_PATH.format(video_key=key, chunk_index=where[0], file_index=where[1])
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(film.writer.path, target)
            described |= video_place(key, where, begin_s=0.0, end_s=count / self.fps)
            stats[key] = picture_statistics(np.stack(film.some))
        row = episode_row(number, task=task, first=first, count=count, place=place, videos=described, stats=stats)
        everything = [*self._rows, row]
        write_episodes(self.folder, everything)
        write_tasks(self.folder, tasks)
        write_json(self.folder / "meta" / "stats.json", {key: joined(_of(everything, key)) for key in stats})
        info = dataset_info(shapes, fps=self.fps, episodes=number + 1, frames=first + count, tasks=len(tasks))
        write_json(self.folder / "meta" / "info.json", info)
        self._info, self._rows = info, everything
        return number

    def _check(self, found: Mapping[str, Any]) -> None:
        """Refuse an episode that has other arrays than those before it."""
        if self._info is None:
            return
        before = {key: list(value["shape"]) for key, value in self._info["features"].items()}
        now = {key: list(value["shape"]) for key, value in found.items()}
        if before != now:
            changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            raise ValueError(
                f"{self.folder} has other arrays: {changed[0]} is {before.get(changed[0], 'absent')} there and "
                f"{now.get(changed[0], 'absent')} here; record into another folder"
            )

    def _free(self, prefix: str) -> tuple[int, int]:
        """Chunk and file that no episode uses."""
        used = [row[f"{prefix}/chunk_index"] * FILES_PER_CHUNK + row[f"{prefix}/file_index"] for row in self._rows]
        return divmod(max(used, default=-1) + 1, FILES_PER_CHUNK)

    def _write(self, name: str, columns: Mapping[str, np.ndarray]) -> None:
        pa, pq = arrow()
        aside = self.folder / _ASIDE / "rows.parquet"
        pq.write_table(pa.table({key: arrow_column(value) for key, value in columns.items()}), aside)
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(aside, self.folder / name)


class _Film:
    """A camera's frames of an episode, on their way to the disk."""

    def __init__(self, path: Path, size: tuple[int, int], fps: int) -> None:
        self.writer = VideoWriter(path, size, fps)
        self.some: list[np.ndarray] = []

    def add(self, frame: np.ndarray) -> None:
        if self.writer.frames % _EVERY == 0:
            self.some.append(frame[::_PIXELS, ::_PIXELS].copy())
        self.writer.append([frame])


class EpisodeDraft:
    """An episode that is being recorded; frames go to the disk as they come."""

    def __init__(self, appender: LeRobotAppender, aside: Path) -> None:
        self._appender, self._aside = appender, aside
        self._films: dict[str, _Film] = {}
        self._numbers: dict[str, list[np.ndarray]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, row: Mapping[str, np.ndarray]) -> None:
        """A step: canonical arrays without their time axis, ``pixels...`` uint8 (H, W, 3), all else numbers (n,).

        Raises:
            ValueError: it has other arrays than the steps before, or pictures with odd sides.
        """
        if self._count and set(row) != self._films.keys() | self._numbers.keys():
            raise ValueError(f"a step has {sorted(row)}, those before had {sorted([*self._films, *self._numbers])}")
        for name, value in row.items():
            if name.startswith("pixels"):
                if name not in self._films:
                    path = self._aside / f"{name}.mp4"
                    self._films[name] = _Film(path, (value.shape[0], value.shape[1]), self._appender.fps)
                if value.shape[:2] != self._films[name].writer.size:
                    raise ValueError(f"{name} changed its size to {value.shape}")
                self._films[name].add(value)
            else:
                self._numbers.setdefault(name, []).append(np.asarray(value, np.float32).reshape(-1))
        self._count += 1

    def keep(self, task: str = "") -> int | None:
        """Make it an episode of the dataset; returns its number, ``None`` for one without steps."""
        for film in self._films.values():
            film.writer.close()
        if not self._count:
            self.drop()
            return None
        columns = {name: np.stack(values) for name, values in self._numbers.items()}
        number = self._appender._add(columns, self._films, task)
        shutil.rmtree(self._aside, ignore_errors=True)
        return number

    def drop(self) -> None:
        """Forget it."""
        for film in self._films.values():
            film.writer.close()
        shutil.rmtree(self._aside, ignore_errors=True)


def _of(rows: list[dict[str, Any]], key: str) -> list[dict[str, np.ndarray]]:
    """A feature's statistics in each episode."""
    whats = ("min", "max", "mean", "std", "count")
    return [{what: np.asarray(row[f"stats/{key}/{what}"]) for what in whats} for row in rows]
