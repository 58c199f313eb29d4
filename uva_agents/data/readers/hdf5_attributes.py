"""What robomimic's and LIBERO's files say beside the demonstrations: rate, counts, groups of demonstrations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.data.hdf5_store import DAMAGE, member, one_line
from uva_agents.data.holes import Hole
from uva_agents.data.readers.metadata import rate_of
from uva_agents.errors import DataError

if TYPE_CHECKING:
    import h5py

COUNTS = ("total", "num_samples", "num_demos")
"""Attributes that say how much there is."""
_MOST_MASKED = 1 << 20
"""Names in a mask."""


def beside_demonstrations(
    file: h5py.File, data: h5py.Group, home: Path, demonstrations: Sequence[str]
) -> dict[str, Any]:
    """Groups of demonstrations in ``mask/`` (E,) and attributes of ``data/``, see ``Stored.beside``."""
    found: dict[str, Any] = {}
    for name in data.attrs:
        if name not in COUNTS:
            key = f"attributes/{name}"
            try:
                value = data.attrs[name]
                found[key] = value.decode() if isinstance(value, bytes) else value
            except DAMAGE:
                found[key] = None
            if isinstance(found[key], np.generic):
                found[key] = found[key].item()
            if not isinstance(found[key], str | int | float):
                found[key] = None
    try:
        masks = member(file, "mask", home)
        listed_masks = list(masks) if masks is not None and hasattr(masks, "keys") else []
    except (DataError, *DAMAGE):
        return {**found, "mask": None}
    for name in listed_masks:
        try:
            masked = member(masks, name, home)
            if masked is None or masked.size > _MOST_MASKED:
                found[f"meta/mask_{name}"] = None
                continue
            chosen = {n.decode() if isinstance(n, bytes) else str(n) for n in np.asarray(masked).ravel().tolist()}
            found[f"meta/mask_{name}"] = np.array([n in chosen for n in demonstrations])
        except (DataError, *DAMAGE):
            found[f"meta/mask_{name}"] = None
    return found


def whole_number(attributes: Any, name: str) -> int | None:
    """A whole number among attributes; ``None`` if there is none, or it is something else, which then cannot contradict."""
    try:
        value = attributes[name]
    except DAMAGE:
        return None
    return int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else None


def control_hz_of(attributes: Any, path: str, holes: list[Hole]) -> float | None:
    """``control_freq`` of the environment's arguments, which are json in an attribute."""
    for name in ("env_args", "env_info"):
        if name not in attributes:
            continue
        where = f"{path}: the attribute {name}"
        try:
            value = attributes[name]
            arguments = json.loads(value) if isinstance(value, str | bytes) else None
        except (*DAMAGE, RecursionError) as error:
            holes.append(Hole(f"{where} is no JSON: {one_line(error)}; correct or remove it", where))
            continue
        if not isinstance(arguments, dict):
            holes.append(Hole(f"{where} is no JSON object: correct or remove it", where))
            continue
        more = arguments.get("env_kwargs", {})
        if not isinstance(more, dict):
            holes.append(Hole(f"{where} has env_kwargs that are no JSON object: correct or remove them", where))
            more = {}
        for place in (more, arguments):
            if "control_freq" in place:
                return rate_of(place["control_freq"], f"{where}, control_freq", holes, absent=False)
    return None
