"""What the robosuite environments have in common: kinds of actions, sizes of pictures, and errors that name the mistake."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

ACTIONS = {
    "absolute": "(10,), position 3, rotation rows 6, gripper 1",
    "absolute_vector": "(7,), position 3, rotation vector 3, gripper 1",
    "delta": "(7,), move 3, turn 3, gripper 1",
}
"""``action_mode`` -> what an action consists of."""
OPEN, CLOSED = -1.0, 1.0
Point = tuple[float, float, float]


def checked_mode(mode: str) -> str:
    """``mode``, if it is one of :data:`ACTIONS`; a ValueError otherwise."""
    if mode not in ACTIONS:
        raise ValueError(f"action_mode={mode!r} is unknown: pass one of {', '.join(map(repr, ACTIONS))}")
    return mode


def action_space(mode: str, low: Point, high: Point) -> gym.spaces.Box:
    """Of one of :data:`ACTIONS`; ``low`` and ``high``: positions that an absolute action may ask for, metres, world frame."""
    if mode == "delta":
        return gym.spaces.Box(-1.0, 1.0, (7,), np.float32)
    # A rotation vector has a length of at most pi.
    turn = np.ones(6) if mode == "absolute" else np.full(3, np.pi)
    least, most = np.array([*low, *-turn, OPEN]), np.array([*high, *turn, CLOSED])
    return gym.spaces.Box(least.astype(np.float32), most.astype(np.float32), dtype=np.float32)


def checked_action(action: Any, mode: str, space: gym.spaces.Box, *, name: str) -> np.ndarray:
    """One action as float64, clipped to the space; ``name`` is the environment's, for the message.

    Raises:
        ValueError: its shape is that of another mode or of a chunk; NaN or infinity.
    """
    value = np.asarray(action, dtype=np.float64)
    if value.shape != space.shape:
        hint = "; a chunk of actions is executed one step at a time" if value.ndim > 1 else ""
        others = [other for other, what in ACTIONS.items() if what.startswith(f"{value.shape},")]
        if others:
            hint = f"; make the environment with action_mode={' or '.join(map(repr, others))} for this one"
        raise ValueError(f"{name} takes one {mode} action {ACTIONS[mode]}, got {value.shape}{hint}")
    if not np.isfinite(value).all():
        raise ValueError(f"action {value.tolist()} contains NaN or infinity: check the policy that produced it")
    return np.asarray(np.clip(value, space.low.astype(np.float64), space.high.astype(np.float64)))


def checked_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a picture, from that or from the side of a square."""
    height, width = (size, size) if isinstance(size, int) else size
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) >= 8):
        raise ValueError(f"image_size={size!r}: pass a side, or (height, width), of at least 8 pixels")
    return height, width
