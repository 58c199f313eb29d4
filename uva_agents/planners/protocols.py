"""The seams of a planner: what proposes actions, what imagines their outcome, and the optional abilities of both.

What judges the outcome is an :class:`~uva_agents.planners.Objective`, or a function.

A planner asks for an optional ability with ``isinstance`` (a method or an attribute), or by the names of the keyword arguments
that a method takes (:class:`RolloutOptions`, :class:`SampleOptions`). Dynamics and proposals without any of them will do. A wrapper
has to define the abilities that it passes on: those that ``__getattr__`` makes up are not seen by ``isinstance`` since Python 3.12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from uva_agents.agents.rollout import Rollout


@runtime_checkable
class Dynamics(Protocol):
    """Imagines what comes of actions: :class:`~uva_agents.agents.WorldModel`, or a simulator.

    Optional abilities: :class:`RolloutOptions`, :class:`Prepares`, :class:`HasLookback`, :class:`HasActionSpace`,
    :class:`OneEnvironment`, :class:`Identified`.
    """

    def rollout(self, obs: Any, actions: Any) -> Rollout:
        """Futures of the candidates ``actions`` (S, T, A) from ``obs``."""
        ...


@runtime_checkable
class Proposals(Protocol):
    """Candidate actions for a moment: a policy, or a distribution.

    Optional abilities: :class:`SampleOptions`, :class:`SharesEncoding`, :class:`HasLookback`, :class:`HasActionSpace`,
    :class:`Named`, :class:`Identified`.
    """

    def sample(self, obs: Any, n: int) -> np.ndarray:
        """(n, T, A) in environment units, inside the action space."""
        ...


class RolloutOptions(Protocol):
    """Dynamics whose ``rollout`` takes more than an observation and actions. Each argument is optional by itself."""

    def rollout(
        self,
        obs: Any,
        actions: Any,
        *,
        history: Any | None = None,
        seed: int | None = None,
        frames: Sequence[int] | None = None,
        decode: bool = True,
        steps: int | None = None,
    ) -> Rollout:
        """Futures of the candidates.

        Args:
            history: earlier observations with a leading time axis, oldest first.
            seed: of the random stream. Without this argument, plans are only as repeatable as the dynamics.
            frames: which frames of the future are wanted: indices, negative ones from the end; ``None`` means all.
            decode: false leaves out the pictures.
            steps: denoising steps of the frames.
        """
        ...


class SampleOptions(Protocol):
    """Proposals whose ``sample`` takes more than an observation and a number. Each argument is optional by itself."""

    def sample(self, obs: Any, n: int, *, history: Any | None = None, seed: int | None = None) -> np.ndarray:
        """Candidates (n, T, A).

        Args:
            history: earlier observations with a leading time axis, oldest first.
            seed: of the random stream. Without this argument, plans are only as repeatable as the proposals.
        """
        ...


@runtime_checkable
class Prepares(Protocol):
    """Dynamics that do once what all candidates of a decision share, such as encoding the observation."""

    def prepare(self, obs: Any, *, history: Any | None = None) -> Any:
        """The moment, which takes the place of ``obs`` and ``history`` in several rollouts."""
        ...


@runtime_checkable
class SharesEncoding(Protocol):
    """Proposals that can start from what the dynamics prepared, so that a decision encodes its observation once.

    A policy and a world model of the same weights do.
    """

    def shares_encoding(self, start: Any) -> bool:
        """Whether they can use this, which the dynamics' ``prepare`` gave (:class:`Prepares`)."""
        ...

    def sample_from(
        self, start: Any, obs: Any, n: int, *, history: Any | None = None, seed: int | None = None
    ) -> np.ndarray:
        """(n, T, A), the same as ``sample`` gives.

        Args:
            start: what ``prepare(obs, history=history)`` gave.
        """
        ...


@runtime_checkable
class HasLookback(Protocol):
    """Dynamics or proposals that say how many earlier observations they use.

    Those that take ``history`` and do not say so get 15, those of a window of 16 frames.
    """

    @property
    def lookback(self) -> int:
        """Observations before the current one."""
        ...


@runtime_checkable
class HasActionSpace(Protocol):
    """Dynamics or proposals that know the space of one action; a planner needs it from one of them, or as ``action_space=``."""

    @property
    def action_space(self) -> gym.spaces.Box | None:
        """Shape (A,)."""
        ...


@runtime_checkable
class HasWeights(Protocol):
    """A view of shared weights, such as a world model: goals in latent space are encoded by them."""

    @property
    def weights(self) -> Any:
        """The :class:`~uva_agents.UVA`."""
        ...


@runtime_checkable
class OneEnvironment(Protocol):
    """Dynamics that start from the state of the one environment they hold, unless an observation has a ``"state"``."""

    @property
    def one_environment(self) -> bool:
        """True: several environments are planned for side by side only with each one's state in its observation."""
        ...


@runtime_checkable
class Named(Protocol):
    """Proposals with a name of their own, for reports; otherwise it is that of their class."""

    @property
    def name(self) -> str:
        """Short, of one line."""
        ...


@runtime_checkable
class Identified(Protocol):
    """A part that says what decides its results: an interrupted evaluation continues only with the same.

    Of others, a dataclass's fields or the name of the class stand for it.
    """

    @property
    def identity(self) -> Any:
        """JSON values."""
        ...
