"""The safety layer around a simulated arm, which can be put elsewhere and back: the layer has to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uva_agents.envs.arx_x5.safety.executor import LastCommand
from uva_agents.envs.arx_x5.safety.joint_trajectory import JointTrajectory
from uva_agents.envs.arx_x5.safety.safe_arm import SafeArm
from uva_agents.envs.arx_x5.safety.supervisor import Mode

_SAVED = (
    "mode",
    "from_rest",
    "halted",
    "damping_failed",
    "problem",
    "problem_since_s",
    "stopped",
    "last_command_s",
)


@dataclass(frozen=True, slots=True)
class SafetyState:
    """What the layer does next depends on this, and on the arm. Can be pickled.

    Attributes:
        trajectory: that the arm was sent on.
        last_command: whether it follows that.
        supervisor: values of the supervisor: what the arm is doing, and since when.
        monitor: since when torques are high, and until when the camera is known to be fresh.
        stop: why the emergency stop is pressed; ``None`` if it is not.
    """

    trajectory: JointTrajectory
    last_command: LastCommand
    supervisor: tuple[Any, ...]
    monitor: tuple[float, float]
    stop: str | None


class SimulatedSafeArm(SafeArm):
    """A :class:`SafeArm` for the twin. Its limits are no others."""

    def placed(self, put: Callable[[], None]) -> None:
        """Let ``put`` put the arm elsewhere, stiff and at rest: what was sent before is forgotten, and the stop is released."""
        supervisor = self._supervisor
        with supervisor.lock:
            supervisor.generation += 1
            put()
            now, state = self._driver.clock.now(), self._driver.state()
            self.stop.reset()
            supervisor.mode, supervisor.from_rest = Mode.HOLDING, True
            supervisor.stopped = supervisor.damping_failed = False
            supervisor.problem, supervisor.problem_since_s, supervisor.last_command_s = None, 0.0, now
            self._monitor.restart()
            self._executor.rest_at(state.joint_pos, state.gripper_pos)
            self.take_interventions()

    def abandon(self) -> None:
        """:meth:`close` without leading the arm home: where nothing is real, nothing has to be brought to rest."""
        with self._supervisor.lock:
            self._supervisor.mode = Mode.DAMPED if self.mode is not Mode.CLOSED else Mode.CLOSED
        self.close()

    def get_state(self) -> SafetyState:
        """For :meth:`set_state`."""
        with self._supervisor.lock:
            return SafetyState(
                self._executor.trajectory,
                self._executor.last_command,
                tuple(getattr(self._supervisor, name) for name in _SAVED),
                self._monitor.memory,
                self.stop.reason if self.stop.pressed else None,
            )

    def set_state(self, state: SafetyState) -> None:
        """Go on as after :meth:`get_state`, once the arm and its clock are there, too."""
        supervisor = self._supervisor
        with supervisor.lock:
            supervisor.generation += 1
            self.stop.reset()
            if state.stop is not None:
                self.stop.press(state.stop)
            for name, value in zip(_SAVED, state.supervisor, strict=True):
                setattr(supervisor, name, value)
            self._monitor.memory = state.monitor
            self._executor.restore(state.trajectory, state.last_command)
            self.take_interventions()
