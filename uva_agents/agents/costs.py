"""What an objective says of imagined futures, checked in one way for planners and dreams."""

from __future__ import annotations

from typing import Any

import numpy as np

from uva_agents.agents.observations import to_numpy
from uva_agents.errors import InputError


def checked_costs(result: Any, n: int, name: str) -> np.ndarray:
    """Costs (n,) float64 of n candidates.

    Args:
        result: of the objective; a single number will do for a single candidate.
        name: of the objective, for errors.

    Raises:
        InputError: no real numbers (None, text, bool, complex), masked ones, not one for each candidate, or not finite.
    """
    if result is None:
        raise InputError(f"{name} gave None: it must return one cost per candidate, ({n},)")
    costs = to_numpy(result, f"what {name} gave")
    if costs.dtype.kind not in "iuf":
        raise InputError(f"{name} must give costs as real numbers, but gave {type(result).__name__} of {costs.dtype}")
    if costs.shape == () and n == 1:
        costs = costs[None]
    if costs.shape != (n,):
        raise InputError(f"{name} must give one cost per candidate, ({n},), but gave {costs.shape}")
    costs = costs.astype(np.float64)
    bad = ~np.isfinite(costs)
    if bad.any():
        raise InputError(
            f"{name} gave a cost that is not finite ({costs[bad][0]}) for {int(bad.sum())} of {n} candidates: "
            "a candidate that must not win gets a large number"
        )
    return costs


def name_of(objective: Any) -> str:
    """For errors: a function's own name, or the class of anything else."""
    return str(getattr(objective, "__name__", None) or type(objective).__name__)
