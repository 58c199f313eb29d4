"""Reads the optional abilities of dynamics and proposals, with a default for those that they do not have."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Any

import gymnasium as gym

from uva_agents.planners.protocols import (
    Dynamics,
    HasActionSpace,
    HasLookback,
    Identified,
    Named,
    OneEnvironment,
    Proposals,
    RolloutOptions,
    SampleOptions,
)

_LOOKBACK = 15
"""Earlier observations for parts that take ``history`` and do not say how many they use: those of a 16-frame window."""


def rollout_options(dynamics: Dynamics) -> frozenset[str]:
    """Which arguments of :class:`~uva_agents.planners.protocols.RolloutOptions` they take."""
    return _accepted(dynamics.rollout, RolloutOptions.rollout)


def sample_options(proposals: Proposals) -> frozenset[str]:
    """Which arguments of :class:`~uva_agents.planners.protocols.SampleOptions` they take."""
    return _accepted(proposals.sample, SampleOptions.sample)


def dynamics_lookback(dynamics: Dynamics) -> int:
    """Earlier observations that they use."""
    return _lookback(dynamics, rollout_options(dynamics))


def proposals_lookback(proposals: Proposals) -> int:
    """Earlier observations that they use."""
    return _lookback(proposals, sample_options(proposals))


def action_space_of(part: Any) -> gym.spaces.Box | None:
    """Of one action; ``None`` where the part does not say."""
    return part.action_space if isinstance(part, HasActionSpace) else None


def holds_one_environment(dynamics: Dynamics) -> bool:
    """Whether they start from the state of one environment that they hold."""
    return isinstance(dynamics, OneEnvironment) and dynamics.one_environment


def label_of(proposals: Proposals) -> str:
    """Their name, or that of their class."""
    return (proposals.name if isinstance(proposals, Named) else None) or type(proposals).__name__


def identity_of(part: Any) -> Any:
    """What decides a part's results, as JSON values."""
    own = part.identity if isinstance(part, Identified) else None
    if own is not None:
        return own
    if is_dataclass(part) and not isinstance(part, type):
        return {"type": type(part).__name__, **{k: repr(v) for k, v in asdict(part).items()}}
    return getattr(part, "__name__", type(part).__name__)


def _lookback(part: Any, options: frozenset[str]) -> int:
    if isinstance(part, HasLookback) and part.lookback is not None:
        return int(part.lookback)
    return _LOOKBACK if "history" in options else 0


def _accepted(method: Callable[..., Any], full: Callable[..., Any]) -> frozenset[str]:
    """The keyword arguments of ``full`` that ``method`` takes."""
    keywords = {p.name for p in inspect.signature(full).parameters.values() if p.kind is p.KEYWORD_ONLY}
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):  # some callables written in C have no signature
        return frozenset()
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return frozenset(keywords)
    return frozenset(keywords & parameters.keys())
