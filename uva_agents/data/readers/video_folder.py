"""A folder of videos without actions: each file is an episode. It trains the video task only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.data.contained import contained, is_hidden
from uva_agents.data.fields import Field
from uva_agents.data.lazy import LazyFrames
from uva_agents.data.readers.dataset import Stored
from uva_agents.data.video import VideoFrames, probe
from uva_agents.errors import DataError
from uva_agents.utils.files import read_regular_text

SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm")
_SAME_RATE = 0.005
_SAME_JITTERED_RATE = 0.02
"""Cameras whose frames come at uneven times do not keep their rate better than this."""
_LONGEST_TEXT = 1 << 20
_OTHERS = ("info.json", "*.parquet", "*.hdf5", "*.zarr", "*.zarr.zip")


def video_files(path: Path) -> list[Path]:
    """Videos in a folder and its subfolders, sorted; or the file itself."""
    if path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else []
    found = (child for child in path.rglob("*") if child.suffix.lower() in SUFFIXES and not is_hidden(child, path))
    return sorted(child for child in found if child.is_file())


def is_video_folder(path: Path) -> bool:
    """A video, or a folder with some and without data of another format, whose pictures they may be."""
    return bool(video_files(path)) and not beside_films(path)


def beside_films(path: Path) -> list[Path]:
    """Files that may be a dataset's whose pictures the films are: one of each kind."""
    found = [next((file for file in path.rglob(name) if not is_hidden(file, path)), None) for name in _OTHERS]
    return [file for file in found if file is not None]


def read_video_folder(path: Path) -> Stored:
    """Every video, by time: where frames come unevenly, a step shows the one that is seen then. A text file of the same name
    (``a.txt`` beside ``a.mp4``) is its instruction.

    Raises:
        DataError: there is none; damaged; different sizes or rates; times that allow no rate; a text that is not UTF-8; links that
            lead outside.
    """
    files = video_files(path)
    if not files:
        raise DataError(f"{path} has no video in it ({', '.join(SUFFIXES)})")
    folder = path if path.is_dir() else path.parent
    for file in files:
        contained(folder, file.relative_to(folder))
    infos = [probe(file) for file in files]
    sizes = [info.shape[:2] for info in infos]
    _check_same(path, files, "sizes", sizes, [size != sizes[0] for size in sizes])
    rates = [info.fps for info in infos]
    same = _SAME_RATE if all(info.even for info in infos) else _SAME_JITTERED_RATE
    different = [abs(rate - rates[0]) > same * rates[0] for rate in rates]
    _check_same(path, files, "rates", [round(rate, 3) for rate in rates], different)
    tasks = tuple(_task(folder, file) for file in files)
    sources = [VideoFrames(file, info) for file, info in zip(files, infos, strict=True)]
    notes = [info.note(str(file)) for file, info in zip(files, infos, strict=True)]
    return Stored(
        frames={"video": LazyFrames(sources, infos[0].shape)},
        numbers={},
        ends=np.cumsum([len(source) for source in sources]),
        defaults={"pixels": Field("video")},
        control_hz=infos[0].fps,
        tasks=tasks if any(tasks) else None,
        notes=("no actions: it trains the video task only", *(note for note in notes if note)),
    )


def _task(folder: Path, file: Path) -> str:
    try:
        text = contained(folder, file.with_suffix(".txt").relative_to(folder))
        return read_regular_text(text, limit=_LONGEST_TEXT).removeprefix("\ufeff").strip()
    except FileNotFoundError:
        return ""


def _check_same(path: Path, files: list[Path], what: str, values: list[Any], different: list[bool]) -> None:
    if any(different):
        examples = "; ".join(f"{files[values.index(value)].name} {value}" for value in sorted(set(values))[:4])
        raise DataError(
            f"{path}: videos have different {what} ({examples}); bring them to one, for example with ffmpeg"
        )
