"""PushT-M: PushT with another pose of the mark in every episode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from uva_agents.envs.pusht import PushTEnv, PushTState, ResetOptions
from uva_agents.envs.pusht_values import Pose, as_array, check_angle, given
from uva_agents.errors import InputError

REACH = 100.0
"""Pixels: x and y of a drawn mark are at most this far from the middle, (256, 256), as in the released evaluation."""

_MIDDLE = 256.0
_WALLS = (5.0, 506.0)
_CORNERS = np.array(
    [(-60.0, 0.0), (60.0, 0.0), (60.0, 30.0), (15.0, 30.0), (15.0, 120.0), (-15.0, 120.0), (-15.0, 30.0)]
)


class PushTMultiEnv(PushTEnv):
    """``uva/PushTMulti-v0``: as ``uva/PushT-v0``, with the mark in another place in every episode.

    The mark is seen in ``pixels`` only; ``info["goal_pose"]`` says where it is, and coverage, reward and ``is_success`` are
    relative to it. Its x and y are uniform in 256 +- 100 and its angle in [0, 2 pi), drawn from the environment's own
    generator: ``reset(seed=s)`` gives the start of ``uva/PushT-v0`` for ``s``, and a mark that depends on ``s`` alone.

    ``reset(options={"goal_pose": (x, y, angle)})`` puts the mark there, for this episode; ``reset_to_state`` as in
    ``uva/PushT-v0``.

    Args:
        render_mode, render_size: as in ``uva/PushT-v0``.
        goals: the poses that marks are drawn from, all equally likely; ``None`` for the ranges above.
    """

    task = "pusht-m"
    _env_id: ClassVar[str] = "uva/PushTMulti-v0"
    _options: ClassVar[tuple[str, ...]] = ("reset_to_state", "goal_pose")

    def __init__(
        self,
        render_mode: str | None = "rgb_array",
        render_size: int = 512,
        goals: Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__(render_mode, render_size)
        if goals is not None and not (isinstance(goals, Sequence | np.ndarray) and len(goals)):
            raise InputError("goals is empty: give at least one (x, y, angle), or None for marks anywhere")
        self._goals = None if goals is None else tuple(checked_goal(goal) for goal in goals)

    def _begin(self, options: ResetOptions) -> None:
        self._goal = checked_goal(options["goal_pose"]) if "goal_pose" in options else self._drawn_goal()

    def _drawn_goal(self) -> Pose:
        if self._goals is not None:
            return self._goals[int(self.np_random.integers(len(self._goals)))]
        x, y = self.np_random.uniform(_MIDDLE - REACH, _MIDDLE + REACH, 2).tolist()
        return x, y, float(self.np_random.uniform(0.0, 2 * math.pi))

    def _adopt(self, state: PushTState) -> None:
        self._goal = state.goal
        self.goal_pose = np.array(state.goal)


def checked_goal(value: Any) -> Pose:
    """``value`` as a pose of the mark.

    Raises:
        InputError: it is not three finite numbers, or the mark would reach into a wall, where no block can go.
    """
    goal = as_array(value)
    if goal.shape != (3,) or not np.isfinite(goal).all():
        raise InputError(f"a goal_pose is three finite numbers (x, y, angle), got {given(value)}")
    x, y, angle = goal.tolist()
    check_angle(angle, "goal_pose")
    cos, sin = math.cos(angle), math.sin(angle)
    corners = _CORNERS @ np.array([[cos, sin], [-sin, cos]]) + (x, y)
    if corners.min() < _WALLS[0] or corners.max() > _WALLS[1]:
        raise InputError(
            f"goal_pose {(x, y, angle)}: the mark would reach from {corners.min(0).round().tolist()} to "
            f"{corners.max(0).round().tolist()}, and the walls are at {_WALLS[0]:.0f} and {_WALLS[1]:.0f}"
        )
    return x, y, angle
