"""What a server says of itself and answers, checked before a client acts on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.errors import NotFiniteError

_MOST_STEPS = 1_000_000
"""Of a chunk, or to look back: numbers beyond are no numbers of steps."""


class RemotePolicyError(ConnectionError):
    """The server cannot be reached, refuses, or failed; the message says which."""


class RemoteNotFiniteError(NotFiniteError, RemotePolicyError):
    """The server answered with NaN or infinity."""


@dataclass(frozen=True)
class ServerInfo:
    """What a server's first frame says, as far as a client acts on it.

    Attributes:
        ours: whether it is a server of this package.
        execute: actions of a chunk to carry out.
        lookback: earlier observations that it wants to know of.
        samples: whether it answers ``sample``.
        identity: what decides its actions; ``None`` where it does not say.
        action_space: of one environment action, where it says so.
        episodes, message_bytes: its limits, where it says so.
    """

    ours: bool = False
    execute: int | None = None
    lookback: int = 0
    samples: bool = False
    identity: Any = None
    action_space: gym.spaces.Box | None = None
    episodes: int | None = None
    message_bytes: int | None = None

    @classmethod
    def read(cls, metadata: Mapping[Any, Any], url: str) -> ServerInfo:
        """What a server's metadata says; ``url`` is for messages.

        Raises:
            RemotePolicyError: a server that says it is one of ours says what none of ours would.
        """
        found = metadata.get("uva")
        if not isinstance(found, dict) or not found:
            return cls()
        try:
            return cls(
                ours=True,
                execute=_steps(found, "execute", 1),
                lookback=_steps(found, "lookback", 0) or 0,
                samples=bool(found.get("samples")),
                identity=_identity(found.get("identity")),
                action_space=_space(found.get("action_low"), found.get("action_high")),
                episodes=_steps(found, "episodes", 1),
                message_bytes=_steps(found, "message_bytes", 1, 2**63),
            )
        except (TypeError, ValueError, AssertionError) as error:
            raise RemotePolicyError(f"what {url} says of itself is damaged: {error}") from error


def whole(answer: Mapping[Any, Any], url: str) -> np.ndarray:
    """The ``actions`` of an answer: an array of numbers that are finite as float32, which actions are.

    Raises:
        RemotePolicyError: there are none, or they are something else.
        RemoteNotFiniteError: NaN or infinity.
    """
    if "actions" not in answer:
        raise RemotePolicyError(f"{url} answered without 'actions'; with {sorted(map(str, answer))}"[:2000])
    try:
        actions = np.asarray(answer["actions"])
    except ValueError as error:
        raise RemotePolicyError(f"actions from {url} are no array: {error}") from error
    if actions.dtype.kind not in "iuf":
        raise RemotePolicyError(f"actions from {url} must be numbers, got {actions.dtype}")
    if not actions.ndim:
        raise RemotePolicyError(f"actions from {url} must be (T, A), got a single number")
    with np.errstate(over="ignore"):
        finite = np.isfinite(actions.astype(np.float32)).all()
    if not finite:
        raise RemoteNotFiniteError(
            f"actions from {url} have NaN or infinity: its weights or its normaliser are damaged"
        )
    return actions


def episode_status(answer: Mapping[Any, Any], url: str) -> tuple[bool, int]:
    """Of an answer about a named episode: whether the server has lost it, and how many actions it expects to be carried out.

    Raises:
        RemotePolicyError: it says something else.
    """
    status = answer.get("uva")
    try:
        if not isinstance(status, dict):
            raise TypeError(f"'uva' is {type(status).__name__}")
        lost = status.get("lost") is True
        return lost, 1 if lost else (_steps(status, "execute", 1) or 1)
    except (TypeError, ValueError) as error:
        raise RemotePolicyError(f"an answer of {url} is damaged: {error}") from error


def _steps(values: Mapping[Any, Any], name: str, least: int, most: int = _MOST_STEPS) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= int(value) <= most:
        raise ValueError(f"{name} is {value!r:.80}")
    return int(value)


def _identity(value: Any) -> Any:
    """A map; as JSON text from older servers."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=str)
    except ValueError:
        return value


def _space(low: Any, high: Any) -> gym.spaces.Box | None:
    if low is None and high is None:
        return None
    for side in (low, high):
        if not isinstance(side, np.ndarray) or side.dtype.kind not in "iuf" or np.isnan(side).any():
            raise ValueError("its action space has bounds that are no numbers")
    if low.shape != high.shape or low.ndim != 1 or not (low <= high).all():
        raise ValueError("its action space has no inside")
    return gym.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
