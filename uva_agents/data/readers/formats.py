"""The front door: which format a path holds, and opening it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from uva_agents.data.fields import Field
from uva_agents.data.readers.dataset import Dataset, Stored, to_dataset
from uva_agents.data.readers.hdf5 import SUFFIXES, has_demonstrations, read_demonstrations
from uva_agents.data.readers.lerobot import is_lerobot, read_lerobot
from uva_agents.data.readers.minari import is_minari, read_minari
from uva_agents.data.readers.umi import is_umi, read_umi
from uva_agents.data.readers.video_folder import is_video_folder, read_video_folder
from uva_agents.data.readers.zarr_buffer import is_zarr, read_zarr_buffer


@dataclass(frozen=True)
class Format:
    """A way in which datasets are stored.

    Attributes:
        name: short, what ``open_dataset(format=...)`` takes.
        title: in words.
        recognises: whether a path holds it, told from names of files and folders alone, in milliseconds.
        read: the reader.
    """

    name: str
    title: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Stored]


# In this order: a more particular format before the one that it is a case of.
FORMATS = {
    found.name: found
    for found in (
        Format("lerobot", "LeRobot v3 (meta/info.json, parquet and mp4)", is_lerobot, read_lerobot),
        Format("umi", "UMI zarr (data/camera0_rgb and data/robot0_eef_pos)", is_umi, read_umi),
        Format(
            "zarr",
            "diffusion-policy zarr, folder or .zarr.zip (data/ and meta/episode_ends)",
            is_zarr,
            read_zarr_buffer,
        ),
        Format("minari", "Minari (data/main_data.hdf5)", is_minari, read_minari),
        Format(
            "hdf5",
            "robomimic or LIBERO hdf5, a file or a folder (data/demo_N)",
            has_demonstrations,
            read_demonstrations,
        ),
        Format("video", "a folder of videos without actions (.mp4)", is_video_folder, read_video_folder),
    )
}


def recognise(path: str | Path) -> Format:
    """The format of the dataset at ``path``, told from names of files and folders; nothing is opened.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no known format, with what was found and what to do.
    """
    path = Path(path)
    if not path.exists():
        near = difflib.get_close_matches(path.name, _names(path.parent), n=2) if path.parent.is_dir() else []
        raise FileNotFoundError(f"no dataset at {path}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    for found in FORMATS.values():
        if found.recognises(path):
            return found
    raise ValueError(f"{path} holds no dataset of a known format. {_advice(path)}")


def open_dataset(
    path: str | Path, *, format: str | None = None, fields: Mapping[str, str | Field] | None = None
) -> Dataset:
    """Open a dataset of any known format; frames stay on disk until they are looked at.

    Args:
        path: file or folder.
        format: a name of :data:`FORMATS`, instead of recognising it.
        fields: canonical name -> stored key, or a :class:`~uva_agents.data.Field` that joins keys or takes columns; what is not
            named here is where the format usually has it. ``{"pixels": "obs/robot0_eye_in_hand_image"}`` takes another camera.

    Raises:
        FileNotFoundError: nothing there.
        MissingExtraError: a package is not installed; it names the extra.
        ValueError: no known format, damaged or contradictory data, a key that does not exist.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise ValueError(f"format={format!r} is unknown: pass one of {', '.join(FORMATS)}")
    if format is not None and not path.exists():
        raise FileNotFoundError(f"no dataset at {path}")
    found = FORMATS[format] if format is not None else recognise(path)
    return to_dataset(path, found.name, found.read(path), fields)


def _advice(path: Path) -> str:
    """What a path that nothing recognised looks like, and what to do."""
    if path.is_file():
        return f"Known files: {', '.join(SUFFIXES)} and .zarr.zip; known folders: {_known()}"
    inside = [child for child in sorted(path.iterdir()) if child.is_dir() or child.suffix == ".zip"]
    for child in inside[:50]:
        for found in FORMATS.values():
            if found.recognises(child):
                return f"But {child} is {found.title}: pass that"
    if (path / "meta" / "episodes.jsonl").exists():
        return "It looks like LeRobot v2: convert it with lerobot's own convert_dataset_v21_to_v30"
    if any(found.recognises(path.parent) for found in FORMATS.values()):
        return f"But the folder above is one: pass {path.parent}"
    names = _names(path)
    listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return f"Found: {listed or 'an empty folder'}. Known: {_known()}"


def _known() -> str:
    return "; ".join(found.title for found in FORMATS.values())


def _names(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir())
