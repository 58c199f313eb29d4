"""The rate of a video's frames from the times at which they are shown, even or not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from uva_agents.errors import DataError

_EVEN = 0.25
"""Of a period: frames no further than this from equal distances, early or late, are evenly spaced. Cameras and containers that
count in milliseconds are off by less."""
_JITTER = 0.45
"""Of a period: where frames come no further than this from a clock's ticks, each at its own, the clock's rate is theirs. Phones and
busy computers are off by as much."""
_LEAST_JITTERED, _MOSTLY = 60, 0.9
_FOLLOWED = 0.1
"""Of a frame's distance from its tick, by how much the ticks after it move."""
_NEAR = 3
"""Periods: frames no further apart than this tell the period in spite of rounding."""
_MOST_ROWS = 64
"""Rows per frame, on average, to which uneven times may be filled up."""
REMEDY = "bring it to a constant rate, for example with ffmpeg -i IN -fps_mode cfr -r 30 OUT"


def frame_rate(path: Path, times: np.ndarray) -> float:
    """Frames per second of a video whose frames are shown at ``times`` (N,), seconds, increasing.

    Of unevenly spaced frames, the rate at which none of them is passed over; of a single one, what the file says.

    Raises:
        DataError: they come too unevenly for any one rate; a single frame of a file that says none.
    """
    since = times - times[0]
    if len(times) == 1:
        return _lone_rate(path)
    last = float(since[-1])
    period = float(np.polyfit(np.arange(len(times)), since, 1)[0])
    if is_even(since, period):
        return _clean(1 / period, since)
    gaps = np.diff(since)
    shortest = float(gaps.min())
    # Frames that were lost or left out leave holes in an even row: then the usual distance, or the short one, is the period.
    estimates = [_refined(gaps, float(np.median(subset))) for subset in (gaps, gaps[gaps < 1.5 * shortest])]
    for estimate in estimates:
        steps = np.rint(gaps / estimate)
        if steps.min() < 1:
            continue
        period = last / float(steps.sum())
        if np.abs(since[1:] - np.cumsum(steps) * period).max() <= _EVEN * period:
            break
    else:
        jittered = next(
            (
                found
                for estimate in (*estimates, last / len(gaps))
                if (found := _jittered_period(since, estimate)) is not None
            ),
            None,
        )
        if jittered is not None:
            return _clean(1 / jittered, since)
        period = shortest
    if shortest < 0.5 * np.quantile(gaps, 0.05, method="lower") or last / period > _MOST_ROWS * len(times):
        where = int(gaps.argmin())
        raise DataError(
            f"{path}: its frames come too unevenly for any one rate: {gaps.max():.4g} s apart at most, frames {where} and "
            f"{where + 1} {shortest:.4g} s; {REMEDY}"
        )
    return _clean(1 / period, since)


def _refined(gaps: np.ndarray, estimate: float) -> float:
    """A better estimate, from all frames near each other: a clock in milliseconds is far off after a long gap."""
    steps = np.maximum(np.rint(gaps / estimate), 1)
    near = steps <= _NEAR
    return float(gaps[near].sum() / steps[near].sum()) if near.any() else estimate


def _jittered_period(since: np.ndarray, estimate: float) -> float | None:
    """The period of a clock that frames keep to by and large, each early or late by less than half of it."""
    if len(since) < _LEAST_JITTERED:
        return None
    for _ in range(3):
        numbers, at = np.zeros(len(since)), 0.0
        for i, time in enumerate(since[1:].tolist(), 1):
            ahead = max(1.0, float(np.rint((time - at) / estimate)))
            numbers[i] = numbers[i - 1] + ahead
            at += ahead * estimate
            at += _FOLLOWED * (time - at)
        fitted = float(np.polyfit(numbers, since, 1)[0])
        for period in (fitted, estimate):
            for rate in (1 / period, round(1 / period)) if period > 0 else ():
                if rate and _ticks(since * rate) is not None:
                    return 1 / rate
        if (estimate := fitted) <= 0:
            break
    return None


def _ticks(places: np.ndarray) -> np.ndarray | None:
    """The tick of each frame (N,), from 0, of a clock that they keep to by and large; ``None`` if they do not.

    They do if each is near a tick of its own, most follow each other tick by tick, and they are many: a few keep to any clock.
    """
    if len(places) < _LEAST_JITTERED:
        return None
    # In which part of a step no frame comes: half of it before a tick and half of it after the one before.
    within = np.sort(places % 1)
    free = np.diff(within, append=within[0] + 1)
    widest = int(free.argmax())
    found = np.floor(places - (within[widest] + free[widest] / 2))
    ahead = np.diff(found)
    if free[widest] < 1 - 2 * _JITTER or ahead.min() < 1 or (ahead == 1).mean() < _MOSTLY:
        return None
    return np.asarray(found - found[0])


def _near_ticks(places: np.ndarray, ticks: np.ndarray) -> bool:
    return bool(np.abs(places - ticks).max() <= _EVEN)


def _lone_rate(path: Path) -> float:
    """A file of one frame: what it says, for there are no times to compare."""
    from imageio_ffmpeg import read_frames

    try:
        reader = read_frames(str(path))
        rate = float(next(reader)["fps"])
        reader.close()
    except (OSError, RuntimeError, StopIteration, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} has one frame, and no rate can be read from it") from error
    if not 0 < rate < 10_000:
        raise DataError(f"{path} has one frame, and says a rate of {rate}")
    return rate


def _clean(rate: float, since: np.ndarray) -> float:
    """Without the rounding of containers: 29.99998 is 30, if that moves no frame to another step."""
    rows = rows_seen(since, rate)
    for near in (round(rate), round(rate * 1.001) / 1.001):
        if near and abs(rate - near) * since[-1] < 0.1 and np.array_equal(rows_seen(since, near), rows):
            return float(near)
    return rate


def rows_seen(since: np.ndarray, rate: float) -> np.ndarray:
    """(n,) the number of the frame that is seen at each step of ``rate``, of frames at ``since`` (N,), the first at 0.

    A frame is seen from its time on until the next one's. Every frame is seen at some step, none after a later one.
    """
    if is_even(since, 1 / rate):
        return np.arange(len(since))
    places = since * rate
    ticks = _ticks(places)
    if ticks is not None and not _near_ticks(places, ticks):
        return np.searchsorted(ticks, np.arange(int(ticks[-1]) + 1), side="right") - 1
    steps = np.arange(math.ceil(float(places[-1]) - _EVEN) + 1)
    return np.searchsorted(places, steps + _EVEN, side="right") - 1


def is_even(since: np.ndarray, period: float) -> bool:
    """Whether frames at ``since`` (N,) are equally spaced in time, as cameras space them."""
    off = since - np.arange(len(since)) * period
    return bool(off.max() - off.min() <= 2 * _EVEN * period)
