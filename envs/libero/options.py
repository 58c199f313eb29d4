"""What ``uva/Libero10-v0`` may be given: spaces, options, and errors that name the mistake."""

from __future__ import annotations

import difflib
import string
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.envs.libero.scene import CAMERAS
from uva_agents.envs.libero.tasks import LiberoTask, initial_states

NAME = "uva/Libero10-v0"
STARTS = ("random", "fixed")
RESET_OPTIONS = ("task_id", "initial_states", "initial_state", "wait_steps")
# Nothing that the arm can reach is outside.
GOAL_LOW, GOAL_HIGH = (-1.5, -1.5, -0.5), (1.5, 1.5, 2.5)
ACTIONS = {
    "absolute": "(10,), position 3, rotation rows 6, gripper 1",
    "absolute_vector": "(7,), position 3, rotation vector 3, gripper 1",
    "delta": "(7,), move 3, turn 3, gripper 1",
}
_WORDS = string.ascii_letters + string.digits + " -"


def observation_spaces(image_size: tuple[int, int] | None, *, words: bool) -> dict[str, gym.Space[Any]]:
    """Key -> space; without pictures where there is no size."""
    # Position, quaternion, fingers.
    reach = np.array([*np.abs([GOAL_LOW, GOAL_HIGH]).max(0) + 0.5, 1, 1, 1, 1, 0.1, 0.1], np.float32)
    spaces: dict[str, gym.Space[Any]] = {"agent_pos": gym.spaces.Box(-reach, reach)}
    if image_size is not None:
        spaces |= {key: gym.spaces.Box(0, 255, (*image_size, 3), np.uint8) for key in CAMERAS}
    if words:
        spaces["task"] = gym.spaces.Text(256, min_length=1, charset=_WORDS)
    return spaces


def action_space(mode: str) -> gym.spaces.Box:
    """Of one of :data:`ACTIONS`."""
    if mode == "delta":
        return gym.spaces.Box(-1.0, 1.0, (7,), np.float32)
    # A rotation vector has a length of at most pi.
    turn = np.ones(6) if mode == "absolute" else np.full(3, np.pi)
    low, high = np.array([*GOAL_LOW, *-turn, -1.0]), np.array([*GOAL_HIGH, *turn, 1.0])
    return gym.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def unknown_option(name: str) -> str:
    """The message for an option of ``reset`` that there is not."""
    close = difflib.get_close_matches(str(name), RESET_OPTIONS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown reset option {name!r}: {NAME} knows {', '.join(map(repr, RESET_OPTIONS))}{hint}"


def checked_choice(value: Any, name: str, known: tuple[str, ...]) -> str:
    """``value``, if it is known; a ValueError that names ``name`` otherwise."""
    if value not in known:
        raise ValueError(f"{name}={value!r} is unknown: pass {' or '.join(map(repr, known))}")
    return str(value)


def checked_wait(value: Any) -> int:
    """``value``, if it is a number of steps."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"wait_steps={value!r}: pass a number of control steps, 0 or more")
    return value


def check_state(task: LiberoTask, index: Any) -> None:
    """ValueError unless the task has a fixed initial state of this number."""
    n = len(initial_states(task))
    if isinstance(index, bool) or not isinstance(index, int | np.integer) or not 0 <= index < n:
        raise ValueError(f"initial_state={index!r}: {task.name} has fixed initial states 0 to {n - 1}")


def checked_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a picture, from that or from the side of a square."""
    height, width = (size, size) if isinstance(size, int) else size
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) >= 8):
        raise ValueError(f"image_size={size!r}: pass a side, or (height, width), of at least 8 pixels")
    return height, width


def checked_action(action: Any, mode: str, space: gym.spaces.Box) -> np.ndarray:
    """One action as float64, clipped to the space.

    Raises:
        ValueError: its shape is that of another mode or of a chunk; NaN or infinity.
    """
    value = np.asarray(action, dtype=np.float64)
    if value.shape != space.shape:
        hint = "; a chunk of actions is executed one step at a time" if value.ndim > 1 else ""
        others = [name for name, what in ACTIONS.items() if what.startswith(f"{value.shape},")]
        if others:
            hint = f"; make the environment with action_mode={' or '.join(map(repr, others))} for this one"
        raise ValueError(f"LIBERO takes one {mode} action {ACTIONS[mode]}, got {value.shape}{hint}")
    if not np.isfinite(value).all():
        raise ValueError(f"action {value.tolist()} contains NaN or infinity: check the policy that produced it")
    return np.asarray(np.clip(value, space.low, space.high))
