"""How long a chunk takes from observation to arm, and when the next one has to be asked for."""

from __future__ import annotations

from collections import deque

import numpy as np


class LatencyMeter:
    """Quantiles of the newest measurements.

    Args:
        window: how many count.
        assumed_s: what is taken for granted before there is one.
    """

    def __init__(self, *, window: int = 50, assumed_s: float = 0.2) -> None:
        self._values: deque[float] = deque(maxlen=window)
        self._assumed_s = assumed_s

    def __len__(self) -> int:
        return len(self._values)

    def add(self, seconds: float) -> None:
        """One more."""
        self._values.append(seconds)

    def quantile(self, q: float) -> float:
        """For ``q`` in [0, 1], seconds."""
        return float(np.quantile(np.array(self._values), q)) if self._values else self._assumed_s

    @property
    def p50(self) -> float:
        """Median, seconds."""
        return self.quantile(0.5)

    @property
    def p95(self) -> float:
        """Seconds."""
        return self.quantile(0.95)


def next_inference_s(
    observed_s: float, end_s: float, *, dt: float, execute: int, latency_s: float, margin_s: float
) -> float:
    """When to decide again: after ``execute`` actions of the present chunk, or earlier if the next one would come too late.

    Args:
        observed_s: time of the observation that the present chunk was decided from.
        end_s: time of its last action.
        dt: between actions.
        latency_s: from an observation to its chunk in the queue.
        margin_s: by how much the next chunk shall be there before the present one ends.
    """
    return min(observed_s + execute * dt, end_s - latency_s - margin_s)
