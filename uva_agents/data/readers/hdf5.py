"""robomimic and LIBERO demonstrations: hdf5 with ``data/demo_N/actions`` and ``data/demo_N/obs/*``; a file or a folder of them."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.data.contained import contained, is_hidden
from uva_agents.data.fields import Field
from uva_agents.data.holes import Hole, listed
from uva_agents.data.lazy import LazyFrames
from uva_agents.data.readers.dataset import Stored
from uva_agents.data.readers.demonstrations import Demonstrations
from uva_agents.data.readers.hdf5_names import (
    LIBERO_CAMERAS,
    LIBERO_PROPRIO,
    LIBERO_WRIST,
    ROBOMIMIC_CAMERAS,
    ROBOMIMIC_PROPRIO,
    essential_keys,
)
from uva_agents.data.readers.metadata import usual_camera
from uva_agents.errors import DataError

SUFFIXES = (".hdf5", ".h5")


def hdf5_files(path: Path) -> list[Path]:
    """The file itself, or those directly in a folder, sorted by name."""
    if path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else []
    children = path.iterdir() if path.is_dir() else ()
    return sorted(child for child in children if child.suffix.lower() in SUFFIXES and not is_hidden(child, path))


def has_demonstrations(path: Path) -> bool:
    """Whether there are hdf5 files; a damaged one counts, so that reading it says what is wrong."""
    return bool(hdf5_files(path))


def read_demonstrations(path: Path) -> Stored:
    """Every demonstration of every file, in the order of their numbers.

    LIBERO's pictures are stored upside down; they come out upright. Its tasks are the files' names in words, as in the released
    UVA, and its environments run at the rate that the file says.

    Raises:
        DataError: a file that cannot be opened, has no demonstration, or is a link out of the folder; files that do not
            hold the same. What is wrong with single demonstrations and arrays is in :attr:`Stored.holes`.
        MissingExtraError: h5py is not installed.
    """
    files = hdf5_files(path)
    if not files:
        raise DataError(f"{path} has no file {' or '.join(SUFFIXES)}: it holds no robomimic or LIBERO demonstrations")
    for file in files if path.is_dir() else ():
        contained(path, file.name)
    parts = [Demonstrations(file) for file in files]
    first = parts[0]
    holes: list[Hole] = []
    begin = 0
    left_out = _leave_out_misfits(parts)
    for part in parts:
        if part.shapes != first.shapes:
            different = sorted(k for k in {*part.shapes, *first.shapes} if part.shapes.get(k) != first.shapes.get(k))
            raise DataError(
                f"{part.path.name} and {first.path.name} do not hold the same arrays; they differ in {', '.join(different)}"
            )
        if part.libero != first.libero:
            ours, other = (part, first) if part.libero else (first, part)
            raise DataError(
                f"{ours.path.name} is LIBERO's, whose pictures are stored upside down, and {other.path.name} does not say so "
                "(no attribute bddl_file_name of data/): open them one by one, or add the attribute"
            )
        if part.control_hz != first.control_hz:
            text = f"{part.path.name} was recorded at {part.control_hz} Hz, {first.path.name} at {first.control_hz} Hz"
            holes.append(Hole(text, str(part.path)))
        if part.layouts != first.layouts:
            text = f"{part.path.name} and {first.path.name} do not store their pictures alike: bring them to one layout"
            raise DataError(text)
        holes += [shifted(hole, begin) for hole in part.holes]
        begin += len(part.lengths)
    lengths = np.concatenate([part.lengths for part in parts])
    notes = [*dict.fromkeys(note for part in parts for note in part.notes)]
    deeper = [file for folder in _subfolders(path) for file in hdf5_files(folder)]
    if deeper:
        notes.append(f"hdf5 files in subfolders are not read, open each folder by itself: {listed(deeper, 3)}")
    if first.libero:
        notes.append("LIBERO: pictures are stored upside down, turned upright here")
        notes.append(
            "LIBERO's script records what is seen after each row's action: WindowSpec(action_offset=1) is the next one"
        )
    frames = {
        key: LazyFrames(
            [source for part in parts for source in part.sources(key)],
            first.layouts[key].frame_shape,
            change=_upright if first.libero else None,
            name="upright" if first.libero else "",
        )
        for key in first.cameras
    }
    numbers = {key: np.concatenate([part.numbers[key] for part in parts]) for key in first.numbers}
    named = any(part.task for part in parts)
    return Stored(
        frames=frames,
        numbers=numbers,
        ends=np.cumsum(lengths),
        defaults=_defaults(frames, numbers, left_out, libero=first.libero),
        control_hz=first.control_hz,
        tasks=tuple(part.task or "" for part in parts for _ in part.lengths) if named else None,
        notes=tuple(notes),
        left_out=left_out,
        holes=tuple(holes),
        beside=_beside(parts),
        action_offset=1 if first.libero else 0,
    )


def _beside(parts: list[Demonstrations]) -> dict[str, Any]:
    """What the files hold beside steps: masks one after another, attributes where all files say the same."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for part in parts for key in part.beside):
        values = [part.beside.get(key) for part in parts]
        if key.startswith("meta/") and any(isinstance(value, np.ndarray) for value in values):
            masks = [np.zeros(len(p.lengths), bool) if v is None else v for p, v in zip(parts, values, strict=True)]
            found[key] = np.concatenate(masks)
        else:
            found[key] = values[0] if all(value == values[0] for value in values) else None
    return found


