"""What the robosuite environments have in common: kinds of actions, sizes of pictures, and errors that name the mistake."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.envs.checks import as_numbers, checked_choice, finite_action

ACTIONS = {
    "absolute": "(10,), position 3, rotation rows 6, gripper 1",
    "absolute_vector": "(7,), position 3, rotation vector 3, gripper 1",
    "delta": "(7,), move 3, turn 3, gripper 1",
}
"""``action_mode`` -> what an action consists of."""
OPEN, CLOSED = -1.0, 1.0
Point = tuple[float, float, float]


def checked_mode(mode: Any) -> str:
    """``mode``, if it is one of :data:`ACTIONS`; an InputError otherwise."""
    return checked_choice(mode, "action_mode", tuple(ACTIONS))


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
        InputError: no numbers; its shape is that of another mode or of a chunk; NaN or infinity.
    """
    value, hint = as_numbers(action, name), ""
    if value.shape != space.shape:
        others = [other for other, what in ACTIONS.items() if what.startswith(f"{value.shape},")]
        if others:
            hint = f"; make the environment with action_mode={' or '.join(map(repr, others))} for this one"
    value = finite_action(value, name, space.shape, f"{mode} action {ACTIONS[mode]}", hint)
    return np.asarray(np.clip(value, space.low.astype(np.float64), space.high.astype(np.float64)))
