"""Diffusion-policy replay buffers: zarr 2 or 3, folder or ``.zarr.zip``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.data.fields import Field
from uva_agents.data.holes import Hole, Level, episodes_of
from uva_agents.data.lazy import LazyFrames
from uva_agents.data.readers.dataset import Stored, too_wide
from uva_agents.data.readers.metadata import names_of, rate_of, tasks_of, usual_camera
from uva_agents.data.replay_buffer import BLOCK_PUSH_FIELDS, PUSHT_FIELDS, read_ends
from uva_agents.data.zarr_arrays import (
    StoredArray,
    ZarrFrames,
    is_array,
    open_array,
    read_all,
    read_numbers,
    zarr_layout,
)
from uva_agents.data.zarr_store import ZarrFiles
from uva_agents.errors import DataError, UVAError

_CAMERAS = ("pixels", "img", "image", "camera0_rgb", "agentview_image", "agentview_rgb", "sideview_image", "camera_0")

CONVERTED = "converted_from"
"""Attribute of what ``uva data convert`` wrote: the format that it was."""
_UNDERSTOOD = ("control_hz", "tasks", "names", CONVERTED)
_ESSENTIAL = ("action", "actions", "agent_pos", "state")
"""Never left out when they are incomplete."""


def is_zarr(path: Path) -> bool:
    """A folder or zip file that holds a zarr group with ``data`` and ``meta``."""
    if path.is_dir():
        return (path / "meta").is_dir() and (path / "data").is_dir() and _is_group(path)
    return path.is_file() and path.name.endswith(".zip")


def read_zarr_buffer(path: Path) -> Stored:
    """See the module. Frames are arrays of pictures.

    Raises:
        DataError: not a replay buffer at all. What is wrong with single arrays or episodes is in :attr:`Stored.holes`.
    """
    files = ZarrFiles(path)
    try:
        found = read_arrays(files)
        attributes = root_attributes(files, found.holes)
        beside = read_beside(files, attributes, found.left_out)
    finally:
        files.close()
    hz, tasks = declared_by(path, attributes, found)
    widths = {key: math.prod(value.shape[1:]) for key, value in found.numbers.items()}
    names = names_of(attributes.get("names"), widths, f"{path}: the attribute names", found.holes)
    return Stored(
        frames=found.frames,
        numbers=found.numbers,
        ends=found.ends,
        defaults=_defaults(found, attributes.get("env")),
        control_hz=hz,
        tasks=tasks,
        notes=tuple(found.notes),
        left_out=found.left_out,
        holes=tuple(found.holes),
        beside=beside,
        names=names,
    )


def declared_by(
    path: Path, attributes: Mapping[str, Any], found: Arrays
) -> tuple[float | None, tuple[str, ...] | None]:
    """Rate and tasks of the root's attributes; what is wrong with them goes into ``found``."""
    where = f"{path}: the attribute"
    return (
        rate_of(attributes.get("control_hz"), f"{where} control_hz", found.holes),
        tasks_of(attributes.get("tasks"), f"{where} tasks", len(found.ends), found.holes),
    )


def is_converted(path: Path) -> bool:
    """Whether ``uva data convert`` wrote it: then its arrays have the names and the meaning that they have here."""
    try:
        files = ZarrFiles(path)
        try:
            return CONVERTED in root_attributes(files, [])
        finally:
            files.close()
    except (UVAError, OSError):
        return False


def read_beside(files: ZarrFiles, attributes: Mapping[str, Any], left_out: dict[str, str]) -> dict[str, Any]:
    """What a buffer holds beside arrays of steps, see :attr:`Stored.beside`; what cannot be read is added to ``left_out``."""
    found: dict[str, Any] = {
        f"attributes/{name}": value
        for name, value in attributes.items()
        if name not in _UNDERSTOOD and value is not None  # null says nothing
    }
    for name in files.children("meta"):
        key = f"meta/{name}"
        if name == "episode_ends":
            continue
        try:
            if is_array(files, key) is False:
                left_out[key] = "a group, only arrays are read"
                continue
            stored = open_array(files, key)
            if stored.dtype.kind not in "fiub":
                left_out[key] = f"its type is {stored.dtype}"
                continue
            found[key] = read_all(stored)
        except DataError as error:
            left_out[key] = str(error)
    for name in files.children("data"):
        try:
            described = files.metadata(f"data/{name}/.zattrs") or files.metadata(f"data/{name}/zarr.json") or {}
        except DataError:
            continue  # the array's own reading says it
        inner = described.get("attributes", {}) if "zarr_format" in described else described
        if inner and isinstance(inner, dict):
            found[f"data/{name}/attributes"] = None
    found.update({name: None for name in files.children("") if name not in ("data", "meta")})
    return found


