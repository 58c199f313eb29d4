"""Minari datasets, hdf5: ``data/main_data.hdf5`` with ``episode_N/observations``, ``actions``, ``rewards``."""

from __future__ import annotations

import json
import re
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.data.contained import check_contained, home_of
from uva_agents.data.fields import Field
from uva_agents.data.hdf5_store import DAMAGE, check_whole, member, one_line, open_hdf5, read_array
from uva_agents.data.holes import Hole, listed, raise_first
from uva_agents.data.lazy import LazyFrames, file_identity
from uva_agents.data.picture_layouts import PictureLayout
from uva_agents.data.readers.dataset import Stored, too_wide
from uva_agents.data.readers.hdf5_frames import Hdf5Frames, JpegFrames, decoded_jpeg, hdf5_layout
from uva_agents.data.readers.metadata import usual_camera
from uva_agents.errors import DataError, MachineError, UVAError
from uva_agents.utils.files import read_regular_text
from uva_agents.utils.memory import check_fits

if TYPE_CHECKING:
    import h5py

_MAIN = "main_data.hdf5"
_DEEPEST = 8


def is_minari(path: Path) -> bool:
    """The folder of a dataset, its ``data`` folder, or its main file."""
    return path.name == _MAIN or any((folder / _MAIN).exists() for folder in (path, path / "data")) or _is_arrow(path)


def read_minari(path: Path) -> Stored:
    """All episodes. Of the observations, which are one more than the actions, those that an action follows.

    Raises:
        ValueError: none, damaged, stored as arrow, observations that are not arrays or dictionaries of them.
        MissingExtraError: h5py is not installed.
    """
    if path.is_dir() and _is_arrow(path):
        raise DataError(
            f'{path} is a Minari dataset stored as arrow: only Minari\'s default, data_format="hdf5", is read'
        )
    folders = (path, path / "data")
    main = path if path.name == _MAIN else next((f / _MAIN for f in folders if (f / _MAIN).exists()), None)
    if main is None:
        raise DataError(f"{path} has no data/{_MAIN}: it is no Minari dataset")
    holes: list[Hole] = []
    described = _described(main.parent / "metadata.json", holes)
    with open_hdf5(main) as file:
        try:
            return _read(file, main, described, holes)
        except UVAError:
            raise
        except DAMAGE as error:
            raise DataError(f"{main} is damaged: {one_line(error)}; copy it again") from error


def _described(path: Path, holes: list[Hole]) -> dict[str, Any]:
    """``metadata.json``, empty if there is none."""
    try:
        check_contained(path, home_of(path.parent))
        found = json.loads(read_regular_text(path))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        text = str(error) if isinstance(error, DataError) else f"{path} is no JSON: {one_line(error)}; copy it again"
        holes.append(Hole(text, "metadata.json"))
        return {}
    if not isinstance(found, dict):
        holes.append(Hole(f"{path} is no JSON object: copy it again", "metadata.json"))
        return {}
    return found


def _read(file: h5py.File, main: Path, described: dict[str, Any], holes: list[Hole]) -> Stored:
    names = sorted((n for n in file if re.fullmatch(r"episode_[0-9]+", n)), key=lambda n: int(n.rsplit("_", 1)[1]))
    if not names:
        raise DataError(f"{main}: the dataset is empty (no episode_N in it)")
    declared = described.get("total_episodes")
    if declared is not None:
        if not isinstance(declared, int | float) or isinstance(declared, bool):
            holes.append(
                Hole(
                    f"{main}: metadata.json says total_episodes is {declared!r:.40}, a number was expected",
                    "metadata.json",
                )
            )
        elif declared != len(names):
            holes.append(
                Hole(
                    f"{main}: metadata.json promises {declared} episodes, {len(names)} are there: copy it again",
                    "metadata.json",
                )
            )
    elif "total_episodes" in described:
        holes.append(Hole(f"{main}: metadata.json says total_episodes is null: copy it again", "metadata.json"))
    images = _image_keys(described, main, holes)
    reader = _Episodes(main, images, home_of(main))
    for number, name in enumerate(names):
        reader.add(file, number, name)
    return reader.stored(names, holes)


