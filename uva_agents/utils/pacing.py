"""Steps at a fixed rate on a clock that only goes forward, and statistics of those that came late."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from uva_agents.utils.clocks import Clock


@dataclass(frozen=True, slots=True)
class StepTiming:
    """How well the steps since the reset kept their times.

    Attributes:
        steps: how many there were.
        late_steps: of these, later than the tolerance.
        skipped: times of steps that passed unused, because a step came more than a whole period late.
        lateness_s: how much later than its time the last step began.
        jitter_p50_s, jitter_p99_s, jitter_max_s: of the lateness of the newest 10,000 steps.
    """

    steps: int
    late_steps: int
    skipped: int
    lateness_s: float
    jitter_p50_s: float
    jitter_p99_s: float
    jitter_max_s: float


class Pacer:
    """Says when the next step is due.

    A step that comes late is not made up for by shorter ones: times lie on a grid, and those that passed are skipped. An arm that
    hurries to catch up moves faster than it was ordered to.

    Args:
        clock: to sleep on.
        period_s: between steps.
        tolerance_s: lateness that is not counted.
    """

    def __init__(self, clock: Clock, period_s: float, *, tolerance_s: float) -> None:
        self._clock, self._tolerance_s = clock, tolerance_s
        self.period_s = period_s
        self._lateness: deque[float] = deque(maxlen=10_000)
        self.restart()

    def restart(self) -> None:
        """Now is a step; forget the statistics."""
        self.due_s = self._clock.now() + self.period_s
        self._lateness.clear()
        self._steps = self._late = self._skipped = 0

    def arrived(self) -> float:
        """To be called once the clock has reached :attr:`due_s`, or later: counts the step and returns its time on the grid."""
        late = max(0.0, self._clock.now() - self.due_s)
        self._lateness.append(late)
        self._steps += 1
        self._late += late > self._tolerance_s
        # A rounding error must not skip a step.
        missed = int(late / self.period_s + 1e-9)
        self._skipped += missed
        time_s = self.due_s + missed * self.period_s
        self.due_s = time_s + self.period_s
        return time_s

    @property
    def record(self) -> tuple[tuple[float, ...], int, int, int]:
        """What :meth:`timing` is computed from; can be set."""
        return tuple(self._lateness), self._steps, self._late, self._skipped

    @record.setter
    def record(self, record: tuple[tuple[float, ...], int, int, int]) -> None:
        lateness, self._steps, self._late, self._skipped = record
        self._lateness.clear()
        self._lateness.extend(lateness)

    def timing(self) -> StepTiming:
        """The statistics since :meth:`restart`."""
        values = np.array(self._lateness) if self._lateness else np.zeros(1)
        p50, p99 = np.percentile(values, (50, 99)).tolist()
        return StepTiming(
            self._steps, self._late, self._skipped, float(values[-1]), float(p50), float(p99), float(values.max())
        )