@dataclass
class Arrays:
    """What ``data/`` and ``meta/`` hold.

    Attributes:
        frames, numbers: by name.
        ends: (E,) as in :class:`Stored`.
        notes, left_out, holes: see :class:`Stored`.
    """

    frames: dict[str, LazyFrames] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    ends: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    holes: list[Hole] = field(default_factory=list)


def read_arrays(files: ZarrFiles) -> Arrays:
    """Cameras, numbers, episodes, and what is wrong with each.

    Raises:
        DataError: there is no ``data/``, or nothing in it.
    """
    found = Arrays()
    path, names = files.path, files.children("data")
    if not names:
        if not files.children(""):
            raise DataError(f"{path} is not a zarr group: there is nothing in it that zarr would know")
        raise DataError(f"{path} has no group data/: it is not a replay buffer (is the path one level off?)")
    partly: list[tuple[str, np.ndarray, str]] = []
    for name in names:
        key = f"data/{name}"
        try:
            if is_array(files, key) is False:
                found.left_out[key] = "a group, only arrays are read"
                continue
            stored = open_array(files, key)
        except DataError as error:
            _lose(found, key, str(error), grave=_is_essential(files, name))
            continue
        partly += _take(found, path, name, stored)
    rows = [len(numbers) for numbers in found.numbers.values()] + [len(frames) for frames in found.frames.values()]
    acts = [len(found.numbers[name]) for name in ("action", "actions") if name in found.numbers]
    steps = max(set(rows), key=lambda count: (rows.count(count), count in acts)) if rows else 0
    found.ends, holes = read_ends(files, steps)
    found.holes += holes
    _leave_out_misfits(found, path)
    for key, bad, problem in partly:
        if key in found.left_out:
            continue
        episodes = episodes_of(bad, found.ends) if not holes else None
        found.holes.append(Hole(problem, key, episodes=episodes))
    return found


def _leave_out_misfits(found: Arrays, path: Path) -> None:
    """Leave out by name what is not one row per step, unless it is actions, positions or the main camera."""
    action = next((name for name in ("action", "actions") if name in found.numbers), None)
    rows = {name: len(value) for name, value in found.numbers.items()}
    rows |= {name: len(value) for name, value in found.frames.items()}
    if not rows:
        return
    main = usual_camera(_CAMERAS, found.frames, {key.removeprefix("data/") for key in found.left_out})
    steps = rows[action] if action is not None else max(rows.values(), key=[*rows.values()].count)
    other = [name for name, count in rows.items() if count != steps]
    if 2 * len(other) > len(rows):  # then it is the actions that do not fit
        return
    for name in other:
        if name not in _ESSENTIAL and name != main and not name.startswith("robot0_"):
            found.left_out[f"data/{name}"] = f"{path}/data/{name} has {rows[name]} rows for {steps} steps"
            found.frames.pop(name, None)
            found.numbers.pop(name, None)


def _take(found: Arrays, path: Path, name: str, stored: StoredArray) -> list[tuple[str, np.ndarray, str]]:
    """Sort an array in; returns its key, unreadable rows and what is wrong with them, where that is not all of it."""
    key = f"data/{name}"
    essential = name in _ESSENTIAL or name.startswith("robot0_")
    if len(stored.bad) and (len(stored.bad) == stored.shape[0] or not (essential or len(stored.shape) == 4)):
        _lose(found, key, stored.problem, grave=essential or len(stored.shape) == 4)
        return []
    try:
        layout = zarr_layout(stored)
    except DataError as error:
        found.left_out[key] = str(error)
        return []
    if layout is not None:
        found.frames[name] = LazyFrames([ZarrFrames(path, key, layout)], layout.frame_shape)
        if layout.note:
            found.notes.append(f"{key}: {layout.note}")
        return [(key, stored.bad, stored.problem)] if len(stored.bad) else []
    if name in _CAMERAS:
        found.left_out[key] = f"{stored.dtype} {stored.shape} is no array of pictures (N, H, W, 3), as its name says"
        return []
    if stored.dtype.kind not in "fiub":
        if essential:
            what = f"{stored.name} is {stored.dtype}, real numbers were expected: write it again as float32"
            found.holes.append(Hole(what, key))
        found.left_out[key] = f"its type is {stored.dtype}"
        return []
    if too_wide(stored.shape):
        found.left_out[key] = f"{stored.shape[1:]} numbers per row"
        return []
    try:
        values, bad, problem = read_numbers(stored)
    except DataError as error:
        _lose(found, key, str(error), grave=essential)
        return []
    if len(bad) and not essential:
        _lose(found, key, problem, grave=False)
        return []
    found.numbers[name] = values
    return [(key, bad, problem)] if len(bad) else []


