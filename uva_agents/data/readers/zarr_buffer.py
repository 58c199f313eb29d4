"""Diffusion-policy replay buffers: zarr 2 or 3, folder or ``.zarr.zip``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

from uva_agents.data.fields import Field
from uva_agents.data.lazy import LazyFrames
from uva_agents.data.readers.dataset import Stored, too_wide
from uva_agents.data.replay_buffer import BLOCK_PUSH_FIELDS, PUSHT_FIELDS
from uva_agents.data.zarr_arrays import ZarrFrames, array_names, check_array, open_group, read_array, zarr_layout
from uva_agents.errors import DataError

_CAMERAS = ("pixels", "img", "image", "camera0_rgb", "agentview_image", "agentview_rgb", "sideview_image", "camera_0")

_ESSENTIAL = ("action", "actions", "agent_pos", "state")
"""Never left out when they are incomplete."""


def is_zarr(path: Path) -> bool:
    """A folder or zip file that holds a zarr group with ``data`` and ``meta``."""
    if path.is_dir():
        return (path / "meta").is_dir() and (path / "data").is_dir() and _is_group(path)
    return path.is_file() and path.name.endswith(".zip")


def read_zarr_buffer(path: Path) -> Stored:
    """See the module. Frames are arrays (N, H, W, 3).

    Raises:
        ValueError: not a replay buffer; chunks are missing or cut short; arrays differ in length.
    """
    root = open_group(path)
    frames, numbers, notes, left_out = read_arrays(root, path)
    attributes = dict(root.attrs)
    hz = attributes.get("control_hz")
    tasks = attributes.get("tasks")
    return Stored(
        frames=frames,
        numbers=numbers,
        ends=read_ends(root, path),
        defaults=_defaults(frames, numbers, attributes.get("env")),
        control_hz=float(hz) if isinstance(hz, int | float) else None,
        tasks=tuple(map(str, tasks)) if isinstance(tasks, list) else None,
        notes=tuple(notes),
        left_out=left_out,
    )


def read_arrays(
    root: zarr.Group, path: Path
) -> tuple[dict[str, LazyFrames], dict[str, np.ndarray], list[str], dict[str, str]]:
    """Cameras, numbers and remarks of ``data/``, and what is not read: stored key -> why."""
    frames: dict[str, LazyFrames] = {}
    numbers: dict[str, np.ndarray] = {}
    notes: list[str] = []
    left_out = {f"data/{name}": "a group, only arrays are read" for name in sorted(root["data"].group_keys())}  # type: ignore[union-attr]
    for name in array_names(root, path):
        try:
            array = check_array(root[f"data/{name}"], f"{path}/data/{name}")
        except ValueError as error:
            stored = root[f"data/{name}"]
            if name in _ESSENTIAL or name.startswith("robot0_") or getattr(stored, "ndim", 4) == 4:
                raise
            left_out[f"data/{name}"] = str(error)
            continue
        try:
            layout = zarr_layout(array, f"{path}/data/{name}")
        except DataError as error:
            left_out[f"data/{name}"] = str(error)
            continue
        if layout is not None:
            frames[name] = LazyFrames([ZarrFrames(path, f"data/{name}", layout)], layout.frame_shape)
            if layout.note:
                notes.append(f"data/{name}: {layout.note}")
        elif array.dtype.kind not in "fiub":
            left_out[f"data/{name}"] = f"its type is {array.dtype}"
        elif too_wide(array.shape):
            left_out[f"data/{name}"] = f"{array.shape[1:]} numbers per row"
        else:
            numbers[name] = read_array(array, f"{path}/data/{name}")
    return frames, numbers, notes, left_out


def read_ends(root: zarr.Group, path: Path) -> np.ndarray:
    """``meta/episode_ends``."""
    if "meta/episode_ends" not in root:
        raise ValueError(f"{path} has no meta/episode_ends: it is not a replay buffer")
    return read_array(root["meta/episode_ends"], f"{path}/meta/episode_ends")


def _defaults(frames: dict[str, LazyFrames], numbers: dict[str, np.ndarray], environment: object) -> dict[str, Field]:
    found: dict[str, Field] = {}
    camera = next((name for name in _CAMERAS if name in frames), next(iter(frames), None))
    if camera is not None:
        found["pixels"] = Field(camera)
    if "img_wrist" in frames:
        found["pixels_wrist"] = Field("img_wrist")
    action = next((name for name in ("action", "actions") if name in numbers), None)
    if action is not None:
        found["action"] = Field(action)
    if "agent_pos" in numbers:
        found["agent_pos"] = Field("agent_pos")
    elif environment == "uva/BlockPush-v0":
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
