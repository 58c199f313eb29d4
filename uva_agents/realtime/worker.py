"""Inference beside the control loop: in a thread, or in a process that may die without harm. Asking and answering never wait."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing as mp
import queue
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from uva_agents.errors import NotFiniteError
from uva_agents.realtime.chunk_source import ChunkRequest, ChunkSource
from uva_agents.realtime.numbers import as_numbers
from uva_agents.utils.workers import receive

_LOG = logging.getLogger(__name__)
_LOOK_S = 0.05
"""Seconds between checks whether a process is still needed."""


@dataclass(frozen=True, eq=False)
class Reply:
    """The answer to a request.

    Attributes:
        request: ``None`` where the worker could not start, or has ended: there will be no more replies.
        chunk: (T, A), or ``None`` after an error.
        error: what went wrong, for people.
        seconds: of inference.
        not_finite: the error is that the agent computed NaN or infinity.
    """

    request: ChunkRequest | None
    chunk: np.ndarray | None
    error: str | None = None
    seconds: float = 0.0
    not_finite: bool = False


class InferenceWorker(Protocol):
    """Answers one request at a time; none of its methods waits for the agent."""

    @property
    def busy(self) -> bool:
        """Whether it cannot take a request now: it works on one, or has not started (again) yet."""
        ...

    def submit(self, request: ChunkRequest) -> None:
        """Begin with a request.

        Raises:
            RuntimeError: it is busy.
        """
        ...

    def poll(self) -> Reply | None:
        """A reply that has arrived since the last call; once the worker has ended, each time one without a request."""
        ...

    def close(self) -> None:
        """Stop; what is under way is given up."""
        ...


class ThreadWorker:
    """Inference in a thread of this process: torch and sockets let go of the interpreter while they work.

    Args:
        setup: called once in the thread; gives what answers requests.
        restart: called in the thread after an error, before the next request is taken.
    """

    def __init__(self, setup: Callable[[], ChunkSource], *, restart: Callable[[], None] | None = None) -> None:
        self._setup, self._restart = setup, restart
        self._inbox: queue.SimpleQueue[ChunkRequest | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self._free = threading.Event()
        self._closed = False
        self._ended = Reply(None, None, "the thread of the agent has ended")
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """See :attr:`InferenceWorker.busy`."""
        return not (self._free.is_set() and self._thread.is_alive())

    def submit(self, request: ChunkRequest) -> None:
        """See :meth:`InferenceWorker.submit`; a closed worker is an error, too."""
        if self._closed or self.busy:
            raise RuntimeError("the worker is " + ("closed" if self._closed else "busy: wait for its reply"))
        self._free.clear()
        self._inbox.put(request)

    def poll(self) -> Reply | None:
        """See :meth:`InferenceWorker.poll`."""
        alive = self._thread.is_alive()  # before reading: its last answer comes before its end
        try:
            return self._outbox.get_nowait()
        except queue.Empty:
            return None if alive or self._closed else self._ended

    def close(self) -> None:
        """See :meth:`InferenceWorker.close`; waits up to 2 s for the thread to end."""
        if not self._closed:
            self._closed = True
            self._inbox.put(None)
            self._thread.join(timeout=2.0)  # a thread that hangs in a network read ends with the process

    def _work(self) -> None:
        # The loop must get a reply even if the agent calls sys.exit(): everything that the agent raises is its error, and only the
        # main thread's own signals end this process.
        try:
            answer = self._setup()
        except BaseException as error:
            self._end("the agent could not be set up", error)
            return
        self._free.set()
        while (request := self._inbox.get()) is not None:
            reply = self._answer(answer, request)
            self._outbox.put(reply)
            if reply.error is not None and self._restart is not None and not self._closed:
                try:
                    self._restart()
                except BaseException as error:
                    self._end("the agent could not be set up again", error)
                    return
            self._free.set()

    def _answer(self, answer: ChunkSource, request: ChunkRequest) -> Reply:
        began = time.perf_counter()
        try:
            chunk = as_numbers(answer(request), "the agent")
            _check_finite(chunk)
            return Reply(request, chunk, None, time.perf_counter() - began)
        except BaseException as error:
            _LOG.warning("inference failed", exc_info=True)
            return Reply(request, None, _describe(error), time.perf_counter() - began, _is_not_finite(error))

    def _end(self, what: str, error: BaseException) -> None:
        if not self._closed:
            _LOG.error("%s", what, exc_info=error)
        self._ended = Reply(None, None, f"{what}: {_describe(error)}")


class ProcessWorker(ThreadWorker):
    """Inference in a process of its own: one that crashes or is killed costs one answer, and is replaced.

    A thread here talks to it, so that not even a full pipe makes the control loop wait. What the agent remembers between requests
    is gone with its process; the history that comes with each request is not.

    Args:
        setup: picklable, called once in the process; gives what answers requests.
        timeout_s: a request that takes longer gets its process killed; ``None`` waits for ever.
        start_s: how long the process may take until it is ready.
    """

    def __init__(
        self, setup: Callable[[], ChunkSource], *, timeout_s: float | None = None, start_s: float = 300.0
    ) -> None:
        self._child = _Child(setup, timeout_s, start_s)
        super().__init__(self._child.started, restart=self._child.replaced)

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._child.pid

    def close(self) -> None:
        """See :meth:`InferenceWorker.close`; the process is killed."""
        self._child.unwanted = True
        super().close()
        self._child.stop()


class _Child:
    """The process, as a chunk source."""

    def __init__(self, setup: Callable[[], ChunkSource], timeout_s: float | None, start_s: float) -> None:
        self._target, self._timeout_s, self._start_s = setup, timeout_s, start_s
        self._process: Any = None
        self._connection: Connection | None = None
        self._ready = False
        self.unwanted = False

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None else process.pid

    def started(self) -> ChunkSource:
        """With a new process that is ready."""
        # Spawned: a fork would copy locks that threads of this process hold.
        context = mp.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._target), name="inference", daemon=True)
        with theirs:
            try:
                process.start()
            except BaseException:  # it cannot be sent there, or memory is short: there is no process to stop
                ours.close()
                raise
        self._process, self._connection, self._ready = process, ours, False
        try:
            self._received(self._start_s)
            self._ready = True
        except BaseException:
            self.stop()
            raise
        return self

    def replaced(self) -> None:
        """A new process where the old one is gone."""
        if self._process is None:
            self.started()

    def __call__(self, request: ChunkRequest) -> np.ndarray:
        connection = self._connection
        if connection is None:
            raise _ReportedError("closed")
        try:
            connection.send(request)
        except OSError:
            raise self._died() from None
        return np.asarray(self._received(self._timeout_s))

    def _received(self, timeout_s: float | None) -> Any:
        connection = self._connection
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while connection is None or not connection.poll(_LOOK_S):
                if self.unwanted or connection is None:  # closed by another thread
                    raise _ReportedError("closed")
                if deadline is not None and time.monotonic() > deadline:
                    self.stop()
                    raise TimeoutError(f"no answer within {timeout_s:g} s: its process was stopped")
            value, error, not_finite = connection.recv()
        except (EOFError, ConnectionError):
            raise self._died() from None
        if error is not None:
            raise _ReportedError(error, not_finite=not_finite)
        return value

    def _died(self) -> _ReportedError:
        process = self._process
        if process is None:
            return _ReportedError("closed")
        process.join(timeout=5)
        code = process.exitcode
        self.stop()
        killed = isinstance(code, int) and code < 0
        how = f"was killed by {signal.Signals(-code).name}" if killed else f"ended with status {code}"
        return _ReportedError(f"the process of the agent {how}{'; a new one begins' if self._ready else ''}")

    def stop(self) -> None:
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is not None:
            process.kill()
            process.join(timeout=5)


def _serve(connection: Connection, setup: Callable[[], ChunkSource]) -> None:
    # Ctrl-C reaches the whole group: the parent brings the arm to rest first, and then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        try:
            answer = setup()
            connection.send((None, None, False))
        except BaseException as error:
            connection.send((None, _describe(error), False))
            return
        while (request := receive(connection)) is not None:
            try:
                connection.send((as_numbers(answer(request), "the agent"), None, False))
            except BaseException as error:
                connection.send((None, _describe(error), _is_not_finite(error)))


class _ReportedError(RuntimeError):
    """An error of the agent's process that is a message for people already."""

    def __init__(self, text: str, *, not_finite: bool = False) -> None:
        super().__init__(text)
        self.not_finite = not_finite


def _check_finite(chunk: np.ndarray) -> None:
    bad = ~np.isfinite(chunk)
    if bad.any():
        row = int(np.argwhere(bad)[0, 0]) if chunk.ndim else 0
        raise NotFiniteError(f"action {row} of the agent's chunk has NaN or infinity; check its weights and its input")


def _is_not_finite(error: BaseException) -> bool:
    return isinstance(error, NotFiniteError) or bool(getattr(error, "not_finite", False))


def _describe(error: BaseException) -> str:
    if isinstance(error, _ReportedError):
        return str(error)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
