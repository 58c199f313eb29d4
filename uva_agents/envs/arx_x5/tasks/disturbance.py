"""What pushes the arm about while a script works, so that recordings show how to find back."""

from __future__ import annotations

import math

import numpy as np

_JITTER, _TURN = 0.004, 0.03
"""Standard deviations of what never stops: metres per axis, rad per angle."""
_REMEMBERS_S = 0.4
_PUSH_M, _PUSH_S = (0.015, 0.05), (0.6, 1.4)
"""How far a push goes, and how long it lasts."""
_PAUSE_S = (0.2, 1.8)


class Disturbance:
    """A slow jitter (Ornstein-Uhlenbeck) and now and then a push to one side; both as large as there is room for.

    Args:
        rng: of everything here.
        rate_hz: control steps per second.
        strength: times the usual size.
    """

    def __init__(self, rng: np.random.Generator, *, rate_hz: float, strength: float = 1.0) -> None:
        self._rng, self._dt, self._strength = rng, 1.0 / rate_hz, strength
        self._jitter = rng.standard_normal(6)
        self._margin = 0.0
        self._pause()

    def push(self, pose: np.ndarray, slack: float) -> np.ndarray:
        """Where the tool is sent instead of to ``pose`` (6,): metres, then roll, pitch, yaw in rad. Call once a step.

        Args:
            slack: in [0, 1], see :class:`~uva_agents.envs.arx_x5.tasks.demonstrator.Target`.
        """
        keep = math.exp(-self._dt / _REMEMBERS_S)
        self._jitter = keep * self._jitter + math.sqrt(1 - keep**2) * self._rng.standard_normal(6)
        # Room shrinks at once and grows slowly: what becomes delicate is left alone from that step on.
        self._margin = min(slack, self._margin + 2.0 * self._dt)
        offset = self._jitter * np.repeat([_JITTER, _TURN], 3)
        offset[:3] += self._pushed()
        pushed: np.ndarray = pose + offset * (self._strength * self._margin)
        return pushed

    def _pushed(self) -> np.ndarray:
        self._since_s += self._dt
        if self._since_s >= self._lasts_s:
            self._pause()
        if self._since_s < 0:
            return np.zeros(3)
        return np.asarray(self._goes * math.sin(math.pi * self._since_s / self._lasts_s))

    def _pause(self) -> None:
        """The next push is some time ahead."""
        self._since_s, self._lasts_s = -self._rng.uniform(*_PAUSE_S), self._rng.uniform(*_PUSH_S)
        direction = self._rng.standard_normal(3)
        self._goes = direction / np.linalg.norm(direction) * self._rng.uniform(*_PUSH_M)
