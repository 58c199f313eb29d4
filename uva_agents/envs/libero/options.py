"""What ``uva/Libero10-v0`` may be given: spaces, options, and errors that name the mistake."""

from __future__ import annotations

import difflib
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.envs.libero.scene import CAMERAS
from uva_agents.envs.libero.tasks import LiberoTask, initial_states
from uva_agents.envs.words import Words

NAME = "uva/Libero10-v0"
STARTS = ("random", "fixed")
RESET_OPTIONS = ("task_id", "initial_states", "initial_state", "wait_steps")
# Nothing that the arm can reach is outside.
GOAL_LOW, GOAL_HIGH = (-1.5, -1.5, -0.5), (1.5, 1.5, 2.5)


def observation_spaces(image_size: tuple[int, int] | None, *, words: bool) -> dict[str, gym.Space[Any]]:
    """Key -> space; without pictures where there is no size."""
    # Position, quaternion, fingers.
    reach = np.array([*np.abs([GOAL_LOW, GOAL_HIGH]).max(0) + 0.5, 1, 1, 1, 1, 0.1, 0.1], np.float32)
    spaces: dict[str, gym.Space[Any]] = {"agent_pos": gym.spaces.Box(-reach, reach)}
    if image_size is not None:
        spaces |= {key: gym.spaces.Box(0, 255, (*image_size, 3), np.uint8) for key in CAMERAS}
    if words:
        spaces["task"] = Words()
    return spaces


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
