"""``uva/ArxX5-v0`` as the loop sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.agents.base import Observation
from uva_agents.realtime.robot_interface import Observed, SendReport
from uva_agents.realtime.trajectory import ActionLayout

LAYOUTS: Mapping[str, ActionLayout] = {
    "absolute": ActionLayout(((3, "rot6d"),)),
    "absolute_vector": ActionLayout(((3, "vector"),)),
    "joints": ActionLayout(),
}
"""``action_mode`` -> which columns turn."""


class ArxRobotInterface:
    """See :class:`~uva_agents.realtime.robot_interface.RobotInterface`.

    Args:
        env: ``uva/ArxX5-v0``, wrapped or not, with actions in the arm's base frame or of its joints; reset.
        task: what to do, in words; policies with a text encoder want it.

    Raises:
        ValueError: another environment, or actions relative to the observation, of which two chunks cannot be blended.
    """

    def __init__(self, env: gym.Env[Any, Any], *, task: str | None = None) -> None:
        arm = env.unwrapped
        missing = [name for name in ("schedule", "hold", "stop", "clock", "reaction_s") if not hasattr(type(arm), name)]
        if missing:
            name = env.spec.id if env.spec is not None else type(arm).__name__
            raise ValueError(
                f"{name} waits for its agent and has no {missing[0]}: run it with `uva eval`; `uva run` is for uva/ArxX5-v0"
            )
        self._env: Any = arm
        if arm.action_mode not in LAYOUTS:  # type: ignore[attr-defined]
            raise ValueError(
                f"action_mode={arm.action_mode!r}: chunks of different moments can be blended in a common frame only; "  # type: ignore[attr-defined]
                'make the environment with "absolute", and let the agent\'s actions be turned (--relative)'
            )
        self._task = task

    @property
    def layout(self) -> ActionLayout:
        """Of its actions."""
        return LAYOUTS[self._env.action_mode]

    @property
    def reaction_s(self) -> float:
        """See :attr:`~uva_agents.realtime.robot_interface.RobotInterface.reaction_s`."""
        return float(self._env.reaction_s)

    def now(self) -> float:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.now`."""
        return float(self._env.clock.now())

    def sleep_until(self, time_s: float) -> None:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.sleep_until`."""
        self._env.clock.sleep_until(time_s)

    def observe(self) -> Observed:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.observe`; an episode ends with success."""
        obs: dict[str, Any] = dict(self._env.get_obs())
        if self._task is not None:
            obs["task"] = self._task
        success = bool(self._env.is_success)
        stopped = bool(self._env.stopped)
        return Observed(obs, float(self._env.observed_s), done=success, success=success, stopped=stopped)

    def schedule(self, actions: np.ndarray, start_s: float, dt: float) -> SendReport:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.schedule`."""
        done = self._env.schedule(actions, start_s, dt)
        return SendReport(done.sent, tuple(f"{found.kind}: {found.detail}" for found in done.interventions))

    def stay(self, obs: Observation) -> np.ndarray | None:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.stay`; float64."""
        return np.asarray(self._env.hold_action(), np.float64)

    def hold(self) -> None:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.hold`."""
        self._env.hold()

    def refuse(self, reason: str) -> tuple[str, ...]:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.refuse`."""
        return tuple(f"{found.kind}: {found.detail}" for found in self._env.refuse(reason))

    def stop(self) -> None:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.stop`."""
        self._env.stop("the operator asked for it")
