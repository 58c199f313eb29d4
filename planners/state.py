"""What a planner remembers of its environments, as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uva_agents.agents.observations import to_numpy
from uva_agents.planners.plan import Plan


@dataclass(frozen=True)
class PlannerRow:
    """One environment's memory. Updates make new values; nothing is changed in place.

    Attributes:
        seed: of this episode's random stream; (seed, decisions) determines a decision.
        decisions: plans made so far.
        seen: the newest observations, oldest first, as many as dynamics and proposals look at.
        queue: (k, A) actions of the current plan still to execute.
        plan: the newest plan with all that it considered.
    """

    seed: int
    decisions: int = 0
    seen: tuple[Any, ...] = ()
    queue: np.ndarray | None = None
    plan: Plan | None = None

    @property
    def hungry(self) -> bool:
        """Whether the next action needs a new plan."""
        return self.queue is None or len(self.queue) == 0

    def observed(self, obs: Any, keep: int) -> PlannerRow:
        """With one more observation, keeping the newest ``keep``."""
        return replace(self, seen=(*self.seen, obs)[-keep:])

    def planned(self, plan: Plan, execute: int) -> PlannerRow:
        """With a new plan, of which the first ``execute`` actions are to be carried out."""
        return replace(self, plan=plan, queue=plan.actions[:execute], decisions=self.decisions + 1)

    def acted(self) -> tuple[np.ndarray, PlannerRow]:
        """The next action, and the row without it."""
        assert self.queue is not None
        return self.queue[0], replace(self, queue=self.queue[1:])


@dataclass(frozen=True)
class PlannerState:
    """State of a planner over several environments: an :class:`~uva_agents.agents.base.AgentState`."""

    rows: tuple[PlannerRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> PlannerRow:
        return self.rows[index]

    @property
    def decisions(self) -> np.ndarray:
        """(n,) plans made so far, per row."""
        return np.array([row.decisions for row in self.rows])

    def restarted(self, mask: np.ndarray, seeds: Sequence[int] | None = None) -> PlannerState:
        """Rows where ``mask`` is true start a new episode; without ``seeds`` they continue from their own seed plus 1."""
        mask = np.asarray(mask, dtype=bool).reshape(-1)
        if len(mask) != len(self.rows):
            raise ValueError(f"mask has {len(mask)} entries for {len(self.rows)} environments")
        rows = []
        for i, (row, restart) in enumerate(zip(self.rows, mask, strict=True)):
            if not restart:
                rows.append(row)
            elif seeds is not None:
                rows.append(PlannerRow(int(seeds[i])))
            else:
                # Untouched rows keep their seed: stable-baselines3 marks the very first observation as an episode start too.
                rows.append(PlannerRow(row.seed + 1) if row.seen else row)
        return PlannerState(tuple(rows))


def split(obs: Any) -> tuple[list[Any], bool]:
    """One observation per environment, arrays as numpy, and whether the observation was a batch.

    Images have three axes and vectors one; one more is a batch.

    Raises:
        TypeError: the ``(obs, info)`` pair that ``env.reset()`` returns.
        ValueError: an empty dict, or entries that disagree about the batch.
    """
    if isinstance(obs, tuple):
        raise TypeError("got a tuple: env.reset() returns (obs, info); pass only obs, as in `obs, info = env.reset()`")
    if not isinstance(obs, Mapping):
        value = to_numpy(obs)
        batched = value.ndim in (2, 4)
        return (list(value) if batched else [value]), batched
    arrays = {key: to_numpy(value) for key, value in obs.items() if not isinstance(value, str)}
    shaped = [key for key in arrays if arrays[key].dtype != object and arrays[key].dtype.kind not in "US"]
    if not shaped:
        raise ValueError(f"the observation has no arrays; its keys are {sorted(obs)}")
    lead = next((key for key in ("pixels", "agent_pos") if key in shaped), shaped[0])
    batched = arrays[lead].ndim in (2, 4)
    if not batched:
        return [{key: value if isinstance(value, str) else _plain(arrays[key]) for key, value in obs.items()}], False
    n = len(arrays[lead])
    wrong = [key for key, value in arrays.items() if value.shape[:1] != (n,)]
    if wrong:
        raise ValueError(f"{lead!r} is a batch of {n}, but {wrong[0]!r} has shape {arrays[wrong[0]].shape}")
    rows = []
    for i in range(n):
        rows.append({key: obs[key] if isinstance(obs[key], str) else _plain(arrays[key][i]) for key in obs})
    return rows, True


def stack(observations: Sequence[Any]) -> Any | None:
    """Observations with a leading time axis, as ``history=`` takes them; ``None`` without any."""
    if not observations:
        return None
    if not isinstance(observations[0], Mapping):
        return np.stack([np.asarray(o) for o in observations])
    return {
        key: [o[key] for o in observations]
        if not isinstance(value, np.ndarray)
        else np.stack([o[key] for o in observations])
        for key, value in observations[0].items()
    }


def _plain(value: Any) -> Any:
    """What an object array of one element holds; other values as they are."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS" and value.ndim == 0:
        return value.item()
    return str(value) if isinstance(value, np.str_) else value
