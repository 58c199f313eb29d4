"""The straight way of the joints home: whether it is clear, and as a course."""

from __future__ import annotations

import numpy as np

from uva_agents.envs.arx_x5.safety.fence import Fence
from uva_agents.envs.arx_x5.safety.wanted import Wanted

_POINTS = 60
_ELBOW = 0.03
"""rad"""
_SAG_M = 1e-3
"""A limp arm may hang a little beyond a limit, and not on a straight line back."""


def in_the_way(fence: Fence, here: np.ndarray, home: np.ndarray) -> str | None:
    """What a straight line of the joints from ``here`` (6,) to ``home`` (6,) leads through or out of, if anything.

    A limit that the arm is beyond already may be, as far as it is.
    """
    way = here + np.linspace(0, 1, _POINTS)[:, None] * (home - here)
    room = fence.room(way, *fence.tool(way))[:, 12:]
    under = (room < np.minimum(0.0, room[0]) - _SAG_M).any(0)
    if not under.any():
        return None
    return "through the table" if under[-1] else "out of the workspace box"


def stages_home(home: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints (6,) to go through, the last of which are home: joint 3 comes last, or links 2 and 3 may touch, as the SDK has it."""
    nearly = home.copy()
    nearly[2] += _ELBOW
    return nearly, home


def straight_to(joints: np.ndarray, gripper: float, left_s: float) -> Wanted:
    """A course to joints (6,), as fast as the limits allow, from ``left_s`` on."""
    row = np.append(joints, gripper)[None]
    return Wanted(np.array([left_s + 1e-3]), row[:, :6], row[:, 6], row, ())
