"""An agent as it is served: what it is shown, how it decides, and what clients are told of it."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uva_agents.bridges.openpi.episodes import NewEpisodes
from uva_agents.bridges.openpi.fitting import Fitting, Resize
from uva_agents.bridges.openpi.interface import interface_of
from uva_agents.bridges.openpi.keys import WIRE_NAMES, KeyMap
from uva_agents.bridges.openpi.limits import Limits
from uva_agents.errors import InputError, NotFiniteError, UVAError

PROTOCOL = 1
"""Of what is under the key ``"uva"``: the part of the wire that is ours and that openpi's clients know nothing of."""

_LOOKBACK = 15
"""Earlier observations of an agent that does not say how many it looks at: those of a 16-frame window."""

_WHOLE_CHUNK = 2**31
"""Actions carried out of a chunk, where nobody knows how long one is."""

_MOST_INSTRUCTIONS = 256
"""Of a table, that clients are told."""

_IMAGES = "uint8 with channels first or last; under LeRobot's names (observation.image...) also float in [0, 1]"


class Service:
    """An agent, and how it is served. One call at a time, all from the same thread.

    Args:
        agent: anything with stable-baselines3's ``predict``; its memory must come out of it and go in again.
        execute: actions that clients carry out before they ask again, where they do not say; the agent's own number by default.
        keys: what clients call the parts of an observation.
        limits: see :class:`Limits`.
        name: in the metadata; the agent's own by default.
        new_episodes: see :class:`NewEpisodes`.
        resize: see :data:`Resize`.

    Raises:
        TypeError: the agent has no ``predict``.
        ValueError: ``execute`` is not positive, or more than the agent plans ahead; images cannot be made to fit because the
            agent does not say what it takes.

    Attributes:
        warm: whether it has decided once.
    """

    def __init__(
        self,
        agent: Any,
        *,
        execute: int | None = None,
        keys: KeyMap | None = None,
        limits: Limits | None = None,
        name: str | None = None,
        new_episodes: NewEpisodes | None = None,
        resize: Resize | None = None,
    ) -> None:
        if not callable(getattr(agent, "predict", None)):
            raise TypeError(
                f"{type(agent).__name__} cannot be served: it has no predict(observation, state, episode_start, deterministic), "
                "without which clients would share one memory"
            )
        own, chunk = getattr(agent, "execute", None), getattr(agent, "chunk", None)
        if execute is not None and execute < 1:
            raise InputError(f"execute must be at least 1, got {execute}")
        if execute is not None and chunk is not None and execute > chunk:
            raise InputError(f"execute={execute}, but this agent's chunks have {chunk} actions")
        self.execute = execute or own or _WHOLE_CHUNK
        self._identity = _plain(getattr(agent, "identity", None), self.execute)
        if chunk is not None:
            # Clients of openpi expect whole chunks; how much of one is carried out is theirs to say.
            agent = copy.copy(agent)
            agent.execute = chunk
        self.agent = agent
        self.interface = interface_of(agent)
        sizes = {} if self.interface is None else self.interface.images
        if resize is not None and not sizes:
            raise InputError(
                f"{type(agent).__name__} does not say which images it takes: they cannot be resized for it"
            )
        self._fitting = Fitting(sizes, resize)
        self.keys = keys or KeyMap()
        known = {*WIRE_NAMES, *(() if self.interface is None else self.interface.names)}
        unknown = self.keys.names.keys() - known
        if unknown and self.interface is not None and self.interface.own:
            raise InputError(
                f"this agent has no part {min(unknown)!r} of an observation that could be called by another name: it takes "
                f"{', '.join(self.interface.names)}"
            )
        self.limits = limits or Limits()
        self.new_episodes = new_episodes or NewEpisodes()
        self.seeds = itertools.count()
        self.warm = False
        self._name = name or str(getattr(agent, "name", None) or type(agent).__name__)

    def metadata(self) -> dict[str, Any]:
        """The frame that every client gets first."""
        space = getattr(self.agent, "action_space", None)
        spec = getattr(self.agent, "spec", None)
        low, high = getattr(space, "low", None), getattr(space, "high", None)
        bounded = isinstance(low, np.ndarray) and isinstance(high, np.ndarray)
        sizes = self._fitting.sizes
        parts = [*self.keys.names] if self.interface is None else self.interface.names
        instructions = None if self.interface is None else self.interface.instructions
        return {
            "policy": self._name,
            "action_horizon": getattr(self.agent, "chunk", None) or getattr(self.agent, "execute", None) or 1,
            "uva": {
                "protocol": PROTOCOL,
                "execute": None if self.execute == _WHOLE_CHUNK else self.execute,
                "lookback": int(getattr(self.agent, "lookback", _LOOKBACK)),
                "samples": callable(getattr(self.agent, "sample", None)),
                "identity": self._identity,
                "action_low": low if bounded else None,
                "action_high": high if bounded else None,
                "vectors": {} if self.interface is None else dict(self.interface.vectors),
                "image_shape": list(sizes["pixels"]) if "pixels" in sizes else None,
                "instructions": None if instructions is None else list(instructions[:_MOST_INSTRUCTIONS]),
                "wrist_shape": next((list(size) for name, size in sizes.items() if name != "pixels"), None),
                "wrist_key": next((name for name in sizes if name != "pixels"), None),
                "images": _IMAGES,
                "resize": self._fitting.how,
                "names": {ours: list(self.keys.names.get(ours, (ours,))) for ours in parts},
                "env_id": getattr(spec, "env_id", None),
                "control_hz": getattr(spec, "control_hz", None),
                "message_bytes": self.limits.message_bytes,
                "episodes": self.limits.episodes,
                "warm": self.warm,
                **self.new_episodes.metadata(),
            },
        }

    def observation(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """What a client shows, as the agent takes it.

        Raises:
            KeyError: a part is missing, with the names that it may have.
            ValueError: naming an entry that has the wrong form.
        """
        obs = self._fitting(self.keys.observation(message))
        if self.interface is not None and getattr(self.agent, "spec", None) is not None:
            for ours in (*self.interface.images, *self.interface.vectors):
                if ours not in obs:
                    raise self._missing(ours, obs)
        return obs

    def history(self, message: Any) -> dict[str, Any] | None:
        """Earlier observations with a leading time axis, under the agent's own names.

        Raises:
            TypeError: no map of arrays or lists.
        """
        if message is None:
            return None
        if not isinstance(message, dict) or not all(isinstance(v, np.ndarray | list) for v in message.values()):
            raise TypeError("'history' must be a map of arrays with a leading time axis")
        return self._fitting(message)

    def begin(self, seed: int | None) -> ServedEpisode:
        """An episode before its first observation."""
        seed = next(self.seeds) if seed is None else seed
        initial = getattr(self.agent, "initial_state", None)
        return ServedEpisode(None if initial is None else initial(1, seed=[seed]))

    def decide(
        self, episode: ServedEpisode, obs: Any, *, seen: Sequence[Any], executed: int, execute: int, deterministic: bool
    ) -> tuple[np.ndarray, ServedEpisode]:
        """A decision, by the same calls of ``predict`` that a loop in one process makes.

        Args:
            seen: observations since the last decision, the newest of ``executed - 1``; where there are fewer, the one before
                is taken to have stayed. Before an episode's first decision: what was seen before ``obs``.
            executed: actions of the last decision that were carried out.
            execute: actions of this one that will be.

        Returns:
            (T, A) all that the agent plans to do, and the episode after it.

        Raises:
            NotFiniteError: the agent returned NaN or infinity.
        """
        state, first = episode.state, episode.first
        missing = 0 if first else max(0, executed - 1 - len(seen))
        for past in (*[episode.last] * missing, *seen):
            _, state = self._step(past, state, first, deterministic)
            first = False
        action, state = self._step(obs, _queue_cut(state, 0), first, deterministic)
        actions = finite(np.stack([action, *_queue(state)]))
        given = min(execute, len(actions))
        state = _queue_cut(state, given - 1)
        return actions, ServedEpisode(state, False, obs, given, episode.version + 1)

    def _step(self, obs: Any, state: Any, first: bool, deterministic: bool) -> tuple[np.ndarray, Any]:
        # A state that the agent made says itself that an episode begins; others are told.
        start = None if hasattr(self.agent, "initial_state") else np.array([first])
        try:
            action, state = self.agent.predict(obs, state, episode_start=start, deterministic=deterministic)
        except KeyError as error:
            raise self._explained(error, obs) from error
        if isinstance(action, np.ma.MaskedArray) and np.any(action.mask):
            raise UnfitAnswerError("the agent returned masked actions: nobody knows what stands in their place")
        action = np.asarray(action)
        if action.ndim > 1:
            raise InputError(f"one observation at a time, without a leading axis: the actions are {action.shape}")
        return finite(action), state

    def _explained(self, error: KeyError, obs: Mapping[str, Any]) -> KeyError:
        """An agent's error about a missing part, with what it is called on the wire."""
        text = str(error.args[0]) if error.args else ""
        for ours in self.keys.names:
            if ours not in obs and (text == ours or repr(ours) in text):
                return self._missing(ours, obs)
        return error

    def _missing(self, ours: str, obs: Mapping[str, Any]) -> KeyError:
        return KeyError(
            f"the observation has no {ours!r}; its keys are {sorted(map(str, obs))}: {self.keys.advice(ours)}"
        )


@dataclass(frozen=True)
class ServedEpisode:
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

    @property
    def size(self) -> int:
        """Bytes of the newest observation, which may hold more than the agent looks at."""
        size, todo = 0, [self.last]
        while todo:  # keys that no name claims may hold anything
            value = todo.pop()
            if isinstance(value, dict | list):
                todo += value.values() if isinstance(value, dict) else value
                size += 64 * len(value)
            else:
                size += (
                    value.nbytes
                    if isinstance(value, np.ndarray)
                    else len(value)
                    if isinstance(value, str | bytes)
                    else 0
                )
        return size


class UnfitAnswerError(UVAError, TypeError):
    """The agent's actions are no numbers."""


def _kind(actions: np.ndarray) -> str:
    """What actions that are no numbers are, for messages."""
    if actions.dtype == object:
        found = type(actions.item() if actions.ndim == 0 else next(iter(actions.flat), None)).__name__
        return f"{found}" if actions.ndim == 0 else f"an array of {found}"
    return f"an array of dtype {actions.dtype}"


def finite(actions: np.ndarray) -> np.ndarray:
    """``actions``, which nobody may carry out unless they are numbers.

    Raises:
        UnfitAnswerError: no real numbers, or some of them masked.
        NotFiniteError: NaN or infinity.
    """
    if actions.dtype.kind not in "biuf":
        raise UnfitAnswerError(f"the agent returned {_kind(actions)}: actions must be an array of real numbers")
    if actions.dtype.kind == "f" and actions.dtype.itemsize > 8:  # the wire has no form for it
        actions = actions.astype(np.float64)
    if actions.dtype.kind == "f" and not np.isfinite(actions).all():
        raise NotFiniteError("the agent returned NaN or infinity: its weights or its normaliser are damaged")
    return actions


def _plain(identity: Any, execute: int) -> Any:
    """What decides an agent's actions, in values that every wire has, and with the number of actions that is served."""
    if isinstance(identity, Mapping) and "execute" in identity and execute != _WHOLE_CHUNK:
        identity = {**identity, "execute": execute}
    try:
        # NaN, which is unequal to itself, becomes text.
        return json.loads(json.dumps(identity, default=repr, sort_keys=True), parse_constant=str)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the agent's identity cannot be written as JSON: {error}") from error


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
