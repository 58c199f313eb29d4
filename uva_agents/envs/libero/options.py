"""What ``uva/Libero10-v0`` may be given: spaces, options, and errors that name the mistake."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.envs.libero.scene import CAMERAS
from uva_agents.envs.libero.tasks import LiberoTask, initial_states
from uva_agents.envs.words import Words
from uva_agents.errors import InputError

NAME = "uva/Libero10-v0"
STARTS = ("random", "fixed")
INSTRUCTIONS = ("prompt", "language", "observation", "info")
RESET_OPTIONS = ("task_id", "initial_states", "initial_state", "wait_steps")
# The whole workspace of the arm is inside.
GOAL_LOW, GOAL_HIGH = (-1.5, -1.5, -0.5), (1.5, 1.5, 2.5)


def observation_spaces(image_size: tuple[int, int] | None, *, words: bool) -> dict[str, gym.Space[Any]]:
    """Key -> space; without pictures where there is no size."""
    # Position, quaternion, fingers.
    limits = np.array([*np.abs([GOAL_LOW, GOAL_HIGH]).max(0) + 0.5, 1, 1, 1, 1, 0.1, 0.1], np.float32)
    spaces: dict[str, gym.Space[Any]] = {"agent_pos": gym.spaces.Box(-limits, limits)}
    if image_size is not None:
        spaces |= {key: gym.spaces.Box(0, 255, (*image_size, 3), np.uint8) for key in CAMERAS}
    if words:
        spaces["task"] = Words()
    return spaces


def check_state(task: LiberoTask, index: Any) -> None:
    """InputError unless the task has a fixed initial state of this number."""
    n = len(initial_states(task))
    if isinstance(index, bool) or not isinstance(index, int | np.integer) or not 0 <= index < n:
        raise InputError(f"initial_state={index!r}: {task.name} has fixed initial states 0 to {n - 1}")