def _lose(found: Arrays, key: str, why: str, *, grave: bool) -> None:
    level: Level = "error" if grave else "warn"
    found.left_out[key] = why
    found.holes.append(Hole(why, key, level))


def _is_essential(files: ZarrFiles, name: str) -> bool:
    """Whether an array that cannot be opened would be one of those that matter: by its name, or by its chunks' four numbers."""
    if name in _ESSENTIAL or name in _CAMERAS or name.startswith(("robot0_", "camera", "img", "image")):
        return True
    try:
        chunks = list(files.sizes(f"data/{name}"))
    except DataError:
        return True
    return any(len(chunk.replace("/", ".").removeprefix("c.").split(".")) == 4 for chunk in chunks)


def root_attributes(files: ZarrFiles, holes: list[Hole]) -> dict[str, Any]:
    """Of the root, whichever zarr it is; what is wrong with them goes into ``holes``."""
    read: tuple[tuple[str, Callable[[Any], Any]], ...] = (
        (".zattrs", lambda value: value),
        ("zarr.json", lambda value: value.get("attributes", {}) if isinstance(value, dict) else value),
    )
    for key, attributes in read:
        try:
            value = files.metadata(key)
            if value is None and not (files.path / key).is_symlink():
                if key == "zarr.json" and files.metadata(".zgroup") is None and _is_third(files):
                    text = f"{files.path} has no zarr.json: the rate and the tasks that it may have said are lost"
                    holes.append(Hole(text, key, "warn"))
                continue
            value = attributes(value)
            if not isinstance(value, dict):
                raise DataError(f"{files.path}/{key} holds no attributes but {value!r:.40}: repair it or copy it again")
            return value
        except DataError as error:
            holes.append(Hole(str(error), key))
            return {}
    return {}


def _is_third(files: ZarrFiles) -> bool:
    return any(files.path.joinpath(f"data/{name}/zarr.json").exists() for name in files.children("data")[:3])


def _defaults(arrays: Arrays, environment: object) -> dict[str, Field]:
    frames, numbers = arrays.frames, arrays.numbers
    found: dict[str, Field] = {}
    camera = usual_camera(_CAMERAS, frames, {key.removeprefix("data/") for key in arrays.left_out})
    if camera is not None:
        found["pixels"] = Field(camera)
    if "img_wrist" in frames:
        found["pixels_wrist"] = Field("img_wrist")
    action = next((name for name in ("action", "actions") if name in numbers), None)
    if action is not None:
        found["action"] = Field(action)
    width = math.prod(numbers["state"].shape[1:]) if "state" in numbers else 0
    if "agent_pos" in numbers:
        found["agent_pos"] = Field("agent_pos")
    elif environment == "uva/BlockPush-v0" and width > 14:
        found.update({name: BLOCK_PUSH_FIELDS[name] for name in ("agent_pos", "keypoints")})
    elif "state" in numbers and action is not None:
        # PushT's state is the agent, the block and its angle; elsewhere the state is the robot's.
        pusht = numbers["state"].shape[1:] == (5,) and numbers[action].shape[1:] == (2,)
        found["agent_pos"] = PUSHT_FIELDS["agent_pos"] if pusht else Field("state")
    if "keypoint" in numbers:
        found["keypoints"] = PUSHT_FIELDS["keypoints"]
    return found


def _is_group(path: Path) -> bool:
    # Copies of published datasets often lack the group files of their root.
    return any((folder / name).exists() for folder in (path, path / "data") for name in (".zgroup", "zarr.json"))
