"""What is missing or wrong in a dataset: named one by one, so that what is whole can still be used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from uva_agents.data.selection import format_episodes
from uva_agents.errors import DataError

Level = Literal["error", "warn"]


@dataclass(frozen=True)
class Hole:
    """Something missing or wrong.

    Attributes:
        message: a sentence that names file, array and what to do.
        where: stored key, attribute or file.
        level: ``"error"``: what it touches cannot be used; ``"warn"``: it can, and somebody should look.
        episodes: numbers of the episodes that it touches; ``None`` if it is not confined to some.
    """

    message: str
    where: str
    level: Level = "error"
    episodes: tuple[int, ...] | None = None

    def touches(self, chosen: Iterable[int] | None) -> bool:
        """Whether it matters to whoever uses these episodes (all by default)."""
        return chosen is None or self.episodes is None or bool(set(self.episodes) & {int(e) for e in chosen})


def raise_first(holes: Sequence[Hole], path: object, chosen: Iterable[int] | None = None) -> None:
    """Refuse a dataset because of its holes, unless none touches the chosen episodes.

    Raises:
        DataError: the first hole, and how many more there are.
    """
    kept = None if chosen is None else {int(e) for e in chosen}
    grave = [hole for hole in holes if hole.level == "error" and hole.touches(kept)]
    if not grave:
        return
    text = grave[0].message
    bad = sorted({episode for hole in grave for episode in hole.episodes or ()})
    if all(hole.episodes is not None for hole in grave):
        text += f"; or leave {'it' if len(bad) == 1 else 'them'} out: --episodes '{_all_but(bad)}'"
    if len(grave) > 1:
        text += f" (and {len(grave) - 1} more: uva data inspect {path} lists them)"
    raise DataError(text)


def episodes_of(rows: np.ndarray, ends: np.ndarray) -> tuple[int, ...]:
    """Numbers of the episodes that these rows (n,) are in."""
    numbers = np.searchsorted(np.asarray(ends), rows, side="right")
    return tuple(int(number) for number in np.unique(numbers[numbers < len(ends)]))


def listed(numbers: Sequence[object], most: int = 5) -> str:
    """The first few of some numbers, in words."""
    return ", ".join(str(n) for n in numbers[:most]) + (
        f" and {len(numbers) - most} more" if len(numbers) > most else ""
    )


def _all_but(numbers: Sequence[int]) -> str:
    return format_episodes(numbers, others=True)
