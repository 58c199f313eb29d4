"""What formats say about a recording, taken only where it can be meant."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from typing import Any

from uva_agents.data.holes import Hole

_FASTEST = 1e5
"""Steps per second beyond which a rate is a mistake."""


def rate_of(value: Any, where: str, holes: list[Hole], *, absent: bool = True) -> float | None:
    """Steps per second; what is said and cannot be a rate is a hole.

    Args:
        absent: whether ``None`` means that nothing is said.
    """
    if value is None and absent:
        return None
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if good and math.isfinite(value) and 0 < value <= _FASTEST:
        return float(value)
    holes.append(
        Hole(
            f"{where} is {_short(value)}, a number of steps per second above 0 was expected: correct or remove it",
            where,
        )
    )
    return None


def tasks_of(value: Any, where: str, episodes: int, holes: list[Hole]) -> tuple[str, ...] | None:
    """An instruction per episode, ``None`` if nothing is said; another number of them, or what is no text, is a hole."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        holes.append(Hole(f"{where} is {_short(value)}, a list of texts was expected: correct or remove it", where))
        return None
    if len(value) != episodes:
        holes.append(Hole(f"{where} has {len(value)} entries for {episodes} episodes: correct or remove it", where))
        return None
    return tuple(value)


def names_of(value: Any, widths: Mapping[str, int], where: str, holes: list[Hole]) -> dict[str, tuple[str, ...]]:
    """What the numbers of arrays are called, by stored key; names that do not fit their array are a hole to look at.

    Args:
        widths: stored key -> numbers in a row.
    """
    if value is None:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for key, names in value.items() if isinstance(value, dict) else [("", value)]:
        texts = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
        if texts and len(names) == widths.get(key):
            found[key] = tuple(names)
            continue
        holes.append(
            Hole(f"{where} has {_short(names)} for {key or 'all'}, a name for each number was expected", where, "warn")
        )
    return found


def usual_camera(names: Iterable[str], frames: Iterable[str], left_out: Container[str]) -> str | None:
    """The camera that ``pixels`` are taken from: the first of ``names`` that there is, else the first that is on
    no wrist, else the first of all.

    None where a usual one is there and cannot be read: another in its place would look like it.
    """
    frames = list(frames)
    for name in names:
        if name in frames:
            return name
        if name in left_out:
            return None
    return next((name for name in frames if not on_wrist(name)), next(iter(frames), None))


def on_wrist(name: str) -> bool:
    """Whether a camera moves with the hand, by its name."""
    return any(word in name.lower() for word in ("wrist", "eye_in_hand"))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
