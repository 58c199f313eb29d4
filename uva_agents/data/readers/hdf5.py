"""robomimic and LIBERO demonstrations: hdf5 with ``data/demo_N/actions`` and ``data/demo_N/obs/*``; a file or a folder of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.data.fields import Field
from uva_agents.data.layouts import PictureLayout, picture_layout
from uva_agents.data.lazy import FrameSource, LazyFrames, file_identity
from uva_agents.data.readers.dataset import MissingExtraError, Stored, too_wide
from uva_agents.errors import DataError

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".hdf5", ".h5")
_ROBOMIMIC_CAMERAS = ("sideview_image", "agentview_image", "frontview_image", "robot0_eye_in_hand_image")
_ROBOMIMIC_PROPRIO = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, for reading.

    Raises:
        MissingExtraError: h5py is not installed.
        ValueError: it is damaged, or no hdf5 file.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is hdf5, which needs h5py: pip install 'uva-agents[data]' (or pip install h5py)"
        ) from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} cannot be opened; it is damaged, cut short or no hdf5 file: {error}") from error
    try:
        yield file
    finally:
        file.close()


class Hdf5Frames:
    """Frames of one dataset of pictures in an hdf5 file.

    Args:
        count: how many of its rows to use.
        layout: how they are stored; by default as they come out.
    """

    def __init__(self, path: Path, key: str, count: int, identity: str, layout: PictureLayout | None = None) -> None:
        self.path, self.key, self.count, self.layout = path, key, count, layout
        self.identity = f"{identity}:{key}"

    def __len__(self) -> int:
        return self.count

    def read(self, rows: np.ndarray) -> np.ndarray:
        with open_hdf5(self.path) as file:
            try:
                if len(rows) == rows[-1] - rows[0] + 1:  # much faster than a list of rows
                    found = np.asarray(file[self.key][int(rows[0]) : int(rows[-1]) + 1])
                else:
                    found = np.asarray(file[self.key][rows])
            except (OSError, KeyError) as error:
                raise ValueError(f"{self.path}: {self.key} cannot be read around row {rows[0]}: {error}") from error
        return found if self.layout is None else self.layout.convert(found, f"{self.path}: {self.key}")


def hdf5_layout(array: h5py.Dataset, source: str) -> PictureLayout | None:
    """The layout of an array of pictures, ``None`` for numbers.

    Raises:
        DataError: see :func:`~uva_agents.data.layouts.picture_layout`.
    """
    return picture_layout(tuple(array.shape), array.dtype, lambda rows: np.asarray(array[rows]), source)


def hdf5_files(path: Path) -> list[Path]:
    """The file itself, or those directly in a folder, sorted by name."""
    if path.is_file():
        return [path] if path.suffix in SUFFIXES else []
    return sorted(child for child in path.iterdir() if child.suffix in SUFFIXES) if path.is_dir() else []


def has_demonstrations(path: Path) -> bool:
    """Whether there are hdf5 files; a damaged one counts, so that reading it says what is wrong."""
    return bool(hdf5_files(path))


def read_demonstrations(path: Path) -> Stored:
    """Every demonstration of every file, in the order of their numbers.

    LIBERO's pictures are stored upside down; they come out upright. Its tasks are the files' names in words, as in the released
    UVA, and its environments run at the rate that the file says.

    Raises:
        ValueError: a damaged file; a demonstration without a key that the first one has, or with arrays of unequal length.
        MissingExtraError: h5py is not installed.
    """
    parts = [_File(file) for file in hdf5_files(path)]
    first = parts[0]
    for part in parts[1:]:
        if part.shapes != first.shapes:
            different = sorted(k for k in {*part.shapes, *first.shapes} if part.shapes.get(k) != first.shapes.get(k))
            raise ValueError(
                f"{part.path.name} and {first.path.name} do not hold the same arrays; they differ in {', '.join(different)}"
            )
        if part.control_hz != first.control_hz:
            raise ValueError(
                f"{part.path.name} was recorded at {part.control_hz} Hz, {first.path.name} at {first.control_hz} Hz"
            )
    lengths = np.concatenate([part.lengths for part in parts])
    notes = [*first.notes]
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
        defaults=_defaults(frames, numbers, libero=first.libero),
        control_hz=first.control_hz,
        tasks=tuple(part.task or "" for part in parts for _ in part.lengths) if named else None,
        notes=tuple(notes),
        left_out={key: why for part in parts for key, why in part.left_out.items()},
    )


class _File:
    """One file: its numbers, and where its frames are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity = file_identity(path)
        self.notes: list[str] = []
        self.left_out: dict[str, str] = {}
        self.layouts: dict[str, PictureLayout] = {}
        with open_hdf5(path) as file:
            try:
                self._read(file)
            except (OSError, RuntimeError) as error:  # what the HDF5 library raises for damage inside
                raise ValueError(f"{path} is damaged: {error}; copy it again") from error

    def _read(self, file: h5py.File) -> None:
        if "data" not in file or not hasattr(file["data"], "keys"):
            raise ValueError(f"{self.path} has no group data/: it holds no robomimic or LIBERO demonstrations")
        data = file["data"]
        self.names = sorted((name for name in data if re.fullmatch(r"demo_?\d+", name)), key=_number)
        if not self.names:
            raise ValueError(f"{self.path}: the dataset is empty (no data/demo_N in it)")
        self.libero = "bddl_file_name" in data.attrs or "problem_info" in data.attrs
        self.control_hz = _control_hz(data.attrs)
        # The name carries the scene, which the instruction lacks, and is what the released model was trained with.
        self.task = re.sub(r"_demo$", "", self.path.stem).replace("_", " ") if self.libero else None
        keys = self._keys(data[self.names[0]])
        for key in list(self.layouts):
            if why := self._other_layout(data, key):
                self.left_out[key] = why
                del self.layouts[key], keys[key]
        self.cameras = list(self.layouts)
        self.shapes = {key: tuple(shape[1:]) for key, shape in keys.items()}
        lengths, parts = [], {key: [] for key in keys if key not in self.cameras}  # type: ignore[var-annotated]
        for name in self.names:
            demo = data[name]
            for key in keys:
                if key not in demo:
                    raise ValueError(f"{self.path}: {name} has no {key}, which {self.names[0]} has")
            found = {key: len(demo[key]) for key in keys}
            if len(set(found.values())) != 1:
                raise ValueError(
                    f"{self.path}: arrays of {name} have unequal lengths {found}; frames and actions must match step by step"
                )
            lengths.append(found["actions"])
            for key, part in parts.items():
                part.append(np.asarray(demo[key]))
        self.lengths = np.array(lengths)
        self.numbers = {key: np.concatenate(part) for key, part in parts.items()}

    def _other_layout(self, data: h5py.Group, key: str) -> str | None:
        """What keeps a camera from being read in all demonstrations as it is in the first, if anything does."""
        for name in self.names[1:]:
            array = data[name].get(key)
            if not hasattr(array, "dtype"):
                continue  # its absence is another error
            try:
                if hdf5_layout(array, f"{self.path}: {name}/{key}") != self.layouts[key]:
                    return f"{self.path}: the pictures {key} of {name} are not stored as those of {self.names[0]}"
            except DataError as error:
                return str(error)
        return None

    def _keys(self, demo: h5py.Group) -> dict[str, tuple[int, ...]]:
        """Stored key -> shape, of what is used."""
        if "actions" not in demo:
            raise ValueError(f"{self.path}: {demo.name} has no actions; found {', '.join(demo)}")
        found: dict[str, tuple[int, ...]] = {}
        candidates = [key for key in demo if key not in ("obs", "next_obs")]
        candidates += [f"obs/{key}" for key in demo.get("obs", ())]
        for key in candidates:
            array = demo[key]
            if not hasattr(array, "shape"):
                self.left_out[key] = "a group, only arrays are read"
                continue
            try:
                layout = hdf5_layout(array, f"{self.path}: {self.names[0]}/{key}")
            except DataError as error:
                self.left_out[key] = str(error)
                continue
            if layout is not None:
                found[key], self.layouts[key] = array.shape, layout
                if layout.note:
                    self.notes.append(f"{key}: {layout.note}")
            elif array.ndim > 0 and array.dtype.kind in "fiub" and not too_wide(array.shape):
                found[key] = array.shape
            else:
                self.left_out[key] = f"{array.dtype} {array.shape[1:]} per row"
        return found

    def sources(self, key: str) -> list[FrameSource]:
        return [
            Hdf5Frames(self.path, f"data/{name}/{key}", int(n), self.identity, self.layouts[key])
            for name, n in zip(self.names, self.lengths, strict=True)
        ]


