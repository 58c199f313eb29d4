"""One thread that does one thing at a time, while an event loop goes on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_LAST_JOB_S = 0.2
"""For a job whose result has been handed over to end; one that hangs gets no more."""


class DecisionThread:
    """Like an executor with one thread, with three differences.

    What waits can be counted, a job that is cancelled is let go of at once with all that it holds, and a job that hangs does not
    keep the process alive.
    """

    def __init__(self) -> None:
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._busy = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="uva-serve", daemon=True)
        self._thread.start()

    @property
    def unfinished(self) -> int:
        """Jobs that wait or run."""
        with self._changed:
            return len(self._jobs) + self._busy

    def submit(self, job: Callable[[], Any]) -> Future[Any]:
        """Do ``job`` after those before it."""
        future: Future[Any] = Future()
        future.add_done_callback(self._drop)
        with self._changed:
            self._jobs.append((future, job))
            self._changed.notify()
        return future

    def stop(self) -> None:
        """End the thread after the job that it is running, which is not waited for long; those that wait are cancelled."""
        with self._changed:
            self._stopped = True
            waiting = [future for future, _ in self._jobs]
            busy = self._busy
            self._changed.notify()
        for future in waiting:
            future.cancel()
        self._thread.join(_LAST_JOB_S if busy else None)

    def _drop(self, future: Future[Any]) -> None:
        if future.cancelled():
            with self._changed:
                self._jobs = deque(item for item in self._jobs if item[0] is not future)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._stopped)
                if self._stopped:
                    return
                future, job = self._jobs.popleft()
                self._busy = True
            error: Exception | None = None
            result: Any = None
            running = future.set_running_or_notify_cancel()
            if running:
                try:
                    result = job()
                except Exception as problem:
                    error = problem
                except BaseException as problem:  # somebody waits for it, in an event loop that SystemExit would end
                    error = RuntimeError(f"the agent raised {type(problem).__name__}: {problem}")
                    error.__cause__ = problem
            with self._changed:
                self._busy = False  # before anybody hears of it: who then asks for more must not hear that it is busy
            if error is not None:
                future.set_exception(error)
            elif running:
                future.set_result(result)
            del future, job, result, error  # nothing of this request is kept until the next
