"""The arm's newest measurements, and where it was at any moment between them."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from dataclasses import replace

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import ArmState
from uva_agents.envs.arx_x5.arm.poses import interpolate_pose


class StateHistory:
    """Measurements of the last seconds; one thread may add while another asks.

    Args:
        seconds: how far back it goes: longer than any camera's latency.
        latency_s: how long before its time stamp a measurement was true.
    """

    def __init__(self, *, seconds: float = 2.0, latency_s: float = 0.0) -> None:
        self._seconds, self._latency_s = seconds, latency_s
        self._states: deque[ArmState] = deque()
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._states.clear()

    def add(self, state: ArmState) -> None:
        """One more measurement; one that is not newer than the newest is the same again."""
        if self._latency_s:
            state = replace(state, time_s=state.time_s - self._latency_s)
        with self._lock:
            if self._states and state.time_s < self._states[-1].time_s - self._seconds:
                self._states.clear()  # a clock was set back, or the newest was from the future, and would stay the newest
            if self._states and state.time_s <= self._states[-1].time_s:
                return
            self._states.append(state)
            while state.time_s - self._states[0].time_s > self._seconds:
                self._states.popleft()

    @property
    def states(self) -> tuple[ArmState, ...]:
        """All of them, oldest first, the latency taken off; can be set."""
        with self._lock:
            return tuple(self._states)

    @states.setter
    def states(self, states: tuple[ArmState, ...]) -> None:
        with self._lock:
            self._states = deque(states)

    def newest(self) -> ArmState:
        """The last one added.

        Raises:
            LookupError: there is none.
        """
        with self._lock:
            if not self._states:
                raise LookupError("no state of the arm has been measured yet")
            return self._states[-1]

    def at(self, time_s: float) -> ArmState:
        """Where the arm was then; beyond the measurements, the nearest one, whose ``time_s`` tells.

        Raises:
            LookupError: nothing has been measured yet.
        """
        with self._lock:
            if not self._states:
                raise LookupError("no state of the arm has been measured yet")
            after = bisect_right(self._states, time_s, key=lambda state: state.time_s)
            if after in (0, len(self._states)):
                return self._states[min(after, len(self._states) - 1)]
            first, second = self._states[after - 1], self._states[after]
        return interpolate_state(first, second, time_s)


def interpolate_state(first: ArmState, second: ArmState, time_s: float) -> ArmState:
    """The arm between two measurements: everything straight, the tool's rotation about one axis."""
    share = (time_s - first.time_s) / (second.time_s - first.time_s)

    def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (1 - share) * a + share * b

    def number(a: float, b: float) -> float:
        return (1 - share) * a + share * b

    return ArmState(
        time_s,
        between(first.joint_pos, second.joint_pos),
        between(first.joint_vel, second.joint_vel),
        between(first.joint_torque, second.joint_torque),
        interpolate_pose(first.eef_pose, second.eef_pose, share),
        number(first.gripper_pos, second.gripper_pos),
        number(first.gripper_vel, second.gripper_vel),
        number(first.gripper_torque, second.gripper_torque),
    )
