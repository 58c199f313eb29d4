"""Control of an arm for loops that keep their own time: observe when asked, schedule chunks with their times, hold, stop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.envs.arx_x5.actions import ActionCodec
from uva_agents.envs.arx_x5.observing import ObservationSettings, observation
from uva_agents.envs.arx_x5.safety import Intervention
from uva_agents.envs.arx_x5.system.sessions import ArmSession
from uva_agents.envs.arx_x5.system.system import ArmSystem, Scheduled, Snapshot
from uva_agents.envs.checks import as_numbers
from uva_agents.envs.lifecycle import Lifecycle
from uva_agents.errors import InputError
from uva_agents.utils.clocks import Clock
from uva_agents.utils.pacing import Pacer

Observation = dict[str, Any]
_ARRIVED = 1e-3
"""rad: nearer than that to its goal an arm has arrived."""


class ArmControl(Lifecycle):
    """What :class:`~uva_agents.envs.arx_x5.env.ArxX5Env` offers besides gymnasium's interface; its constructor sets the attributes.

    Attributes:
        control_hz: steps per second.
    """

    control_hz: float
    _session: ArmSession
    _system: ArmSystem
    _codec: ActionCodec
    _settings: ObservationSettings
    _space: gym.spaces.Dict
    _pacer: Pacer
    _render_observations: bool
    _start_s: float
    _instruction: str | None
    _snapshot: Snapshot | None

    @property
    def clock(self) -> Clock:
        """The arm's: all times here are its. Sleep on it, so that measurements go on where time waits for sleepers."""
        return self._system

    @property
    def observed_s(self) -> float:
        """The time of the last observation, on :attr:`clock`."""
        return self._seen.time_s

    @property
    def is_success(self) -> bool:
        """Whether the task is done."""
        return bool(self._session.success(self._seen.newest))

    @property
    def stopped(self) -> bool:
        """Whether the emergency stop is pressed."""
        return bool(self._system.arm.stop.pressed)

    @property
    def reaction_s(self) -> float:
        """How far ahead of now the first moment lies that an action sent now can still be for."""
        return self._system.reaction_s

    def schedule(self, actions: Any, start_s: float, dt: float | None = None) -> Scheduled:
        """Be at ``actions`` at ``start_s``, ``start_s`` + ``dt``, ... and stay at the last; replaces what was scheduled.

        Those that come too late are dropped. Neither waits nor looks; relative actions start from the last observation's pose.

        Args:
            actions: (T, A).
            start_s: when to be at the first, on :attr:`clock`.
            dt: between actions; the environment's own period by default.

        Raises:
            ValueError: the wrong shape, or a rotation that is none.
            DriverError: the arm does not answer.
        """
        self._require_reset("schedule()")
        chunk = self._checked(actions, chunk=True)
        return self._send(chunk, start_s + (1 / self.control_hz if dt is None else dt) * np.arange(len(chunk)))

    def hold(self) -> None:
        """Come to rest, stiff; forget what is scheduled."""
        self._require_open("hold()")
        self._system.arm.hold()

    def refuse(self, reason: str) -> tuple[Intervention, ...]:
        """As :meth:`hold`, because an agent has nothing that could be sent, for example NaN.

        Returns:
            Every intervention since the last step; the last one is this, of kind ``not_finite`` with ``reason``.
        """
        self._require_open("refuse()")
        return self._system.arm.refuse(reason)

    def stop(self, reason: str = "stop() was called") -> None:
        """Emergency stop, from any thread: the arm brakes, and nothing moves before the next reset."""
        self._system.arm.stop.press(reason)

    def hold_action(self) -> np.ndarray:
        """The action (A,) that keeps the arm where it is, and the gripper at its last command: what it grips stays gripped."""
        self._require_reset("hold_action()")
        arm, state = self._system.arm, self._system.history.newest()
        joints, gripper = state.joint_pos, state.gripper_pos
        goal = arm.goal
        if goal is not None:
            # Where it was sent, and not where it hangs a little below: an arm that is sent there sinks step by step.
            joints, gripper = goal[0] if np.abs(goal[0] - arm.sent_to).max() < _ARRIVED else joints, goal[1]
        return self._codec.action(self._system.kinematics.forward(joints), joints, gripper, self._seen.state)

    def get_obs(self) -> Observation:
        """The newest observation, without waiting for the next step."""
        self._require_reset("get_obs()")
        return self._observation(self._render_observations)

    def observe(self) -> Observation:
        """As :meth:`get_obs`, with pictures whatever ``render_observations`` says."""
        self._require_reset("observe()")
        return self._observation(True)

    # -- inside ------------------------------------------------------------------------------------------------------

    @property
    def _seen(self) -> Snapshot:
        self._require_reset("the last observation")
        assert self._snapshot is not None
        return self._snapshot

    def _checked(self, actions: Any, *, chunk: bool) -> np.ndarray:
        numbers = as_numbers(actions, "ArxX5")
        try:
            return self._codec.checked(numbers, chunk=chunk)
        except ValueError as error:
            raise InputError(str(error)) from None

    def _send(self, actions: np.ndarray, times: np.ndarray) -> Scheduled:
        result = self._system.send(self._codec.targets(actions, self._seen.state), times)
        if not result.waypoints:
            return result
        joints, gripper = self._system.where_sent(result.waypoints, float(times[result.dropped]))
        sent = self._codec.action(self._system.kinematics.forward(joints), joints, gripper, self._seen.state)
        return replace(result, sent=sent)

    def _wait(self) -> None:
        self._system.sleep_until(self._pacer.due_s)
        self._pacer.arrived()

    def _observation(self, pictures: bool) -> Observation:
        self._snapshot = self._system.snapshot(cameras=pictures)
        obs: Observation = observation(self._snapshot, self._settings, self._codec, self._space, start_s=self._start_s)
        if self._settings.instruction:
            obs["task"] = self._instruction or self._session.task_description
        return obs

    def _outcome(self, scheduled: Scheduled | None) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        obs, info = self.get_obs(), self._info()
        if scheduled is not None:
            info["interventions"] = (*scheduled.interventions, *info["interventions"])
            info |= {"sent": scheduled.sent, "waypoints": scheduled.waypoints}
        return obs, float(info["is_success"]), info["is_success"], info["stopped"], info

    def _info(self) -> dict[str, Any]:
        snapshot, arm = self._seen, self._system.arm
        return {
            "is_success": self.is_success,
            "sent": None,
            "waypoints": (),
            "interventions": arm.take_interventions(),
            "stopped": self.stopped,
            "timing": self._pacer.timing(),
            "observed_s": snapshot.time_s,
            "latency_s": self.clock.now() - snapshot.time_s,
        }

    @property
    def _pacer_record(self) -> Any:
        """Of the pacer, for copies."""
        return self._pacer.record

    @_pacer_record.setter
    def _pacer_record(self, record: Any) -> None:
        self._pacer.record = record
