"""The search of one decision: candidates in, costs out; every evaluated candidate is kept."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np

from uva_agents.agents.arguments import real, whole
from uva_agents.agents.costs import name_of
from uva_agents.agents.observations import to_numpy
from uva_agents.agents.rollout import Rollout
from uva_agents.errors import InputError
from uva_agents.planners.budget import TimeBudget
from uva_agents.planners.objective import Objective, as_objective, bind_objective, evaluated
from uva_agents.planners.plan import Plan
from uva_agents.planners.protocols import Dynamics, Prepares, Proposals, SharesEncoding

_T = TypeVar("_T")


@dataclass(frozen=True)
class Screen:
    """A cheap first evaluation, after which only the best part of the candidates is imagined in full.

    Args:
        keep: the part that stays, in (0, 1].
        steps: denoising steps of the first evaluation; 0 is the rendered prior alone, for weights that render moved keypoints.
        objective: of the first evaluation, on an earlier frame or on latents for example; the planner's own objective when absent.
    """

    keep: float = 0.25
    steps: int | None = None
    objective: Any = None

    def __post_init__(self) -> None:
        real(self.keep, "keep", 0, 1, above=True)
        if self.steps is not None:
            whole(self.steps, "steps", least=0)
        if self.steps is None and self.objective is None:
            raise InputError("a screen needs fewer steps= or another objective=: otherwise the first look is the last")
        if self.objective is not None:
            as_objective(self.objective)


class Search:
    """Scores candidates for one moment.

    Args:
        dynamics, proposals: see :mod:`uva_agents.planners.protocols`.
        objective: not yet bound to the observation.
        obs: one observation.
        history: earlier ones, leading time axis, or ``None``.
        space: of one action.
        rng: of this decision.
        budget: of time, of this decision.
        steps: denoising steps of the futures; the model's own when absent.
        screen: of candidates, or ``None``.
        tolerance: candidates that differ by less than about this fraction of the action space are the same.
        rollout_options, sample_options: names of the optional arguments that dynamics and proposals take.
    """

    def __init__(
        self,
        *,
        dynamics: Dynamics,
        objective: Objective,
        proposals: Proposals,
        obs: Any,
        history: Any,
        space: gym.spaces.Box,
        rng: np.random.Generator,
        budget: TimeBudget,
        steps: int | None,
        screen: Screen | None,
        tolerance: float,
        rollout_options: frozenset[str],
        sample_options: frozenset[str],
    ) -> None:
        self.rng, self.space = rng, space
        self._dynamics, self._objective, self._proposals = dynamics, bind_objective(objective, obs), proposals
        self._rollout_options, self._sample_options = rollout_options, sample_options
        self._obs, self._history, self._budget = obs, history, budget
        self._steps, self._screen, self._tolerance = steps, screen, tolerance
        self._first_objective = self._objective
        if screen is not None and screen.objective is not None:
            self._first_objective = bind_objective(as_objective(screen.objective), obs)
        self._seed = int(rng.integers(2**31))
        self._times = {"model": 0.0, "proposals": 0.0, "objective": 0.0}
        self._start: Any = None
        self._places: dict[bytes, int] = {}
        self._costs: list[float] = []
        self._valid: list[bool] = []
        self._candidates: list[np.ndarray] = []
        self._rollouts: list[Rollout] = []
        self._considered = self._duplicates = self._screened = 0
        self._complete = True

    @property
    def out_of_time(self) -> bool:
        """Whether something was left out because time was up."""
        return not self._complete

    def proposed(self, n: int, extra: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """``n`` proposals in batches (m, T, A) that fit the time; ``extra`` (T, A) comes with the first."""
        options: dict[str, Any] = {}
        if self._history is not None and "history" in self._sample_options:
            options["history"] = self._history
        while n > 0:
            size = self._budget.size(n)
            if size == 0:
                self._complete = False
                return
            if "seed" in self._sample_options:
                options["seed"] = int(self.rng.integers(2**31))
            sampled = self._sampled(size, options)
            batch = self._checked(sampled, size)
            if extra is not None and extra.shape == batch.shape[1:]:
                batch = np.concatenate([batch, extra[None]])
            extra = None
            yield batch
            n -= size

    def score(self, candidates: np.ndarray) -> np.ndarray:
        """Costs (n,) of candidates (n, T, A) inside the action space; infinite where they were screened out or not reached."""
        costs = np.full(len(candidates), np.inf)
        self._considered += len(candidates)
        keys = self._keys(candidates)
        new: list[int] = []
        claimed = set()
        for i, key in enumerate(keys):
            if key in self._places or key in claimed:
                self._duplicates += 1
            else:
                claimed.add(key)
                new.append(i)
        while new:
            size = self._budget.size(len(new))
            if size == 0:
                self._complete = False
                break
            self._evaluate(candidates[new[:size]], [keys[i] for i in new[:size]])
            self._budget.evaluated(size)
            new = new[size:]
        for i, key in enumerate(keys):
            if key in self._places:
                costs[i] = self._costs[self._places[key]]
        return costs

    def plan(self) -> Plan:
        """The decision, from everything that was judged."""
        costs, valid = np.array(self._costs), np.array(self._valid)
        if not valid.any():
            warnings.warn(
                f"{name_of(self._objective)} cannot see what it judges in any of {len(valid)} imagined futures: "
                "this plan is hardly better than a guess (plan.valid)",
                stacklevel=2,
            )
        # What was not measured never beats what was.
        best = int(np.lexsort((costs, ~valid))[0])
        candidates = np.concatenate(self._candidates)
        return Plan(
            actions=candidates[best],
            costs=costs,
            candidates=candidates,
            rollout=Rollout.concatenate(self._rollouts),
            latency_s=self._budget.elapsed_s,
            best=best,
            valid=valid,
            considered=self._considered,
            duplicates=self._duplicates,
            screened=self._screened,
            complete=self._complete,
            model_s=self._times["model"],
            proposals_s=self._times["proposals"],
            objective_s=self._times["objective"],
        )

    def _evaluate(self, candidates: np.ndarray, keys: list[bytes]) -> None:
        """Imagine and judge new candidates, after a screen where there is one."""
        screen = self._screen
        if screen is not None and len(candidates) > 1:
            first, _, _ = self._judged(candidates, self._first_objective, screen.steps)
            kept = np.sort(np.argsort(first, kind="stable")[: int(np.ceil(screen.keep * len(first)))])
            self._screened += len(first) - len(kept)
            candidates, keys = candidates[kept], [keys[i] for i in kept]
        costs, valid, rollout = self._judged(candidates, self._objective, self._steps)
        for i, key in enumerate(keys):
            self._places[key] = len(self._costs) + i
        self._costs += costs.tolist()
        self._valid += valid.tolist()
        self._candidates.append(candidates)
        self._rollouts.append(rollout)

    def _judged(
        self, candidates: np.ndarray, objective: Objective, steps: int | None
    ) -> tuple[np.ndarray, np.ndarray, Rollout]:
        rollout = self._timed("model", lambda: self._imagined(candidates, objective, steps))
        if len(rollout) != len(candidates):
            raise InputError(
                f"{type(self._dynamics).__name__}.rollout() got {len(candidates)} candidates and returned {len(rollout)} futures"
            )
        result = self._timed("objective", lambda: evaluated(objective, rollout))
        return result.costs, result.valid, rollout

    def _sampled(self, n: int, options: dict[str, Any]) -> Any:
        proposals = self._proposals
        sample = functools.partial(proposals.sample, self._obs)
        if isinstance(proposals, SharesEncoding) and isinstance(self._dynamics, Prepares):
            start = self._timed("model", self._prepared)
            if proposals.shares_encoding(start):
                sample = functools.partial(proposals.sample_from, start, self._obs)
        return self._timed("proposals", lambda: sample(n, **options))

    def _prepared(self) -> Any:
        """What all candidates share, computed once: the dynamics' own start, or the observation."""
        if self._start is None:
            self._start = self._obs
            if isinstance(self._dynamics, Prepares):
                self._start = self._dynamics.prepare(self._obs, history=self._history)
        return self._start

    def _imagined(self, candidates: np.ndarray, objective: Objective, steps: int | None) -> Rollout:
        required = objective.required_frames()
        options: dict[str, Any] = {
            "seed": self._seed,
            "frames": required.frames,
            "decode": required.pixels,
            "history": None if isinstance(self._dynamics, Prepares) else self._history,
            "steps": steps,
        }
        given = {k: v for k, v in options.items() if v is not None and k in self._rollout_options}
        return self._dynamics.rollout(self._prepared(), candidates, **given)

    def _checked(self, actions: Any, n: int) -> np.ndarray:
        """Proposals (n, T, A), finite and inside the action space."""
        name, size = type(self._proposals).__name__, self.space.shape[0]
        value = to_numpy(actions, f"what {name}.sample() gave")
        if value.dtype.kind not in "iuf":
            raise InputError(f"{name}.sample() must return actions as real numbers, got {value.dtype}")
        if value.ndim != 3 or len(value) != n or value.shape[2] != size or not value.shape[1]:
            raise InputError(f"{name}.sample() must return ({n}, T, {size}) actions, got {value.shape}")
        if not np.isfinite(value).all():
            rows = np.flatnonzero(~np.isfinite(value).reshape(n, -1).all(1))
            raise InputError(
                f"{name}.sample() gave NaN or infinity in {len(rows)} of {n} candidates (the first is {rows[0]}): its weights "
                "or its normaliser are damaged"
            )
        low, high = self.space.low, self.space.high
        slack = 0.01 * np.where(np.isfinite(high - low), high - low, 0.0)
        if ((value < low - slack) | (value > high + slack)).any():
            raise InputError(
                f"{name}.sample() returned actions from {value.min():g} to {value.max():g}, outside {self.space}: "
                "proposals are in environment units; undo their normalisation"
            )
        return np.clip(value, low, high).astype(np.float32)

    def _keys(self, candidates: np.ndarray) -> list[bytes]:
        """Equal for candidates that are the same to within the tolerance (a cell of a grid of that size)."""
        width = self.space.high.astype(np.float64) - self.space.low
        cell = self._tolerance * np.where(np.isfinite(width), width, 0.0)
        if (cell > 0).all():
            with np.errstate(over="ignore"):
                cells = np.round(candidates / cell)
            # Cells beyond what float64 counts are finer than float32 candidates are apart: those that differ are different.
            if np.abs(cells).max() < 2**53:
                candidates = cells.astype(np.int64)
        return [row.tobytes() for row in np.ascontiguousarray(candidates)]

    def _timed(self, what: str, work: Callable[[], _T]) -> _T:
        began = time.perf_counter()
        try:
            return work()
        finally:
            self._times[what] += time.perf_counter() - began
