"""The progress bar of long commands."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

_LOG_EVERY_S = 60.0


def progress_bar(*, note: str | None = None, width: int | None = 40, **options: Any) -> Progress:
    """Description, bar, how many of how many, time so far and to come. Where no terminal shows it, a line a minute says the same.

    Args:
        note: a further column, in which ``{task.fields[...]}`` is what ``add_task`` and ``update`` were given under that name.
        width: of the bar; ``None`` takes what is left of the line.
        options: of :class:`rich.progress.Progress`.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    class Logged(Progress):
        """rich shows a file nothing before the end: whoever follows the log of a night's run would see an empty one."""

        logged = time.monotonic()

        def update(self, task_id: TaskID, **changes: Any) -> None:
            super().update(task_id, **changes)
            self._log(task_id)

        def advance(self, task_id: TaskID, advance: float = 1) -> None:
            super().advance(task_id, advance)
            self._log(task_id)

        def _log(self, task_id: TaskID) -> None:
            now = time.monotonic()
            seen = self.console.is_terminal or self.console.is_jupyter
            if self.disable or seen or now - self.logged < _LOG_EVERY_S:
                return
            self.logged = now
            task = self._tasks[task_id]
            total = "?" if task.total is None else f"{task.total:.0f}"
            line = f"{task.description}: {task.completed:.0f} of {total}, {_clock(task.elapsed)} so far"
            if task.time_remaining is not None:
                line += f", {_clock(task.time_remaining)} to come"
            if note is not None:
                line += "; " + note.format(task=task)
            self.console.print(line, soft_wrap=True, highlight=False)

    return Logged(
        TextColumn("{task.description}"),
        BarColumn(bar_width=width),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *([] if note is None else [TextColumn(note)]),
        **options,
    )


def _clock(seconds: float | None) -> str:
    return str(timedelta(seconds=round(seconds or 0)))
