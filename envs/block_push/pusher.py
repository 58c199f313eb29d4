"""A demonstrator that looks at positions only and recovers from anywhere, for policies that learn from pictures."""

from __future__ import annotations

import numpy as np

from uva_agents.envs.block_push.oracle import ORDERS, checked_order

_FAST, _PUSH = 0.03, 0.015
"""Largest steps through the air and while pushing, metres: those of the published demonstrations."""
_DONE = 0.04
"""A block this near to a square is placed, metres."""
_BEGUN = 0.07
"""How near a push is begun, as in :func:`_effort`, metres."""
_BEHIND, _BESIDE = 0.12, 0.55
"""Angles at the block, from straight behind it: below the first the pusher closes in, above the second it keeps away (rad)."""
_CLOSED_IN, _CLEAR = 0.010, 0.048
"""Distances from the block's centre to go with them: the first lies inside the block, so that closing in pushes it."""
_NEAR, _FAR, _ROUND = 0.035, 0.060, 0.120
"""From slow to fast with distance; the way goes round the block only within the last."""
_CLEAR_OTHER, _APART = 0.045, 0.050
"""Kept from the other block, unless the two are closer together than that."""


class Pusher:
    """Pushes both blocks, one after the other, deciding anew at every step from where things are.

    The published script (:class:`~uva_agents.envs.block_push.oracle.Oracle`) turns blocks by their yaw and goes through phases
    that no picture shows, so whoever imitates it misses a block and goes on without it. This one circles the block to the
    far side of its square while it closes in, and what it does changes smoothly with where things are: no threshold
    that a learner would have to hit. Which push comes first is its order's; once it is there, it does what is nearest, so that
    nobody has to guess at an intention that nothing shows.

    ``act(info["state"])`` gives the next absolute target.

    Args:
        order: index into :data:`~uva_agents.envs.block_push.oracle.ORDERS`.
        noise: standard deviation of what is added to every step, metres.
        seed: of the noise.

    Raises:
        ValueError: an unknown order or negative noise.
    """

    def __init__(self, order: int, *, noise: float = 0.002, seed: int = 0) -> None:
        self.order = order
        self._noise = noise
        self._rng = np.random.default_rng(seed)
        self._pair, _ = checked_order(order, noise)
        self._there = False

    @property
    def block(self) -> int:
        """Which block it is pushing: 0 red, 1 green."""
        return self._pair[0]

    def decide(self, state: np.ndarray) -> None:
        """From now on what is left when one block is placed, or else the push that is nearest to begin."""
        state = np.asarray(state, np.float64)
        self._there = True
        effort = [
            -1.0 if _distance(state, rest) < _DONE else _effort(state[8:10], *_positions(state, pair)[:2])
            for pair, rest in ORDERS
        ]
        self._pair = ORDERS[int(np.argmin(effort))][0]

    def act(self, state: np.ndarray) -> np.ndarray:
        """The next target (2,), metres, for ``state`` (16,) of the environment."""
        state = np.asarray(state, np.float64)
        here = state[8:10]
        begun = _effort(here, *_positions(state, self._pair)[:2]) < _BEGUN
        if self._there or begun or _distance(state, self._pair) < _DONE:
            self.decide(state)
        step = _step(here, *_positions(state, self._pair))
        if self._noise:
            step = step + self._rng.normal(0.0, self._noise, 2)
        target: np.ndarray = here + step
        return target


def _positions(state: np.ndarray, pair: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (2,) of a pair's block and square, and of the other block."""
    block, square = pair
    other = 1 - block
    return (
        state[3 * block : 3 * block + 2],
        state[10 + 3 * square : 12 + 3 * square],
        state[3 * other : 3 * other + 2],
    )


def _distance(state: np.ndarray, pair: tuple[int, int]) -> float:
    block, square, _ = _positions(state, pair)
    return float(np.linalg.norm(block - square))


def _effort(here: np.ndarray, block: np.ndarray, square: np.ndarray) -> float:
    """About how far it is to where the push begins, metres."""
    off = _wrapped(_angle(here - block) - _angle(block - square))
    return float(np.linalg.norm(here - block)) + 1.25 * _CLEAR * abs(off)


def _step(here: np.ndarray, block: np.ndarray, square: np.ndarray, other: np.ndarray) -> np.ndarray:
    """In polar coordinates round the block: towards straight behind it, at a radius that falls to a push there."""
    back = _angle(block - square)
    away = here - block
    distance = float(np.linalg.norm(away))
    off = _wrapped(_angle(away) - back)
    beside = _smooth((abs(off) - _BEHIND) / (_BESIDE - _BEHIND))
    slow = _smooth((_FAR - distance) / (_FAR - _NEAR))
    longest = _FAST + (_PUSH - _FAST) * slow
    # Far away it hardly turns, which leads in a straight line.
    turn = min(abs(off), longest / max(distance, 0.03) if distance < _ROUND else _FAST / distance)
    radius = _CLOSED_IN + (_CLEAR - _CLOSED_IN) * beside
    radius = distance + float(np.clip(radius - distance, -longest, longest))
    angle = back + off - np.sign(off) * turn
    step = _at_most(block + radius * np.array([np.cos(angle), np.sin(angle)]) - here, longest)
    return step if np.linalg.norm(other - block) < _APART else _kept_from(other, here, step)


def _kept_from(obstacle: np.ndarray, here: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The step, bent so that it slides along a circle round the obstacle."""
    away = here + step - obstacle
    distance = float(np.linalg.norm(away))
    bent: np.ndarray = step + away / max(distance, 1e-9) * max(0.0, _CLEAR_OTHER - distance)
    return bent


def _angle(vector: np.ndarray) -> float:
    return float(np.arctan2(vector[1], vector[0]))


def _wrapped(angle: float) -> float:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _smooth(x: float) -> float:
    """From 0 to 1 as ``x`` does, with no corner."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def _at_most(step: np.ndarray, length: float) -> np.ndarray:
    norm = float(np.linalg.norm(step))
    return step * (length / norm) if norm > length else step
