"""What an operator sees: rate, latency, queue, interventions, late steps, and the last messages."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from uva_agents.realtime.controls import HELP
from uva_agents.realtime.telemetry import EpisodeSummary, Status

_LOG = logging.getLogger(__name__)
_KEPT = 8


class View:
    """Takes the loop's status and messages from any thread, and draws the newest a few times a second from another one.

    Args:
        title: what runs where.
        console: to draw on; without a terminal, messages are printed as they come, and nothing else.
        keys: whether keys are listened to.
        rate_hz: of the loop.
    """

    def __init__(
        self, title: str, *, console: Console | None = None, keys: bool = False, rate_hz: float = 20.0
    ) -> None:
        self.console = console or Console(highlight=False)
        self._title, self.keys, self._rate_hz = title, keys, rate_hz
        self._status: Status | None = None
        self._phase = "getting ready"
        self._messages: deque[str] = deque(maxlen=_KEPT)
        self._live = False

    def watch(self, status: Status) -> None:
        """The newest status."""
        self._status = status

    def say(self, text: str) -> None:
        """A message."""
        line = f"{time.strftime('%H:%M:%S')} {text}"
        _LOG.info("%s", text)
        # The same thing again and again would push everything else out.
        if self._messages and self._messages[-1].split(" ", 1)[1].split(" (x")[0] == text:
            count = int(self._messages[-1].rsplit("(x", 1)[1][:-1]) if "(x" in self._messages[-1] else 1
            self._messages[-1] = f"{line} (x{count + 1})"
            return
        self._messages.append(line)
        if not self._live:
            self.console.print(line, markup=False, soft_wrap=True)

    def phase(self, text: str) -> None:
        """What is going on."""
        self._phase = text

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Draw while inside, if there is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        self._live = True
        try:
            with Live(get_renderable=self.render, console=self.console, refresh_per_second=5, transient=True):
                yield
        finally:
            self._live = False

    def render(self) -> Group:
        """The whole picture."""
        lines: list[RenderableType] = [
            Text(f"{self._title}   [{self._phase}]", style="bold"),
            _table(self._status, self._rate_hz),
        ]
        lines += [Text(message, style="yellow") for message in list(self._messages)]
        return Group(*lines, *([Text(HELP, style="dim")] if self.keys else []))


def summary(episode: EpisodeSummary) -> str:
    """An episode in a line."""
    timing, counts = episode.timing, episode.counts
    share = timing.late_steps / max(timing.steps, 1)
    return (
        f"{episode.end}{' (success)' if episode.success else ''} after {episode.seconds:.1f} s: {timing.steps} steps, "
        f"{timing.late_steps} late ({share:.2%}), {timing.skipped} skipped, jitter p50 {1e3 * timing.jitter_p50_s:.1f} ms p99 "
        f"{1e3 * timing.jitter_p99_s:.1f} ms max {1e3 * timing.jitter_max_s:.1f} ms; {counts.chunks} chunks, {counts.gaps} gaps, "
        f"{counts.too_late} too late, {counts.errors} errors, latency p50 {1e3 * episode.latency_s[0]:.0f} ms p95 "
        f"{1e3 * episode.latency_s[1]:.0f} ms; {episode.interventions} interventions"
    )


def _table(status: Status | None, rate_hz: float) -> Table:
    table = Table(show_header=True, box=None, padding=(0, 2))
    for name in (
        "time",
        "rate",
        "steps",
        "late",
        "jitter p99",
        "latency p50/p95",
        "queue",
        "chunks",
        "gaps",
        "interventions",
    ):
        table.add_column(name, justify="right", style="cyan" if name != "interventions" else "")
    if status is None:
        return table
    timing, counts = status.timing, status.counts
    late = Text(f"{timing.late_steps}", style="red" if timing.late_steps > 0.01 * max(timing.steps, 1) else "")
    queue = Text(f"{status.left_s:.2f} s" if status.moving else "holding", style="" if status.moving else "red")
    rate = timing.steps / status.elapsed_s if status.elapsed_s > 0 else 0.0
    table.add_row(
        f"{status.elapsed_s:.1f} s",
        f"{rate:.1f}/{rate_hz:g} Hz",
        str(timing.steps),
        late,
        f"{1e3 * timing.jitter_p99_s:.1f} ms",
        f"{1e3 * status.latency_s[0]:.0f}/{1e3 * status.latency_s[1]:.0f} ms",
        queue,
        str(counts.chunks),
        str(counts.gaps),
        Text(str(status.interventions), style="red" if status.interventions else ""),
    )
    return table
