"""LeRobot v3 datasets: parquet and mp4, described by ``meta/info.json``; read without the lerobot package."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.data.fields import Field
from uva_agents.data.lazy import FrameSource, LazyFrames, file_identity
from uva_agents.data.readers.dataset import MissingExtraError, Stored, too_wide
from uva_agents.data.video import VideoFrames, VideoInfo, probe

if TYPE_CHECKING:
    import pyarrow as pa

BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def is_lerobot(path: Path) -> bool:
    """A folder with ``meta/info.json``."""
    return (path / "meta" / "info.json").is_file()


def read_lerobot(path: Path) -> Stored:
    """All episodes; videos are decoded when frames are looked at.

    Raises:
        ValueError: another version; files that are missing or damaged, or that contradict each other.
        MissingExtraError: pyarrow is not installed.
    """
    info = _info(path)
    features: dict[str, Any] = info["features"]
    episodes = _table(path, sorted((path / "meta" / "episodes").glob("*/*.parquet")), "meta/episodes").to_pydict()
    # A recording names its files first and counts them last: what is not counted was cut off.
    order = np.argsort(episodes["episode_index"])[: info["total_episodes"]]
    lengths = np.asarray(episodes["length"], np.int64)[order]
    _check(path, len(lengths) == info["total_episodes"], f"has {len(lengths)} episodes, not {info['total_episodes']}")
    _check(path, int(lengths.sum()) == info["total_frames"], f"has {lengths.sum()} rows, not {info['total_frames']}")
    cameras = [key for key, feature in features.items() if feature["dtype"] in ("video", "image")]
    columns = [key for key in features if key not in cameras]
    numeric = [
        key for key in columns if features[key]["dtype"] != "string" and not too_wide((0, *features[key]["shape"]))
    ]
    data_path = info.get("data_path") or DATA_PATH
    places = sorted({(episodes["data/chunk_index"][i], episodes["data/file_index"][i]) for i in order})
    files = [path / data_path.format(chunk_index=c, file_index=f) for c, f in places]
    rows = _table(path, files, "data", columns=sorted({*numeric, "episode_index", "frame_index"}))
    episode, step = (rows[name].to_numpy() for name in ("episode_index", "frame_index"))
    expected = np.repeat(np.asarray(episodes["episode_index"])[order], lengths)
    good = len(episode) == len(expected) and (episode == expected).all()
    counting = good and (step == np.concatenate([np.arange(n) for n in lengths])).all()
    _check(path, good, f"has {len(episode)} rows in data/ that do not match the lengths in meta/episodes")
    _check(path, counting, "has episodes in data/ whose frame_index does not count from 0")
    numbers = {key: _column(rows[key]) for key in numeric if key not in BOOKKEEPING}
    frames = {}
    for key in cameras:
        if features[key]["dtype"] == "video":
            frames[key] = _videos(path, info, key, episodes, order)
        else:
            frames[key] = _pictures(path, features[key], key, files)
    return Stored(
        frames=frames,
        numbers=numbers,
        ends=np.cumsum(lengths),
        defaults=_defaults(frames, numbers),
        control_hz=float(info["fps"]),
        tasks=tuple(", ".join(episodes["tasks"][i]) for i in order) if "tasks" in episodes else None,
        notes=tuple(
            f"left out {key}: text or too wide" for key in columns if key not in numeric and key not in BOOKKEEPING
        ),
    )


class PictureFrames:
    """Frames stored as PNG or JPEG in a parquet file, one per row."""

    def __init__(self, path: Path, key: str, count: int) -> None:
        self.path, self.key, self.count = path, key, count
        self.identity = f"{file_identity(path)}:{key}"

    def __len__(self) -> int:
        return self.count

    def read(self, rows: np.ndarray) -> np.ndarray:
        from PIL import Image

        column = _picture_column(self.path, self.key, self.identity)
        found = []
        for row in rows:
            cell = column[int(row)].as_py()
            try:
                if cell["bytes"] is None:
                    raise OSError(f"only a path is stored: {cell['path']}")
                found.append(np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")))
            except OSError as error:
                raise ValueError(f"{self.path}: picture {self.key} of row {row} cannot be read: {error}") from error
        return np.stack(found)


@lru_cache(maxsize=4)
def _picture_column(path: Path, key: str, identity: str) -> Any:
    return _table(path, [path], "data", columns=[key])[key].combine_chunks()


def _info(path: Path) -> dict[str, Any]:
    file = path / "meta" / "info.json"
    try:
        info: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    version = str(info.get("codebase_version", "unknown"))
    if not version.startswith("v3"):
        raise ValueError(
            f"{path} is LeRobot {version}; v3 is read. Convert it with lerobot's own convert_dataset_v21_to_v30 script"
        )
    missing = [key for key in ("fps", "features", "total_episodes", "total_frames") if key not in info]
    if missing:
        raise ValueError(f"{file} lacks {', '.join(missing)}")
    return info


def _table(path: Path, files: Iterable[Path], what: str, columns: list[str] | None = None) -> pa.Table:
    """Rows of several parquet files, one after another."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is a LeRobot dataset, which needs pyarrow: pip install 'uva-agents[data]' (or pip install pyarrow)"
        ) from error
    files = list(files)
    if not files:
        raise ValueError(f"{path} has no parquet file in {what}: copy the dataset again")
    tables = []
    for file in files:
        try:
            # Each file alone: through the dataset interface, folder names would become columns.
            with pq.ParquetFile(file) as opened:
                absent = [name for name in columns or () if name not in opened.schema_arrow.names]
                if absent:
                    raise ValueError(f"{file} lacks the columns {', '.join(absent)} that meta/info.json promises")
                tables.append(opened.read(columns=columns))
        except FileNotFoundError as error:
            raise ValueError(f"{file} is missing: copy the dataset again") from error
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, ValueError) and "lacks the columns" in str(error):
                raise
            raise ValueError(f"{file} is damaged or cut short: {error}; copy it again") from error
    return pa.concat_tables(tables, promote_options="default")


