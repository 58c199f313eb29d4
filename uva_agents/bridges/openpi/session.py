"""What an agent remembers of each client: sessions of one agent, which keep its state as values."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from uva_agents.bridges.openpi.service import ServedEpisode, Service, finite
from uva_agents.errors import InputError

_KEPT_MESSAGES = 8
"""Largest messages' worth of observations that one connection's episodes may hold on to together."""


class ClientSession:
    """One connection's episodes: the one that a client of openpi is in, and those that a ``RemotePolicy`` names."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._plain: ServedEpisode | None = None
        self._next_seed: int | None = None
        self._named: OrderedDict[str, ServedEpisode] = OrderedDict()

    def paused(self, pause_s: float) -> None:
        """A message has come ``pause_s`` after the last answer; whatever becomes of it, an old episode may be over.

        One that was asked for and has seen nothing goes on: environments take their time to reset.
        """
        if self._plain is not None and not self._plain.first and self._service.new_episodes.after_pause(pause_s):
            self._plain = None

    def answer(self, message: Any) -> dict[str, Any] | str:
        """The answer to one message. What raises changes nothing.

        Raises:
            TypeError, KeyError, ValueError: naming what is wrong with the message, or with its observation.
        """
        if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
            found = type(message).__name__
            keys = " whose keys are no text" if isinstance(message, dict) else ""
            raise TypeError(f"a request is a map with names as keys, got {found}{keys}")
        request = dict(message)
        ours = request.pop("uva", None)
        if ours is not None:
            if not isinstance(ours, dict):
                raise TypeError(f"'uva' must be a map, got {type(ours).__name__}")
            return self._sample(request, ours) if "sample" in ours else self._named_episode(request, ours)
        endpoint = request.pop("endpoint", "infer")
        if not isinstance(endpoint, str) or endpoint not in ("infer", "reset"):
            raise ValueError(f"endpoint must be 'infer' or 'reset', got {endpoint!r:.80}")
        if endpoint == "reset":  # as RoboArena's clients say it, and what they expect to hear
            self._plain = self._next_seed = None
            return "reset successful"
        anew = _truth(request, "reset")
        request.pop("reset", None)
        if anew:
            seed = _optional_int(request, "seed", least=0)
            request.pop("seed", None)
            episode = self._service.begin(seed)
            if not request:
                self._plain, self._next_seed = episode, None if seed is None else seed + 1
                return {"reset": True}
        elif self._plain is not None:
            seed, episode = None, self._plain
        else:
            # After an episode with a seed, one that nobody asked for has the next seed, so that runs can be repeated.
            seed = self._next_seed
            episode = self._service.begin(seed)
        obs = self._service.observation(request)
        actions, after = self._service.decide(
            episode, obs, seen=(), executed=episode.given, execute=self._service.execute, deterministic=False
        )
        self._plain = None if self._service.new_episodes.stateless else after
        if seed is not None:
            self._next_seed = seed + 1
        return {"actions": actions}

    def _named_episode(self, request: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
        name = ours.get("episode")
        if not isinstance(name, str) or not 0 < len(name) <= 64:
            raise ValueError("'episode' must be a name of at most 64 letters")
        execute = _optional_int(ours, "execute")
        execute = self._service.execute if execute is None else execute
        executed, version = _optional_int(ours, "executed") or 0, _optional_int(ours, "version") or 0
        if _truth(ours, "start"):
            episode = self._service.begin(_optional_int(ours, "seed", least=0))
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
        show = self._service.observation
        actions, after = self._service.decide(
            episode,
            show(request),
            seen=[show(o) for o in seen],
            executed=executed,
            execute=execute,
            deterministic=_truth(ours, "deterministic"),
        )
        self._named[name] = after
        self._named.move_to_end(name)
        limits = self._service.limits
        most = _KEPT_MESSAGES * limits.message_bytes
        while len(self._named) > limits.episodes or (
            len(self._named) > 1 and sum(one.size for one in self._named.values()) > most
        ):
            self._named.popitem(last=False)
        return {"actions": actions, "uva": {"version": after.version, "execute": after.given}}

    def _sample(self, request: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
        n, most = _optional_int(ours, "sample") or 0, self._service.limits.samples
        if not 1 <= n <= most:
            raise ValueError(f"between 1 and {most} samples can be asked for at a time, not {n}")
        sample = getattr(self._service.agent, "sample", None)
        if sample is None:
            raise ValueError(f"{type(self._service.agent).__name__} has no sample()")
        options = {"history": self._service.history(ours.get("history")), "seed": _optional_int(ours, "seed", least=0)}
        options = {name: value for name, value in options.items() if value is not None}
        return {"actions": finite(np.asarray(sample(self._service.observation(request), n, **options)))}


def _truth(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name, False)
    if not isinstance(value, bool | np.bool_ | int | None):
        raise TypeError(f"{name!r} must be true or false, got {type(value).__name__}")
    return bool(value)


def _optional_int(values: Mapping[str, Any], name: str, *, least: int = -(2**63)) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not abs(int(value)) < 2**63:
        raise TypeError(f"{name!r} must be an integer, got {type(value).__name__}")
    if int(value) < least:
        raise InputError(f"{name!r} must be at least {least}, got {value}")
    return int(value)
