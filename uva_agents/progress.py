"""The progress bar of long commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


def progress_bar(*, note: str | None = None, width: int | None = 40, **options: Any) -> Progress:
    """Description, bar, how many of how many, time so far and to come.

    Args:
        note: a further column, in which ``{task.fields[...]}`` is what ``add_task`` and ``update`` were given under that name.
        width: of the bar; ``None`` takes what is left of the line.
        options: of :class:`rich.progress.Progress`.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=width),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *([] if note is None else [TextColumn(note)]),
        **options,
    )
