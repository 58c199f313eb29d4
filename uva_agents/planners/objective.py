"""What judges imagined futures: the base class of objectives, sums of them, and objectives made of functions."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from uva_agents.agents.costs import checked_costs, name_of
from uva_agents.agents.observations import to_numpy
from uva_agents.agents.rollout import Rollout
from uva_agents.errors import InputError
from uva_agents.planners.abilities import identity_of
from uva_agents.planners.protocols import Identified


@dataclass(frozen=True)
class RequiredFrames:
    """The part of a future that an objective needs; nothing else is imagined to the end, or decoded.

    Args:
        frames: indices of frames of the future, negative ones from the end; ``None`` means all.
        pixels: it needs the frames as pictures. False: latents, keypoints, states or actions are enough, so nothing is decoded.
    """

    frames: tuple[int, ...] | None = None
    pixels: bool = True

    def __or__(self, other: RequiredFrames) -> RequiredFrames:
        """What two objectives need together."""
        pixels = self.pixels or other.pixels
        if self.frames is None or other.frames is None:
            return RequiredFrames(None, pixels)
        return RequiredFrames(tuple(dict.fromkeys((*self.frames, *other.frames))), pixels)


@dataclass(frozen=True)
class MaskedCosts:
    """Costs of S candidates and their validity mask.

    Attributes:
        costs: (S,) finite, low is good.
        valid: (S,) bool, whether the cost is a measurement. Where the objective could not see what it judges, the cost is its
            documented price for that, and a planner prefers every candidate whose cost is valid.
    """

    costs: np.ndarray
    valid: np.ndarray


class Objective(ABC):
    """Judges imagined futures. Objectives add up and scale: ``GoalImage(goal) + 0.1 * ActionPenalty()``.

    A subclass must define the call. The other methods are abilities with defaults: a subclass overrides those that it has more
    to say about. A plain function from rollout to costs will do wherever an objective is expected, see :func:`as_objective`.
    """

    @abstractmethod
    def __call__(self, rollout: Rollout) -> Any:
        """Costs (S,) of the candidates of a rollout, finite, low is good. It has at least the frames of :meth:`required_frames`."""

    def required_frames(self) -> RequiredFrames:
        """Which part of a future it needs; by default all frames, as pictures."""
        return RequiredFrames()

    def evaluate(self, rollout: Rollout) -> MaskedCosts:
        """Costs and their validity mask; by default those of the call, all valid.

        Raises:
            InputError: the call gave something else than costs, see :func:`~uva_agents.agents.costs.checked_costs`.
        """
        result = self(rollout)
        if isinstance(result, MaskedCosts):
            return result
        n = len(rollout)
        return MaskedCosts(checked_costs(result, n, name_of(self)), np.ones(n, bool))

    def bind(self, obs: Any) -> Objective:
        """The objective of the decision that is made at this observation; by default itself.

        Args:
            obs: one observation, which may say what is wanted (a goal image, an instruction).
        """
        return self

    def __add__(self, other: Any) -> WeightedSum:
        if not callable(other):
            return NotImplemented
        return WeightedSum((*_terms(self), *_terms(other)))

    def __radd__(self, other: Any) -> WeightedSum:
        if isinstance(other, int) and other == 0:  # where sum() begins
            return WeightedSum(_terms(self))
        if not callable(other):
            return NotImplemented
        return WeightedSum((*_terms(other), *_terms(self)))

    def __mul__(self, weight: float) -> WeightedSum:
        if not isinstance(weight, int | float | np.number):
            return NotImplemented
        return WeightedSum(tuple((w * float(weight), term) for w, term in _terms(self)))

    __rmul__ = __mul__


class FunctionObjective(Objective):
    """A function as an objective. Made by :func:`as_objective`.

    Args:
        function: rollout -> costs (S,), or :class:`MaskedCosts`.
        required_frames: which part of a future it needs.
    """

    def __init__(self, function: Callable[[Rollout], Any], required_frames: RequiredFrames) -> None:
        self.function, self._required_frames = function, required_frames
        self.__name__ = name_of(function)  # errors name the function

    def __call__(self, rollout: Rollout) -> Any:
        """What the function gives."""
        return self.function(rollout)

    def required_frames(self) -> RequiredFrames:
        """As declared; all frames, as pictures, where nothing was."""
        return self._required_frames

    @property
    def identity(self) -> Any:
        """Of the function, as JSON values."""
        return identity_of(self.function)


_ABILITIES = {
    "required_frames": "required_frames",
    "evaluate": "evaluate",
    "bind": "bind",
    "looks": "required_frames",
    "judge": "evaluate",
}
"""Attributes of an objective, and the method of :class:`Objective` each belongs to."""


def as_objective(objective: Any, *, required_frames: RequiredFrames | None = None) -> Objective:
    """An objective as it is, or one made of a function.

    Args:
        objective: an :class:`Objective`, or any callable that takes a :class:`~uva_agents.agents.Rollout` of S candidates and
            gives costs (S,), low is good.
        required_frames: which part of a future the function needs; by default all frames, as pictures.

    Raises:
        TypeError: it cannot be called, not with a rollout alone, or it is a class. It has abilities of an :class:`Objective`
            without being one.

    What the function returns is checked when it is first used: the error names the function and the shape that is expected.
    """
    if isinstance(objective, Objective):
        for method in ("required_frames", "evaluate", "bind"):
            if not callable(getattr(objective, method)):
                raise TypeError(
                    f"{name_of(objective)}.{method} must be a method that returns this, not the value itself"
                )
        if required_frames is not None:
            raise TypeError(f"{name_of(objective)} says itself which frames it needs: leave required_frames= out")
        return objective
    if not callable(objective):
        raise TypeError(
            f"objective={type(objective).__name__} has no __call__(): an objective is an uva_agents.planners.Objective, or a "
            "function from a rollout to costs (S,)"
        )
    name = name_of(objective)
    if isinstance(objective, type):
        raise TypeError(f"objective={name} is a class: make one of it, objective={name}(...)")
    for attribute, method in _ABILITIES.items():
        if hasattr(objective, attribute):
            raise TypeError(
                f"{name} has {attribute!r}, but is no Objective, so that a planner would not use it: let it inherit from "
                f"uva_agents.planners.Objective and define {method}()"
            )
    _check_signature(objective, name)
    return FunctionObjective(objective, required_frames or RequiredFrames())


def _check_signature(function: Callable[..., Any], name: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables written in C have no signature
        return
    signature = signature.replace(return_annotation=inspect.Signature.empty)
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(
            f"{name}{signature} cannot be called with a rollout alone ({error}): an objective is a function of one argument, "
            "rollout -> costs (S,); functools.partial fixes further ones"
        ) from None


def bind_objective(objective: Objective, obs: Any) -> Objective:
    """The objective of a decision at ``obs``, checked.

    Raises:
        InputError: its :meth:`Objective.bind` gave none, or its :meth:`Objective.required_frames` something else.
    """
    result = objective.bind(obs)
    if not callable(result):
        raise InputError(f"{name_of(objective)}.bind() must return an objective, but gave {type(result).__name__}")
    result = as_objective(result)
    required = result.required_frames()
    if not isinstance(required, RequiredFrames):
        raise InputError(
            f"{name_of(result)}.required_frames() must return RequiredFrames, but gave {type(required).__name__}"
        )
    return result


def evaluated(objective: Objective, rollout: Rollout) -> MaskedCosts:
    """The objective's costs of a rollout and their mask, checked.

    Raises:
        InputError: not one finite cost per candidate, see :func:`~uva_agents.agents.costs.checked_costs`, or no mask of that size.
    """
    n, name = len(rollout), name_of(objective)
    result = objective.evaluate(rollout)
    if not isinstance(result, MaskedCosts):
        raise InputError(f"{name}.evaluate() must return MaskedCosts, but gave {type(result).__name__}")
    costs, valid = checked_costs(result.costs, n, name), to_numpy(result.valid, f"MaskedCosts.valid of {name}")
    if valid.shape != (n,) or valid.dtype.kind != "b":
        raise InputError(
            f"{name} must say of each candidate whether its cost is valid, ({n},) bool, but gave {valid!r:.60}"
        )
    return MaskedCosts(costs, valid)


class WeightedSum(Objective):
    """Sum of weighted objectives; valid where all of them are.

    Args:
        terms: (weight, objective) pairs; each objective gets only the frames that it needs.
    """

    def __init__(self, terms: tuple[tuple[float, Any], ...]) -> None:
        if not terms or not all(np.isfinite(weight) for weight, _ in terms):
            raise InputError("a weighted sum needs at least one term, and finite weights")
        self.terms = tuple((weight, as_objective(term)) for weight, term in terms)

    @property
    def identity(self) -> list[str]:
        """The terms, as JSON values."""
        return [f"{w:g} * {(t.identity if isinstance(t, Identified) else t)!r}" for w, t in self.terms]

    def required_frames(self) -> RequiredFrames:
        """What the terms need together."""
        required = self.terms[0][1].required_frames()
        for _, term in self.terms[1:]:
            required |= term.required_frames()
        return required

    def bind(self, obs: Any) -> WeightedSum:
        """With each term as it is for this observation."""
        return WeightedSum(tuple((weight, bind_objective(term, obs)) for weight, term in self.terms))

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """Costs (S,)."""
        return self.evaluate(rollout).costs

    def evaluate(self, rollout: Rollout) -> MaskedCosts:
        """Costs, and where all terms are valid."""
        results = [(w, evaluated(term, rollout.select(term.required_frames().frames))) for w, term in self.terms]
        costs = sum((w * result.costs for w, result in results), np.zeros(len(rollout)))
        return MaskedCosts(costs, np.logical_and.reduce([result.valid for _, result in results]))


def _terms(objective: Any) -> tuple[tuple[float, Any], ...]:
    return objective.terms if isinstance(objective, WeightedSum) else ((1.0, objective),)
