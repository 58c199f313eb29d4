"""A demonstrator that looks at positions only and recovers from anywhere, for policies that learn from pictures."""

from __future__ import annotations

import numpy as np

from uva_agents.envs.block_push.oracle import checked_order
from uva_agents.envs.block_push.pushing import BEGUN, PAIRS, PLACED, costs, distances, efforts, next_step


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
        checked_order(order, noise)
        self._pair = order  # the first push of order k is pair k
        self._there = False

    @property
    def block(self) -> int:
        """Which block it is pushing: 0 red, 1 green."""
        return int(PAIRS[self._pair, 0])

    def decide(self, state: np.ndarray) -> None:
        """From now on what is left when one block is placed, or else the push that is nearest to begin."""
        self._there = True
        self._pair = int(costs(*_positions(state))[0].argmin())

    def act(self, state: np.ndarray) -> np.ndarray:
        """The next target (2,), metres, for ``state`` (16,) of the environment."""
        here, blocks, squares = _positions(state)
        begun = efforts(here, blocks, squares)[0, self._pair] < BEGUN
        if self._there or begun or distances(blocks, squares)[0, self._pair] < PLACED:
            self.decide(state)
        target: np.ndarray = (here + next_step(here, blocks, squares, np.array([self._pair])))[0]
        if self._noise:
            target = target + self._rng.normal(0.0, self._noise, 2)
        return target


def _positions(state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the post is commanded to be (1, 2), blocks and squares (1, 2, 2)."""
    state = np.asarray(state, np.float64)[None]
    return state[:, 8:10], np.stack([state[:, 0:2], state[:, 3:5]], 1), np.stack([state[:, 10:12], state[:, 13:15]], 1)
