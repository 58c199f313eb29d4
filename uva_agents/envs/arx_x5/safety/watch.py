"""Checks the arm between calls: in a thread where time passes by itself, during sleeps where it does not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from uva_agents.utils.clocks import Clock

log = logging.getLogger(__name__)

PERIOD_S = 0.01
_SLICE_S = 0.02


def runs_by_itself(clock: Clock) -> bool:
    """Whether the clock goes on by itself, without anyone sleeping on it."""
    before = clock.now()
    time.sleep(0.001)
    return clock.now() > before


class WatchedClock:
    """A simulated clock that checks the arm during sleeps.

    Args:
        clock: of the driver.
        check: called at every slice of a sleep.
    """

    def __init__(self, clock: Clock, check: Callable[[], None]) -> None:
        self._clock, self._check = clock, check

    def now(self) -> float:
        """As the clock inside."""
        return self._clock.now()

    def sleep_until(self, time_s: float) -> None:
        """As the clock inside, in slices."""
        while (now := self._clock.now()) < time_s:
            self._clock.sleep_until(min(time_s, now + _SLICE_S))
            self._check()


class WatchThread:
    """Checks the arm a hundred times a second until it is stopped.

    Args:
        check: what to call. Whatever it raises is logged, and it is called again: a watch that ends with an error watches nothing.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="arm watch", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether anybody checks: not in a forked process, for example."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End it."""
        self._end.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        last_error = ""
        while not self._end.wait(PERIOD_S):
            try:
                self._check()
                last_error = ""
            except BaseException as error:  # also SystemExit and asyncio.CancelledError, which must not end this thread
                what = f"{type(error).__name__}: {error}"
                if what != last_error:
                    last_error = what
                    log.exception("the watch over the arm failed, and goes on")