class _Episodes:
    """What the episodes hold, put together one by one."""

    def __init__(self, main: Path, images: set[str], home: Path) -> None:
        self.main, self.images, self.home = main, images, home
        self.identity = file_identity(main)
        self.found: list[dict[str, h5py.Dataset] | None] = []
        self.bad: dict[int, str] = {}
        self.left_out: dict[str, str] = {}
        self.notes: list[str] = []
        self.warned: list[Hole] = []

    def add(self, file: h5py.File, number: int, name: str) -> None:
        """Look an episode over."""
        where = f"{self.main}: {name}"
        try:
            group = member(file, name, self.home)
            if group is None or not hasattr(group, "keys"):
                raise DataError(f"{where} is no group: copy it again")
            leaves = _leaves(group, self.home)
            if "actions" not in leaves:
                raise DataError(f"{where} has no actions that are one array; other action spaces are not read")
            count = len(leaves["actions"])
            if not count:
                raise DataError(f"{where} has no step")
            for key, array in leaves.items():
                if key.startswith("infos"):
                    self.left_out[key] = "what Minari calls infos is not read"
                    continue
                expected = count + 1 if key.startswith("observations") else count
                if len(array) != expected:
                    raise DataError(f"{where}/{key} has {len(array)} rows for {count} actions; expected {expected}")
                check_whole(array, f"{where}/{key}", self.home)
            declared = group.attrs.get("total_steps")
            if isinstance(declared, int | np.integer) and int(declared) != count:
                text = f"{where} says it has {declared} steps, and has {count}: was it cut?"
                self.warned.append(Hole(text, name, "warn", (number,)))
        except DataError as error:
            self.bad[number] = str(error)
            self.found.append(None)
            return
        except DAMAGE as error:
            self.bad[number] = f"{where} is damaged: {one_line(error)}; copy it again"
            self.found.append(None)
            return
        self.found.append({key: array for key, array in leaves.items() if not key.startswith("infos")})

    def stored(self, names: list[str], holes: list[Hole]) -> Stored:
        """Everything that can be used, and what is wrong with the rest."""
        good = [number for number, episode in enumerate(self.found) if episode is not None]
        every = sorted({key for number in good for key in self._of(number)})
        layouts: dict[str, PictureLayout | None] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        sources: dict[str, dict[int, Any]] = {}
        numbers: dict[str, dict[int, np.ndarray]] = {}
        kept = []
        for key in every:
            have = [number for number in good if key in self._of(number)]
            if 2 * len(have) < len(good):
                self.left_out[key] = f"only {listed([names[n] for n in have], 3)} of {len(names)} episodes have it"
                continue
            for number in good:
                if key not in self._of(number):
                    text = f"{self.main}: {names[number]} has no {key}, which {names[have[0]]} has"
                    self.bad.setdefault(number, text)
            kept.append(key)
        for key in kept:
            for number in [n for n in good if n not in self.bad and key not in self.left_out]:
                try:
                    self._take(key, number, names, layouts, shapes, sources, numbers)
                except DataError as error:
                    self.bad[number] = str(error)
                except DAMAGE as error:
                    self.bad[number] = (
                        f"{self.main}: {names[number]}/{key} is damaged: {one_line(error)}; copy it again"
                    )
        good = [number for number in good if number not in self.bad]
        lengths = np.zeros(len(names), np.int64)
        for number in good:
            lengths[number] = len(self._of(number)["actions"])
        frames = {
            key: LazyFrames([parts[n] for n in good], (shapes[key][0], shapes[key][1], 3))
            for key, parts in sources.items()
            if key not in self.left_out
        }
        joined = {
            key: np.concatenate([parts[n] for n in good]) if good else np.zeros((0, *shapes[key]), np.float32)
            for key, parts in numbers.items()
            if key not in self.left_out
        }
        if "actions" in self.left_out:
            raise DataError(
                f"{self.main}: actions cannot be read: {self.left_out['actions']}; rows of real numbers were expected"
            )
        if self.images & set(frames):
            self.notes.append("pictures are JPEG, as Minari stores them: not exactly what the environment drew")
        holes += [Hole(why, names[number], episodes=(number,)) for number, why in sorted(self.bad.items())]
        if not frames and not joined:
            raise_first(holes, self.main)
        return Stored(
            frames,
            joined,
            np.cumsum(lengths),
            _defaults(frames, joined, self.left_out),
            notes=tuple(self.notes),
            left_out=self.left_out,
            holes=(*holes, *self.warned),
        )

    def _take(
        self,
        key: str,
        number: int,
        names: list[str],
        layouts: dict[str, PictureLayout | None],
        shapes: dict[str, tuple[int, ...]],
        sources: dict[str, dict[int, Any]],
        numbers: dict[str, dict[int, np.ndarray]],
    ) -> None:
        """One array of one episode."""
        array, where = self._of(number)[key], f"{self.main}: {names[number]}/{key}"
        count = len(self._of(number)["actions"])
        jpeg = key in self.images and (array.dtype.kind == "O" or array.ndim == 2)
        try:
            layout = None if jpeg else hdf5_layout(array, where)
        except DataError as error:
            self.left_out[key] = str(error)
            return
        if jpeg or layout is not None:
            if key in numbers or layout != layouts.setdefault(key, layout):
                raise DataError(
                    f"{self.main}: the pictures {key} of {names[number]} are not stored as those of {names[0]}"
                )
            kind = JpegFrames if jpeg else Hdf5Frames
            size = decoded_jpeg(array[0], f"{where}, row 0").shape[:2] if layout is None else layout.size
            if tuple(size) != shapes.setdefault(key, tuple(size)):
                raise DataError(
                    f"{where}: pictures of {size[0]} x {size[1]}, those before are {shapes[key][0]} x {shapes[key][1]}"
                )
            if key not in sources and layout is not None and layout.note:
                self.notes.append(f"{key}: {layout.note}")
            sources.setdefault(key, {})[number] = kind(
                self.main, f"{names[number]}/{key}", count, self.identity, layout
            )
        elif array.dtype.kind in "fiub" and not too_wide(array.shape):
            if key in sources or array.shape[1:] != shapes.setdefault(key, array.shape[1:]):
                raise DataError(f"{where} has rows of {array.shape[1:]}, episodes before it of {shapes[key]}")
            check_fits(array.size * array.dtype.itemsize, where)
            numbers.setdefault(key, {})[number] = read_array(array, where, slice(0, count))
        else:
            self.left_out[key] = f"{array.dtype} {array.shape[1:]} per row"

    def _of(self, number: int) -> dict[str, h5py.Dataset]:
        return self.found[number] or {}