def _defaults(frames: dict[str, LazyFrames], numbers: dict[str, np.ndarray], *, libero: bool) -> dict[str, Field]:
    found = {"action": Field("actions")}
    if libero:
        cameras, wrist, proprio = ("agentview_rgb",), "eye_in_hand_rgb", ("ee_states", "gripper_states")
    else:
        cameras, wrist, proprio = _ROBOMIMIC_CAMERAS, "robot0_eye_in_hand_image", _ROBOMIMIC_PROPRIO  # type: ignore[assignment]
    camera = next((f"obs/{name}" for name in cameras if f"obs/{name}" in frames), next(iter(frames), None))
    if camera is not None:
        found["pixels"] = Field(camera)
    if f"obs/{wrist}" in frames and camera != f"obs/{wrist}":
        found["pixels_wrist"] = Field(f"obs/{wrist}")
    keys = tuple(f"obs/{name}" for name in proprio)
    if all(key in numbers for key in keys):
        found["agent_pos"] = Field(keys)
    return found


def _control_hz(attributes: Any) -> float | None:
    """``control_freq`` of the environment's arguments, which are json in an attribute."""
    for name in ("env_args", "env_info"):
        try:
            arguments = json.loads(attributes[name])
        except (KeyError, TypeError, ValueError):
            continue
        for place in (arguments.get("env_kwargs", {}), arguments):
            if isinstance(place, dict) and isinstance(place.get("control_freq"), int | float):
                return float(place["control_freq"])
    return None


def _upright(frames: np.ndarray) -> np.ndarray:
    return frames[:, ::-1]


def _number(name: str) -> int:
    return int(name.rsplit("demo", 1)[1].lstrip("_"))
