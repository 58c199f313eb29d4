"""A demonstrator that looks at positions only and recovers from anywhere, for policies that learn from pictures."""

from __future__ import annotations

import numpy as np

from uva_agents.envs.block_push.oracle import checked_order

_FAST, _PUSH = 0.03, 0.015
"""Largest steps through the air and while pushing, metres: those of the published demonstrations."""
_FIRST_DONE = 0.04
_BEHIND = 0.05
"""Where a push begins: this far behind the block's centre, seen from its square."""
_CLEAR, _CLEAR_OTHER = 0.048, 0.04
"""The way there keeps this far from the centres of the block and of the other one."""
_LANE = 0.01
"""A push goes on while the pusher is this close to the line from the square through the block."""
_TOUCHING, _NOT_BEHIND, _TOO_FAR = 0.01, 0.015, 0.06


class Pusher:
    """Pushes both blocks, one after the other, deciding anew at every step from where things are.

    The published script (:class:`~uva_agents.envs.block_push.oracle.Oracle`) turns blocks by their yaw and goes through phases
    that no picture shows, so whoever imitates it misses a block and goes on without it. This one walks round the block to
    the far side of its square, pushes while it is in line, and goes round again when it is not. The only memory is
    which pair comes first.

    ``act(info["state"])`` gives the next absolute target.

    Args:
        order: index into :data:`~uva_agents.envs.block_push.oracle.ORDERS`.
        noise: standard deviation of what is added to every step, metres. Without any, a block that turns under every push by as
            much as the next one turns it back can hold it up for ever (11 of 20 episodes; with noise none).
        seed: of the noise.

    Raises:
        ValueError: an unknown order or negative noise.
    """

    def __init__(self, order: int, *, noise: float = 0.002, seed: int = 0) -> None:
        self.order = order
        self._noise = noise
        self._rng = np.random.default_rng(seed)
        self._pair, self._rest = checked_order(order, noise)

    def act(self, state: np.ndarray) -> np.ndarray:
        """The next target (2,), metres, for ``state`` (16,) of the environment."""
        state = np.asarray(state, np.float64)
        here = state[8:10]
        block, square, other = self._see(state)
        if self._pair != self._rest and np.linalg.norm(block - square) < _FIRST_DONE:
            self._pair = self._rest
            block, square, other = self._see(state)
        step = _step(here, block, square, other)
        if self._noise:
            step = step + self._rng.normal(0.0, self._noise, 2)
        target: np.ndarray = here + step
        return target

    def _see(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions (2,) of the present block, its square, and the other block."""
        block, square = self._pair
        other = 1 - block
        return (
            state[3 * block : 3 * block + 2],
            state[10 + 3 * square : 12 + 3 * square],
            state[3 * other : 3 * other + 2],
        )


def _step(here: np.ndarray, block: np.ndarray, square: np.ndarray, other: np.ndarray) -> np.ndarray:
    forward = (square - block) / np.linalg.norm(square - block)
    side = np.array([-forward[1], forward[0]])
    behind, aside = float((block - here) @ forward), float((here - block) @ side)
    if _NOT_BEHIND < behind < _TOO_FAR and abs(aside) < _LANE:
        advance = float(np.clip(behind - _TOUCHING, 0.0, _PUSH))
        return _at_most(advance * forward - aside * side, _PUSH)
    start = block - _BEHIND * forward
    step = _round(here, start, block, _CLEAR)
    if np.linalg.norm(start - other) > _CLEAR_OTHER:
        # Looked ahead, so that the way bends before the other block is touched.
        step = _round(here, here + 3 * step, other, _CLEAR_OTHER)
    return step


def _round(here: np.ndarray, goal: np.ndarray, obstacle: np.ndarray, radius: float) -> np.ndarray:
    """The step from ``here`` towards ``goal`` on the shortest way that stays ``radius`` from ``obstacle``."""
    away, way = here - obstacle, goal - here
    distance = float(np.linalg.norm(away))
    passed = float(np.clip(-(away @ way) / max(float(way @ way), 1e-12), 0.0, 1.0))
    if passed <= 0 or np.linalg.norm(away + passed * way) >= radius - 1e-4:
        return _at_most(way, _FAST)
    angle = float(np.arctan2(away[1], away[0]))
    to_goal = float(np.arctan2(goal[1] - obstacle[1], goal[0] - obstacle[0])) - angle
    turn = (to_goal + np.pi) % (2 * np.pi) - np.pi
    if distance > radius:
        tangent = float(np.arccos(radius / distance))
        if abs(turn) <= tangent:
            return _at_most(way, _FAST)
        touching = _on_circle(obstacle, radius, angle + np.sign(turn) * tangent) - here
        if np.linalg.norm(touching) > 1e-3:
            return _at_most(touching, _FAST)
    ahead = angle + np.sign(turn) * min(abs(turn), _FAST / radius)
    return _at_most(_on_circle(obstacle, radius, ahead) - here, _FAST)


def _on_circle(centre: np.ndarray, radius: float, angle: float) -> np.ndarray:
    point: np.ndarray = centre + radius * np.array([np.cos(angle), np.sin(angle)])
    return point


def _at_most(step: np.ndarray, length: float) -> np.ndarray:
    norm = float(np.linalg.norm(step))
    return step * (length / norm) if norm > length else step
