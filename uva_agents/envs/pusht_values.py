"""Numbers of PushT: the workspace, where episodes start, and what callers give as poses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from uva_agents.envs import states
from uva_agents.errors import InputError

SIZE = 512.0
"""Side of the square workspace, in pixels of the simulator. Positions and actions are in this unit."""

Pose = tuple[float, float, float]
"""x and y of the T's corner frame in pixels, angle in radians."""
GOAL: Pose = (256.0, 256.0, math.pi / 4)
"""Where the mark is, by default."""
Start = tuple[float, float, float, float, float]
"""Agent x, agent y, block x, block y, block angle."""


def initial_state(seed: int) -> Start:
    """Agent x, y, block x, y, block angle of the published evaluation for ``seed``: the order of the draws matters."""
    rs = np.random.RandomState(seed)
    agent_x, agent_y = rs.randint(50, 450), rs.randint(50, 450)
    block_x, block_y = rs.randint(100, 400), rs.randint(100, 400)
    angle = rs.randn() * 2 * np.pi - np.pi
    return float(agent_x), float(agent_y), float(block_x), float(block_y), float(angle)


def checked_start(value: Any, what: str = "reset_to_state") -> Start:
    """``value`` as agent x, y, block x, y, block angle.

    Raises:
        InputError: no five finite numbers, or positions outside the picture.
    """
    start = as_array(value)
    if start.shape != (5,) or not np.isfinite(start).all():
        raise InputError(
            f"{what} takes five finite numbers [agent_x, agent_y, block_x, block_y, block_angle], got {given(value)}"
        )
    if (start[:4] < 0).any() or (start[:4] > SIZE).any():
        raise InputError(f"{what}: positions are in [0, {SIZE:.0f}] pixels, got {start[:4].tolist()}")
    check_angle(start[4], what)
    agent_x, agent_y, block_x, block_y, angle = start.tolist()
    return agent_x, agent_y, block_x, block_y, angle


def as_array(value: Any) -> np.ndarray:
    """float64; empty for what is made of anything but numbers."""
    if isinstance(value, np.ma.MaskedArray):
        return np.zeros(0)
    try:
        found = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        return np.zeros(0)
    return found.astype(np.float64) if found.dtype.kind in "fiu" else np.zeros(0)


def given(value: Any) -> str:
    """What was given in the place of numbers, for a message."""
    found = as_array(value)
    if found.size:
        return f"shape {found.shape}: {value!r}"
    kind = f" of {value.dtype}" if isinstance(value, np.ndarray) else ""
    return f"shape {np.shape(value) if isinstance(value, np.ndarray) else found.shape}, {type(value).__name__}{kind}: {value!r}"


def check_angle(angle: float, what: str) -> None:
    """That an angle is one that a state may hold.

    Raises:
        InputError: it is not.
    """
    if abs(angle) > states.MOST:
        raise InputError(f"{what}: an angle is from {-states.MOST:g} to {states.MOST:g} rad, got {angle:g}")
