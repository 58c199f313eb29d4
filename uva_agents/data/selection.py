"""Some episodes of a dataset, in words: ``0-4,7`` are those, ``!3,8`` all but those. Read here and written here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from uva_agents.errors import InputError


def parse_episodes(text: str, count: int) -> np.ndarray:
    """Numbers of the episodes that ``text`` means, each once, increasing.

    Args:
        text: numbers and ranges (both ends included) with commas between, from 0; ``!`` before them means all others.
        count: how many episodes the dataset has.

    Raises:
        InputError: it is not written so, names an episode that does not exist, or leaves none.
    """
    listed = text.strip()
    others = listed.startswith("!")
    chosen = np.zeros(max(count, 0), bool)
    for part in listed.removeprefix("!").split(","):
        match = re.fullmatch(r"\s*([0-9]{1,12})\s*(?:-\s*([0-9]{1,12})\s*)?", part)
        if match is None:
            raise InputError(
                f"episodes {text!r}: {part.strip()!r} is no number or range; give for example 0-4,7 (or '!3,8', all but these)"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError(f"episodes {text!r}: the range {first}-{last} ends before it begins")
        if last >= count:
            raise InputError(
                f"episodes {text!r}: there is no episode {last}; the dataset has {count}, 0 to {count - 1}"
            )
        chosen[first : last + 1] = True
    found = np.flatnonzero(~chosen if others else chosen)
    if not len(found):
        raise InputError(f"episodes {text!r} leaves none of the {count} episodes")
    return found


def chosen_episodes(episodes: str | Sequence[int] | np.ndarray, count: int) -> np.ndarray:
    """Numbers of episodes that are given as such, or in words.

    Args:
        episodes: numbers (n,), in any order, or what :func:`parse_episodes` takes.
        count: how many episodes the dataset has.

    Raises:
        InputError: one does not exist, or they are no numbers.
    """
    if isinstance(episodes, str):
        return parse_episodes(episodes, count)
    numbers = np.asarray(episodes)
    whole = numbers.dtype.kind in "iu" and numbers.ndim == 1
    if not whole or not len(numbers) or (numbers < 0).any() or (numbers >= count).any():
        raise InputError(f"episodes must be numbers from 0 to {count - 1}, got {numbers!r:.80}")
    return numbers.astype(np.int64)


def format_episodes(numbers: Iterable[int], *, others: bool = False) -> str:
    """What :func:`parse_episodes` takes, ranges drawn together; ``others`` writes all but ``numbers``. Empty for none."""
    ranges: list[list[int]] = []
    for number in sorted({int(number) for number in numbers}):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
    return f"!{text}" if others and text else text