def _leaves(group: h5py.Group, home: Path, prefix: str = "", depth: int = 0) -> dict[str, h5py.Dataset]:
    """Arrays of an episode by key, through dictionaries."""
    if depth > _DEEPEST:
        raise DataError(f"{group.file.filename}: {group.name} has dictionaries in dictionaries without an end")
    found: dict[str, Any] = {}
    for name in group:
        key, value = f"{prefix}{name}", member(group, name, home)
        if value is not None and hasattr(value, "keys"):
            found.update(_leaves(value, home, f"{key}/", depth + 1))
        elif value is not None and hasattr(value, "ndim") and value.ndim:
            found[key] = value
    return found


def _defaults(
    frames: dict[str, LazyFrames], numbers: dict[str, np.ndarray], left_out: Container[str]
) -> dict[str, Field]:
    found = {"action": Field("actions")}
    camera = usual_camera(["observations/pixels"], frames, left_out)
    if camera is not None:
        found["pixels"] = Field(camera)
    for key in ("observations/agent_pos", "observations/state", "observations/observation", "observations"):
        if key in numbers:
            found["agent_pos"] = Field(key)
            break
    return found


def _image_keys(described: dict[str, Any], main: Path, holes: list[Hole]) -> set[str]:
    """Keys of observations that Minari stores as JPEG: uint8 pictures, unless it was told not to, as can be since 0.5.4."""
    if not described.get("jpeg_encoding", True):
        return set()
    space = described.get("observation_space", {})
    try:
        space = json.loads(space) if isinstance(space, str) else space
        if not isinstance(space, dict):
            raise ValueError("no JSON object")
    except (ValueError, RecursionError) as error:
        text = f"{main}: metadata.json's observation_space cannot be read: {one_line(error)}; copy it again"
        holes.append(Hole(text, "metadata.json"))
        return set()
    found: set[str] = set()

    def visit(part: Any, key: str, depth: int = 0) -> None:
        if not isinstance(part, dict) or depth > _DEEPEST:
            return
        if part.get("type") == "Dict":
            children = part.get("subspaces")
            for name, child in children.items() if isinstance(children, dict) else ():
                visit(child, f"{key}/{name}", depth + 1)
        elif part.get("type") == "Box" and "uint8" in str(part.get("dtype")):
            shape = part.get("shape")
            if isinstance(shape, list | tuple) and len(shape) in (2, 3):
                found.add(key)

    visit(space, "observations")
    return found


def _is_arrow(path: Path) -> bool:
    for folder in (path, path / "data"):
        try:
            if json.loads(read_regular_text(folder / "metadata.json")).get("data_format") == "arrow":
                return True
        except (OSError, ValueError, AttributeError, RecursionError, MachineError):
            continue
    return False
