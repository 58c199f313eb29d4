"""Where blocks and squares start. Pure numpy: readable without a simulator.

The order of the draws is that of the published environment: seed = episode index gives the recorded initial states.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uva_agents.errors import InputError

Pose = tuple[float, float, float]
"""x [m], y [m], yaw [rad]."""

BLOCK_COLOURS = ("red", "green")
"""Colour of block 0 and block 1."""
SQUARE_COLOURS = ("green", "red")
"""Colour of square 0 and square 1: crossed with respect to the blocks, as in the recorded observations."""

ASSIGNMENTS = ("R-R", "R-G", "G-R", "G-G")
"""Which block belongs in which square, as (block)-(square)."""

PUSHER_START = (0.3, -0.4)
"""First target of the pusher, metres."""
PUSHER_LOW = (0.15, -0.5)
PUSHER_HIGH = (0.70, 0.5)
"""The pusher's target is clipped to this box, metres."""

_CENTRE_X = 0.4
_BLOCK_Y = -0.2
_SQUARE_Y = 0.2
_SQUARE_DX = 0.12
_MIN_BLOCK_DX = 0.10
_MIN_SQUARE_DX = 0.12
_TRIES = 1000


@dataclass(frozen=True, slots=True)
class Layout:
    """Initial poses of the two blocks and the poses of the two squares."""

    blocks: tuple[Pose, Pose]
    squares: tuple[Pose, Pose]


def draw_layout(rng: np.random.RandomState) -> Layout:
    """The next layout of ``rng``: blocks apart by more than 10 cm in x, squares left and right at y = 0.2.

    Raises:
        RuntimeError: no layout found (does not happen with a working generator).
    """
    blocks = _draw_blocks(rng)
    side = float(rng.choice([-1, 1]))
    square = _draw_square(rng, side)
    for _ in range(_TRIES):
        other = _draw_square(rng, -side)
        if abs(other[0] - square[0]) > _MIN_SQUARE_DX:
            return Layout(blocks, (square, other))
    raise RuntimeError("no room for the second square: the random generator does not vary")


def layout_of_seed(seed: int) -> Layout:
    """The layout that ``reset(seed=seed)`` gives."""
    return draw_layout(np.random.RandomState(seed))


def parse_assignment(assignment: str) -> tuple[int, int]:
    """(block index, square index) of ``"R-G"`` and the like.

    Raises:
        ValueError: not one of :data:`ASSIGNMENTS`.
    """
    if not isinstance(assignment, str) or assignment not in ASSIGNMENTS:
        raise InputError(
            f"assignment={assignment!r} is unknown: pass one of {', '.join(map(repr, ASSIGNMENTS))} "
            "(block colour - square colour), or None for both blocks in different squares"
        )
    block, square = assignment.split("-")
    names = {"R": "red", "G": "green"}
    return BLOCK_COLOURS.index(names[block]), SQUARE_COLOURS.index(names[square])


def _draw_blocks(rng: np.random.RandomState) -> tuple[Pose, Pose]:
    for _ in range(_TRIES):
        first = _draw_block_xy(rng)
        # uniform(pi) is uniform(low=pi, high=1.0): the published law of the yaw is (1, pi].
        first_yaw = float(rng.uniform(np.pi))
        for _ in range(_TRIES):
            second = _draw_block_xy(rng)
            if abs(second[0] - first[0]) > _MIN_BLOCK_DX:
                break
        # Drawn even if no second block was found (of a first one in the very middle, none is far enough away).
        second_yaw = float(rng.uniform(np.pi))
        if abs(second[0] - first[0]) > _MIN_BLOCK_DX:
            return (*first, first_yaw), (*second, second_yaw)
    raise RuntimeError("no room for the second block: the random generator does not vary")


def _draw_block_xy(rng: np.random.RandomState) -> tuple[float, float]:
    x = _CENTRE_X + rng.uniform(-0.1, 0.1)
    y = _BLOCK_Y + rng.uniform(-0.15, 0.15)
    return float(x), float(y)


def _draw_square(rng: np.random.RandomState, side: float) -> Pose:
    x = _CENTRE_X + side * _SQUARE_DX + rng.uniform(-0.005, 0.005)
    y = _SQUARE_Y + rng.uniform(-0.0075, 0.0075)
    yaw = np.pi + rng.uniform(-np.pi / 30, np.pi / 30)
    return float(x), float(y), float(yaw)
