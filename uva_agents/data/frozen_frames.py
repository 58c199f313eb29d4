"""Cameras that stood still while the robot moved: the same frame again and again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from uva_agents.data.episodes import Episodes
from uva_agents.data.selection import format_episodes
from uva_agents.errors import DataError

_LOG = logging.getLogger(__name__)
_KEPT = 8
"""Shorter runs are not written down."""
LONG_RUN = 32
"""Equal frames that no moving scene gives, at the rates that robots are recorded at."""
_WHOLE = 0.9
"""Share of an episode that makes it useless."""
_MOVES = 0.05
"""Of the range that a number has in the whole dataset."""


def equal_runs(
    chunks: Iterable[np.ndarray], begin: int, note: dict[str, list[tuple[int, int]]]
) -> Iterator[np.ndarray]:
    """Passes frames (n, H, W, 3) on; afterwards ``note["equal"]`` has the runs of equal ones: first row, and one past the last."""
    runs: list[tuple[int, int]] = []
    start, row, last = begin, begin, None
    for chunk in chunks:
        same = np.empty(len(chunk), bool)
        same[0] = last is not None and np.array_equal(chunk[0], last)
        same[1:] = [np.array_equal(a, b) for a, b in zip(chunk[1:], chunk[:-1], strict=True)]
        for changed in row + np.flatnonzero(~same):
            if changed - start >= _KEPT:
                runs.append((int(start), int(changed)))
            start = changed
        row, last = row + len(chunk), chunk[-1].copy()
        yield chunk
    if row - start >= _KEPT:
        runs.append((int(start), int(row)))
    note["equal"] = runs


def check_frozen(
    episodes: Episodes,
    runs: Sequence[Sequence[Sequence[int]]],
    name: str,
    moving: Sequence[str],
    same: Callable[[int], bool],
) -> list[str]:
    """Look for runs of at least :data:`LONG_RUN` equal frames during which the robot moves.

    Args:
        episodes: the data.
        runs: of each shard, as :func:`equal_runs` found them.
        name: of the camera.
        moving: low-dimensional arrays that move when the robot does; those that there are not are left out.
        same: whether a row's frame is that of the row before.

    Returns: a line for each run that is shorter than its episode; they are logged as well.

    Raises:
        DataError: whole episodes are frozen. It names all of them.
    """
    arrays = [episodes.arrays[key].reshape(episodes.steps, -1) for key in moving if key in episodes.arrays]
    numbers = list(range(len(episodes))) if episodes.numbers is None else [int(n) for n in episodes.numbers]
    whole, lines = [], []
    for episode, begin, end in _by_episode(episodes, _merged(runs, same)):
        if end - begin < LONG_RUN or not any(_moves(array, begin, end) for array in arrays):
            continue
        start, length = int(episodes.starts[episode]), int(episodes.ends[episode] - episodes.starts[episode])
        if end - begin >= _WHOLE * length:
            whole.append(numbers[episode])
            continue
        lines.append(
            f"{episodes.source}: {name} of episode {numbers[episode]} shows the same frame from its step {begin - start} to "
            f"{end - start - 1}, while the robot moves: the camera froze. It is trained on as it is; "
            f"--episodes '!{numbers[episode]}' leaves it out"
        )
    if whole:
        listed = ", ".join(map(str, whole[:8])) + (", ..." if len(whole) > 8 else "")
        where = f"episode{'s' if len(whole) > 1 else ''} {listed}"
        remedy = f"Leave out what cannot be learned from: --episodes '{format_episodes(whole, others=True)}'"
        if len(whole) == len(episodes):
            where, remedy = "its episodes", f"Take another: --field {name}=KEY (uva data inspect names them)"
        raise DataError(
            f"{episodes.source}: {name} shows one and the same frame in all of {where}, while the robot moves: the camera froze. "
            f"{remedy}"
        )
    for line in lines[:10]:
        _LOG.warning("%s", line)
    if len(lines) > 10:
        _LOG.warning("%s: %s froze %d times more", episodes.source, name, len(lines) - 10)
    return lines


def _merged(runs: Sequence[Sequence[Sequence[int]]], same: Callable[[int], bool]) -> list[tuple[int, int]]:
    """All runs, those that a shard's end cut in two as one."""
    found: list[tuple[int, int]] = []
    for shard in runs:
        for number, (begin, end) in enumerate(shard):
            if number == 0 and found and found[-1][1] == begin and same(begin):
                found[-1] = (found[-1][0], end)
            else:
                found.append((begin, end))
    return found


def _by_episode(episodes: Episodes, runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    for begin, end in runs:
        first, last = np.searchsorted(episodes.ends, [begin, end - 1], side="right")
        for episode in range(int(first), int(last) + 1):
            yield episode, max(begin, int(episodes.starts[episode])), min(end, int(episodes.ends[episode]))


def _moves(array: np.ndarray, begin: int, end: int) -> bool:
    spread, seen = np.ptp(array, axis=0), np.ptp(array[begin:end], axis=0)
    return bool((seen > _MOVES * spread).any())