def _column(column: Any) -> np.ndarray:
    """A column of numbers, or of (nested) lists of numbers of one length, as an array."""
    import pyarrow as pa

    flat = column.combine_chunks()
    shape = [len(flat)]
    while pa.types.is_list(flat.type) or pa.types.is_fixed_size_list(flat.type) or pa.types.is_large_list(flat.type):
        inner = flat.flatten()
        shape.append(len(inner) // max(len(flat), 1))
        flat = inner
    values = flat.to_numpy(zero_copy_only=False)
    if int(np.prod(shape)) != len(values):
        raise ValueError("a column has rows of different lengths")
    return np.asarray(values).reshape(shape)


def _videos(path: Path, info: dict[str, Any], key: str, episodes: dict[str, Any], order: np.ndarray) -> LazyFrames:
    fps = float(info["fps"])
    height, width = _side(info["features"][key])
    sources: list[FrameSource] = []
    probed: dict[Path, VideoInfo] = {}
    prefix = f"videos/{key}"
    for i in order:
        place = {"chunk_index": episodes[f"{prefix}/chunk_index"][i], "file_index": episodes[f"{prefix}/file_index"][i]}
        file = path / (info.get("video_path") or VIDEO_PATH).format(video_key=key, **place)
        if file not in probed:
            if not file.exists():
                raise ValueError(f"{file} is missing: copy the dataset again")
            probed[file] = probe(file)
        found = probed[file]
        _check(file, abs(found.fps - fps) < 0.01 * fps, f"runs at {found.fps} frames per second, not {fps}")
        _check(file, found.shape[:2] == (height, width), f"is {found.shape[:2]}, not {(height, width)} pixels")
        begin, count = round(episodes[f"{prefix}/from_timestamp"][i] * fps), int(episodes["length"][i])
        if begin + count > found.frames:
            raise ValueError(
                f"{file} has {found.frames} frames, episode {episodes['episode_index'][i]} needs {begin} to {begin + count - 1}: "
                "it is cut short; copy it again"
            )
        sources.append(VideoFrames(file, found, np.arange(begin, begin + count)))
    return LazyFrames(sources, (height, width, 3))


def _pictures(path: Path, feature: dict[str, Any], key: str, files: list[Path]) -> LazyFrames:
    import pyarrow.parquet as pq

    height, width = _side(feature)
    return LazyFrames([PictureFrames(f, key, pq.read_metadata(f).num_rows) for f in files], (height, width, 3))


def _side(feature: dict[str, Any]) -> tuple[int, int]:
    """Height and width; older writers put the channels first."""
    shape = [int(n) for n in feature["shape"]]
    names = feature.get("names") or []
    first = names[:1] in (["channels"], ["channel"]) or (shape[0] == 3 and shape[-1] != 3)
    height, width = shape[1:] if first else shape[:2]
    return height, width


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


def _check(path: Path, good: bool, problem: str) -> None:
    if not good:
        raise ValueError(f"{path} {problem}: the dataset contradicts itself; copy it again")
