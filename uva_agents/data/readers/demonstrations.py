"""One file of robomimic or LIBERO demonstrations: what of it can be used, and what is wrong with the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uva_agents.data.contained import home_of
from uva_agents.data.hdf5_store import DAMAGE, check_whole, member, one_line, open_hdf5, read_array
from uva_agents.data.holes import Hole, listed
from uva_agents.data.lazy import FrameSource, file_identity
from uva_agents.data.picture_layouts import PictureLayout
from uva_agents.data.readers.dataset import too_wide
from uva_agents.data.readers.hdf5_attributes import COUNTS, beside_demonstrations, control_hz_of, whole_number
from uva_agents.data.readers.hdf5_frames import Hdf5Frames, hdf5_layout
from uva_agents.data.readers.hdf5_names import (
    CAMERA_KEYS,
    CONVENTION,
    CONVENTIONS,
    LIBERO_CAMERAS,
    LIBERO_PROPRIO,
    ORIENTATION,
    essential_keys,
)
from uva_agents.errors import DataError, UVAError
from uva_agents.utils.memory import check_fits

if TYPE_CHECKING:
    import h5py


class Demonstrations:
    """One file: its numbers, where its frames are, and what is wrong with it.

    Attributes:
        lengths: rows of each demonstration (E,); 0 for one that cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.home = home_of(path)
        self.identity = file_identity(path)
        self.notes: list[str] = []
        self.left_out: dict[str, str] = {}
        self.layouts: dict[str, PictureLayout] = {}
        self.holes: list[Hole] = []
        with open_hdf5(path) as file:
            try:
                self._read(file)
            except UVAError:
                raise
            except DAMAGE as error:
                raise DataError(f"{path} is damaged: {one_line(error)}; copy it again") from error

    def _read(self, file: h5py.File) -> None:
        data = member(file, "data", self.home)
        if data is None or not hasattr(data, "keys"):
            raise DataError(f"{self.path} has no group data/: it holds no robomimic or LIBERO demonstrations")
        self.names = sorted((name for name in data if re.fullmatch(r"demo_?[0-9]+", name)), key=_number)
        if not self.names:
            raise DataError(f"{self.path}: the dataset is empty (no data/demo_N in it)")
        self.beside = beside_demonstrations(file, data, self.home, self.names)
        self.libero = "bddl_file_name" in data.attrs or "problem_info" in data.attrs
        if not self.libero and self._has_libero_arrays(data):
            convention = str(data.attrs.get(CONVENTION, ""))
            self.libero = convention == "opengl"
            if convention not in CONVENTIONS:
                self.holes.append(Hole(f"{self.path} {ORIENTATION}", "data", "warn"))
        self.control_hz = control_hz_of(data.attrs, str(self.path), self.holes)
        # The name carries the scene, which the instruction lacks, and is what the released model was trained with.
        self.task = re.sub(r"_demo$", "", self.path.stem).replace("_", " ") if self.libero else None
        self.bad: dict[int, str] = {}
        self.groups: set[str] = set()
        demos = [self._arrays(data, number, name) for number, name in enumerate(self.names)]
        keys = self._keys(demos)
        self.left_out |= dict.fromkeys(sorted(self.groups - set(keys)), "a group, only arrays are read")
        self.cameras = [key for key in keys if key in self.layouts]
        self.shapes = {key: tuple(int(n) for n in keys[key].shape[1:]) for key in keys}
        self.lengths = np.zeros(len(demos), np.int64)
        parts: dict[str, list[np.ndarray]] = {key: [] for key in keys if key not in self.cameras}
        for number, (name, demo) in enumerate(zip(self.names, demos, strict=True)):
            try:
                found = self._demonstration(name, demo, keys, demos) if number not in self.bad else None
            except DataError as error:
                self._spoil(number, str(error))
                found = None
            if found is None:
                continue
            self.lengths[number] = len(demo["actions"])
            for key, part in parts.items():
                part.append(found[key])
        for number, why in self.bad.items():
            self.holes.append(Hole(why, f"data/{self.names[number]}", episodes=(number,)))
        self.holes += self._counts(data)
        empty = {key: np.zeros((0, *self.shapes[key]), np.float32) for key in parts}
        self.numbers = {key: np.concatenate(part) if part else empty[key] for key, part in parts.items()}

    def _has_libero_arrays(self, data: h5py.Group) -> bool:
        """Whether it has LIBERO's arrays: tools that rewrite its files drop the attributes that name it."""
        try:
            return all(f"{self.names[0]}/obs/{name}" in data for name in (*LIBERO_CAMERAS, *LIBERO_PROPRIO))
        except DAMAGE:
            return False

    def _arrays(self, data: h5py.Group, number: int, name: str) -> dict[str, h5py.Dataset]:
        """Arrays of a demonstration by their keys; what is no array is left out, what cannot be read spoils it."""
        found: dict[str, h5py.Dataset] = {}
        try:
            demo = member(data, name, self.home)
            if demo is None or not hasattr(demo, "keys"):
                raise DataError(f"{self.path}: {name} is no group: copy it again")
            if set(demo.attrs) - set(COUNTS):
                self.beside["data/demo_N/attributes"] = None
            keys = [key for key in demo if key not in ("obs", "next_obs")]
            if "obs" in demo:
                obs = member(demo, "obs", self.home)
                if obs is None or not hasattr(obs, "keys"):
                    raise DataError(f"{self.path}: {name}/obs is no group: copy it again")
                keys += [f"obs/{key}" for key in obs]
            for key in keys:
                array = member(demo, key, self.home)
                if array is None or not hasattr(array, "shape"):
                    self.groups.add(key)
                    continue
                found[key] = array
                if array.external:
                    check_whole(array, f"{self.path}: {name}/{key}", self.home)
        except DataError as error:
            self._spoil(number, str(error))
        except DAMAGE as error:
            self._spoil(number, f"{self.path}: {name} is damaged: {one_line(error)}; copy it again")
        return found

    def _spoil(self, number: int, why: str) -> None:
        self.bad.setdefault(number, why)

    def _keys(self, demos: Sequence[Mapping[str, h5py.Dataset]]) -> dict[str, h5py.Dataset]:
        """What is used: key -> the array of the first demonstration that has it. What most of them lack is left out."""
        good = [number for number in range(len(demos)) if number not in self.bad] or list(range(len(demos)))
        found: dict[str, h5py.Dataset] = {}
        for key in sorted({key for number in good for key in demos[number]}):
            have = [number for number in good if key in demos[number]]
            if 2 * len(have) < len(good) and key != "actions":
                names = [self.names[number] for number in have]
                self.left_out[key] = f"only {listed(names, 3)} of {len(demos)} demonstrations have it"
                continue
            if why := self._unusable(key, demos, have):
                self.left_out[key] = why
                continue
            found[key] = demos[have[0]][key]
        if "actions" not in found:
            without = next((n for n in good if "actions" not in demos[n]), None)
            if without is None:
                raise DataError(f"{self.path}: {self.left_out.get('actions', 'its actions cannot be read')}")
            listing = ", ".join(demos[without]) or "nothing"
            raise DataError(f"{self.path}: {self.names[without]} has no actions; found {listing}")
        essential = essential_keys([key for key in found if key in self.layouts], self.left_out)
        for key, why in self._misfits(found, demos, good, essential).items():
            self.left_out[key] = why
            self.layouts.pop(key, None)
            del found[key]
        return found

    def _misfits(
        self,
        keys: Mapping[str, h5py.Dataset],
        demos: Sequence[Mapping[str, h5py.Dataset]],
        good: Sequence[int],
        essential: set[str],
    ) -> dict[str, str]:
        """Arrays that are not one row per step, or whose rows differ between demonstrations: key -> why it is not read.

        Where most arrays of a demonstration do not fit its actions, it is the demonstration that is wrong.
        """
        found: dict[str, str] = {}
        for number in good:
            demo = demos[number]
            if number in self.bad or any(key not in demo for key in keys):
                continue
            steps = len(demo["actions"])
            long = {key: len(demo[key]) if demo[key].ndim else -1 for key in keys}
            other = [key for key, rows in long.items() if rows != steps]
            wide = [key for key in keys if demo[key].shape[1:] != keys[key].shape[1:]]
            if 2 * len(other) > len(keys) or essential & {*other, *wide}:
                continue
            for key in other:
                rows = "a single number" if long[key] < 0 else f"{long[key]} rows"
                found.setdefault(key, f"{self.path}: {self.names[number]}/{key} has {rows} for {steps} actions")
            for key in wide:
                text = f"rows of {demo[key].shape[1:]}, other demonstrations of {keys[key].shape[1:]}"
                found.setdefault(key, f"{self.path}: {self.names[number]}/{key} has {text}")
        return found

    def _unusable(self, key: str, demos: Sequence[Mapping[str, h5py.Dataset]], have: Sequence[int]) -> str | None:
        """Why an array is not read, if it is not: pictures that cannot be told or differ, text, too wide, holes in extras."""
        needed = key == "actions" or key.startswith("obs/")
        for number in have:
            array, where = demos[number][key], f"{self.path}: {self.names[number]}/{key}"
            try:
                check_whole(array, where, self.home)
            except DataError as error:
                if needed or array.external:
                    self._spoil(number, str(error))
                else:
                    self.holes.append(Hole(str(error), key, "warn"))
                    return str(error)
            except DAMAGE as error:
                self._spoil(number, f"{where} is damaged: {one_line(error)}; copy it again")
        plain, odd = 0, []
        for number in have:
            if number in self.bad:
                continue
            array, where = demos[number][key], f"{self.path}: {self.names[number]}/{key}"
            try:
                layout = hdf5_layout(array, where)
            except DataError as error:
                return str(error)
            except DAMAGE as error:
                self._spoil(number, f"{where} is damaged: {one_line(error)}; copy it again")
                continue
            if layout is None and key in CAMERA_KEYS and key not in self.layouts:
                return f"{where}: {array.dtype} {array.shape} is no array of pictures (N, H, W, 3), as its name says"
            if layout is None and key not in self.layouts:
                if array.ndim > 0 and array.dtype.kind in "fiub" and not too_wide(array.shape):
                    plain += 1
                else:
                    odd.append(number)
                continue
            if key not in self.layouts and layout is not None:
                if any(n in have and n < number and n not in self.bad for n in have):
                    return f"{self.path}: {key} of {self.names[number]} is not stored as that of the demonstrations before it"
                self.layouts[key] = layout
                if layout.note:
                    self.notes.append(f"{key}: {layout.note}")
            elif layout != self.layouts[key]:
                first = self.names[next(n for n in have if n not in self.bad)]
                del self.layouts[key]
                return f"{self.path}: the pictures {key} of {self.names[number]} are not stored as those of {first}"
        if odd and plain >= len(odd):  # most are right: it is these demonstrations that are not
            for number in odd:
                array = demos[number][key]
                text = f"{array.dtype} {array.shape}, rows of real numbers as in the others were expected"
                self._spoil(number, f"{self.path}: {self.names[number]}/{key} is {text}")
        elif odd:
            array = demos[odd[0]][key]
            text = f"{array.dtype} {array.shape[1:]} per row"
            if key == "actions":
                where = f"{self.path}: {self.names[odd[0]]}/actions"
                raise DataError(f"{where} is {array.dtype} {array.shape}: rows of real numbers were expected")
            return text
        return None

    def _demonstration(
        self,
        name: str,
        demo: Mapping[str, h5py.Dataset],
        keys: Mapping[str, h5py.Dataset],
        demos: Sequence[Mapping[str, h5py.Dataset]],
    ) -> dict[str, np.ndarray]:
        """The numbers of a demonstration.

        Raises:
            DataError: it lacks something that the others have, or its arrays do not go together.
        """
        for key in keys:
            if key not in demo:
                other = next(n for n, d in zip(self.names, demos, strict=True) if key in d)
                raise DataError(f"{self.path}: {name} has no {key}, which {other} has")
        found = {key: len(demo[key]) if demo[key].ndim else -1 for key in keys}
        if len(set(found.values())) != 1:
            raise DataError(
                f"{self.path}: arrays of {name} have unequal lengths {found}; frames and actions must match step by step"
            )
        if not found["actions"]:
            raise DataError(f"{self.path}: {name} has no step")
        for key, array in keys.items():
            if demo[key].shape[1:] != array.shape[1:]:
                raise DataError(
                    f"{self.path}: {name}/{key} has rows of {demo[key].shape[1:]}, other demonstrations of {array.shape[1:]}"
                )
        numbers = [key for key in keys if key not in self.cameras]
        check_fits(sum(demo[key].size * demo[key].dtype.itemsize for key in numbers), f"{self.path}: {name}")
        return {key: read_array(demo[key], f"{self.path}: {name}/{key}") for key in numbers}

    def _counts(self, data: h5py.Group) -> Iterator[Hole]:
        """Where the file's own counts differ from what is there. Tools that cut files down do not always correct them."""
        for number, name in enumerate(self.names):
            if number in self.bad:
                continue
            declared = whole_number(data[name].attrs, "num_samples")
            if declared is not None and declared != self.lengths[number]:
                text = f"{self.path}: {name} says it has {declared} steps, and has {self.lengths[number]}: was it cut?"
                yield Hole(text, f"data/{name}", "warn", (number,))
        counted = [_number(name) for name in self.names]
        gaps = sorted(set(range(counted[0], counted[-1])) - set(counted)) if counted[-1] - counted[0] < 10**6 else []
        if gaps and len(gaps) < len(counted):
            text = f"{self.path}: there is no demo_{listed(gaps, 3)} between demo_{counted[0]} and demo_{counted[-1]}: was it lost?"
            self.notes.append(text)
        declared, there = whole_number(data.attrs, "total"), int(self.lengths.sum())
        if declared is not None and declared != there and not self.bad:
            text = f"{self.path} says it has {declared} steps, and has {there}: are demonstrations missing?"
            yield Hole(text, "data", "warn")

    def leave_out(self, key: str) -> None:
        """Forget an array."""
        self.cameras = [camera for camera in self.cameras if camera != key]
        for known in (self.shapes, self.layouts, self.numbers):
            known.pop(key, None)

    def sources(self, key: str) -> list[FrameSource]:
        """Frames of the array ``key``, a source for each demonstration that can be used."""
        return [
            Hdf5Frames(self.path, f"data/{name}/{key}", int(n), self.identity, self.layouts[key])
            for name, n in zip(self.names, self.lengths, strict=True)
            if n
        ]


def _number(name: str) -> int:
    return int(name.rsplit("demo", 1)[1].lstrip("_"))
