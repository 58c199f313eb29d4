"""The robot interface: what the control loop needs of an arm, to observe, to schedule actions, and to come to rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from uva_agents.agents.base import Observation


@dataclass(frozen=True, eq=False)
class Observed:
    """One observation with its time.

    Attributes:
        obs: what the agent gets.
        time_s: when that was true, on the arm's clock.
        done: the task is over.
        success: it has been solved.
        stopped: an emergency stop is pressed, by anyone.
        extra: further numbers to record, each (n,).
    """

    obs: Observation
    time_s: float
    done: bool = False
    success: bool = False
    stopped: bool = False
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SendReport:
    """What was sent of a schedule of actions.

    Attributes:
        sent: (A,) what was really sent in place of the first one, as an action; ``None`` if nothing was.
        interventions: of the safety layer, in words.
    """

    sent: np.ndarray | None
    interventions: tuple[str, ...] = ()


class RobotInterface(Protocol):
    """An arm with its cameras and its safety layer. No method but :meth:`sleep_until` may take long."""

    @property
    def reaction_s(self) -> float:
        """How far ahead of now the first moment lies that an action sent now can still be for."""
        ...

    def now(self) -> float:
        """Seconds, monotonic."""
        ...

    def sleep_until(self, time_s: float) -> None:
        """Return then, or at once if that is past."""
        ...

    def observe(self) -> Observed:
        """The newest pictures and measurements, without waiting for newer ones."""
        ...

    def schedule(self, actions: np.ndarray, start_s: float, dt: float) -> SendReport:
        """Be at ``actions`` (n, A) at ``start_s``, ``start_s`` + ``dt``, ..., and stay at the last; replaces what was scheduled."""
        ...

    def stay(self, obs: Observation) -> np.ndarray | None:
        """(A,) the action that keeps the arm where it is in ``obs``; ``None`` where there is none."""
        ...

    def hold(self) -> None:
        """Come to rest, stiff; forget what is scheduled."""
        ...

    def refuse(self, reason: str) -> tuple[str, ...]:
        """As :meth:`hold`, because what the agent says cannot be followed; returns the safety layer's interventions, in words."""
        ...

    def stop(self) -> None:
        """Emergency stop; from any thread."""
        ...


def as_float(values: Any) -> np.ndarray:
    """(n,) float32, to record."""
    return np.atleast_1d(np.asarray(values, np.float32)).reshape(-1)
