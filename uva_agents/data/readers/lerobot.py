"""LeRobot v3 datasets: parquet and mp4, described by ``meta/info.json``; read without the lerobot package.

Everything that is said twice is compared: rows with lengths, times of rows with the rate, times of episodes with the frames that
the videos have. A row whose picture is another row's would train as well as any.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.data.contained import contained
from uva_agents.data.fields import Field
from uva_agents.data.layouts import decoded_picture
from uva_agents.data.lazy import LazyFrames, file_identity
from uva_agents.data.readers.dataset import Stored, too_wide
from uva_agents.data.readers.lerobot_meta import EpisodeTable, Info, read_episodes, read_info, read_tasks
from uva_agents.data.readers.parquet import columns_of, read_table, rectangular
from uva_agents.data.video import VideoFrames, VideoInfo, probe
from uva_agents.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_ON_TIME = 0.2
"""Of a step: how far a time may be from where it belongs. Containers and single precision round by less."""


def is_lerobot(path: Path) -> bool:
    """A folder with ``meta/info.json``."""
    return (path / "meta" / "info.json").exists()


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
    for name in files:
        _, there = columns_of(path, name)
        if unknown := sorted(set(there) - set(stored)):
            raise DataError(f"{path / name} has columns {', '.join(unknown)} that meta/info.json does not declare")
        if absent := sorted(set(stored) - set(there)):
            raise DataError(f"{path / name} lacks the columns {', '.join(absent)} that meta/info.json promises")
    numeric = [key for key in stored if key not in left_out and not info.features[key].is_camera]
    parts = [read_table(path, name, columns=sorted({*numeric, "episode_index", "frame_index"})) for name in files]
    _check_rows(path, info, episodes, files, parts)
    numbers = {
        key: _joined(path, files, parts, key, info.features[key].shape) for key in numeric if key not in BOOKKEEPING
    }
    notes: list[str] = []
    frames = {}
    for key, feature in info.features.items():
        if key in left_out or not feature.is_camera:
            continue
        frames[key] = (
            _videos(path, info, key, episodes, notes)
            if feature.dtype == "video"
            else LazyFrames([PictureFrames(path, name, key, feature.size) for name in files], (*feature.size, 3))
        )
    return Stored(
        frames=frames,
        numbers=numbers,
        ends=np.cumsum(episodes.lengths),
        defaults=_defaults(frames, numbers),
        control_hz=info.fps,
        tasks=_tasks(path, files, parts, episodes),
        notes=tuple(notes),
        left_out=left_out,
    )


class PictureFrames:
    """Frames stored as PNG or JPEG in a parquet file, one per row."""

    def __init__(self, folder: Path, name: str, key: str, size: tuple[int, int]) -> None:
        self.folder, self.name, self.key, self.size = folder, name, key, size
        self.count = columns_of(folder, name)[0]
        self.identity = f"{file_identity(folder / name)}:{key}"

    def __len__(self) -> int:
        return self.count

    def read(self, rows: np.ndarray) -> np.ndarray:
        from PIL import Image

        column = _picture_column(self.folder, self.name, self.key, self.identity)
        found = []
        for row in rows:
            where = f"{self.folder / self.name}: picture {self.key} of row {row}"
            cell = column[int(row)].as_py()
            content = cell.get("bytes") if isinstance(cell, dict) else cell
            if not isinstance(content, bytes):
                path = cell.get("path") if isinstance(cell, dict) else None
                raise DataError(
                    f"{where} cannot be read: " + (f"only a path is stored: {path}" if path else "there is none")
                )
            try:
                image = Image.open(io.BytesIO(content))
                if image.size != self.size[::-1]:
                    raise DataError(f"it is {image.size[::-1]}, not {self.size} pixels")
                found.append(decoded_picture(image))
            except Exception as error:  # PIL raises a dozen types for damaged pictures
                raise DataError(f"{where} cannot be read: {error}") from error
        return np.stack(found)


@lru_cache(maxsize=4)
def _picture_column(folder: Path, name: str, key: str, identity: str) -> Any:
    return read_table(folder, name, columns=[key])[key].combine_chunks()


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


def _check_rows(path: Path, info: Info, episodes: EpisodeTable, files: list[str], parts: list[pa.Table]) -> None:
    """That the rows are those of the episodes, in order, at their times."""
    lengths = episodes.lengths
    columns = {
        key: _joined(path, files, parts, key, None).reshape(-1) for key in BOOKKEEPING if key in parts[0].column_names
    }
    number = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    found = columns["episode_index"]
    if len(found) != len(number) or (found != number).any():
        raise DataError(
            f"{path} has {len(found)} rows in data/ that do not match the lengths in meta/episodes: the dataset contradicts "
            "itself; copy it again"
        )
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
        if (bad := np.flatnonzero(~(late <= _ON_TIME))).size:
            raise DataError(
                f"{path}: the timestamp of step {step[bad[0]]} of episode {number[bad[0]]} is "
                f"{columns['timestamp'][bad[0]]:.6g} s; at {info.fps:g} steps a second it must be {step[bad[0]] / info.fps:.6g} s"
            )
    # A file holds the rows of the episodes that say so.
    place = np.unique(episodes.data, axis=0, return_inverse=True)[1].reshape(-1)[number] if len(files) > 1 else None
    if place is not None and (place != np.repeat(np.arange(len(files)), [len(part) for part in parts])).any():
        raise DataError(
            f"{path}: meta/episodes names other files of data/ than those that have the rows of its episodes"
        )


def _videos(path: Path, info: Info, key: str, episodes: EpisodeTable, notes: list[str]) -> LazyFrames:
    size = info.features[key].size
    sources: list[VideoFrames] = []
    probed: dict[str, VideoInfo] = {}
    used: dict[str, tuple[int, int]] = {}
    for number, (chunk, file) in enumerate(episodes.videos[key].tolist()):
        name = info.video_path.format(video_key=key, chunk_index=chunk, file_index=file)
        where = f"episode {number}, camera {key}: {path / name}"
        if name not in probed:
            try:
                probed[name] = probe(contained(path, name))
            except FileNotFoundError as error:
                raise DataError(f"{path / name} is missing: copy the dataset again") from error
            if probed[name].shape[:2] != size:
                raise DataError(f"{path / name} is {probed[name].shape[:2]}, not {size} pixels, as meta/info.json says")
        count, begin_s = int(episodes.lengths[number]), float(episodes.begins[key][number])
        first = _frame_at(where, probed[name], begin_s, count, info.fps)
        end_s = float(episodes.ends[key][number])
        if abs(end_s - begin_s - count / info.fps) * info.fps > _ON_TIME:  # not if there is no end
            raise DataError(
                f"{where}: it is said to last from {begin_s:.6g} to {end_s:.6g} s, its {count} steps last {count / info.fps:.6g} s"
            )
        before, after = used.get(name, (-1, 0))
        if first < after:
            raise DataError(
                f"{where}: its frames {first} to {first + count - 1} (from_timestamp {begin_s:.6g} s) begin before those of "
                f"episode {before} end, frame {after - 1}: one of them has the times of another episode"
            )
        used[name] = (number, first + count)
        sources.append(VideoFrames(path / name, probed[name], np.arange(first, first + count)))
    for name, video in probed.items():
        taken = sum(len(source) for source in sources if source.path == path / name)
        if taken < video.frames:
            notes.append(f"{path / name}: {video.frames - taken} of its {video.frames} frames belong to no episode")
    return LazyFrames(sources, (*size, 3))


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


def _tasks(path: Path, files: list[str], parts: list[pa.Table], episodes: EpisodeTable) -> tuple[str, ...] | None:
    """An instruction per episode, from the two places that have them."""
    known = read_tasks(path)
    if known is None or "task_index" not in parts[0].column_names:
        return None if episodes.tasks is None else tuple(", ".join(texts) for texts in episodes.tasks)
    numbers = _joined(path, files, parts, "task_index", None).reshape(-1)
    found = []
    for number, (end, length) in enumerate(zip(np.cumsum(episodes.lengths), episodes.lengths, strict=True)):
        used = list(dict.fromkeys(numbers[end - length : end].tolist()))
        if unknown := [index for index in used if index not in known]:
            raise DataError(f"{path}: episode {number} has the task_index {unknown[0]}, which meta/tasks.parquet lacks")
        texts = tuple(known[index] for index in used)
        said = texts if episodes.tasks is None else episodes.tasks[number]
        if set(said) != set(texts):
            raise DataError(
                f"{path}: the task of episode {number} is {', '.join(said)!r} in meta/episodes and {', '.join(texts)!r} in its rows"
            )
        found.append(", ".join(said))
    return tuple(found)


def _defaults(frames: dict[str, LazyFrames], numbers: dict[str, np.ndarray]) -> dict[str, Field]:
    found = {}
    wrist = next((key for key in frames if "wrist" in key), None)
    camera = next((key for key in frames if key != wrist), wrist)
    if camera is not None:
        found["pixels"] = Field(camera)
    if wrist is not None and wrist != camera:
        found["pixels_wrist"] = Field(wrist)
    if "action" in numbers:
        found["action"] = Field("action")
    if "observation.state" in numbers:
        found["agent_pos"] = Field("observation.state")
    return found
