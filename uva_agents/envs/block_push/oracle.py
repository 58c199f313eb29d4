"""A script that solves the task from the state: the source of demonstrations.

Phases, distances and step sizes are those behind the published demonstrations.
"""

from __future__ import annotations

import numpy as np

from uva_agents.envs.block_push.layout import PUSHER_START, draw_layout

ORDERS: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = (
    ((0, 0), (1, 1)),
    ((0, 1), (1, 0)),
    ((1, 0), (0, 1)),
    ((1, 1), (0, 0)),
)
"""Four ways to solve the task, as ((block, square), (block, square)) in order of execution."""

_PRE, _NEXT_TO, _TOUCHING = 0.05, 0.03, 0.01
"""Points behind the block, seen from its square: distance from the block's centre, metres."""
_ARRIVED = 0.001
_FIRST_DONE = 0.04
_MISALIGNED, _ALIGNED = 0.2, 0.03
_CIRCLE, _LEAD = 0.025, 0.2
"""Turning a block: the pusher goes round it at this radius (metres), aiming this far ahead (rad)."""
_FAST, _TURN, _PUSH = 0.03, 0.015, 0.035
"""Largest steps, metres."""


def order_of_seed(seed: int) -> int:
    """Which of :data:`ORDERS` the published demonstration with this seed intended."""
    rng = np.random.RandomState(seed)
    draw_layout(rng)
    return int(rng.choice(4))


def checked_order(order: int, noise: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """The pairs of an order, for a demonstrator with this noise.

    Raises:
        ValueError: an unknown order or negative noise.
    """
    if order not in range(len(ORDERS)):
        raise ValueError(f"order={order}: pass 0 to {len(ORDERS) - 1}, see ORDERS")
    if noise < 0:
        raise ValueError(f"noise={noise}: a standard deviation in metres is not negative")
    return ORDERS[order]


class Oracle:
    """Pushes both blocks, one after the other.

    ``act(info["state"])`` gives the next absolute target; the relative action is that minus the target in the state.

    Args:
        order: index into :data:`ORDERS`.
        noise: standard deviation of what is added to every step, metres.
        seed: of the noise.

    Raises:
        ValueError: an unknown order or negative noise.
    """

    def __init__(self, order: int, *, noise: float = 0.0, seed: int = 0) -> None:
        self.order = order
        self._noise = noise
        self._rng = np.random.default_rng(seed)
        self._pair, self._rest = checked_order(order, noise)
        self._switched = False
        self._phase = "move_to_pre_block"
        self._first_pre_block: np.ndarray | None = None

    @property
    def block(self) -> int:
        """Which block it is pushing: 0 red, 1 green."""
        return self._pair[0]

    @property
    def phase(self) -> str:
        """What it is doing."""
        return self._phase

    def act(self, state: np.ndarray) -> np.ndarray:
        """The next target (2,), metres, for ``state`` (16,) of the environment."""
        here = np.asarray(state[8:10], np.float64)
        step, largest = self._step(np.asarray(state, np.float64), here)
        length = float(np.linalg.norm(step))
        if length > largest:
            step = step * (largest / length)
        if self._noise:
            step = step + self._rng.normal(0.0, self._noise, 2)
        target: np.ndarray = here + step
        return target

    def _step(self, state: np.ndarray, here: np.ndarray) -> tuple[np.ndarray, float]:
        """The wanted change of the target and the largest one allowed."""
        block, yaw, square = self._see(state)
        if not self._switched and np.linalg.norm(block - square) < _FIRST_DONE:
            self._switched = True
            self._pair = self._rest
            self._phase = "return_to_first_pre_block"
            block, yaw, square = self._see(state)
        behind = (block - square) / np.linalg.norm(block - square)
        forward = -behind
        error = _fold(float(np.arctan2(forward[1], forward[0])) - yaw)
        step, largest = np.zeros(2), _PUSH
        # In this order: a phase that ends gives way to a later one within the same step. The way back to the origin comes
        # last, so that the pusher rests there for one step.
        if self._phase == "return_to_first_pre_block":
            goal = np.array(PUSHER_START) if self._first_pre_block is None else self._first_pre_block
            step, largest = goal - here, _FAST
            if np.linalg.norm(step) < _ARRIVED:
                self._phase = "return_to_origin"
        if self._phase == "move_to_pre_block":
            pre_block = block + _PRE * behind
            step, largest = pre_block - here, _FAST
            if np.linalg.norm(step) < _ARRIVED:
                self._phase = "move_to_block"
                if self._first_pre_block is None:
                    self._first_pre_block = pre_block
        if self._phase == "move_to_block":
            step, largest = block + _NEXT_TO * behind - here, _PUSH
            if np.linalg.norm(step) < _ARRIVED:
                self._phase = "push_block"
            if error > _MISALIGNED:
                self._phase = "turn_left"
            elif error < -_MISALIGNED:
                self._phase = "turn_right"
        if self._phase == "push_block":
            step, largest = block + _TOUCHING * behind - here, _PUSH
            if abs(error) > _MISALIGNED:
                self._phase = "move_to_pre_block"
        if self._phase == "turn_left":
            step, largest = self._turn(block, here, _LEAD), _TURN
            if error < _ALIGNED:
                self._phase = "move_to_pre_block"
        if self._phase == "turn_right":
            step, largest = self._turn(block, here, -_LEAD), _TURN
            if error > -_ALIGNED:
                self._phase = "move_to_pre_block"
        if self._phase == "return_to_origin":
            step, largest = np.array(PUSHER_START) - here, _FAST
            if np.linalg.norm(step) < _ARRIVED:
                self._phase = "move_to_pre_block"
        return step, largest

    def _see(self, state: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
        """Block (2,), its yaw, and square (2,) of the present pair."""
        block, square = self._pair
        return state[3 * block : 3 * block + 2], float(state[3 * block + 2]), state[10 + 3 * square : 12 + 3 * square]

    @staticmethod
    def _turn(block: np.ndarray, here: np.ndarray, lead: float) -> np.ndarray:
        outward = (here - block) / np.linalg.norm(here - block)
        c, s = np.cos(lead), np.sin(lead)
        ahead = np.array([c * outward[0] - s * outward[1], s * outward[0] + c * outward[1]])
        step: np.ndarray = block + _CIRCLE * ahead - here
        return step


def _fold(angle: float) -> float:
    """Into [-pi/4, pi/4): a square block looks the same after a quarter turn."""
    return (angle + np.pi / 4) % (np.pi / 2) - np.pi / 4
