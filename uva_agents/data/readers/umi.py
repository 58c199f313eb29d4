"""UMI recordings: zarr (folder or ``.zarr.zip``) of hand-held grippers, about 60 Hz, poses of the tool in one fixed frame."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from uva_agents.data.fields import Field
from uva_agents.data.holes import raise_first
from uva_agents.data.readers.dataset import MissingExtraError, Stored
from uva_agents.data.readers.zarr_buffer import (
    declared_by,
    is_converted,
    is_zarr,
    read_arrays,
    read_beside,
    root_attributes,
)
from uva_agents.data.zarr_store import ZarrFiles
from uva_agents.errors import DataError
from uva_agents.utils.rotations import pose9_from_matrix, pose_matrix

UMI_HZ = 59.94
"""The cameras' rate. The released UVA trains at every third row."""


TOOL_POSE = tuple(f"eef.{name}" for name in ("x", "y", "z", "r11", "r12", "r13", "r21", "r22", "r23", "gripper"))
"""Position, the rotation's first two rows, width."""


def is_umi(path: Path) -> bool:
    """A zarr group whose arrays are UMI's: seen from folder names, or from the names in a zip."""
    return is_zarr(path) and _has_poses(path) and not is_converted(path)


def _has_poses(path: Path) -> bool:
    if path.is_dir():
        names = {child.name for child in (path / "data").iterdir()}
    else:
        try:
            with zipfile.ZipFile(path) as file:
                names = {name.split("/")[1] for name in file.namelist() if name.startswith("data/")}
        except (OSError, ValueError, IndexError, zipfile.BadZipFile, NotImplementedError):
            return False
    poses = {"eef_pos", "eef_rot_axis_angle"}
    return any({f"{arm}{name}" for name in poses} <= names for arm in ("robot0_", "")) or (
        "camera0_rgb" in names and bool(names & {"robot0_eef_pos", "eef_pos"})
    )


def read_umi(path: Path) -> Stored:
    """One arm's recordings at their own rate.

    ``action`` and ``agent_pos`` are the tool's pose and the gripper: position 3 (metres), the first two rows of the rotation 6,
    width 1 (metres), all in the frame of the recording. What to learn from is relative to the pose at 'now':
    :class:`~uva_agents.data.umi.UmiWindows`.

    Raises:
        ValueError: damaged; poses are missing; more than one arm.
        MissingExtraError: its pictures are JPEG XL or JPEG 2000 and imagecodecs is not installed.
    """
    _register_codecs(path)
    files = ZarrFiles(path)
    try:
        found = read_arrays(files)
        names = files.children("data")
        attributes = root_attributes(files, found.holes)
        beside = read_beside(files, attributes, found.left_out)
    finally:
        files.close()
    if "robot1_eef_pos" in names:
        raise DataError(f"{path} has two arms (robot1_*): only recordings with one gripper are read")
    frames, numbers = found.frames, found.numbers
    prefix = "robot0_" if "robot0_eef_pos" in names else ""
    wanted = [f"{prefix}{name}" for name in ("eef_pos", "eef_rot_axis_angle", "gripper_width")]
    missing = [name for name in wanted if name not in numbers]
    if missing:
        raise_first(found.holes, path)
        raise DataError(f"{path} lacks data/{', data/'.join(missing)}: UMI recordings have {', '.join(wanted)}")
    position, rotation, width = (np.asarray(numbers[name], np.float64) for name in wanted)
    rows = {name: len(numbers[name]) for name in wanted}
    if len(set(rows.values())) != 1:
        raise DataError(f"{path}: arrays have unequal lengths {rows}")
    shapes = {name: numbers[name].shape[1:] for name in wanted}
    if [*shapes.values()][:2] != [(3,), (3,)] or [*shapes.values()][2] not in ((), (1,)):
        raise DataError(f"{path}: rows of {shapes} are no positions (3), rotation vectors (3) and widths (1)")
    pose = pose_matrix(np.concatenate([position, rotation], axis=-1))
    numbers["tool_pose"] = np.concatenate([pose9_from_matrix(pose), width.reshape(len(width), -1)], axis=-1)
    defaults = {"action": Field("tool_pose"), "agent_pos": Field("tool_pose")}
    if "camera0_rgb" in frames:
        defaults["pixels"] = Field("camera0_rgb")
    hz, tasks = declared_by(path, attributes, found)
    assumed = f"rows are {UMI_HZ} Hz, the rate of UMI's cameras; the file does not say it"
    return Stored(
        frames=frames,
        numbers=numbers,
        ends=found.ends,
        defaults=defaults,
        control_hz=UMI_HZ if hz is None else hz,
        control_hz_assumed=hz is None,
        tasks=tasks,
        notes=(*found.notes, *([assumed] if hz is None else [])),
        left_out=found.left_out,
        holes=tuple(found.holes),
        beside=beside,
        names={"tool_pose": TOOL_POSE},
        action_offset=1,
    )


def _register_codecs(path: Path) -> None:
    """UMI's pictures are JPEG XL, unknown to zarr until a package adds it."""
    try:
        from imagecodecs.numcodecs import register_codecs
    except ImportError as error:
        from importlib.util import find_spec

        if find_spec("imagecodecs") is None and _needs_codecs(path):
            raise MissingExtraError(
                f"the pictures of {path} are JPEG XL or JPEG 2000, which need imagecodecs: "
                "pip install 'uva-agents[data]' (or pip install imagecodecs)"
            ) from error
        return
    register_codecs(verbose=False)


def _needs_codecs(path: Path) -> bool:
    """Whether the camera's metadata names one of imagecodecs' codecs."""
    name = "data/camera0_rgb/.zarray"
    try:
        if path.is_dir():
            text = (path / name).read_text(encoding="utf-8")
        else:
            with zipfile.ZipFile(path) as file:
                text = file.read(name).decode()
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, RuntimeError):
        return False
    return "imagecodecs" in text
