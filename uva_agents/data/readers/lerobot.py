"""LeRobot v3 datasets: parquet and mp4, described by ``meta/info.json``; read without the lerobot package.

Everything that is said twice is compared: rows with lengths, times of rows with the rate, times of episodes with the frames that
the videos have. A row whose picture is another row's would train as well as any.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uva_agents.data.contained import contained, is_hidden
from uva_agents.data.fields import Field
from uva_agents.data.holes import Hole, Level, listed
from uva_agents.data.lazy import FrameSource, LazyFrames
from uva_agents.data.readers.dataset import Stored, too_wide
from uva_agents.data.readers.lerobot_frames import MissingFrames, PictureFrames
from uva_agents.data.readers.lerobot_meta import EpisodeTable, Info, read_episodes, read_info, read_tasks
from uva_agents.data.readers.metadata import on_wrist
from uva_agents.data.readers.parquet import columns_of, read_table, rectangular
from uva_agents.data.video import VideoFrames, VideoInfo, probe
from uva_agents.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_UNEQUAL = "{path} has {count} rows in data/ that do not match the lengths in meta/episodes: it contradicts itself; copy it again"
_ON_TIME = 0.2
"""Of a step: how far a time may be from where it belongs. Containers and single precision round by less."""


def is_lerobot(path: Path) -> bool:
    """A folder with ``meta/info.json``; or with the rows of a dataset that has lost it: its videos alone are no dataset."""
    return (path / "meta" / "info.json").exists() or any(
        not is_hidden(file, path) for file in path.glob("data/chunk-*/*.parquet")
    )


def read_lerobot(path: Path) -> Stored:
    """All episodes; videos are decoded when frames are looked at.

    Raises:
        DataError: another version; files that are missing, damaged or outside the folder, or that contradict each other.
        MissingExtraError: pyarrow is not installed.
    """
    info = read_info(path)
    episodes = read_episodes(path, info)
    left_out: dict[str, str] = {}
    for key, feature in info.features.items():
        if feature.depth:
            left_out[key] = "its pictures are distances, not colours"
        elif feature.dtype == "string":
            left_out[key] = "text"
        elif not feature.is_camera and too_wide((0, *feature.shape)):
            left_out[key] = f"{feature.shape} numbers per row"
    files = _data_files(path, info, episodes)
    stored = [key for key, feature in info.features.items() if feature.dtype != "video"]
    count = 0
    for name in files:
        rows, there = columns_of(path, name)
        count += rows
        if unknown := sorted(set(there) - set(stored)):
            raise DataError(f"{path / name} has columns {', '.join(unknown)} that meta/info.json does not declare")
        if absent := sorted(set(stored) - set(there)):
            raise DataError(f"{path / name} lacks the columns {', '.join(absent)} that meta/info.json promises")
    if count != episodes.lengths.sum():  # before they are unpacked: a few bytes can promise any number of rows
        raise DataError(_UNEQUAL.format(path=path, count=count))
    numeric = [key for key in stored if key not in left_out and not info.features[key].is_camera]
    parts = [read_table(path, name, columns=sorted({*numeric, "episode_index", "frame_index"})) for name in files]
    holes = _Holes(len(episodes.lengths))
    _check_rows(path, info, episodes, files, parts, holes)
    numbers = {
        key: _joined(path, files, parts, key, info.features[key].shape) for key in numeric if key not in BOOKKEEPING
    }
    notes: list[str] = []
    frames = {}
    for key, feature in info.features.items():
        if key in left_out or not feature.is_camera:
            continue
        if feature.dtype == "video":
            frames[key] = _videos(path, info, key, episodes, notes, holes)
            continue
        pictures = [PictureFrames(path, name, key, feature.size) for name in files]
        frames[key] = LazyFrames(pictures, (*feature.size, 3))
        try:
            notes += [note for note in (part.note() for part in pictures[:1]) if note]
        except DataError as error:
            holes.add(str(error), key, 0)
    return Stored(
        frames=frames,
        numbers=numbers,
        ends=np.cumsum(episodes.lengths),
        defaults=_defaults(frames, numbers),
        control_hz=info.fps,
        tasks=_tasks(path, files, parts, episodes, holes),
        notes=tuple(notes),
        left_out=left_out,
        holes=holes.all(),
        names={
            key: info.features[key].names for key in numbers if len(info.features[key].names) == numbers[key][0].size
        },
    )


class _Holes:
    """What is wrong with single episodes: the others can be used without them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._found: dict[tuple[str, str, Level], list[int]] = {}

    def add(self, message: str, where: str, episode: int, level: Level = "error") -> None:
        self._found.setdefault((message, where, level), []).append(episode)

    def all(self) -> tuple[Hole, ...]:
        """One per message, of all the episodes that it is true of."""
        return tuple(
            Hole(message, where, level, None if len(numbers) == self._count else tuple(numbers))
            for (message, where, level), numbers in self._found.items()
        )


