"""Minari datasets, hdf5: ``data/main_data.hdf5`` with ``episode_N/observations``, ``actions``, ``rewards``."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.data.fields import Field
from uva_agents.data.layouts import PictureLayout, decoded_picture
from uva_agents.data.lazy import LazyFrames, file_identity
from uva_agents.data.readers.dataset import Stored, too_wide
from uva_agents.data.readers.hdf5 import Hdf5Frames, hdf5_layout, open_hdf5
from uva_agents.errors import DataError

if TYPE_CHECKING:
    import h5py

_MAIN = "main_data.hdf5"


class JpegFrames(Hdf5Frames):
    """Frames stored as JPEG files, one per row, in an hdf5 dataset."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        with open_hdf5(self.path) as file:
            stored = file[self.key][rows]
        try:
            return np.stack([_decoded(data) for data in stored])
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.path}: {self.key}: a picture around row {rows[0]} is damaged: {error}") from error


def is_minari(path: Path) -> bool:
    """The folder of a dataset, its ``data`` folder, or its main file."""
    return path.name == _MAIN or any((folder / _MAIN).exists() for folder in (path, path / "data")) or _is_arrow(path)


def read_minari(path: Path) -> Stored:
    """All episodes. Of the observations, which are one more than the actions, those that an action follows.

    Raises:
        ValueError: damaged, stored as arrow, observations that are not arrays or dictionaries of them.
        MissingExtraError: h5py is not installed.
    """
    if path.is_dir() and _is_arrow(path):
        raise ValueError(
            f'{path} is a Minari dataset stored as arrow: only Minari\'s default, data_format="hdf5", is read'
        )
    main = path if path.name == _MAIN else next(f / _MAIN for f in (path, path / "data") if (f / _MAIN).exists())
    try:
        described = json.loads((main.parent / "metadata.json").read_text())
    except FileNotFoundError:
        described = {}
    with open_hdf5(main) as file:
        try:
            return _read(file, main, described)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{main} is damaged: {error}; copy it again") from error


def _read(file: h5py.File, main: Path, described: dict[str, Any]) -> Stored:
    names = sorted((n for n in file if re.fullmatch(r"episode_\d+", n)), key=lambda n: int(n.rsplit("_", 1)[1]))
    if not names:
        raise ValueError(f"{main}: the dataset is empty (no episode_N in it)")
    said = described.get("total_episodes")
    if said is not None and int(said) != len(names):
        raise ValueError(f"{main}: metadata.json promises {said} episodes, {len(names)} are there: copy it again")
    images = _image_keys(described)
    identity = file_identity(main)
    first = _leaves(file[names[0]])
    numbers: dict[str, list[np.ndarray]] = {}
    sources: dict[str, list[Any]] = {}
    shapes: dict[str, tuple[int, int, int]] = {}
    layouts: dict[str, PictureLayout | None] = {}
    left_out: dict[str, str] = {}
    notes: list[str] = []
    lengths = []
    for name in names:
        leaves = _leaves(file[name])
        if "actions" not in leaves:
            raise ValueError(f"{main}: {name} has no actions that are one array; other action spaces are not read")
        count = len(leaves["actions"])
        if not count:
            raise ValueError(f"{main}: {name} has no step")
        for key in first:
            if key not in leaves:
                raise ValueError(f"{main}: {name} has no {key}, which {names[0]} has")
            array = leaves[key]
            if key.startswith("infos"):
                left_out[key] = "what Minari calls infos is not read"
                continue
            expected = count + 1 if key.startswith("observations") else count
            if len(array) != expected:
                raise ValueError(f"{main}: {name}/{key} has {len(array)} rows for {count} actions; expected {expected}")
            jpeg = key in images and (array.dtype.kind == "O" or array.ndim == 2)
            if key in left_out:
                continue
            try:
                layout = None if jpeg else hdf5_layout(array, f"{main}: {name}/{key}")
            except DataError as error:
                left_out[key] = str(error)
                continue
            if jpeg or layout is not None:
                kind = JpegFrames if jpeg else Hdf5Frames
                if layout != layouts.setdefault(key, layout):
                    raise DataError(f"{main}: the pictures {key} of {name} are not stored as those of {names[0]}")
                sources.setdefault(key, []).append(kind(main, f"{name}/{key}", count, identity, layout))
                if key not in shapes:
                    height, width = _decoded(array[0]).shape[:2] if layout is None else layout.size
                    shapes[key] = (height, width, 3)
                    if layout is not None and layout.note:
                        notes.append(f"{key}: {layout.note}")
            elif array.dtype.kind in "fiub" and not too_wide(array.shape):
                numbers.setdefault(key, []).append(np.asarray(array[:count]))
            else:
                left_out[key] = f"{array.dtype} {array.shape[1:]} per row"
        lengths.append(count)
    frames = {key: LazyFrames(parts, shapes[key]) for key, parts in sources.items() if key not in left_out}
    joined = {key: np.concatenate(parts) for key, parts in numbers.items() if key not in left_out}
    if images & set(frames):
        notes.append("pictures are JPEG, as Minari stores them: not exactly what the environment drew")
    return Stored(frames, joined, np.cumsum(lengths), _defaults(frames, joined), notes=tuple(notes), left_out=left_out)


def _leaves(group: h5py.Group, prefix: str = "") -> dict[str, h5py.Dataset]:
    """Arrays of an episode by key, through dictionaries."""
    found: dict[str, Any] = {}
    for name, value in group.items():
        key = f"{prefix}{name}"
        if hasattr(value, "keys"):
            found.update(_leaves(value, f"{key}/"))
        elif value.ndim:
            found[key] = value
    return found


def _defaults(frames: dict[str, LazyFrames], numbers: dict[str, np.ndarray]) -> dict[str, Field]:
    found = {"action": Field("actions")}
    camera = "observations/pixels" if "observations/pixels" in frames else next(iter(frames), None)
    if camera is not None:
        found["pixels"] = Field(camera)
    for key in ("observations/agent_pos", "observations/state", "observations/observation", "observations"):
        if key in numbers:
            found["agent_pos"] = Field(key)
            break
    return found


def _image_keys(described: dict[str, Any]) -> set[str]:
    """Keys of observations that Minari stores as JPEG: uint8 pictures, unless it was told not to, as can be since 0.5.4."""
    if not described.get("jpeg_encoding", True):
        return set()
    space = described.get("observation_space", {})
    space = json.loads(space) if isinstance(space, str) else space
    found: set[str] = set()

    def visit(part: Any, key: str) -> None:
        if not isinstance(part, dict):
            return
        if part.get("type") == "Dict":
            for name, child in part.get("subspaces", {}).items():
                visit(child, f"{key}/{name}")
        elif part.get("type") == "Box" and "uint8" in str(part.get("dtype")) and len(part.get("shape", ())) in (2, 3):
            found.add(key)

    visit(space, "observations")
    return found


def _decoded(data: np.ndarray) -> np.ndarray:
    from PIL import Image

    return decoded_picture(Image.open(io.BytesIO(np.asarray(data, np.uint8).tobytes())))


def _is_arrow(path: Path) -> bool:
    for folder in (path, path / "data"):
        try:
            if json.loads((folder / "metadata.json").read_text()).get("data_format") == "arrow":
                return True
        except (OSError, ValueError, AttributeError):
            continue
    return False
