"""What a planner remembers of its environments, as a value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uva_agents.agents.stateful import Rows
from uva_agents.planners.plan import Plan


@dataclass(frozen=True)
class PlannerRow:
    """One environment's memory. Updates make new values; nothing is changed in place.

    Attributes:
        seed: of this episode's random stream; (seed, decisions) determines a decision.
        decisions: plans made so far.
        observations: the newest observations, oldest first, as many as dynamics and proposals use.
        queue: (k, A) actions of the current plan still to execute.
        plan: the newest plan with all that it considered.
    """

    seed: int
    decisions: int = 0
    observations: tuple[Any, ...] = ()
    queue: np.ndarray | None = None
    plan: Plan | None = None

    @property
    def unobserved(self) -> bool:
        """Whether nothing has been observed yet."""
        return not self.observations

    @property
    def needs_replan(self) -> bool:
        """Whether the next action needs a new plan."""
        return self.queue is None or len(self.queue) == 0

    def observed(self, obs: Any, keep: int) -> PlannerRow:
        """With one more observation, keeping the newest ``keep``."""
        return replace(self, observations=(*self.observations, obs)[-keep:])

    def planned(self, plan: Plan, execute: int) -> PlannerRow:
        """With a new plan, of which the first ``execute`` actions are to be carried out."""
        return replace(self, plan=plan, queue=plan.actions[:execute], decisions=self.decisions + 1)

    def acted(self) -> tuple[np.ndarray, PlannerRow]:
        """The next action, and the row without it."""
        assert self.queue is not None
        return self.queue[0].copy(), replace(self, queue=self.queue[1:])


class PlannerState(Rows[PlannerRow]):
    """State of a planner over several environments."""

    row_type = PlannerRow