def _subfolders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(child for child in path.rglob("*") if child.is_dir() and not is_hidden(child, path))


def _leave_out_misfits(parts: Sequence[Demonstrations]) -> dict[str, str]:
    """Take out of all files what one lacks or stores otherwise, but for what is essential: key -> why it is not read."""
    first = parts[0]
    left_out = {key: why for part in parts for key, why in part.left_out.items()}
    essential = essential_keys([key for part in parts for key in part.cameras], left_out)
    for key in sorted({key for part in parts for key in part.shapes} - essential):
        for part in parts:
            if (part.shapes.get(key), part.layouts.get(key)) == (first.shapes.get(key), first.layouts.get(key)):
                continue
            widths = [
                f"in {p.path.name} " + (f"{p.shapes[key]} per row" if key in p.shapes else "none")
                for p in (first, part)
            ]
            left_out.setdefault(key, f"it differs between files: {', '.join(widths)}")
            for each in parts:
                each.leave_out(key)
            break
    return left_out


def shifted(hole: Hole, begin: int) -> Hole:
    """The same hole where this file's first episode has the number ``begin``."""
    return hole if hole.episodes is None else replace(hole, episodes=tuple(e + begin for e in hole.episodes))


def _defaults(
    frames: dict[str, LazyFrames], numbers: dict[str, np.ndarray], left_out: Container[str], *, libero: bool
) -> dict[str, Field]:
    found = {"action": Field("actions")}
    named = all(f"obs/{name}" in frames for name in LIBERO_CAMERAS)
    if libero or (named and all(f"obs/{name}" in numbers for name in LIBERO_PROPRIO)):
        cameras, wrist, proprio = LIBERO_CAMERAS, LIBERO_WRIST, LIBERO_PROPRIO
    else:
        cameras, wrist, proprio = ROBOMIMIC_CAMERAS, "robot0_eye_in_hand_image", ROBOMIMIC_PROPRIO  # type: ignore[assignment]
    camera = usual_camera([f"obs/{name}" for name in cameras], frames, left_out)
    if camera is not None:
        found["pixels"] = Field(camera)
    if f"obs/{wrist}" in frames and camera != f"obs/{wrist}":
        found["pixels_wrist"] = Field(f"obs/{wrist}")
    keys = tuple(f"obs/{name}" for name in proprio)
    if all(key in numbers for key in keys):
        found["agent_pos"] = Field(keys)
    return found


def _upright(frames: np.ndarray) -> np.ndarray:
    return frames[:, ::-1]
