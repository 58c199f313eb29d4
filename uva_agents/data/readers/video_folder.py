"""A folder of videos without actions: each file is an episode. It trains the video task only."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from uva_agents.data.fields import Field
from uva_agents.data.lazy import LazyFrames
from uva_agents.data.readers.dataset import Stored
from uva_agents.data.video import VideoFrames, probe

SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm")
_OTHERS = ("info.json", "*.hdf5", "*.zarr", "*.zarr.zip")


def video_files(path: Path) -> list[Path]:
    """Videos in a folder and its subfolders, sorted; or the file itself."""
    if path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else []
    return sorted(child for child in path.rglob("*") if child.suffix.lower() in SUFFIXES and child.is_file())


def is_video_folder(path: Path) -> bool:
    """A video, or a folder with some and without data of another format, whose pictures they may be."""
    return bool(video_files(path)) and not any(next(path.rglob(name), None) for name in _OTHERS)


def read_video_folder(path: Path) -> Stored:
    """Every video. A text file of the same name (``a.txt`` beside ``a.mp4``) is its instruction.

    Raises:
        ValueError: damaged; different sizes or rates.
    """
    files = video_files(path)
    infos = [probe(file) for file in files]
    for what, values in (("sizes", [info.shape[:2] for info in infos]), ("rates", [round(i.fps, 3) for i in infos])):
        different = sorted(set(values))  # type: ignore[type-var]
        if len(different) > 1:
            examples = "; ".join(f"{files[values.index(value)].name} {value}" for value in different[:4])  # type: ignore[arg-type]
            raise ValueError(
                f"{path}: videos have different {what} ({examples}); bring them to one, for example with ffmpeg"
            )
    texts = [file.with_suffix(".txt") for file in files]
    tasks = tuple(text.read_text().strip() if text.exists() else "" for text in texts)
    frames = LazyFrames([VideoFrames(f, i, 0, i.frames) for f, i in zip(files, infos, strict=True)], infos[0].shape)
    return Stored(
        frames={"video": frames},
        numbers={},
        ends=np.cumsum([info.frames for info in infos]),
        defaults={"pixels": Field("video")},
        control_hz=infos[0].fps,
        tasks=tasks if any(tasks) else None,
        notes=("no actions: it trains the video task only",),
    )
