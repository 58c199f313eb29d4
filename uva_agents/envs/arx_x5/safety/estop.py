"""A stop that latches: pressed from another thread, by a signal, or with a key. It does not replace the one on the wall."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from uva_agents.errors import InputError

log = logging.getLogger(__name__)


class EStop:
    """Pressed once, it stays pressed until :meth:`reset`.

    Pressing only sets a flag, so that it is allowed anywhere, a signal handler included; the safety layer's watch sees it within a
    few milliseconds.
    """

    def __init__(self) -> None:
        self._pressed = threading.Event()
        self.reason = ""

    def press(self, reason: str = "pressed") -> None:
        """Stop the arm."""
        if not self._pressed.is_set():
            self.reason = reason
        self._pressed.set()

    @property
    def pressed(self) -> bool:
        """Whether nothing may move."""
        return self._pressed.is_set()

    def reset(self) -> None:
        """Allow motion again. Through :meth:`SafeArm.reset_stop`, which also wants the first action to be near."""
        self._pressed.clear()
        self.reason = ""

    @contextlib.contextmanager
    def on_signals(self, signals: Iterable[signal.Signals] = (signal.SIGINT, signal.SIGUSR1)) -> Iterator[None]:
        """Within the block a signal presses; the second one does what it did before: Ctrl-C twice ends the program.

        Raises:
            ValueError: not in the main thread; Python allows signal handlers only there.
        """
        before: dict[signal.Signals, Any] = {}

        def handle(number: int, frame: Any) -> None:
            name = signal.Signals(number)
            if not self.pressed:
                self.press(f"signal {name.name}")
                return
            old = before.get(name)
            if callable(old):
                old(number, frame)

        try:
            for name in signals:
                before[name] = signal.signal(name, handle)
            yield
        finally:
            for name, old in before.items():
                signal.signal(name, signal.SIG_DFL if old is None else old)

    @contextlib.contextmanager
    def on_key(self, key: str | None = None, *, stream: TextIO | None = None) -> Iterator[None]:
        """Within the block a key press in the terminal presses: any key, or only ``key``.

        The terminal hands over single keys meanwhile, without echo; Ctrl-C still works.

        Raises:
            ValueError: ``key`` is not one character, or the stream is not a terminal.
        """
        if key is not None and (not isinstance(key, str) or len(key) != 1):
            raise InputError(f"key={key!r} must be one character, or None for any")
        stream = sys.stdin if stream is None else stream
        if not stream.isatty():
            raise InputError("a key can only be read from a terminal; use press() or a signal here")
        import termios
        import tty

        source = stream.fileno()
        old = termios.tcgetattr(source)
        wake, done = os.pipe()

        def watch() -> None:
            while True:
                ready, _, _ = select.select([source, wake], [], [])
                if wake in ready:
                    return
                typed = os.read(source, 64)
                if not typed:
                    # The terminal is gone, and with it the key.
                    self.press("the terminal of the stop key is gone")
                    return
                if key is None or key.encode() in typed:
                    self.press(f"key {typed.decode(errors='replace')!r}")

        thread = threading.Thread(target=watch, name="stop key", daemon=True)
        tty.setcbreak(source)
        thread.start()
        try:
            yield
        finally:
            os.write(done, b"x")
            thread.join(timeout=1.0)
            os.close(done)
            os.close(wake)
            with contextlib.suppress(termios.error):
                termios.tcsetattr(source, termios.TCSADRAIN, old)
