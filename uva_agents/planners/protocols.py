"""The three seams of a planner: what proposes actions, what imagines their outcome, what judges it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from uva_agents.agents.costs import checked_costs, name_of
from uva_agents.agents.observations import to_numpy
from uva_agents.agents.rollout import Rollout
from uva_agents.errors import InputError


@dataclass(frozen=True)
class Looks:
    """What an objective looks at; nothing else is imagined to the end, or decoded.

    Args:
        frames: indices of frames of the future, negative ones from the end; ``None`` means all.
        pixels: it looks at the frames themselves. False: at latents, states or actions, so nothing is decoded.
    """

    frames: tuple[int, ...] | None = None
    pixels: bool = True

    def __or__(self, other: Looks) -> Looks:
        """What two objectives together look at."""
        pixels = self.pixels or other.pixels
        if self.frames is None or other.frames is None:
            return Looks(None, pixels)
        return Looks(tuple(dict.fromkeys((*self.frames, *other.frames))), pixels)


@dataclass(frozen=True)
class Judgement:
    """What an objective says of S candidates.

    Attributes:
        costs: (S,) finite, low is good.
        seen: (S,) bool, whether the cost is a measurement. Where the objective could not see what it judges, the cost is its
            documented price for that.
    """

    costs: np.ndarray
    seen: np.ndarray


@runtime_checkable
class Dynamics(Protocol):
    """Imagines what comes of actions: :class:`~uva_agents.agents.WorldModel`, or a simulator.

    What a planner also uses where it is there: ``prepare(obs, history=)``, whose result takes the place of ``obs`` in several
    rollouts from one moment; the arguments ``history``, ``seed``, ``frames``, ``decode`` and ``steps`` of ``rollout``, as in
    :meth:`WorldModel.rollout <uva_agents.agents.WorldModel.rollout>`; ``lookback``, how many earlier observations it looks at;
    ``action_space``; ``identity``, JSON values.
    """

    def rollout(self, obs: Any, actions: Any) -> Rollout:
        """Futures of the candidates ``actions`` (S, T, A) from ``obs``."""
        ...


@runtime_checkable
class Objective(Protocol):
    """Judges imagined futures.

    What a planner also uses where it is there: ``looks`` (:class:`Looks`; without it, everything is imagined and decoded), and
    ``judge(rollout) -> Judgement``, which also tells what was not seen; and ``at(obs) -> Objective``, what it is for the
    observation that is planned from, where the observation says what is wanted.
    """

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """Costs (S,), finite, low is good."""
        ...


@runtime_checkable
class Proposals(Protocol):
    """Candidate actions for a moment: a policy, or a distribution.

    What a planner also uses where it is there: the arguments ``history`` and ``seed`` of ``sample``, ``lookback``,
    ``action_space`` and ``identity``. Without ``seed``, plans are only as repeatable as the proposals.
    """

    def sample(self, obs: Any, n: int) -> np.ndarray:
        """(n, T, A) in environment units, inside the action space."""
        ...


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of that name."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some callables written in C have no signature
        return False
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def looks_of(objective: Any) -> Looks:
    """What it declares to look at: everything, where it declares nothing."""
    looks = getattr(objective, "looks", None)
    return looks if isinstance(looks, Looks) else Looks()


def bound(objective: Any, obs: Any) -> Any:
    """The objective of a decision from ``obs``."""
    at = getattr(objective, "at", None)
    return at(obs) if callable(at) else objective


def judge(objective: Any, rollout: Rollout) -> Judgement:
    """The objective's judgement, checked.

    Raises:
        InputError: what it gave is no cost per candidate, see :func:`~uva_agents.agents.costs.checked_costs`.
    """
    n, name = len(rollout), name_of(objective)
    told = objective.judge(rollout) if hasattr(objective, "judge") else objective(rollout)
    if isinstance(told, Judgement):
        costs, seen = checked_costs(told.costs, n, name), to_numpy(told.seen, f"Judgement.seen of {name}")
        if seen.shape != (n,) or seen.dtype.kind != "b":
            raise InputError(
                f"{name} must say of each candidate whether it was seen, ({n},) bool, but gave {seen!r:.60}"
            )
        return Judgement(costs, seen)
    return Judgement(checked_costs(told, n, name), np.ones(n, bool))
