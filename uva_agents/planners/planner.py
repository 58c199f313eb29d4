"""A planner is an agent: it imagines what candidates lead to, executes the beginning of the best, and plans again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypedDict

import gymnasium as gym
import numpy as np

from uva_agents.agents.arguments import flag, real, whole
from uva_agents.agents.observations import split, stack_observations
from uva_agents.agents.rollout import Rollout
from uva_agents.agents.stateful import StatefulAgent
from uva_agents.errors import InputError
from uva_agents.planners.abilities import (
    action_space_of,
    dynamics_lookback,
    holds_one_environment,
    identity_of,
    label_of,
    proposals_lookback,
    rollout_options,
    sample_options,
)
from uva_agents.planners.budget import TimeBudget
from uva_agents.planners.objective import Objective, as_objective
from uva_agents.planners.plan import Plan
from uva_agents.planners.proposals import GaussianProposals
from uva_agents.planners.protocols import Dynamics, Proposals
from uva_agents.planners.search import Screen, Search
from uva_agents.planners.state import PlannerState


class PlannerOptions(TypedDict, total=False):
    """What every planner takes besides its own arguments; explained at :class:`Planner`."""

    dynamics: Dynamics
    objective: Objective | Callable[[Rollout], Any]
    proposals: Proposals | None
    n_samples: int
    execute: int
    budget_s: float | None
    warm_start: bool
    tail: Literal["hold", "zero"]
    steps: int | None
    screen: Screen | None
    duplicates: float
    action_space: gym.spaces.Box | None
    horizon: int


class Planner(StatefulAgent[PlannerState]):
    """What planners share: the agent contract, time, memory. Subclasses decide which candidates to try (:meth:`search`).

    Args:
        dynamics: imagines what candidates lead to.
        objective: judges what was imagined: an :class:`~uva_agents.planners.Objective`, or a function from rollout to costs (S,).
        proposals: where candidates come from; without them, a Gaussian over the whole action space.
        n_samples: candidates per decision (per iteration, for planners that iterate).
        execute: actions of a plan that are carried out before the next.
        budget_s: seconds per decision; the best answer so far when they are over. Candidates then come in batches whose size
            follows the measured time, so results depend on the speed of the machine. At least one candidate is always evaluated.
        warm_start: the last plan, without what was carried out of it, is a candidate too.
        tail: how it is continued to full length: ``"hold"`` repeats its last action (right for actions that are positions),
            ``"zero"`` adds zeros (for actions that are changes).
        steps: denoising steps of imagined frames; the model's own number when absent.
        screen: a cheap first evaluation that rules candidates out.
        duplicates: candidates closer than about this fraction of the action space are evaluated once; 0 for equal ones only.
        action_space: of one action; the proposals' or the dynamics' own when absent.
        horizon: actions per candidate, where there are no proposals.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    state_type = PlannerState

    def __init__(
        self,
        *,
        dynamics: Dynamics,
        objective: Objective | Callable[[Rollout], Any],
        proposals: Proposals | None = None,
        n_samples: int = 100,
        execute: int = 6,
        budget_s: float | None = None,
        warm_start: bool = True,
        tail: Literal["hold", "zero"] = "hold",
        steps: int | None = None,
        screen: Screen | None = None,
        duplicates: float = 1e-3,
        action_space: gym.spaces.Box | None = None,
        horizon: int = 16,
    ) -> None:
        _check(dynamics, objective, proposals)
        n_samples, execute, horizon = (
            whole(n_samples, "n_samples"),
            whole(execute, "execute"),
            whole(horizon, "horizon"),
        )
        steps = None if steps is None else whole(steps, "steps", least=0)
        budget_s = None if budget_s is None else real(budget_s, "budget_s (seconds, or None)", 0, above=True)
        warm_start = flag(warm_start, "warm_start")
        if tail not in ("hold", "zero"):
            raise InputError(f'tail={tail!r}: choose "hold" or "zero"')
        duplicates = real(duplicates, "duplicates", 0, 1, below=True)
        wanted_steps = [s for s in (steps, screen.steps if screen else None) if s is not None]
        options = rollout_options(dynamics)
        if wanted_steps and "steps" not in options:
            raise InputError(f"{type(dynamics).__name__} has no denoising steps to choose: leave steps= out")
        spaces = (action_space, action_space_of(proposals), action_space_of(dynamics))
        space = next((s for s in spaces if s is not None), None)
        if space is None:
            raise InputError("neither proposals nor dynamics have an action_space: give action_space=")
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            raise InputError(f"planning needs a Box of shape (A,) as action space, got {space}")
        if proposals is None:
            if execute > horizon:
                raise InputError(f"execute={execute} of plans of {horizon} actions")
            proposals = GaussianProposals(space, horizon=horizon)
        super().__init__()
        self.dynamics, self.objective, self.proposals = dynamics, objective, proposals
        self.n_samples, self.execute, self.budget_s = n_samples, execute, budget_s
        self.warm_start, self.tail, self.steps, self.screen = warm_start, tail, steps, screen
        self.duplicates = duplicates
        self._space = space
        self._rollout_options, self._sample_options = options, sample_options(proposals)
        self._keep = 1 + max(dynamics_lookback(dynamics), proposals_lookback(proposals))

    def search(self, search: Search, warm: np.ndarray | None) -> None:
        """Have candidates scored; the best one is the plan.

        Args:
            search: proposes and scores.
            warm: (T, A) what is left of the last plan, a candidate to start from.
        """
        raise NotImplementedError

    @property
    def action_space(self) -> gym.spaces.Box:
        """Of one environment action."""
        return self._space

    @property
    def name(self) -> str:
        """Of planner and proposals."""
        return f"{type(self).__name__}({label_of(self.proposals)})"

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its actions, as JSON values: an interrupted evaluation continues only with the same."""
        parts = {part: identity_of(getattr(self, part)) for part in ("dynamics", "objective", "proposals")}
        names = ("n_samples", "execute", "budget_s", "warm_start", "tail", "steps", "duplicates")
        screen = None if self.screen is None else repr(self.screen)
        return {"planner": type(self).__name__, **parts, **{n: getattr(self, n) for n in names}, "screen": screen}

    def predict(
        self,
        observation: Any,
        state: PlannerState | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, PlannerState]:
        """stable-baselines3's ``predict``; environments are planned for one after the other.

        Args:
            observation: one observation or a batch; what it holds: docs/tutorials/act.md.
            state: what the previous call returned; ``None`` starts an episode.
            episode_start: (n,) bool, environments whose observation is the first of an episode.
            deterministic: use the same random stream at every decision, so that the action is a function of history and plan.

        Returns:
            Actions (A,) or (n, A) in environment units inside ``action_space``, and the next state.
        """
        deterministic = flag(deterministic, "deterministic")
        observations, batched = split(observation)
        n = len(observations)
        state = self._current(state, n, episode_start)
        if n > 1 and holds_one_environment(self.dynamics) and "state" not in observations[0]:
            raise InputError(
                f"{type(self.dynamics).__name__} starts from the state of its one environment, and these are {n}: "
                "plan for one at a time, or put each environment's get_state() into its observation as 'state'"
            )
        rows, actions = [], []
        for row, obs in zip(state.rows, observations, strict=True):
            row = row.observed(obs, self._keep)
            if row.needs_replan:
                key = (0, 0) if deterministic else (row.seed, row.decisions)
                previous = row.plan.actions if row.plan is not None else None
                row = row.planned(
                    self._decide(obs, stack_observations(row.observations[:-1]), key, previous), self.execute
                )
            action, row = row.acted()
            actions.append(action)
            rows.append(row)
        return (np.stack(actions) if batched else actions[0]), PlannerState(tuple(rows))

    def plan(
        self, obs: Any, *, history: Any | None = None, seed: int | None = None, previous: np.ndarray | None = None
    ) -> Plan:
        """A decision with everything that was considered; nothing is remembered.

        Args:
            obs: one observation.
            history: earlier observations with a leading time axis, oldest first.
            seed: of the random stream; the next of the planner's own when absent.
            previous: (T, A) actions of the last plan, of which the first ``execute`` have been carried out.
        """
        observations, batched = split(obs)
        if batched:
            raise InputError("plan() takes one observation; predict() takes a batch")
        return self._decide(observations[0], history, (next(self._seeds) if seed is None else seed, 0), previous)

    def _decide(self, obs: Any, history: Any, key: tuple[int, int], previous: np.ndarray | None) -> Plan:
        search = Search(
            dynamics=self.dynamics,
            objective=as_objective(self.objective),
            proposals=self.proposals,
            obs=obs,
            history=history,
            space=self._space,
            rng=np.random.default_rng([abs(key[0]), key[1]]),
            budget=TimeBudget(self.budget_s),
            steps=self.steps,
            screen=self.screen,
            tolerance=self.duplicates,
            rollout_options=self._rollout_options,
            sample_options=self._sample_options,
        )
        self.search(search, self._shifted(previous) if self.warm_start and previous is not None else None)
        plan = search.plan()
        if self.execute > len(plan.actions):
            raise InputError(f"execute={self.execute}, but the proposals have {len(plan.actions)} actions")
        return plan

    def _shifted(self, previous: np.ndarray) -> np.ndarray:
        """(T, A) the rest of a plan, continued to full length."""
        previous = np.asarray(previous, np.float32)
        rest = previous[self.execute :]
        last = previous[-1:] if self.tail == "hold" else np.zeros_like(previous[-1:])
        shifted = np.concatenate([rest, np.repeat(last, len(previous) - len(rest), axis=0)])
        return np.asarray(np.clip(shifted, self._space.low, self._space.high), np.float32)


class SamplingPlanner(Planner):
    """Best of ``n_samples`` proposals (paper section VII-B: 100 of them, 6 of 16 actions executed)."""

    def search(self, search: Search, warm: np.ndarray | None) -> None:
        """Score every proposal."""
        for batch in search.proposed(self.n_samples, warm):
            search.score(batch)


def _check(dynamics: Any, objective: Any, proposals: Any) -> None:
    for what, part, method in (("dynamics", dynamics, "rollout"), ("proposals", proposals, "sample")):
        if part is not None and not callable(getattr(part, method, None)):
            raise TypeError(f"{what}={type(part).__name__} has no {method}(): see uva_agents.planners.protocols")
    if dynamics is None or objective is None:
        raise TypeError("a planner needs dynamics= and objective=")
    as_objective(objective)
