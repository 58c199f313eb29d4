"""Jobs in worker processes. A job that fails is reported and the rest go on; a process that dies costs its job and is replaced."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

_LOOK_S = 2.0
"""Seconds between looks whether the parent is still there."""

_direct: set[int] = set()
"""This process's id, once it has been seen that the parent started it itself."""

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Finished(Generic[Job, Result]):
    """A job's outcome: a result, or an error and no result."""

    job: Job
    result: Result | None
    error: str | None


@dataclass
class _Worker(Generic[Job]):
    process: Any
    connection: Connection
    job: Job


def run_jobs(
    setup: Callable[[], Callable[[Job], Result]],
    jobs: Iterable[Job],
    *,
    workers: int = 1,
    method: str | None = None,
    import_main: bool = True,
) -> Iterator[Finished[Job, Result]]:
    """Outcomes as jobs end, in no particular order.

    Args:
        setup: called once in every process; gives the function that does a job. Results travel by pickle, and so does this
            where processes are spawned.
        jobs: done in this order, several at a time.
        workers: processes.
        method: how they start, ``"spawn"`` where torch is at work in this one; the platform's default when absent.
        import_main: whether spawned processes import the program's main file, for what ``setup`` has from there. Without it, a
            script that has no ``if __name__ == "__main__":`` does not run again in each of them.
    """
    queue = deque(jobs)
    context = mp.get_context(method)
    shown: Callable[[], contextlib.AbstractContextManager[None]] = (
        contextlib.nullcontext if import_main else _hidden_main
    )

    def start(job: Job) -> _Worker[Job]:
        with shown():
            return _start(context, setup, job)

    active = [start(queue.popleft()) for _ in range(min(workers, len(queue)))]
    try:
        while active:
            for connection in wait([w.connection for w in active]):
                worker = next(w for w in active if w.connection is connection)
                died = False
                try:
                    result, error = worker.connection.recv()
                except (EOFError, OSError):
                    died = True
                    worker.process.join(timeout=5)
                    result, error = None, f"the worker process died (exit code {worker.process.exitcode})"
                yield Finished(worker.job, result, error)
                if queue and not died:
                    worker.job = queue.popleft()
                    with contextlib.suppress(OSError):  # it is gone: the next recv() finds out
                        worker.connection.send((worker.job,))
                    continue
                _stop(worker)
                active.remove(worker)
                if queue:
                    active.append(start(queue.popleft()))
    finally:
        for worker in active:
            worker.process.terminate()
            _stop(worker)


def receive(connection: Connection) -> Any:
    """The next message of the parent process, in a child; ``None`` when the parent is gone.

    Forked siblings hold copies of each other's pipes, so a parent that was killed does not end them: each has to look.
    """
    while not connection.poll(_LOOK_S):
        if _parent_is_gone():
            return None
    return connection.recv()


def end_with_parent() -> None:
    """In a child: end this process soon after its parent, whatever it is doing then. What is idle ends by itself: :func:`receive`.

    A child that is sending when its parent is killed would wait for ever: it holds a copy of the parent's end of the pipe.
    """
    _parent_is_gone()  # to know it

    def watch() -> None:
        while not _parent_is_gone():
            time.sleep(_LOOK_S)
        time.sleep(2 * _LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, name="uva-parent", daemon=True).start()


def _parent_is_gone() -> bool:
    parent = mp.parent_process()
    if parent is None:
        return False
    if not parent.is_alive():
        return True
    # Siblings that were forked later hold copies of what tells of the parent's life, but its number is gone at once. Children of
    # a fork server never had it.
    found = os.getppid()
    if found == parent.pid:
        _direct.add(os.getpid())
    return found != parent.pid and os.getpid() in _direct


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    main = sys.modules["__main__"]
    kept = {name: main.__dict__.get(name) for name in ("__file__", "__spec__")}
    main.__dict__.update(dict.fromkeys(kept))
    try:
        yield
    finally:
        main.__dict__.update(kept)


def _start(context: Any, setup: Callable[[], Callable[[Job], Result]], job: Job) -> _Worker[Job]:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, setup), daemon=True)
    process.start()
    theirs.close()
    ours.send((job,))
    return _Worker(process, ours, job)


def _stop(worker: _Worker[Job]) -> None:
    with contextlib.suppress(OSError):
        worker.connection.send(None)
    worker.process.join(timeout=5)
    if worker.process.is_alive():
        worker.process.kill()
    worker.connection.close()


def _serve(connection: Connection, setup: Callable[[], Callable[[Job], Result]]) -> None:
    end_with_parent()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):  # the job was interrupted: its process reports that
        work: Callable[[Job], Result] | None = None
        while (message := receive(connection)) is not None:
            try:
                work = work or setup()
                connection.send((work(message[0]), None))
            except Exception as problem:
                connection.send((None, f"{type(problem).__name__}: {problem}"))
