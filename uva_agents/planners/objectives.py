"""Objectives for any task, and sums of them: ``GoalImage(goal) + 0.1 * ActionPenalty()``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from uva_agents.agents.rollout import Rollout
from uva_agents.errors import InputError
from uva_agents.planners.protocols import Judgement, Looks, bound, judge, looks_of


class Term(ABC):
    """An objective that can be multiplied by a number and added to others."""

    looks: Looks

    @abstractmethod
    def judge(self, rollout: Rollout) -> Judgement:
        """Costs, and what was seen. The rollout has at least the frames that ``looks`` names."""

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """Costs (S,), low is good."""
        return self.judge(rollout).costs

    def __add__(self, other: Any) -> WeightedSum:
        if not callable(other):
            return NotImplemented
        return WeightedSum((*_terms(self), *_terms(other)))

    def __radd__(self, other: Any) -> WeightedSum:
        if not callable(other):
            return NotImplemented
        return WeightedSum((*_terms(other), *_terms(self)))

    def __mul__(self, weight: float) -> WeightedSum:
        if not isinstance(weight, int | float | np.number):
            return NotImplemented
        return WeightedSum(tuple((w * float(weight), term) for w, term in _terms(self)))

    __rmul__ = __mul__


def _terms(objective: Any) -> tuple[tuple[float, Any], ...]:
    return objective.terms if isinstance(objective, WeightedSum) else ((1.0, objective),)


class WeightedSum(Term):
    """Sum of weighted objectives; seen is what all of them see.

    Args:
        terms: (weight, objective) pairs; each objective gets only the frames that it looks at.
    """

    def __init__(self, terms: tuple[tuple[float, Any], ...]) -> None:
        if not terms or not all(np.isfinite(weight) for weight, _ in terms):
            raise InputError("a weighted sum needs at least one term, and finite weights")
        self.terms = terms
        self.looks = looks_of(terms[0][1])
        for _, term in terms[1:]:
            self.looks = self.looks | looks_of(term)

    @property
    def identity(self) -> list[str]:
        """The terms, as JSON values."""
        return [f"{weight:g} * {getattr(term, 'identity', None) or term!r}" for weight, term in self.terms]

    def at(self, obs: Any) -> WeightedSum:
        """With each term as it is for this observation."""
        return WeightedSum(tuple((weight, bound(term, obs)) for weight, term in self.terms))

    def judge(self, rollout: Rollout) -> Judgement:
        """Costs, and what was seen."""
        told = [(w, judge(term, rollout.select(looks_of(term).frames))) for w, term in self.terms]
        costs = sum((w * t.costs for w, t in told), np.zeros(len(rollout)))
        return Judgement(costs, np.logical_and.reduce([t.seen for _, t in told]))


@dataclass(frozen=True)
class ActionPenalty(Term):
    """Price of the actions themselves.

    Args:
        smoothness: weight of the mean squared change from one action to the next.
        effort: weight of the mean squared action.
        scale: unit of an action, a number or (A,); the costs are in its square. 1 leaves environment units.
    """

    smoothness: float = 1.0
    effort: float = 0.0
    scale: Any = 1.0
    looks = Looks(frames=(), pixels=False)

    def judge(self, rollout: Rollout) -> Judgement:
        """Costs; always seen."""
        if rollout.actions is None:
            raise InputError("ActionPenalty needs the actions of the futures, and this rollout was made without any")
        actions = np.asarray(rollout.actions, np.float64) / np.asarray(self.scale, np.float64)
        costs = self.effort * np.square(actions).mean((1, 2))
        if actions.shape[1] > 1:
            costs = costs + self.smoothness * np.square(np.diff(actions, axis=1)).mean((1, 2))
        return Judgement(costs, np.ones(len(costs), bool))


class GoalImage(Term):
    """Distance to a goal image: mean squared difference, of pixels (scaled to [0, 1]) or of latents (network units).

    Latents are compared without decoding anything, which is cheaper, and less exact about where small things are.

    Args:
        goal: uint8 (H, W, 3).
        metric: ``"pixels"`` or ``"latents"``.
        world: whose latents; a :class:`~uva_agents.agents.WorldModel` or a :class:`~uva_agents.UVA`, for ``"latents"``.
        frames: the frames that should look like the goal; the mean over them is the cost.
    """

    def __init__(
        self,
        goal: Any,
        *,
        metric: Literal["pixels", "latents"] = "pixels",
        world: Any = None,
        frames: tuple[int, ...] | None = (-1,),
    ) -> None:
        goal = np.asarray(goal)
        if goal.ndim != 3 or goal.shape[-1] != 3 or goal.dtype != np.uint8:
            raise InputError(f"a goal image is uint8 (H, W, 3), got {goal.dtype} {goal.shape}")
        if metric not in ("pixels", "latents"):
            raise InputError(f'metric={metric!r}: choose "pixels" or "latents"')
        if (metric == "latents") != (world is not None):
            raise InputError('latents are those of some weights: give world= with metric="latents", and only then')
        self.goal, self.metric = goal, metric
        self.looks = Looks(frames, pixels=metric == "pixels")
        self._code = None
        if world is not None:
            uva = getattr(world, "uva", world)
            height, width = uva.spec.image_shape
            if goal.shape[:2] != (height, width):
                raise InputError(f"the goal must be {height}x{width} for these weights, got {goal.shape[:2]}")
            self._code = uva.encode(goal[None]).tokens[0]

    @property
    def identity(self) -> dict[str, Any]:
        """What it compares, as JSON values."""
        import hashlib

        digest = hashlib.sha256(self.goal.tobytes()).hexdigest()[:16]
        return {"goal": digest, "metric": self.metric, "frames": self.looks.frames}

    def judge(self, rollout: Rollout) -> Judgement:
        """Costs; always seen."""
        rollout = rollout.select(self.looks.frames)
        if self._code is not None:
            if rollout.latents is None:
                raise InputError('these futures have no latents (a simulator\'s have none): use metric="pixels"')
            costs = (rollout.latents - self._code).square().mean((1, 2, 3)).double().cpu().numpy()
        else:
            frames = pixels_of(rollout)
            if frames.shape[2:] != self.goal.shape:
                raise InputError(f"the goal is {self.goal.shape}, the imagined frames are {frames.shape[2:]}")
            difference = (frames.astype(np.float32) - self.goal) / 255
            costs = np.square(difference).mean((1, 2, 3, 4)).astype(np.float64)
        return Judgement(costs, np.ones(len(costs), bool))


@dataclass(frozen=True)
class StateCost(Term):
    """Judges a simulator's own states: the objective without any eyes, an upper bound for those that have to look.

    Args:
        cost: of one state, as ``get_state()`` returns it.
        frames: the frames at which it is asked; the mean is the cost.
    """

    cost: Callable[[Any], float]
    frames: tuple[int, ...] | None = (-1,)

    @property
    def looks(self) -> Looks:  # type: ignore[override]
        """States only."""
        return Looks(self.frames, pixels=False)

    @property
    def identity(self) -> str:
        """Of the function."""
        return f"StateCost({getattr(self.cost, '__qualname__', type(self.cost).__name__)}, {self.frames})"

    def judge(self, rollout: Rollout) -> Judgement:
        """Costs; always seen."""
        rollout = rollout.select(self.frames)
        if rollout.states is None:
            raise InputError(
                "StateCost needs a simulator's states, and a network has none: use an objective that looks at frames"
            )
        costs = np.array([np.mean([self.cost(state) for state in row]) for row in rollout.states])
        return Judgement(costs, np.ones(len(costs), bool))


def pixels_of(rollout: Rollout) -> np.ndarray:
    """Its frames (S, F, H, W, 3).

    Raises:
        ValueError: they were not decoded.
    """
    if not rollout.decoded or not len(rollout.frame_steps):
        raise InputError(
            "the futures were not decoded: roll out with decode=True, at the frames that the objective looks at"
        )
    return rollout.frames
