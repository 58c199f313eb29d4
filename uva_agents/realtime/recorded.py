"""Recorded episodes as the loop sees them: a robot on which nothing moves, and that shows what was recorded in its own time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.agents.base import Observation
from uva_agents.data.recorded_env import REPRODUCED
from uva_agents.errors import InputError
from uva_agents.realtime.robot_interface import Observed, SendReport
from uva_agents.realtime.trajectory import ActionLayout, Trajectory
from uva_agents.utils.clocks import Clock, MonotonicClock

_SAME_S = 1e-6
_LAYOUTS: Mapping[str | None, ActionLayout] = {
    "vector": ActionLayout(((3, "vector"),)),
    "rot6d": ActionLayout(((3, "rot6d"),)),
}


@dataclass(frozen=True)
class ReplayedEpisode:
    """How near a run came to what was recorded.

    Attributes:
        episode: its number in the dataset.
        steps: that were replayed.
        compared: of them, those that an action had been scheduled for.
        agreement: 1 minus the mean error over these, as a share of the range; 0 for none.
    """

    episode: int
    steps: int
    compared: int
    agreement: float


class RecordedRobotInterface:
    """See :class:`~uva_agents.realtime.robot_interface.RobotInterface`.

    The recording goes on by the clock from the first look at it. What is compared with the recorded action of a step is what was
    scheduled for its time, so that late and blended chunks count as they are; steps before the first chunk is there do not.

    Args:
        env: ``uva/Recorded-v0``, wrapped or not.
        task: instruction, instead of the recorded one.
        clock: the machine's by default.

    Attributes:
        layout: of an action.
        replayed: the episodes that are over.
    """

    reaction_s = 0.0

    def __init__(self, env: gym.Env[Any, Any], *, task: str | None = None, clock: Clock | None = None) -> None:
        self._env: Any = env.unwrapped
        if not hasattr(self._env, "recorded_actions"):
            raise InputError(f"{type(self._env).__name__} replays nothing: this is for uva/Recorded-v0")
        self._task, self._clock = task, clock or MonotonicClock()
        self._period = 1.0 / float(self._env.metadata["render_fps"])
        self.layout = _LAYOUTS.get(getattr(env.unwrapped, "rotation", None), ActionLayout())
        self.replayed: list[ReplayedEpisode] = []
        self._began_s: float | None = None
        self._plan: Trajectory | None = None
        self._seen: tuple[int, Observation] | None = None
        self._errors: list[float] = []
        self._steps, self._stopped = 0, False

    def reset(self, seed: int) -> None:
        """To the beginning of an episode."""
        self._env.reset(seed=seed)
        self._began_s, self._plan, self._seen, self._errors = None, None, None, []
        self._steps, self._stopped = 0, False

    def now(self) -> float:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.now`."""
        return self._clock.now()

    def sleep_until(self, time_s: float) -> None:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.sleep_until`."""
        self._clock.sleep_until(time_s)

    def observe(self) -> Observed:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.observe`; over where the recording is."""
        if self._began_s is None:
            self._began_s = self.now()
        self._follow()
        if self._seen is None or self._seen[0] != self._steps:
            obs = self._env.get_obs()
            self._seen = self._steps, {**obs, "task": self._task} if self._task is not None else obs
        done, time_s = self._env.steps_left == 0, self._began_s + self._steps * self._period
        success = done and bool(self._errors) and float(np.mean(self._errors)) <= REPRODUCED
        return Observed(self._seen[1], time_s, done=done, success=success, stopped=self._stopped)

    def schedule(self, actions: np.ndarray, start_s: float, dt: float) -> SendReport:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.schedule`; nothing is sent anywhere."""
        self._follow()
        times, rows = start_s + dt * np.arange(len(actions)), np.asarray(actions, np.float64)
        if self._plan is not None:  # the step that is under way has begun before
            kept = (self._plan.times < start_s - _SAME_S) & (self._plan.times > self.now() - 2 * self._period - dt)
            times, rows = np.append(self._plan.times[kept], times), np.append(self._plan.actions[kept], rows, axis=0)
        self._plan = Trajectory(times, rows)
        return SendReport(np.asarray(actions[0]))

    def stay(self, obs: Observation) -> np.ndarray | None:
        """Nobody knows which action keeps this robot where it is."""
        return None

    def hold(self) -> None:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.hold`; the end of an episode."""
        self._follow()
        if self._steps:
            agreement = max(0.0, 1.0 - float(np.mean(self._errors))) if self._errors else 0.0
            self.replayed.append(ReplayedEpisode(self._env.episode, self._steps, len(self._errors), agreement))
        self._began_s, self._plan, self._errors, self._steps = None, None, [], 0

    def refuse(self, reason: str) -> tuple[str, ...]:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.refuse`: the last action is kept."""
        self._follow()
        if self._plan is not None:
            at = np.array([self.now()])
            self._plan = Trajectory(at, self._plan.at(at, self.layout))
        return (f"not followed: {reason}",)

    def stop(self) -> None:
        """See :meth:`~uva_agents.realtime.robot_interface.RobotInterface.stop`."""
        self._stopped = True

    def _follow(self) -> None:
        """Control steps whose time is over, each with the action that was scheduled for it."""
        if self._began_s is None:
            return
        now = self.now() + _SAME_S
        while self._env.steps_left and self._began_s + (self._steps + 1) * self._period <= now:
            recorded = self._env.recorded_actions(1)[0]
            if self._plan is not None:
                at = np.array([self._began_s + self._steps * self._period])
                self._errors.append(self._env.error_of(self._plan.at(at, self.layout)[0]))
            self._env.advance(recorded)
            self._steps += 1
