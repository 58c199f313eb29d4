"""Environments that run side by side, each reset exactly when it is asked to, with the seed that it is given.

Gymnasium's vector environments step all rows or none: an error in one row loses the others, and a row without an
episode has to be kept alive. An evaluation needs neither, so a worker is one environment with send and receive, in this
process or in its own.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from uva_agents.benchmarks.evaluation.values import flag, number, require_known
from uva_agents.causes import cause_of
from uva_agents.errors import InputError
from uva_agents.utils.workers import end_with_parent, receive


@dataclass(frozen=True, slots=True)
class StepResult:
    """What an environment answers to a step or a reset. After a reset ``reward`` is 0 and both flags are false."""

    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]
    frame: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Broken:
    """An environment raised: ``message`` names the error in one line, ``details`` holds the traceback.

    ``status`` is what a command ends with for such an error; see :mod:`uva_agents.causes`.
    """

    message: str
    details: str
    status: int = 2


@dataclass(frozen=True, slots=True)
class EnvFacts:
    """What has to be known about an environment before the first episode."""

    action_space: gym.Space[Any]
    fps: float


@dataclass(frozen=True, slots=True)
class Request:
    """``facts``, ``reset`` (value: seed) or ``step`` (value: action); ``draw`` asks for a rendered frame as well.

    ``options`` go to the environment's ``reset``.
    """

    kind: str
    value: Any = None
    draw: bool = False
    options: Mapping[str, Any] | None = None


class EnvWorker(Protocol):
    """One environment. Every ``send`` is followed by one ``receive``."""

    def send(self, request: Request) -> None:
        """Hand over a request; :meth:`receive` gives the answer."""
        ...

    def receive(self) -> Any:
        """An :class:`EnvFacts`, a :class:`StepResult` or a :class:`Broken`."""
        ...

    def close(self) -> None:
        """Close the environment, and end what it runs in."""
        ...


class _Host:
    """Owns the environment. After an error it is thrown away and the next reset builds a new one."""

    def __init__(self, make: Callable[[], gym.Env[Any, Any]]) -> None:
        self._make = make
        self._env: gym.Env[Any, Any] | None = None

    def answer(self, request: Request) -> StepResult | EnvFacts | Broken:
        try:
            if self._env is None:
                self._env = self._make()
            env = self._env
            if request.kind == "facts":
                return EnvFacts(env.action_space, float(env.metadata.get("render_fps") or 10))
            if request.kind == "reset":
                observation, info = env.reset(
                    seed=request.value, options=dict(request.options) if request.options else None
                )
                ended = (0.0, False, False)
            else:
                observation, reward, terminated, truncated, info = env.step(request.value)
                ended = (number(reward, "the reward"), flag(terminated, "terminated"), flag(truncated, "truncated"))
            require_known(observation)
            if not isinstance(info, Mapping):
                raise InputError(f"it gave {info!r:.60} as info, which is no dict")
            frame = np.asarray(env.render()) if request.draw else None
            return StepResult(observation, *ended, dict(info), frame)
        except (Exception, SystemExit) as error:
            if isinstance(error, InputError) and str(error).startswith("it gave "):
                error = InputError(f"{_name(self._env)}: {error}")
            details = traceback.format_exc()
            self.close()
            cause = cause_of(error)
            return Broken(f"{type(error).__name__}: {error}", details, 2 if cause is None else cause.status)

    def close(self) -> None:
        env, self._env = self._env, None
        if env is not None:
            with contextlib.suppress(Exception):  # it is thrown away, often because it is broken already
                env.close()


def _name(env: gym.Env[Any, Any] | None) -> str:
    return "the environment" if env is None else f"the environment {env.spec.id if env.spec else env.unwrapped}"


class _BorrowedHost(_Host):
    """Of an environment that belongs to somebody else: it is used again after an error, and stays open."""

    def close(self) -> None:
        pass


class LocalEnvWorker:
    """Runs in this process."""

    def __init__(self, env_id: str, kwargs: Mapping[str, Any]) -> None:
        self._host = _Host(_maker(env_id, kwargs))
        self._reply: Any = None

    def send(self, request: Request) -> None:
        """Answer the request at once, for :meth:`receive` to return."""
        try:
            self._reply = self._host.answer(request)
        except SystemExit as error:  # ends a process that has nothing else to do, and this one has
            self._reply = Broken(f"SystemExit: {error}", traceback.format_exc())
            self._host.close()

    def receive(self) -> Any:
        """See :meth:`EnvWorker.receive`."""
        return self._reply

    def close(self) -> None:
        """See :meth:`EnvWorker.close`."""
        self._host.close()


class BorrowedEnvWorker(LocalEnvWorker):
    """An environment that the caller has made, in this process."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._host = _BorrowedHost(lambda: env)
        self._reply = None


def _maker(env_id: str, kwargs: Mapping[str, Any]) -> Callable[[], gym.Env[Any, Any]]:
    return partial(gym.make, env_id, disable_env_checker=True, **kwargs)


def _serve(connection: Any, env_id: str, kwargs: Mapping[str, Any]) -> None:
    end_with_parent()
    host = _Host(_maker(env_id, kwargs))
    with contextlib.suppress(EOFError, KeyboardInterrupt):  # the evaluation was interrupted: its process reports that
        while (request := receive(connection)) is not None:
            connection.send(host.answer(request))
    host.close()


class ProcessEnvWorker:
    """Runs in a process of its own; a crash of that process breaks the current episode only."""

    def __init__(self, env_id: str, kwargs: Mapping[str, Any]) -> None:
        self._args = (env_id, dict(kwargs))
        self._start()

    def _start(self) -> None:
        # The platform's default start method, as in gymnasium: forked children know what the caller registered.
        self._connection, theirs = mp.Pipe()
        self._process = mp.Process(target=_serve, args=(theirs, *self._args), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, request: Request) -> None:
        """See :meth:`EnvWorker.send`. A process that is gone is found out by :meth:`receive`."""
        with contextlib.suppress(OSError):  # the process is gone: receive() finds out and starts another
            self._connection.send(request)

    def receive(self) -> Any:
        """See :meth:`EnvWorker.receive`: a :class:`Broken` if the process died; another one has been started then."""
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            self._process.join(timeout=5)
            message = f"the environment's process died (exit code {self._process.exitcode})"
            self._connection.close()
            self._start()
            return Broken(message, message)

    def close(self) -> None:
        """End the process; it is terminated if that takes more than 5 s."""
        with contextlib.suppress(OSError):
            self._connection.send(None)
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.terminate()
        self._connection.close()


def open_env_workers(n: int, env_id: str, kwargs: Mapping[str, Any], vectorization: str) -> list[EnvWorker]:
    """``n`` workers with the same environment; ``vectorization`` is ``"sync"`` (this process) or ``"async"`` (one each).

    Raises:
        InputError: unknown ``vectorization``.
    """
    kinds: dict[str, type[LocalEnvWorker] | type[ProcessEnvWorker]] = {
        "sync": LocalEnvWorker,
        "async": ProcessEnvWorker,
    }
    if vectorization not in kinds:
        raise InputError(f'vectorization={vectorization!r}: choose "sync" or "async" (a process per environment)')
    return [kinds[vectorization](env_id, kwargs) for _ in range(n)]
