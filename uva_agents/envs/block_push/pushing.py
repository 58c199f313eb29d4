"""How :class:`~uva_agents.envs.block_push.Pusher` decides, for many tables at once. Metres, radians, numpy only.

Everywhere: ``here`` (N, 2) where the post is, ``blocks`` and ``squares`` (N, 2, 2), ``pair`` (N,) indices into :data:`PAIRS`.
"""

from __future__ import annotations

import numpy as np

from uva_agents.envs.block_push.oracle import ORDERS

PAIRS = np.array([first for first, _ in ORDERS])
"""(4, 2) block and square of each push. What is left to do beside pair k is pair 3 - k."""
PLACED = 0.04
"""A block this near to a square is placed."""
BEGUN = 0.07
"""How near a push is begun, as :func:`efforts` counts."""
_FAST, _PUSH = 0.03, 0.015
"""Largest steps through the air and while pushing: those of the published demonstrations."""
_BEHIND, _BESIDE = 0.12, 0.55
"""Angles at the block, from straight behind it: below the first the pusher closes in, above the second it keeps away."""
_CLOSED_IN, _CLEAR = 0.010, 0.048
"""Distances from the block's centre to go with them: the first lies inside the block, so that closing in pushes it."""
_NEAR, _FAR, _ROUND = 0.035, 0.060, 0.120
"""From slow to fast with distance; the way goes round the block only within the last."""
_CLEAR_OTHER, _APART = 0.045, 0.050
"""Kept from the other block, unless the two are closer together than that."""


def distances(blocks: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """(N, 4) between the block and the square of every pair."""
    return _length(blocks[:, PAIRS[:, 0]] - squares[:, PAIRS[:, 1]])


def efforts(here: np.ndarray, blocks: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """(N, 4) about how far it is to where each push begins."""
    block, square = blocks[:, PAIRS[:, 0]], squares[:, PAIRS[:, 1]]
    off = _wrapped(_angle(here[:, None] - block) - _angle(block - square))
    effort: np.ndarray = _length(here[:, None] - block) + 1.25 * _CLEAR * np.abs(off)
    return effort


def costs(here: np.ndarray, blocks: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """(N, 4): :func:`efforts`, and -1 for what is left when the other block is placed."""
    rest = distances(blocks, squares)[:, ::-1]
    return np.where(rest < PLACED, -1.0, efforts(here, blocks, squares))


def next_pair(here: np.ndarray, blocks: np.ndarray, squares: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """The pair itself, or what costs least once its push has begun or is done."""
    rows = np.arange(len(pair))
    begun = efforts(here, blocks, squares)[rows, pair] < BEGUN
    done = distances(blocks, squares)[rows, pair] < PLACED
    return np.where(begun | done, costs(here, blocks, squares).argmin(1), pair)


def next_step(here: np.ndarray, blocks: np.ndarray, squares: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """(N, 2) the step to take.

    In polar coordinates round the block, it goes towards straight behind it, at a radius that falls to a push there.
    """
    rows = np.arange(len(pair))
    block, square = blocks[rows, PAIRS[pair, 0]], squares[rows, PAIRS[pair, 1]]
    back, away = _angle(block - square), here - block
    distance = _length(away)
    off = _wrapped(_angle(away) - back)
    beside = _smooth((np.abs(off) - _BEHIND) / (_BESIDE - _BEHIND))
    slow = _smooth((_FAR - distance) / (_FAR - _NEAR))
    longest = _FAST + (_PUSH - _FAST) * slow
    # Far away it hardly turns, which leads in a straight line.
    near = longest / np.maximum(distance, 0.03)
    turn = np.minimum(np.abs(off), np.where(distance < _ROUND, near, _FAST / np.maximum(distance, _ROUND)))
    radius = _CLOSED_IN + (_CLEAR - _CLOSED_IN) * beside
    radius = distance + np.clip(radius - distance, -longest, longest)
    angle = back + off - np.sign(off) * turn
    aim = block + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    step = aim - here
    step = step * np.minimum(1.0, longest / np.maximum(_length(step), 1e-9))[:, None]
    other = blocks[rows, 1 - PAIRS[pair, 0]]
    return np.where((_length(other - block) < _APART)[:, None], step, _kept_from(other, here, step))


def _kept_from(obstacle: np.ndarray, here: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The step, bent so that it slides along a circle round the obstacle."""
    away = here + step - obstacle
    distance = _length(away)
    bent: np.ndarray = step + away * (np.maximum(0.0, _CLEAR_OTHER - distance) / np.maximum(distance, 1e-9))[:, None]
    return bent


def _length(vector: np.ndarray) -> np.ndarray:
    length: np.ndarray = np.sqrt(np.square(vector).sum(-1))  # a fraction of norm()'s time
    return length


def _angle(vector: np.ndarray) -> np.ndarray:
    angle: np.ndarray = np.arctan2(vector[..., 1], vector[..., 0])
    return angle


def _wrapped(angle: np.ndarray) -> np.ndarray:
    wrapped: np.ndarray = (angle + np.pi) % (2 * np.pi) - np.pi
    return wrapped


def _smooth(x: np.ndarray) -> np.ndarray:
    """From 0 to 1 as ``x`` does, with no corner."""
    x = np.clip(x, 0.0, 1.0)
    risen: np.ndarray = x * x * (3 - 2 * x)
    return risen
