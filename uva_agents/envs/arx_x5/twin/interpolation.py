"""From waypoints to the command of this moment, as the SDK does it: straight lines in joint space; the last waypoint is kept."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

import numpy as np

WINDOW_S = 0.05
"""Velocities of waypoints are taken over so much time on either side."""

N_NUMBERS = 21
"""Of one state as a vector: 6 positions, 6 velocities, 6 torques; position, velocity, torque of the gripper."""


class Interpolator:
    """Waypoints in time: vectors (21,) of :data:`N_NUMBERS`. Always holds at least one.

    Args:
        time_s: of the first.
        values: (21,) the first.
    """

    def __init__(self, time_s: float, values: np.ndarray) -> None:
        self.times: list[float] = [time_s]
        self.values: list[np.ndarray] = [values.copy()]

    def at(self, time_s: float) -> np.ndarray:
        """(21,) the command at that time."""
        times = self.times
        if time_s <= times[0]:
            return self.values[0].copy()
        if time_s >= times[-1]:
            return self.values[-1].copy()
        after = bisect.bisect_right(times, time_s)
        start, end = times[after - 1], times[after]
        share = (time_s - start) / (end - start)
        result: np.ndarray = self.values[after - 1] * (1 - share) + self.values[after] * share
        return result

    def fix(self, time_s: float, values: np.ndarray) -> None:
        """The same command at all times."""
        self.times, self.values = [time_s], [values.copy()]

    def replace(self, now: float, times: Sequence[float], values: Sequence[np.ndarray]) -> None:
        """From the command of this moment, straight through these waypoints. Those not in the future are left out.

        Raises:
            ValueError: times fall. If no waypoint is left, everything stays as it is, as in the SDK.
        """
        if any(later < earlier for earlier, later in itertools.pairwise(times)):
            raise ValueError("Trajectory timestamps must be in strictly ascending order")
        kept = [(time, vector) for time, vector in zip(times, values, strict=True) if time > now]
        if kept:
            first = self.at(now)
            self.times = [now, *(time for time, _ in kept)]
            self.values = [first, *(vector.copy() for _, vector in kept)]


def with_velocities(times: Sequence[float], values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Waypoints with the joints' velocities that their positions imply.

    The mean of two differences, between the waypoints at or just beyond half a window and a whole window on either side.
    """
    if len(times) < 2:
        return [vector.copy() for vector in values]
    results = []
    for time, vector in zip(times, values, strict=True):
        slopes = []
        for half_window in (WINDOW_S / 2, WINDOW_S):
            before = min(max(bisect.bisect_right(times, time - half_window) - 1, 0), len(times) - 2)
            after = max(min(bisect.bisect_left(times, time + half_window), len(times) - 1), before + 1)
            slopes.append((values[after][:6] - values[before][:6]) / (times[after] - times[before]))
        result = vector.copy()
        result[6:12] = (slopes[0] + slopes[1]) / 2
        results.append(result)
    return results