def _data_files(path: Path, info: Info, episodes: EpisodeTable) -> list[str]:
    """Files with rows of episodes, in the order in which LeRobot writes them."""
    places = np.unique(episodes.data, axis=0).tolist() if len(episodes.data) else []
    names = [info.data_path.format(chunk_index=chunk, file_index=file) for chunk, file in places]
    return list(dict.fromkeys(names))


def _joined(path: Path, files: list[str], parts: list[pa.Table], key: str, shape: tuple[int, ...] | None) -> np.ndarray:
    found = [rectangular(part[key], shape, f"{path / name}: {key}") for name, part in zip(files, parts, strict=True)]
    if len({values.shape[1:] for values in found}) > 1:
        raise DataError(f"{path}: rows of {key} have different lengths in different files of data/")
    return np.concatenate(found)


def _check_rows(
    path: Path, info: Info, episodes: EpisodeTable, files: list[str], parts: list[pa.Table], holes: _Holes
) -> None:
    """That the rows are those of the episodes, in order, at their times."""
    lengths = episodes.lengths
    columns = {
        key: _joined(path, files, parts, key, None).reshape(-1) for key in BOOKKEEPING if key in parts[0].column_names
    }
    number = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    found = columns["episode_index"]
    if len(found) != len(number) or (found != number).any():
        raise DataError(_UNEQUAL.format(path=path, count=len(found)))
    for key, expected, words in (
        ("frame_index", step, "does not count from 0"),
        ("index", np.arange(len(step)), "does not count all rows"),
    ):
        if key in columns and (bad := np.flatnonzero(columns[key] != expected)).size:
            raise DataError(
                f"{path} has episodes in data/ whose {key} {words}: it is {columns[key][bad[0]]} in step {step[bad[0]]} of episode "
                f"{number[bad[0]]}, not {expected[bad[0]]}; the dataset contradicts itself; copy it again"
            )
    if "timestamp" in columns:
        late = np.abs(columns["timestamp"].astype(np.float64) - step / info.fps) * info.fps
        bad = np.flatnonzero(~(late <= _ON_TIME))
        for first in bad[np.unique(number[bad], return_index=True)[1]].tolist():
            stored, wanted = columns["timestamp"][first], step[first] / info.fps
            holes.add(
                f"{path}: the timestamp of step {step[first]} of episode {number[first]} is {stored:.6g} s; at {info.fps:g} steps "
                f"a second it must be {wanted:.6g} s",
                "timestamp",
                int(number[first]),
            )
    # A file holds the rows of the episodes that say so.
    place = np.unique(episodes.data, axis=0, return_inverse=True)[1].reshape(-1)[number] if len(files) > 1 else None
    if place is not None and (place != np.repeat(np.arange(len(files)), [len(part) for part in parts])).any():
        raise DataError(
            f"{path}: meta/episodes names other files of data/ than those that have the rows of its episodes"
        )


