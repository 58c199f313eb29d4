"""A policy that takes its time, in this process or behind a policy server: what the real-time benchmark waits for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from uva_agents.realtime import ChunkRequest


class SlowPolicy:
    """An agent that takes its time: chunks of a slow swing around where it began, as a function of time.

    Args:
        seconds: per chunk.
        hz: of its actions.
        chunk: actions.
        swing: (A,) how far it swings, in each number of an action.
        busy: whether it computes, on one core, or sleeps.
    """

    def __init__(self, seconds: float, *, hz: float, chunk: int, swing: np.ndarray, busy: bool = False) -> None:
        self.seconds, self.hz, self.chunk, self.swing, self.busy = seconds, hz, chunk, swing, busy
        self.lookback = 0
        self._pause_s = 0.0

    def pause(self, seconds: float) -> None:
        """The next answer takes that much longer."""
        self._pause_s = seconds

    def sample(self, obs: Any, n: int = 1) -> np.ndarray:
        """(n, T, A). ``agent_pos`` is the time since the beginning, and where that was (A,)."""
        until = time.perf_counter() + self.seconds
        silent_s, self._pause_s = self._pause_s, 0.0
        if self.busy:
            square = np.random.default_rng(0).normal(size=(192, 192)).astype(np.float32)
            while time.perf_counter() < until:
                square @ square
        time.sleep(max(0.0, until - time.perf_counter()) + silent_s)
        position = np.asarray(obs["agent_pos"], np.float64)
        phase, place = position[0] + np.arange(self.chunk) / self.hz, position[1:]
        swung: np.ndarray = place + self.swing * (1 - np.cos(0.5 * phase))[:, None]
        return np.repeat(swung[None], n, axis=0)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """The first action of a chunk; a policy server wants to know how to ask for one."""
        return self.sample(observation)[0, 0], state


class SlowChunkSource:
    """A chunk source that tells a :class:`SlowPolicy` where an episode began, and how long ago that was."""

    def __init__(self, sample: Callable[..., np.ndarray], stay: Callable[[Any], np.ndarray | None]) -> None:
        self._sample, self._stay = sample, stay
        self._began_s = 0.0
        self._place = np.zeros(0)

    def __call__(self, request: ChunkRequest) -> np.ndarray:
        """Chunk (T, A) for the position where the episode began, and the seconds since then."""
        if request.number == 0:
            place = self._stay(request.obs)
            assert place is not None
            self._place, self._began_s = place, request.observed_s
        position = np.array([request.observed_s - self._began_s, *self._place], np.float32)
        # The pictures go along: they are most of what travels to a real policy.
        chunks = np.asarray(self._sample({**request.obs, "agent_pos": position}, 1))
        return np.asarray(chunks[0])


@contextlib.contextmanager
def served(policy: SlowPolicy) -> Iterator[tuple[Callable[..., np.ndarray], int]]:
    """The policy behind a server in another process: how to ask it, and the process."""
    import multiprocessing as mp

    from uva_agents.bridges.openpi import RemotePolicy

    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, policy), daemon=True)
    process.start()
    try:
        remote = RemotePolicy(ours.recv())
        assert process.pid is not None
        yield remote.sample, process.pid
        remote.close()
    finally:
        process.kill()
        process.join()


def _serve(connection: Any, policy: SlowPolicy) -> None:
    from uva_agents.bridges.openpi import PolicyServer

    with PolicyServer(policy, port=0) as server:
        connection.send(server.url)
        threading.Event().wait()
