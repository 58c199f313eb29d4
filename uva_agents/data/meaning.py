"""What the numbers of an action or of proprioception are, told from their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from uva_agents.data.conventions import RotationName

Kind = Literal["pose", "joints", "changes", "numbers"]
"""What actions are: poses of the tool, joint positions, changes in [-1, 1] as a controller takes them, or anything else."""

_POSES: Mapping[RotationName, tuple[str, ...]] = {
    "vector": ("x", "y", "z", "rx", "ry", "rz", "gripper"),
    "rot6d": ("x", "y", "z", "r11", "r12", "r13", "r21", "r22", "r23", "gripper"),
    "quaternion": ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper"),
}
_JOINT = re.compile(r"joint|shoulder|elbow|wrist|waist|\.pos$|finger|motor", re.IGNORECASE)


@dataclass(frozen=True)
class Meaning:
    """What an array's numbers are.

    Attributes:
        kind: see :data:`Kind`.
        rotation: form of a pose's rotation.
    """

    kind: Kind
    rotation: RotationName | None = None


def meaning(names: Sequence[str], values: np.ndarray, *, changes: bool = False) -> Meaning:
    """Of an array (N, D), from the names of its numbers and, where there are none, from the numbers.

    Args:
        changes: the format's controllers take changes.
    """
    short = tuple(name.rpartition(".")[2] for name in names)
    for form, pose in _POSES.items():
        if short == pose:
            return Meaning("pose", form)
    if names and all(_JOINT.search(name) or short[i] == "gripper" for i, name in enumerate(names)):
        return Meaning("joints")
    if changes and values.shape[-1] == 7 and float(np.abs(values).max()) <= 1.0 + 1e-6:
        return Meaning("changes")
    return Meaning("numbers")