def _videos(path: Path, info: Info, key: str, episodes: EpisodeTable, notes: list[str], holes: _Holes) -> LazyFrames:
    videos = _CameraVideos(path, info, key)
    sources: list[FrameSource] = []
    for number, count in enumerate(episodes.lengths.tolist()):
        try:
            sources.append(videos.episode(number, count, episodes))
        except DataError as error:
            for each in (number, *(error.others if isinstance(error, _OverlapError) else ())):
                holes.add(str(error), key, each)
            sources.append(MissingFrames(count, str(error)))
    notes += videos.notes()
    return LazyFrames(sources, (*videos.size, 3))


class _OverlapError(DataError):
    """An episode whose frames are not after those of the ones before; any of ``others`` may be the wrong one."""

    def __init__(self, message: str, others: list[int]) -> None:
        super().__init__(message)
        self.others = others


class _CameraVideos:
    """The video files of one camera."""

    def __init__(self, path: Path, info: Info, key: str) -> None:
        self.path, self.info, self.key, self.size = path, info, key, info.features[key].size
        self._probed: dict[str, VideoInfo | DataError] = {}
        self._used: dict[str, list[tuple[int, int, int]]] = {}

    def episode(self, number: int, count: int, episodes: EpisodeTable) -> VideoFrames:
        """The frames of an episode.

        Raises:
            DataError: its file cannot be read, or has no frames at its times, or those of another episode.
        """
        fps = self.info.fps
        chunk, file = episodes.videos[self.key][number].tolist()
        name = self.info.video_path.format(video_key=self.key, chunk_index=chunk, file_index=file)
        where = f"episode {number}, camera {self.key}: {self.path / name}"
        video = self._probe(name)
        begin_s, end_s = float(episodes.begins[self.key][number]), float(episodes.ends[self.key][number])
        first = _frame_at(where, video, begin_s, count, fps)
        if abs(end_s - begin_s - count / fps) * fps > _ON_TIME:  # not if there is no end
            raise DataError(
                f"{where}: it is said to last from {begin_s:.6g} to {end_s:.6g} s, its {count} steps last {count / fps:.6g} s"
            )
        others = [(begin, end, other) for other, begin, end in self._used.get(name, ())]
        self._used.setdefault(name, []).append((number, first, first + count))
        if (last := max(others, key=lambda other: other[1], default=None)) is not None and first < last[1]:
            raise _OverlapError(
                f"{where}: its frames {first} to {first + count - 1} (from_timestamp {begin_s:.6g} s) begin before those of "
                f"episode {last[2]} end, frame {last[1] - 1}: one of them has the times of another episode",
                [other for _, end, other in others if end > first],
            )
        return VideoFrames(self.path / name, video, np.arange(first, first + count))

    def notes(self) -> list[str]:
        """Which files have more than the episodes take."""
        found = []
        for name, used in self._used.items():
            video, taken = self._probed[name], sum(end - begin for _, begin, end in used)
            if isinstance(video, VideoInfo) and taken < video.frames:
                found.append(
                    f"{self.path / name}: {video.frames - taken} of its {video.frames} frames belong to no episode"
                )
        return found

    def _probe(self, name: str) -> VideoInfo:
        if name not in self._probed:
            try:
                self._probed[name] = found = probe(contained(self.path, name))
                if found.shape[:2] != self.size:
                    text = f"{self.path / name} is {found.shape[:2]}, not {self.size} pixels, as meta/info.json says"
                    self._probed[name] = DataError(text)
            except FileNotFoundError:
                self._probed[name] = DataError(f"{self.path / name} is missing: copy the dataset again")
            except DataError as error:
                self._probed[name] = error
        found_or = self._probed[name]
        if isinstance(found_or, DataError):
            raise found_or
        return found_or


