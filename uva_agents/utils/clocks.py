"""Two clocks: the machine's, and a simulated one whose time passes only during sleeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Monotonic time. Simulated time passes only during sleeps."""

    def now(self) -> float:
        """Seconds since some moment."""

    def sleep_until(self, time_s: float) -> None:
        """Return at ``time_s``, or at once if that is past."""


class MonotonicClock:
    """``time.monotonic``."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def sleep_until(self, time_s: float) -> None:
        """Return at ``time_s``, or at once if that is past."""
        left = time_s - time.monotonic()
        if left > 0:
            time.sleep(left)


class SimulatedClock:
    """Time passes only in :meth:`sleep_until`, and whatever lives by this clock is brought there before it returns.

    Args:
        start_s: what it shows at first.
    """

    def __init__(self, start_s: float = 0.0) -> None:
        self._now = start_s
        self._followers: list[Callable[[float], None]] = []
        self._lock = threading.RLock()

    def now(self) -> float:
        """Seconds since some moment."""
        return self._now

    def sleep_until(self, time_s: float) -> None:
        """Let time pass up to ``time_s``; nothing happens if that is past."""
        with self._lock:
            if time_s <= self._now:
                return
            for follow in self._followers:
                follow(time_s)
            self._now = time_s

    def follow(self, follower: Callable[[float], None]) -> None:
        """From now on, ``follower(time_s)`` is called whenever time passes, with the time that it will be."""
        self._followers.append(follower)

    def unfollow(self, follower: Callable[[float], None]) -> None:
        """Call it no longer. Unknown ones are ignored."""
        self._followers = [other for other in self._followers if other != follower]

    def jump(self, time_s: float) -> None:
        """Show ``time_s`` from now on, earlier or later, without anything happening: for restoring a saved simulation."""
        with self._lock:
            self._now = time_s
