"""A LeRobot v3 dataset that grows by an episode at a time, and is whole after each.

Every episode has files of its own. They are written aside, moved into place, and only then counted: ``meta/info.json``, replaced
last, says how many episodes there are. Whatever a killed process leaves behind, the dataset is the one before or the one after.

What a dataset says already, made here or by LeRobot, it goes on saying: names, types, kinds of video, statistics.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.data.contained import contained, is_hidden
from uva_agents.data.readers.lerobot_meta import DATA_PATH, VIDEO_PATH, read_episodes, read_info, read_tasks
from uva_agents.data.readers.parquet import arrow, read_table
from uva_agents.data.video import VideoWriter
from uva_agents.data.writers.lerobot_names import feature_names
from uva_agents.data.writers.lerobot_tables import (
    EPISODES_PATH,
    FILES_PER_CHUNK,
    QUANTILES,
    arrow_column,
    bookkeeping,
    dataset_info,
    episode_row,
    features,
    joined,
    picture_statistics,
    statistics,
    video_place,
    write_json,
    write_table,
    write_tasks,
)
from uva_agents.errors import DataError
from uva_agents.utils.files import read_regular_text

_ASIDE = ".recording"
_EVERY, _PIXELS = 16, 4
"""Statistics are of every 16th frame and every 4th pixel."""


class LeRobotAppender:
    """Adds episodes to a folder, which may hold some already. One process at a time.

    Args:
        folder: of the dataset; made with the first episode.
        control_hz: steps per second, a whole number.
        names: canonical name -> a name for each of its numbers, of a new dataset; ``dim_0`` and so on by default. One that is there
            keeps its own.
        robot_type: of a new dataset.

    Raises:
        ValueError: the folder holds something else, or has another rate; a rate that is no whole number.
        DataError: the dataset in it is damaged.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        control_hz: float,
        names: Mapping[str, Sequence[str]] | None = None,
        robot_type: str | None = None,
    ) -> None:
        arrow()
        self.folder = Path(folder)
        self.fps = round(control_hz)
        if self.fps < 1 or abs(self.fps - control_hz) > 1e-6:
            raise ValueError(f"control_hz={control_hz}: LeRobot datasets have a whole number of steps per second")
        self._names, self._robot_type = names, robot_type
        self._info: dict[str, Any] | None = None
        self._rows: list[dict[str, Any]] = []
        # The last file of meta/episodes, which further rows go into, and its table without what nobody counted.
        self._file: str = EPISODES_PATH
        self._table: Any = None
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
        file = self.folder / "meta" / "info.json"
        if not file.is_file():
            left = [
                child.name for child in self.folder.iterdir() if child.name not in (_ASIDE, "data", "videos", "meta")
            ]
            if left:
                raise ValueError(f"{self.folder} is no LeRobot dataset (it holds {left[0]}): record into a new folder")
            return  # killed before the first episode was named
        known = read_info(self.folder)
        if known.fps != self.fps:
            raise ValueError(
                f"{self.folder} has {known.fps:g} steps per second, not {self.fps}: record into another folder, or at its rate"
            )
        self._info = json.loads(read_regular_text(file))
        read_episodes(self.folder, known)  # that they are what is counted
        files = sorted(
            path.relative_to(self.folder)
            for path in (self.folder / "meta" / "episodes").glob("*/*.parquet")
            if not is_hidden(path, self.folder)
        )
        for name in files:
            table = read_table(self.folder, name)
            counted = [i for i, number in enumerate(table["episode_index"].to_pylist()) if number < known.episodes]
            table = table.take(counted)
            if counted or not self._rows:
                self._file, self._table = name.as_posix(), table
            self._rows += table.to_pylist()
        self._rows.sort(key=lambda row: row["episode_index"])

    def _add(self, columns: dict[str, np.ndarray], videos: Mapping[str, _DraftVideo], task: str) -> int:
        """Move an episode into place and name it; returns its number."""
        number, count = len(self._rows), len(next(iter(columns.values())))
        shapes: dict[str, Any] = {name: value.shape[1:] for name, value in columns.items()}
        shapes |= {name: (*film.writer.size, 3) for name, film in videos.items()}
        names = {name: given for name, given in (self._names or {}).items() if name in shapes}
        cameras = self._cameras(videos)
        described = features(shapes, self.fps, cameras=cameras, names=names)
        self._check(described)
        info = self._info or dataset_info(
            described, fps=self.fps, episodes=0, frames=0, tasks=0, robot_type=self._robot_type
        )
        keys = feature_names(shapes, cameras)
        first = sum(int(row["length"]) for row in self._rows)
        tasks = self._tasks(task)
        rows = {keys[name]: value.astype(info["features"][keys[name]]["dtype"]) for name, value in columns.items()}
        rows |= bookkeeping(count, fps=self.fps, episode=number, first=first, task=tasks.index(task))
        rows = {key: rows[key] for key in info["features"] if key in rows}
        stats: dict[str, Any] = {key: statistics(value.astype(np.float64)) for key, value in rows.items()}
        place = self._free("data", info)
        self._write((info.get("data_path") or DATA_PATH).format(chunk_index=place[0], file_index=place[1]), rows)
        placed: dict[str, Any] = {}
        for name, film in videos.items():
            key = keys[name]
            where = self._free(f"videos/{key}", info)
            path = (info.get("video_path") or VIDEO_PATH).format(
                video_key=key, chunk_index=where[0], file_index=where[1]
            )
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(film.writer.path, target)
            placed |= video_place(key, where, begin_s=0.0, end_s=count / self.fps)
            stats[key] = picture_statistics(np.stack(film.samples))
        row = episode_row(number, task=task, first=first, count=count, place=place, videos=placed, stats=stats)
        table = self._with(row)
        write_table(self.folder / self._file, table)
        write_tasks(self.folder, tasks)
        everything = [*self._rows, row]
        self._write_statistics(everything, stats)
        info = {
            **info,
            "total_episodes": number + 1,
            "total_frames": first + count,
            "total_tasks": len(tasks),
            "splits": self._splits(info, number + 1),
        }
        write_json(self.folder / "meta" / "info.json", info)
        self._info, self._rows, self._table = info, everything, table
        return number

    def _cameras(self, videos: Mapping[str, _DraftVideo]) -> dict[str, str]:
        """What a dataset that is there calls its cameras: the only one, ours; and those whose names end as ours do."""
        if self._info is None:
            return {}
        there = [key for key, value in self._info["features"].items() if value["dtype"] == "video"]
        if len(there) == len(videos) == 1:
            return dict(zip(videos, there, strict=True))
        return {}

    def _tasks(self, task: str) -> list[str]:
        """All instructions, in the order of their numbers, which stay what they are."""
        known = (read_tasks(self.folder) if self._info is not None else None) or {}
        found = [known.get(number, "") for number in range(max(known, default=-1) + 1)]
        if not found:
            found = list(dict.fromkeys(text for row in self._rows for text in row["tasks"]))
        return found if task in found else [*found, task]

    def _with(self, row: Mapping[str, Any]) -> Any:
        """The table of episodes with one more, in the columns and types that it has."""
        pa, _ = arrow()
        chunk, file = map(int, re.findall(r"\d+", self._file)[-2:])
        new = pa.Table.from_pylist([{**row, "meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}])
        if self._table is None or not self._table.num_rows:
            return new
        columns = []
        for field in self._table.schema:
            if field.name in new.column_names:
                columns.append(new[field.name].cast(field.type))
            else:
                columns.append(pa.nulls(1, field.type))
        return pa.concat_tables([self._table, pa.Table.from_arrays(columns, schema=self._table.schema)])

    def _write_statistics(self, everything: list[dict[str, Any]], stats: Mapping[str, Any]) -> None:
        """``meta/stats.json``: what is there stays, but for what is known better now."""
        file = self.folder / "meta" / "stats.json"
        known: dict[str, Any] = {}
        if self._info is not None and file.exists():
            try:
                known = dict(json.loads(read_regular_text(contained(self.folder, "meta/stats.json"))))
            except (ValueError, TypeError) as error:
                raise DataError(f"{file} is damaged: {error}") from error
        for key in stats:
            known[key] = {**known.get(key, {}), **joined(_of(everything, key))}
        write_json(file, known)

    @staticmethod
    def _splits(info: Mapping[str, Any], episodes: int) -> Any:
        splits = dict(info.get("splits") or {})
        # Whoever made splits of their own keeps them.
        return splits if set(splits) - {"train"} else {"train": f"0:{episodes}"}

    def _check(self, found: Mapping[str, Any]) -> None:
        """Refuse an episode that has other arrays than those before it."""
        if self._info is None:
            return
        inside = [key for key, value in self._info["features"].items() if value["dtype"] == "image"]
        if inside:
            raise ValueError(
                f"{self.folder} keeps the pictures {inside[0]} in parquet, and films are recorded here: record into another folder"
            )
        before = {key: _shape(value) for key, value in self._info["features"].items()}
        now = {key: _shape(value) for key, value in found.items()}
        if before != now:
            changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            raise ValueError(
                f"{self.folder} has other arrays: {changed[0]} is {before.get(changed[0], 'absent')} there and "
                f"{now.get(changed[0], 'absent')} here; record into another folder"
            )

    def _free(self, prefix: str, info: Mapping[str, Any]) -> tuple[int, int]:
        """Chunk and file that no episode uses."""
        size = int(info.get("chunks_size") or FILES_PER_CHUNK)
        used = [row[f"{prefix}/chunk_index"] * size + row[f"{prefix}/file_index"] for row in self._rows]
        return divmod(max(used, default=-1) + 1, size)

    def _write(self, name: str, columns: Mapping[str, np.ndarray]) -> None:
        pa, pq = arrow()
        aside = self.folder / _ASIDE / "rows.parquet"
        pq.write_table(
            pa.table({key: arrow_column(value) for key, value in columns.items()}), aside, write_page_checksum=True
        )
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(aside, self.folder / name)


class _DraftVideo:
    """A camera's frames of an episode, on their way to the disk."""

    def __init__(self, path: Path, size: tuple[int, int], fps: int) -> None:
        self.writer = VideoWriter(path, size, fps)
        self.samples: list[np.ndarray] = []

    def add(self, frame: np.ndarray) -> None:
        if self.writer.frames % _EVERY == 0:
            self.samples.append(frame[::_PIXELS, ::_PIXELS].copy())
        self.writer.append([frame])


class EpisodeDraft:
    """An episode that is being recorded; frames go to the disk as they come."""

    def __init__(self, appender: LeRobotAppender, aside: Path) -> None:
        self._appender, self._aside = appender, aside
        self._films: dict[str, _DraftVideo] = {}
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
                    self._films[name] = _DraftVideo(path, (value.shape[0], value.shape[1]), self._appender.fps)
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
    """A feature's statistics in each episode, those that all of them have."""
    whats = ("min", "max", "mean", "std", "count", *QUANTILES)
    there = [what for what in whats if all(row.get(f"stats/{key}/{what}") is not None for row in rows)]
    return [{what: np.asarray(row[f"stats/{key}/{what}"]) for what in there} for row in rows]


def _shape(described: Mapping[str, Any]) -> list[int]:
    """Of a row; pictures as height, width and channels, which LeRobot may declare in another order."""
    shape = [int(n) for n in described["shape"]]
    if described["dtype"] == "video" and shape[0] == 3 and shape[-1] != 3:
        return [*shape[1:], 3]
    return shape
