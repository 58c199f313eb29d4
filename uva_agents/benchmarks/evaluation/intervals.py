"""95 % intervals for rates and means of few episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]
_Z95 = 1.959963984540054


def wilson_interval(successes: int, n: int) -> Interval:
    """Wilson score interval of a rate. Unlike the normal one it stays in [0, 1] and is honest at 0 of n and n of n.

    Raises:
        ValueError: ``n`` is not positive, or ``successes`` is not in [0, n].
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a rate needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    rate, z2 = successes / n, _Z95**2
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    # At the ends the exact bound is 0 or 1; rounding must not move it past the rate itself.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def bootstrap_interval(values: Sequence[float], *, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of a mean of scores in [0, 1].

    They pile up at the ends, where a normal interval leaves the range.

    Args:
        values: (n,) at least one.
        resamples: draws of n values with replacement.
        seed: the interval of the same values is always the same.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data):
        raise ValueError(f"an interval needs a list of at least one value, got shape {data.shape}")
    if len(data) == 1:
        return 0.0, 1.0  # one episode says nothing about how much episodes differ
    rng = np.random.default_rng(seed)
    # Multinomial counts instead of indices: memory does not grow with resamples x n draws of floats.
    counts = rng.multinomial(len(data), np.full(len(data), 1 / len(data)), size=resamples)
    low, high = np.quantile(counts @ data / len(data), (0.025, 0.975))
    return float(low), float(high)
