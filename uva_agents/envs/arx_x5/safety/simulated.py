"""The safety layer around a simulated arm, which can be put elsewhere and back: the layer has to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uva_agents.envs.arx_x5.safety.executor import Follows
from uva_agents.envs.arx_x5.safety.safe_arm import Mode, SafeArm
from uva_agents.envs.arx_x5.safety.trajectory_filter import Path

_KEPT = ("_mode", "_near", "_halted", "_undamped", "_problem", "_problem_since", "_stopped", "_fresh_s")


@dataclass(frozen=True, slots=True)
class SafetyState:
    """What the layer does next depends on this, and on the arm. Can be pickled.

    Attributes:
        path: that the arm was sent on.
        follows: whether it follows that.
        kept: what it is doing, and since when.
        health: since when torques are high, and until when the camera was found to be fresh.
        stop: why the emergency stop is pressed; ``None`` if it is not.
    """

    path: Path
    follows: Follows
    kept: tuple[Any, ...]
    health: tuple[float, float]
    stop: str | None


class SimulatedSafeArm(SafeArm):
    """A :class:`SafeArm` for the twin. Its limits are no others."""

    def placed(self, put: Callable[[], None]) -> None:
        """Let ``put`` put the arm elsewhere, stiff and at rest: what was sent before is forgotten, and the stop is released."""
        with self._lock:
            self._era += 1
            put()
            now, state = self._driver.clock.now(), self._driver.state()
            self.stop.reset()
            self._mode, self._near, self._stopped, self._undamped = Mode.HOLDING, True, False, False
            self._problem, self._problem_since, self._fresh_s = None, 0.0, now
            self._health.restart()
            self._motion.rest_at(state.joint_pos, state.gripper_pos)
            self.take_interventions()

    def abandon(self) -> None:
        """:meth:`close` without leading the arm home: where nothing is real, nothing has to be brought to rest."""
        with self._lock:
            self._mode = Mode.LIMP if self._mode is not Mode.CLOSED else Mode.CLOSED
        self.close()

    def get_state(self) -> SafetyState:
        """For :meth:`set_state`."""
        with self._lock:
            kept = tuple(getattr(self, name) for name in _KEPT)
            stop = self.stop.reason if self.stop.pressed else None
            return SafetyState(self._motion.path, self._motion.follows, kept, self._health.memory, stop)

    def set_state(self, state: SafetyState) -> None:
        """Go on as after :meth:`get_state`, once the arm and its clock are there, too."""
        with self._lock:
            self._era += 1
            self.stop.reset()
            if state.stop is not None:
                self.stop.press(state.stop)
            for name, value in zip(_KEPT, state.kept, strict=True):
                setattr(self, name, value)
            self._health.memory = state.health
            self._motion.restore(state.path, state.follows)
            self.take_interventions()
