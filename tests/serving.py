"""An agent whose every action can be predicted, and a client made from what is known of openpi's wire alone."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import msgpack
import numpy as np
from websockets.sync.client import connect

from tests import toys

CHUNK = 6


@dataclass(frozen=True)
class ToyRow:
    seed: int
    decisions: int = 0
    seen: tuple[float, ...] = ()
    queue: np.ndarray | None = None


@dataclass(frozen=True)
class ToyState:
    rows: tuple[ToyRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def decisions(self) -> np.ndarray:
        return np.array([row.decisions for row in self.rows])

    def restarted(self, mask: np.ndarray, seeds: Sequence[int] | None = None) -> ToyState:
        begun = [ToyRow(row.seed + 1 if seeds is None else seeds[i]) for i, row in enumerate(self.rows)]
        return ToyState(tuple(new if m else row for new, m, row in zip(begun, mask, self.rows, strict=True)))


class ToyAgent:
    """Chunks of 6 actions, of which 3 are executed. They depend on seed, decision and everything seen in the episode.

    Args:
        decide: called at every decision: takes time, or fails.
    """

    chunk, lookback = CHUNK, 100
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, decide: Callable[[], None] | None = None) -> None:
        self.execute, self.decide = 3, decide

    def initial_state(self, batch_size: int = 1, *, seed: Any = 0) -> ToyState:
        seeds = list(seed) if isinstance(seed, Sequence) else [seed + i for i in range(batch_size)]
        return ToyState(tuple(ToyRow(s) for s in seeds))

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, ToyState]:
        if "agent_pos" not in observation:
            raise KeyError(f"the observation has no 'agent_pos'; its keys are {sorted(observation)}")
        seen = np.asarray(observation["agent_pos"], float)
        if seen.shape[-1:] != (1,):
            raise ValueError(f"'agent_pos' must be (1,), got {seen.shape}")
        state = state or self.initial_state(len(seen.reshape(-1, 1)))
        actions, rows = [], []
        for row, x in zip(state.rows, seen.reshape(-1, 1), strict=True):
            row = replace(row, seen=(*row.seen, float(x[0])))
            if row.queue is None or not len(row.queue):
                if self.decide is not None:
                    self.decide()
                draw = 0.0 if deterministic else np.random.default_rng([row.seed, row.decisions]).normal()
                chunk = np.tanh(draw + 0.1 * np.mean(row.seen) + 0.05 * np.arange(CHUNK) + 0.01 * len(row.seen))
                queue = chunk[: self.execute, None].astype(np.float32)
                row = replace(row, queue=queue, decisions=row.decisions + 1)
            actions.append(row.queue[0])
            rows.append(replace(row, queue=row.queue[1:]))
        return (np.stack(actions) if seen.ndim > 1 else actions[0]), ToyState(tuple(rows))

    def sample(self, obs: Any, n: int = 1, *, history: Any = None, seed: int | None = None) -> np.ndarray:
        draws = np.random.default_rng(seed).normal(size=(n, CHUNK, 1))
        return np.tanh(draws + float(obs["agent_pos"][0]) + (0 if history is None else len(history["agent_pos"])))


def toy_agent() -> ToyAgent:
    """For ``tests.serving:toy_agent`` on a command line."""
    toys.register()
    return ToyAgent()


def slow_agent() -> ToyAgent:
    return ToyAgent(lambda: time.sleep(0.5))


def obs(x: float) -> dict[str, Any]:
    return {"agent_pos": np.array([x], np.float32)}


def acted(agent: Any, seed: int = 3, n: int = 6) -> np.ndarray:
    """(n, 1) the first actions of an episode."""
    agent.reset(seed=seed)
    return np.stack([agent.act(obs(0.1 * t)) for t in range(n)])


def held(agent: ToyAgent, seed: int, xs: Sequence[float], execute: int = 3) -> list[np.ndarray]:
    """The chunks that a client of openpi gets: between its observations, the older one is taken to have stayed."""
    chunks, seen = [], []
    for i, x in enumerate(xs):
        seen += [xs[i - 1]] * (execute - 1) + [x] if i else [x]
        draw = np.random.default_rng([seed, i]).normal()
        value = np.tanh(draw + 0.1 * np.mean(seen) + 0.05 * np.arange(CHUNK) + 0.01 * len(seen))
        chunks.append(value[:, None].astype(np.float32))
    return chunks


# -- openpi's wire, from facts: binary msgpack messages, arrays as maps with bytes for keys, the first frame is metadata


def raw_pack(message: Any) -> bytes:
    def default(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}

    return msgpack.packb(message, default=default)


def raw_unpack(data: bytes) -> Any:
    def hook(found: dict[Any, Any]) -> Any:
        if b"__ndarray__" in found:
            return np.frombuffer(found[b"data"], found[b"dtype"]).reshape(found[b"shape"])
        return found

    return msgpack.unpackb(data, object_hook=hook)


class RawClient:
    """What openpi's client does: connect, read the metadata, then a message out and one in."""

    def __init__(self, url: str, token: str | None = None, kind: str = "Api-Key", **options: Any) -> None:
        headers = {} if token is None else {"Authorization": f"{kind} {token}"}
        self._stack = contextlib.ExitStack()
        options = {"compression": None, "max_size": None, "ping_interval": None, "proxy": None, **options}
        self.socket = self._stack.enter_context(connect(url, additional_headers=headers, **options))
        self.metadata = raw_unpack(self.socket.recv(timeout=10))

    def ask(self, message: Any) -> Any:
        """A map, or the text of an error."""
        self.socket.send(message if isinstance(message, bytes | str) else raw_pack(message))
        answer = self.socket.recv(timeout=120)
        return answer if isinstance(answer, str) else raw_unpack(answer)

    def close_code(self, timeout: float = 10) -> int | None:
        """Why the server hung up, once it has."""
        with contextlib.suppress(Exception):
            while True:
                self.socket.recv(timeout=timeout)
        return self.socket.close_code

    def started(self, seed: int) -> RawClient:
        """This client, at the beginning of an episode."""
        assert self.ask({"reset": True, "seed": seed})["reset"] is True
        return self

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def raw_client(url: str, *args: Any, **options: Any) -> Iterator[RawClient]:
    client = RawClient(url, *args, **options)
    try:
        yield client
    finally:
        client.close()


def tcp(port: int, *, upgrade: bool = False) -> socket.socket:
    """A connection by hand; with ``upgrade``, past the websocket handshake."""
    s = socket.create_connection(("127.0.0.1", port), timeout=60)
    if upgrade:
        s.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
    return s


def seconds_until_hung_up(s: socket.socket) -> float:
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while s.recv(65536):
            pass
    return time.monotonic() - began


def health_s(port: int) -> float:
    """Seconds of one health check; raises if the answer is not 200."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"OK\n")
    connection.close()
    return time.monotonic() - began
