"""What a planner decided, and what it considered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uva_agents.agents.rollout import Rollout


@dataclass(frozen=True)
class Plan:
    """One decision.

    Attributes:
        actions: (T, A) the best candidate, environment units.
        costs: (S,) of the candidates that were judged in full, low is good.
        candidates: (S, T, A) those candidates, each once, in the order in which they were judged.
        rollout: their imagined futures, at the frames that the objective needs.
        latency_s: from the observation to the decision.
        best: index of ``actions`` among the candidates.
        valid: (S,) bool, whether the cost is a measurement: the objective could see what it judges.
        considered: candidates in all; the rest of them were duplicates, screened out, or not reached in time.
        duplicates: how many equalled an earlier one.
        screened: how many the screen ruled out.
        complete: false if time was up before all was done.
        model_s, proposals_s, objective_s: seconds of ``latency_s`` spent imagining, proposing and judging.
    """

    actions: np.ndarray
    costs: np.ndarray
    candidates: np.ndarray
    rollout: Rollout
    latency_s: float
    best: int
    valid: np.ndarray
    considered: int
    duplicates: int
    screened: int
    complete: bool
    model_s: float
    proposals_s: float
    objective_s: float

    @property
    def cost(self) -> float:
        """Of the best candidate."""
        return float(self.costs[self.best])

    @property
    def overhead_s(self) -> float:
        """Seconds spent on anything but proposing, imagining and judging."""
        return self.latency_s - self.model_s - self.proposals_s - self.objective_s
