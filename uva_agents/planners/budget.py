"""Time of a decision: how many candidates fit into what is left of it."""

from __future__ import annotations

import time
from collections.abc import Callable

SHARE = 8
"""A batch is given at most this fraction of the budget: one that takes twice as long as foreseen costs an eighth more."""
GROWTH = 4
"""A batch is at most this many times the last: short ones overstate the time per candidate, so sizes grow by measuring."""


class TimeBudget:
    """The time of one decision: counts from its making, and sizes batches of candidates by the measured time per candidate.

    Args:
        budget_s: seconds; ``None`` for no limit.
        now: the time, seconds.
    """

    def __init__(self, budget_s: float | None, now: Callable[[], float] = time.perf_counter) -> None:
        self.budget_s = budget_s
        self._now = now
        self._began = self._mark = now()
        self._rate: float | None = None  # seconds per candidate, of the last batch
        self._size = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was made."""
        return self._now() - self._began

    def size(self, wanted: int) -> int:
        """How many of ``wanted`` candidates to evaluate next; 0 when time is up. At least one is evaluated, whatever the budget."""
        if self.budget_s is None or wanted <= 0:
            return max(wanted, 0)
        if self._rate is None:
            return min(wanted, 2)
        left = self.budget_s - self.elapsed_s
        if left < self._rate:
            return 0
        fits = int(min(left, self.budget_s / SHARE) / max(self._rate, 1e-9))
        return max(1, min(wanted, fits, GROWTH * self._size))

    def evaluated(self, n: int) -> None:
        """``n`` candidates took the time since the last call, everything that led to them included."""
        now = self._now()
        self._rate, self._size, self._mark = (now - self._mark) / max(n, 1), n, now
