"""What LeRobot calls our arrays, and the numbers in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from uva_agents.errors import InputError

_NAMES = {
    "pixels": "observation.images.main",
    "action": "action",
    "agent_pos": "observation.state",
    "reward": "next.reward",
    "rewards": "next.reward",
    "done": "next.done",
    "dones": "next.done",
    "success": "next.success",
    "is_success": "next.success",
}
FLAGS = ("next.done", "next.success")
"""Stored as bool: LeRobot's own name and type of them."""
_SECOND = {"observation.state": "observation.environment_state"}
"""What a second array of that name is called: beside the robot's state, that of everything."""
_JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "wrist_rotate", "gripper")
_VECTOR = tuple(f"eef.{name}" for name in ("x", "y", "z", "rx", "ry", "rz", "gripper"))
_ROWS = tuple(f"eef.{name}" for name in ("x", "y", "z", "r11", "r12", "r13", "r21", "r22", "r23", "gripper"))
_ARX_ACTIONS = {
    "joints": tuple(f"{name}.pos" for name in _JOINTS),
    "absolute_vector": _VECTOR,
    "absolute": _ROWS,
    "relative": _ROWS,
}


_UNITS = {
    "x": "m",
    "y": "m",
    "z": "m",
    "rx": "rad",
    "ry": "rad",
    "rz": "rad",
    "pos": "rad",
    "vel": "rad/s",
    "torque": "N m",
}


def feature_name(name: str) -> str:
    """LeRobot's name of a canonical array."""
    if name in _NAMES:
        return _NAMES[name]
    return f"observation.images.{name.removeprefix('pixels_')}" if name.startswith("pixels") else f"observation.{name}"


def feature_names(names: Iterable[str], cameras: Mapping[str, str] | None = None) -> dict[str, str]:
    """LeRobot's names of these arrays, each another one: where two want the same, canonical arrays have it.

    Args:
        cameras: canonical name -> the name it shall have, ``observation.image`` or ``observation.images.NAME``.

    Raises:
        InputError: there is no such camera, or that is no name of one, or of two.
    """
    listed = list(names)
    found: dict[str, str] = {}
    for name, feature in (cameras or {}).items():
        known = [other for other in listed if other.startswith("pixels")]
        if name not in known:
            raise InputError(
                f"--camera {name}={feature}: there is no camera {name}; found {', '.join(known) or 'none'}"
            )
        rest = feature.removeprefix("observation.images.")
        if feature != "observation.image" and (rest == feature or not rest or "/" in rest or rest.strip(".") != rest):
            raise InputError(
                f"--camera {name}={feature}: LeRobot calls cameras observation.image or observation.images.NAME"
            )
        if feature in found.values():
            raise InputError(f"--camera {name}={feature}: another camera has that name")
        found[name] = feature
    for name in sorted(listed, key=lambda name: name not in _NAMES):
        if name in found:
            continue
        feature = wanted = feature_name(name)
        number = 2
        while feature in found.values():
            feature = _SECOND.get(wanted, f"{wanted}_{number}")
            if feature in found.values():
                feature = f"{wanted}_{number}"
            number += 1
        found[name] = feature
    return {name: found[name] for name in listed}


def number_names(
    shapes: Mapping[str, Sequence[int]], given: Mapping[str, Sequence[str]] | None = None
) -> dict[str, list[str]]:
    """A name for each number of the arrays whose rows are vectors: those that are given, else ``dim_0`` and so on.

    Raises:
        InputError: names for an array that is not there, or more or fewer than it has numbers, or one twice.
    """
    found = {}
    for name, names in (given or {}).items():
        width = shapes.get(name)
        if width is None or len(width) != 1 or name.startswith("pixels"):
            vectors = [other for other, shape in shapes.items() if len(shape) == 1]
            raise InputError(f"names of {name}: there is no vector of that name; found {', '.join(vectors) or 'none'}")
        if len(names) != width[0] or len(set(names)) != len(names) or not all(names):
            raise InputError(
                f"names of {name}: {', '.join(names)} are {len(names)}, and it has {width[0]} different numbers"
            )
    for name, shape in shapes.items():
        if not name.startswith("pixels") and len(shape) == 1:
            found[name] = list((given or {}).get(name, ())) or [f"dim_{i}" for i in range(int(shape[0]))]
    return found


def arx_names(settings: Mapping[str, Any] | None) -> dict[str, Sequence[str]]:
    """Names of what ``uva/ArxX5-v0`` sees and takes, from the settings of a recording; none for other environments.

    Joints have the names of the arm's LeRobot class; positions are in metres, ``rx`` to ``rz`` a rotation vector in rad, ``r11`` to
    ``r23`` rows of a rotation matrix.
    """
    if settings is None or str(settings.get("env", "")).rpartition(":")[2] != "uva/ArxX5-v0":
        return {}
    action = _ARX_ACTIONS.get(str(settings.get("action_mode")), ())
    found: dict[str, Sequence[str]] = {"agent_pos": _VECTOR, "action": action, "wanted_action": action}
    found |= {f"joint_{what}": [f"{name}.{what}" for name in _JOINTS[:6]] for what in ("pos", "vel", "torque")}
    return {name: names for name, names in found.items() if names}


def arx_units(settings: Mapping[str, Any] | None) -> dict[str, Sequence[str]]:
    """Units of the numbers that :func:`arx_names` names; "1" where there is none, as for the rows of a rotation matrix."""
    return {key: [_unit(name) for name in names] for key, names in arx_names(settings).items()}


def _unit(name: str) -> str:
    first, _, last = name.rpartition(".")
    return "m" if "gripper" in (first, last) else _UNITS.get(last, "1")
