"""The layout of a robot's recordings, found in the data: what is an input, what is learned, and in which form."""

from __future__ import annotations

import dataclasses
from typing import Literal

from uva_agents.data import Dataset, Field
from uva_agents.data.conventions import AbsolutePoses, RelativePoses, RelativeProprio
from uva_agents.data.meaning import Meaning, meaning
from uva_agents.data.transforms import Transform
from uva_agents.errors import DataError, InputError
from uva_agents.training.instructions import GIVEN
from uva_agents.training.recipe import DataConfig

_UNITS = {**dict.fromkeys("xyz", "m"), **dict.fromkeys(("rx", "ry", "rz"), "rad")}
_FASTEST = 30.0
"""Hz: data recorded faster than this are learned at a lower rate, where actions are positions."""
_USUAL = 20.0
"""Hz: near which that rate is, as in UMI."""
_HELD_OUT, _MOST_HELD_OUT = 0.05, 50
"""Share of the episodes that are kept from training, and how many at most."""


def find_layout(dataset: Dataset, *, control_hz: float | None = None, instructions: bool | None = None) -> DataConfig:
    """The layout that a dataset has by itself.

    Cameras, actions and proprioception are those under the canonical names. Tool poses are learned with their rotation as the
    first two rows of its matrix (Zhou et al. 2019), relative to the pose at the decision in UMI's recordings; joint positions and
    everything else as they are recorded.

    Args:
        control_hz: rate, for data that does not say it, or to say it otherwise.
        instructions: take them as an input, or do not; by default if there are several.

    Raises:
        DataError: no camera, no actions, no rate.
    """
    if "pixels" not in dataset.arrays:
        found = ", ".join(f"{name} {value.shape[1:]}" for name, value in dataset.arrays.items())
        raise DataError(
            f"{dataset.path} has no camera under a usual name, it has {found}: say which it is with --field pixels=KEY"
        )
    if "action" not in dataset.arrays:
        raise DataError(
            f"{dataset.path} has no actions: it can stand beside a dataset that has some (several --data), or name them with "
            "--field action=KEY"
        )
    hz = control_hz or dataset.control_hz
    if hz is None:
        raise DataError(f"{dataset.path} does not say its rate: give it with --hz N (steps per second)")
    action = meaning(dataset.names.get("action", ()), dataset.arrays["action"], changes=dataset.format == "hdf5")
    proprio_key = "agent_pos" if "agent_pos" in dataset.arrays else None
    second = _second_camera(dataset)
    arrays = ["pixels", *([second] if second else []), "action"]
    arrays += [proprio_key] if proprio_key else []
    fields = {name: _field(dataset, name) for name in arrays}
    rows = 1
    if hz > _FASTEST and action.kind in ("pose", "joints"):
        rows = max(1, round(hz / _USUAL))
    relative = dataset.format == "umi" and action.rotation is not None and proprio_key is not None
    action_transforms: tuple[Transform, ...] = ()
    proprio_transforms: tuple[Transform, ...] = ()
    if relative and action.rotation is not None:
        form = action.rotation
        action_transforms = (RelativePoses(environment=form, network="rot6d", reference=form),)
        proprio_transforms = (RelativeProprio(environment=form),)
    else:
        action_transforms = _absolute(action)
        if proprio_key is not None:
            seen = meaning(dataset.names.get(proprio_key, ()), dataset.arrays[proprio_key])
            proprio_transforms = _absolute(seen)
    names = {name: dataset.names[name] for name in arrays if name in dataset.names}
    return DataConfig(
        fields=fields,
        control_hz=round(hz / rows, 4),
        rows_per_step=rows,
        proprio_key=proprio_key,
        wrist_key=second or "pixels_wrist",
        cameras=_places(dataset, "pixels", *([second] if second else [])),
        held_out=held_out_count(len(dataset)),
        names=names,
        units={name: _units(dataset, name) for name in names},
        action_transforms=action_transforms,
        proprio_transforms=proprio_transforms,
        instructions=_instructions(dataset, instructions),
        action_offset=dataset.action_offset,
        env_id=_environment(dataset),
    )


def _places(dataset: Dataset, *names: str) -> tuple[str, ...]:
    """What these cameras are called where they stand, if that is said of all."""
    called = dataset.beside.get("attributes/cameras")
    found = [called.get(dataset.sources[name]) if isinstance(called, dict) else None for name in names]
    return tuple(str(name) for name in found) if all(isinstance(name, str) and name for name in found) else ()


def _units(dataset: Dataset, name: str) -> tuple[str, ...]:
    """Of the numbers of an array: as the dataset says, or as their names do. ``"1"``, no unit, is left out."""
    declared = dataset.beside.get("attributes/units")
    own = declared.get(dataset.sources[name]) if isinstance(declared, dict) else None
    if isinstance(own, list) and len(own) == len(dataset.names[name]) and all(isinstance(one, str) for one in own):
        return tuple("" if one == "1" else one for one in own)
    return tuple(_unit(one) for one in dataset.names[name])


def _environment(dataset: Dataset) -> str | None:
    """That it was collected in, where it says so."""
    name = dataset.beside.get("attributes/env")
    return name if isinstance(name, str) and name else None


def _second_camera(dataset: Dataset) -> str | None:
    """The one on the wrist; where none says so, the only other one."""
    others = [name for name in dataset.cameras if name != "pixels"]
    if "pixels_wrist" in others:
        return "pixels_wrist"
    return others[0] if len(others) == 1 else None


def held_out_count(episodes: int) -> int:
    """Episodes kept from training: a twentieth, one at least where there are two, and 50 at most."""
    return min(_MOST_HELD_OUT, max(1, round(_HELD_OUT * episodes)), episodes - 1)


def without_proprio(layout: DataConfig) -> DataConfig:
    """The layout without proprioception as an input.

    Raises:
        InputError: actions are relative to it.
    """
    if any("now" in transform.needs for transform in layout.action_transforms):
        raise InputError("actions are relative to where the tool is, which proprioception says: it cannot be left out")
    fields = {name: field for name, field in layout.fields.items() if name != layout.proprio_key}
    return dataclasses.replace(layout, fields=fields, proprio_key=None, proprio_transforms=())


def _field(dataset: Dataset, name: str) -> Field:
    source = dataset.sources[name]
    keys = tuple(source.split(" + "))
    return dataset.fields.get(name) or Field(keys[0] if len(keys) == 1 else keys)


def _absolute(found: Meaning) -> tuple[Transform, ...]:
    if found.rotation is None or found.rotation == "rot6d":
        return ()
    return (AbsolutePoses(environment=found.rotation, network="rot6d"),)


def _unit(name: str) -> str:
    return _UNITS.get(name.rpartition(".")[2], "")


def _instructions(dataset: Dataset, wanted: bool | None) -> Literal["none", "table", "given"]:
    if wanted is False:
        return "none"
    if GIVEN in dataset.arrays and (wanted or dataset.tasks is None or len(set(dataset.tasks)) > 1):
        return "given"
    texts = {text.strip() for text in dataset.tasks or ()}
    if wanted and not texts - {""}:
        raise InputError(f"{dataset.path} has no instructions")
    return "table" if wanted or len(texts) > 1 else "none"