def _frame_at(where: str, video: VideoInfo, begin_s: float, count: int, fps: float) -> int:
    """Number of the frame that is shown at ``begin_s``, where ``count`` frames follow each other at ``fps`` from then on."""
    if not np.isfinite(begin_s):
        raise DataError(f"{where}: its from_timestamp is {begin_s}")
    wanted = begin_s + np.arange(count) / fps
    first = int(np.abs(video.times - begin_s).argmin())
    found = video.times[first : first + count]
    late = np.abs(found - wanted[: len(found)]) * fps
    if (bad := np.flatnonzero(late > _ON_TIME)).size:
        raise DataError(
            f"{where}: step {bad[0]} is at {wanted[bad[0]]:.6g} s, and the nearest frame at {found[bad[0]]:.6g} s "
            f"(from_timestamp {begin_s:.6g} s at {fps:g} frames a second): frames are missing, or the times are another video's"
        )
    if len(found) < count:
        raise DataError(
            f"{where} has {video.frames} frames, episode needs {first} to {first + count - 1}: it is cut short; copy it again"
        )
    return first


def _tasks(
    path: Path, files: list[str], parts: list[pa.Table], episodes: EpisodeTable, holes: _Holes
) -> tuple[str, ...] | None:
    """An instruction per episode, from the two places that have them."""
    known = read_tasks(path)
    if known is None or "task_index" not in parts[0].column_names:
        if episodes.tasks is None:
            return None
        _several(path, dict(enumerate(episodes.tasks)), holes)
        return tuple(", ".join(texts) for texts in episodes.tasks)
    numbers = _joined(path, files, parts, "task_index", None).reshape(-1)
    found = []
    several: dict[int, tuple[str, ...]] = {}
    for number, (end, length) in enumerate(zip(np.cumsum(episodes.lengths), episodes.lengths, strict=True)):
        used = list(dict.fromkeys(numbers[end - length : end].tolist()))
        texts = tuple(known.get(index, "") for index in used)
        instructions = texts if episodes.tasks is None else episodes.tasks[number]
        if unknown := [index for index in used if index not in known]:
            holes.add(
                f"{path}: episode {number} has the task_index {unknown[0]}, which meta/tasks.parquet lacks",
                "task_index",
                number,
            )
        elif set(instructions) != set(texts):
            listed, other = ", ".join(instructions), ", ".join(texts)
            holes.add(
                f"{path}: the task of episode {number} is {listed!r} in meta/episodes and {other!r} in its rows",
                "tasks",
                number,
            )
        several[number] = tuple(instructions)
        found.append(", ".join(instructions))
    _several(path, several, holes)
    return tuple(found)


def _several(path: Path, tasks: Mapping[int, tuple[str, ...]], holes: _Holes) -> None:
    """Say which episodes have more than one task: an episode has one instruction here."""
    changing = [number for number, texts in tasks.items() if len(texts) > 1]
    if not changing:
        return
    text = (
        f"{path}: the task changes within episode{'s' if len(changing) > 1 else ''} {listed(changing)}: each gets its tasks joined "
        f"as one instruction for all its steps ({', '.join(tasks[changing[0]])!r}); split episodes where the task changes"
    )
    for number in changing:
        holes.add(text, "tasks", number, "warn")


def _defaults(frames: dict[str, LazyFrames], numbers: dict[str, np.ndarray]) -> dict[str, Field]:
    found = {}
    wrists = [key for key in frames if on_wrist(key)]
    camera = next((key for key in frames if key not in wrists), next(iter(frames), None))
    if camera is not None:
        found["pixels"] = Field(camera)
    if len(wrists) == 1 and wrists[0] != camera:  # of two, each keeps its name
        found["pixels_wrist"] = Field(wrists[0])
    if "action" in numbers:
        found["action"] = Field("action")
    if "observation.state" in numbers:
        found["agent_pos"] = Field("observation.state")
    return found
