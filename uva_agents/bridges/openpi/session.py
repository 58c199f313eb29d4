"""What an agent remembers of each client: sessions of one agent, which keep its state as values."""

from __future__ import annotations

import copy
import itertools
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uva_agents.bridges.openpi.keys import KeyMap
from uva_agents.bridges.openpi.limits import Limits

PROTOCOL = 1
"""Of what is under the key ``"uva"``: the part of the wire that is ours and that openpi's clients know nothing of."""

_LOOKBACK = 15
"""Earlier observations of an agent that does not say how many it looks at: those of a 16-frame window."""


class Service:
    """An agent, and how it is served. One call at a time, all from the same thread.

    Args:
        agent: anything with stable-baselines3's ``predict``; its memory must come out of it and go in again.
        execute: actions that clients carry out before they ask again, where they do not say; the agent's own number by default.
        keys: what clients call the parts of an observation.
        limits: see :class:`Limits`.
        name: in the metadata; the agent's own by default.

    Raises:
        TypeError: the agent has no ``predict``.
        ValueError: ``execute`` is not positive, or more than the agent plans ahead.
    """

    def __init__(
        self,
        agent: Any,
        *,
        execute: int | None = None,
        keys: KeyMap | None = None,
        limits: Limits | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(getattr(agent, "predict", None)):
            raise TypeError(
                f"{type(agent).__name__} cannot be served: it has no predict(observation, state, episode_start, deterministic), "
                "without which clients would share one memory"
            )
        own, chunk = getattr(agent, "execute", None), getattr(agent, "chunk", None)
        if execute is not None and execute < 1:
            raise ValueError(f"execute must be at least 1, got {execute}")
        if execute is not None and chunk is not None and execute > chunk:
            raise ValueError(f"execute={execute}, but this agent's chunks have {chunk} actions")
        if chunk is not None:
            # Clients of openpi expect whole chunks; how much of one is carried out is theirs to say.
            agent = copy.copy(agent)
            agent.execute = chunk
        self.agent = agent
        self.execute = execute or own or 2**31
        self.keys = keys or KeyMap()
        self.limits = limits or Limits()
        self.seeds = itertools.count()
        self._name = name or str(getattr(agent, "name", None) or type(agent).__name__)

    def metadata(self) -> dict[str, Any]:
        """The frame that every client gets first."""
        space = getattr(self.agent, "action_space", None)
        spec = getattr(self.agent, "spec", None)
        low, high = getattr(space, "low", None), getattr(space, "high", None)
        bounded = isinstance(low, np.ndarray) and isinstance(high, np.ndarray)
        return {
            "policy": self._name,
            "action_horizon": getattr(self.agent, "chunk", None) or getattr(self.agent, "execute", None) or 1,
            "uva": {
                "protocol": PROTOCOL,
                "execute": None if self.execute == 2**31 else self.execute,
                "lookback": int(getattr(self.agent, "lookback", _LOOKBACK)),
                "samples": callable(getattr(self.agent, "sample", None)),
                "identity": json.dumps(getattr(self.agent, "identity", None), default=repr, sort_keys=True),
                "action_low": low if bounded else None,
                "action_high": high if bounded else None,
                "image_shape": None if spec is None else list(spec.image_shape),
                "env_id": getattr(spec, "env_id", None),
                "control_hz": getattr(spec, "control_hz", None),
                "message_bytes": self.limits.message_bytes,
                "episodes": self.limits.episodes,
            },
        }

    def begin(self, seed: int | None) -> _Episode:
        """An episode before its first observation."""
        seed = next(self.seeds) if seed is None else seed
        initial = getattr(self.agent, "initial_state", None)
        return _Episode(None if initial is None else initial(1, seed=[seed]))

    def decide(
        self, episode: _Episode, obs: Any, *, seen: Sequence[Any], executed: int, execute: int, deterministic: bool
    ) -> tuple[np.ndarray, _Episode]:
        """A decision, by the same calls of ``predict`` that a loop in one process makes.

        Args:
            seen: observations since the last decision, the newest of ``executed - 1``; where some are missing, the one before
                is taken to have stayed. Before an episode's first decision: what was seen before ``obs``.
            executed: actions of the last decision that were carried out.
            execute: actions of this one that will be.

        Returns:
            (T, A) all that the agent plans to do, and the episode after it.
        """
        state, first = episode.state, episode.first
        missing = 0 if first else max(0, executed - 1 - len(seen))
        for past in (*[episode.last] * missing, *seen):
            _, state = self._step(past, state, first, deterministic)
            first = False
        action, state = self._step(obs, _queue_cut(state, 0), first, deterministic)
        actions = np.stack([action, *_queue(state)])
        given = min(execute, len(actions))
        state = _queue_cut(state, given - 1)
        return actions, _Episode(state, False, obs, given, episode.version + 1)

    def _step(self, obs: Any, state: Any, first: bool, deterministic: bool) -> tuple[np.ndarray, Any]:
        # A state that the agent made says itself that an episode begins; others are told.
        start = None if hasattr(self.agent, "initial_state") else np.array([first])
        action, state = self.agent.predict(obs, state, episode_start=start, deterministic=deterministic)
        action = np.asarray(action)
        if action.ndim > 1:
            raise ValueError(f"one observation at a time, without a leading axis: the actions are {action.shape}")
        if action.dtype.kind == "f" and not np.isfinite(action).all():
            raise RuntimeError("the agent returned NaN or infinity: its weights or its normaliser are damaged")
        return action, state


@dataclass(frozen=True)
class _Episode:
    """An episode of a client's, as a value.

    Attributes:
        state: the agent's.
        first: whether nothing has been seen yet.
        last: newest observation.
        given: actions that the client carries out of the last answer.
        version: answers so far.
    """

    state: Any
    first: bool = True
    last: Any = None
    given: int = 0
    version: int = 0


class Session:
    """One connection's episodes: the one that a client of openpi is in, and those that a ``RemotePolicy`` names."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._plain: _Episode | None = None
        self._named: OrderedDict[str, _Episode] = OrderedDict()

    def answer(self, message: Any) -> dict[str, Any] | str:
        """The answer to one message. What raises changes nothing.

        Raises:
            TypeError, KeyError, ValueError: naming what is wrong with the message, or with its observation.
        """
        if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
            raise TypeError(f"a request is a map with names as keys, got {type(message).__name__}")
        request = dict(message)
        ours = request.pop("uva", None)
        if ours is not None:
            if not isinstance(ours, dict):
                raise TypeError(f"'uva' must be a map, got {type(ours).__name__}")
            return self._sample(request, ours) if "sample" in ours else self._named_episode(request, ours)
        endpoint = request.pop("endpoint", "infer")
        if endpoint not in ("infer", "reset"):
            raise ValueError(f"endpoint must be 'infer' or 'reset', got {endpoint!r:.80}")
        if endpoint == "reset":  # as RoboArena's clients say it, and what they expect to hear
            self._plain = None
            return "reset successful"
        if request.pop("reset", False):
            episode = self._service.begin(_optional_int(request, "seed"))
            request.pop("seed", None)
            if not request:
                self._plain = episode
                return {"reset": True}
        else:
            episode = self._plain or self._service.begin(None)
        obs = self._service.keys.observation(request)
        actions, self._plain = self._service.decide(
            episode, obs, seen=(), executed=episode.given, execute=self._service.execute, deterministic=False
        )
        return {"actions": actions}

    def _named_episode(self, request: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
        name = ours.get("episode")
        if not isinstance(name, str) or not 0 < len(name) <= 64:
            raise ValueError("'episode' must be a name of at most 64 letters")
        execute = _optional_int(ours, "execute")
        execute = self._service.execute if execute is None else execute
        executed, version = _optional_int(ours, "executed") or 0, _optional_int(ours, "version") or 0
        if ours.get("start"):
            episode = self._service.begin(_optional_int(ours, "seed"))
            episode = replace(episode, version=version)
        else:
            known = self._named.get(name)
            if known is None or known.version != version:
                return {"uva": {"lost": True}}  # a connection ago, or continued already: the client begins it again
            episode = known
            if not 1 <= executed <= episode.given:
                raise ValueError(f"{executed} actions carried out of {episode.given}")
        if execute < 1:
            raise ValueError(f"'execute' must be at least 1, got {execute}")
        seen = ours.get("seen", [])
        if not isinstance(seen, list) or not all(isinstance(o, dict) for o in seen):
            raise TypeError("'seen' must be a list of observations")
        if not episode.first and len(seen) >= executed:
            raise ValueError(f"{len(seen)} observations during {executed} actions")
        keys = self._service.keys
        actions, after = self._service.decide(
            episode,
            keys.observation(request),
            seen=[keys.observation(o) for o in seen],
            executed=executed,
            execute=execute,
            deterministic=bool(ours.get("deterministic", False)),
        )
        self._named[name] = after
        self._named.move_to_end(name)
        while len(self._named) > self._service.limits.episodes:
            self._named.popitem(last=False)
        return {"actions": actions, "uva": {"version": after.version, "execute": after.given}}

    def _sample(self, request: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
        n, most = _optional_int(ours, "sample") or 0, self._service.limits.samples
        if not 1 <= n <= most:
            raise ValueError(f"between 1 and {most} samples can be asked for at a time, not {n}")
        sample = getattr(self._service.agent, "sample", None)
        if sample is None:
            raise ValueError(f"{type(self._service.agent).__name__} has no sample()")
        options = {"history": ours.get("history"), "seed": _optional_int(ours, "seed")}
        options = {name: value for name, value in options.items() if value is not None}
        return {"actions": np.asarray(sample(self._service.keys.observation(request), n, **options))}


def _queue(state: Any) -> np.ndarray:
    """(k, A) what a state of one row still wants to do, where it says so."""
    rows = getattr(state, "rows", None)
    queue = getattr(rows[0], "queue", None) if rows else None
    return np.empty((0,)) if queue is None else queue


def _queue_cut(state: Any, n: int) -> Any:
    """The state with the first ``n`` of it only."""
    queue = _queue(state)
    if len(queue) <= n:
        return state
    return replace(state, rows=(replace(state.rows[0], queue=queue[:n]),))


def _optional_int(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not abs(int(value)) < 2**63:
        raise TypeError(f"{name!r} must be an integer, got {type(value).__name__}")
    return int(value)
