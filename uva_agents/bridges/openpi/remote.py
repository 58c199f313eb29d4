"""An agent whose decisions are made by a policy server: one of ours, or any that speaks openpi's wire."""

from __future__ import annotations

import itertools
import logging
import ssl
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.agents.arguments import flag
from uva_agents.agents.observations import split, to_numpy
from uva_agents.agents.stateful import StatefulAgent
from uva_agents.bridges.openpi.connection import Connection
from uva_agents.bridges.openpi.keys import OPENPI_NAMES
from uva_agents.bridges.openpi.remote_state import RemoteRow, RemoteState, check_form
from uva_agents.bridges.openpi.server_info import RemotePolicyError, ServerInfo, episode_status, whole
from uva_agents.errors import InputError, MissingKeyError, NotFiniteError

log = logging.getLogger("uva_agents.remote")

_FOREIGN_EXECUTE = 5
"""Actions of a chunk carried out where neither server nor caller say: what openpi's own LIBERO client does."""


class RemotePolicy(StatefulAgent[RemoteState]):
    """An :class:`~uva_agents.agents.base.Agent` at the other end of a websocket.

    >>> agent = RemotePolicy("ws://gpu-machine:8000", token="...")      # doctest: +SKIP
    >>> agent.reset(seed=0)                                             # doctest: +SKIP
    >>> action = agent.act(obs)                                         # doctest: +SKIP

    **Our servers** (``uva serve``) give every environment an episode of its own, with its seed and all that was observed, so
    that actions are those of the same agent in this process. When a connection is lost, the newest observations are sent again
    with the next request, and the episode goes on; its random stream begins anew.

    **Other servers** (pi0, pi0-FAST, ...) see one observation per decision and know nothing of episodes or seeds. What they
    call things and what their actions mean is theirs: see ``keys``, ``prepare`` and ``postprocess``.

    Copies and pickles keep address and options, the token too, and connect when they are first asked; ``tls=`` does not go into a
    pickle. Servers on this machine are reached directly, others through the proxy that the environment names, if it does.

    A state that this agent returned can be continued once, because the other half of it is on the server; continuing it again
    begins the episode there anew from the newest observations.

    Args:
        url: ``ws://host:port`` or ``wss://host:port``.
        token: where the server asks for one.
        execute: actions of a chunk executed before the next decision; the server's number by default, else 5.
        chunk: actions of an answer that are looked at at all.
        keys: name on the wire -> ours; by default ours for our servers and :data:`OPENPI_NAMES` for others. Names that an
            observation does not have are left out.
        extra: entries of every request, for example ``{"prompt": "push the T"}``.
        prepare: changes an observation before its entries are named: other sizes, other coordinates.
        postprocess: (T, A') answer and observation -> (T, A) environment actions.
        action_space: actions are clipped to it; the server's by default, if it has one.
        timeout_s: for one answer; the first may have to wait for compilation.
        patience_s: for a server that is not there, is lost or is busy.
        tls: for ``wss``, where the system's authorities do not know the server's certificate.

    Raises:
        ValueError: a URL that is none; a wrong token; an option that makes no sense.
        RemotePolicyError: no server there.
    """

    state_type = RemoteState

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        execute: int | None = None,
        chunk: int | None = None,
        keys: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
        prepare: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
        postprocess: Callable[[np.ndarray, Mapping[str, Any]], np.ndarray] | None = None,
        action_space: gym.spaces.Box | None = None,
        timeout_s: float = 60.0,
        patience_s: float = 20.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        for option, value in (("execute", execute), ("chunk", chunk)):
            if value is not None and value < 1:
                raise InputError(f"{option} must be at least 1, got {value}")
        if execute is not None and chunk is not None and execute > chunk:
            raise InputError(f"execute={execute} of chunks of {chunk}")
        super().__init__()
        self._connection = Connection(url, token=token, timeout_s=timeout_s, patience_s=patience_s, tls=tls)
        self.url, self._chunk, self._extra = self._connection.url, chunk, dict(extra or {})
        self._prepare, self._postprocess = prepare, postprocess
        info = self._server_info
        self._keys = keys if keys is not None or info.ours else OPENPI_NAMES
        self.execute: int | None = execute or info.execute or (None if info.ours else _FOREIGN_EXECUTE)
        self.lookback: int = info.lookback
        self._space = action_space or info.action_space

    def __repr__(self) -> str:
        return f"RemotePolicy({self.url!r}, execute={self.execute})"

    def __getstate__(self) -> dict[str, Any]:
        seed = next(self._seeds)
        self._seeds = itertools.count(seed)
        return {**self.__dict__, "_seeds": seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._seeds = itertools.count(state["_seeds"])

    @property
    def metadata(self) -> dict[str, Any]:
        """What the server says of itself."""
        return self._connection.metadata

    @property
    def action_space(self) -> gym.spaces.Box | None:
        """Of one environment action; ``None`` where neither server nor caller know it."""
        return self._space

    @property
    def name(self) -> str:
        """Of what is served, and where."""
        return f"{self.metadata.get('policy', 'policy')} at {self.url}"

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its actions, as JSON values, as far as the server says.

        An interrupted evaluation continues only with the same.
        """
        server = self._server_info.identity or {"url": self.url, "metadata": repr(self.metadata)}
        return {"server": server, "execute": self.execute, "chunk": self._chunk, "extra": repr(self._extra)}

    @property
    def _server_info(self) -> ServerInfo:
        return self._connection.server_info

    def close(self) -> None:
        """Hang up; the next decision connects again."""
        self._connection.close()

    def initial_state(self, batch_size: int = 1, *, seed: int | Sequence[int] | None = None) -> RemoteState:
        """State before the first observation; one seed per environment, or consecutive ones from a single seed."""
        most = self._server_info.episodes
        if most is not None and batch_size > most:
            raise InputError(
                f"{batch_size} environments, and {self.url} keeps {most} episodes per client: "
                "fewer environments, or a server with Limits(episodes=...)"
            )
        return super().initial_state(batch_size, seed=seed)

    def predict(
        self,
        observation: Any,
        state: RemoteState | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, RemoteState]:
        """stable-baselines3's ``predict``; the server is asked for one environment after the other.

        Args:
            observation: one observation or a batch.
            state: what the previous call returned; ``None`` starts an episode.
            episode_start: (n,) bool, environments whose observation is the first of an episode.
            deterministic: passed on to our servers; others do not know it.

        Returns:
            Actions (A,) or (n, A), and the next state.

        Raises:
            TypeError, KeyError, ValueError: naming what is wrong with observation or state; the server's words.
            RemotePolicyError, TimeoutError: it cannot be reached, failed, or did not answer in time.
        """
        deterministic = flag(deterministic, "deterministic")
        observations, batched = split(observation)
        state = self._current(state, len(observations), episode_start)
        rows, actions = [], []
        for row, obs in zip(state.rows, observations, strict=True):
            sent = self._request(obs)
            if row.needs_replan:
                row = self._decided(row, obs, sent, deterministic)
            else:
                check_form(sent, row.form)
                row = row.observed(sent, self.lookback)
            action, row = row.acted()
            actions.append(action)
            rows.append(row)
        return (np.stack(actions) if batched else actions[0]), RemoteState(tuple(rows))

    def sample(self, obs: Any, n: int = 1, *, history: Any | None = None, seed: int | None = None) -> np.ndarray:
        """Several whole chunks for the same observation; other servers than ours are asked n times, and have no seeds or history.

        Args:
            obs: one observation or a batch.
            n: chunks per observation.
            history: earlier observations of a single environment with a leading time axis, oldest first.
            seed: of the noise; continues the served agent's own stream when absent.

        Returns:
            (n, T, A) for one observation, (B, n, T, A) for a batch.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        observations, batched = split(obs)
        if history is not None and batched:
            raise ValueError("history= goes with a single observation; call once per environment for a batch")
        found: np.ndarray = np.stack([self._samples(o, n, history, seed) for o in observations])
        return found if batched else found[0]

    def _samples(self, obs: Mapping[str, Any], n: int, history: Any | None, seed: int | None) -> np.ndarray:
        sent = self._request(obs)
        if not self._server_info.ours:
            return np.stack([self._actions(self._connection.ask(lambda: sent), obs) for _ in range(n)])
        if not self._server_info.samples:
            raise InputError(f"what {self.url} serves has no sample()")
        past = None if history is None else {k: v if isinstance(v, list) else to_numpy(v) for k, v in history.items()}
        ask = {"sample": n, "seed": seed, "history": past}
        chunks = whole(self._connection.ask(lambda: {**sent, "uva": ask}), self.url)
        if chunks.ndim != 3 or len(chunks) != n:
            raise RemotePolicyError(f"{self.url} was asked for {n} chunks, and its answer has shape {chunks.shape}")
        return np.stack([self._actions({"actions": chunk}, obs) for chunk in chunks])

    # -- the wire ----------------------------------------------------------------------------------------------------

    def _request(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """An observation as it is sent; a copy, because environments may write into theirs."""
        if not isinstance(obs, Mapping):
            raise TypeError(f"an observation is a dict, got {type(obs).__name__}")
        ready = obs if self._prepare is None else self._prepare(obs)
        keys = {key: key for key in ready} if self._keys is None else self._keys
        named = {theirs: ready[own] for theirs, own in keys.items() if own in ready}
        if not named:
            raise MissingKeyError(f"the observation has none of {sorted(set(keys.values()))}, only {sorted(ready)}")
        return {**{k: v if isinstance(v, str) else np.array(to_numpy(v)) for k, v in named.items()}, **self._extra}

    def _decided(self, row: RemoteRow, obs: Mapping[str, Any], sent: dict[str, Any], deterministic: bool) -> RemoteRow:
        """The row with a new answer queued."""
        if not self._server_info.ours:
            queue = self._actions(self._connection.ask(lambda: sent), obs)[: self.execute]
            return row.answered(queue, sent, 0, 0)
        name, lost = row.name, row.decisions == 0

        def message() -> dict[str, Any]:
            nonlocal name
            ask: dict[str, Any] = {"version": row.decisions, "execute": self.execute, "deterministic": deterministic}
            if lost or row.connection != self._connection.times:
                if row.decisions:
                    log.warning("%s has forgotten an episode: its newest observations are sent again", self.url)
                name = uuid.uuid4().hex  # a state may be begun twice, and these are then two episodes
                ask |= {"start": True, "seed": row.seed, "seen": list(row.seen)}
            else:
                ask |= {"executed": row.executed, "seen": list(row.seen[len(row.seen) - row.unsent :])}
            return {**sent, "uva": {**ask, "episode": name}}

        answer = self._connection.ask(message)
        forgotten, given = episode_status(answer, self.url)
        if forgotten:
            lost = True
            answer = self._connection.ask(message)
            _, given = episode_status(answer, self.url)
        queue = self._actions(answer, obs)[:given]
        return replace(row, name=name).answered(queue, sent, self._connection.times, self.lookback)

    def _actions(self, answer: Mapping[str, Any], obs: Mapping[str, Any]) -> np.ndarray:
        """(T, A) environment actions."""
        actions = whole(answer, self.url)
        actions = (actions[None] if actions.ndim == 1 else actions)[: self._chunk]
        if self._postprocess is not None:
            actions = np.asarray(self._postprocess(actions, obs))
        if actions.ndim != 2 or not len(actions):
            raise RemotePolicyError(f"actions from {self.url} must be (T, A), got shape {actions.shape}")
        if actions.dtype.kind not in "iuf" or not np.isfinite(actions.astype(np.float32)).all():
            raise NotFiniteError(f"postprocess= made NaN or infinity of the actions from {self.url}")
        if self._space is not None:
            if actions.shape[1:] != self._space.shape:
                raise InputError(
                    f"{self.url} gives actions of {actions.shape[1]} numbers, and the action space is {self._space}: "
                    "choose among them with postprocess="
                )
            actions = np.clip(actions, self._space.low, self._space.high)
        return actions.astype(np.float32)
