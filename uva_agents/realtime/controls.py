"""What an operator can ask for while an arm moves, from a keyboard or from code."""

from __future__ import annotations

import contextlib
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator
from enum import StrEnum


class Command(StrEnum):
    """See :data:`KEYS`."""

    START = "start"
    STOP = "stop"
    DROP = "drop"
    HOME = "home"
    QUIT = "quit"
    EMERGENCY = "emergency stop"


KEYS = {
    "c": Command.START,
    "s": Command.STOP,
    "\x7f": Command.DROP,
    "\b": Command.DROP,
    "h": Command.HOME,
    "q": Command.QUIT,
    " ": Command.EMERGENCY,
    "\x1b": Command.EMERGENCY,
}
"""Key -> command; letters in either case."""

_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O[ -~])")
"""What a terminal sends for a key that has no letter: Esc, then [ or O, then what it is."""

HELP = "c start   s stop and hold   backspace drop the episode   h home   space or Esc EMERGENCY STOP   q quit"


class Controls:
    """Commands on their way to the loop; any thread may give them.

    Args:
        stop: called at once, in the thread that asks for an emergency stop: it must not wait for the loop.
    """

    def __init__(self, stop: Callable[[], None] | None = None) -> None:
        self._stop = stop
        self._queue: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self.emergency = threading.Event()

    def give(self, command: Command) -> None:
        """One command."""
        if command is Command.EMERGENCY:
            self.emergency.set()
            if self._stop is not None:
                self._stop()
        self._queue.put(command)

    def take(self) -> Command | None:
        """The oldest one that has not been taken."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def clear(self) -> None:
        """Forget what was asked for, but for an emergency stop."""
        while self.take() is not None:
            pass
        if self.emergency.is_set():
            self._queue.put(Command.EMERGENCY)


def commands(text: str) -> list[Command]:
    """What the keys that a terminal sent mean, in order.

    Cursor and function keys begin with Esc as well, and are no emergency; what is pressed right after one still counts.
    """
    keys = _SEQUENCE.sub("", text)
    return [KEYS[key.lower()] for key in keys if key.lower() in KEYS]


@contextlib.contextmanager
def keyboard(controls: Controls) -> Iterator[bool]:
    """Keys become commands, without Enter, while inside; the terminal is as it was afterwards.

    Yields:
        Whether there is a keyboard: standard input is a terminal, and one that single keys can be read from.
    """
    try:
        import select
        import termios
        import tty
    except ImportError:  # not a POSIX system
        yield False
        return
    if not sys.stdin.isatty():
        yield False
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    over = threading.Event()

    def listen() -> None:
        import os

        while not over.is_set():
            if select.select([number], [], [], 0.05)[0]:
                text = os.read(number, 32).decode(errors="ignore")
                for command in commands(text):
                    controls.give(command)

    thread = threading.Thread(target=listen, name="keys", daemon=True)
    try:
        tty.setcbreak(number)  # Ctrl-C stays a signal
        thread.start()
        yield True
    finally:
        over.set()
        if thread.is_alive():
            thread.join(timeout=1.0)
        termios.tcsetattr(number, termios.TCSADRAIN, before)
