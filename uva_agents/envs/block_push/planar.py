"""A planar simulator for demonstrations by the hundred thousand: blocks are discs that the post pushes out of its way.

The physics engine makes about a hundred steps a second, this some hundred thousand on many tables at once. What the pusher
would do over the next second and a half depends little on the difference: chunks that it makes here from where things are, six of
16 actions executed, solve the simulated task as it does itself (``docs/experiments.md``).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from uva_agents.envs.block_push.layout import PUSHER_HIGH, PUSHER_LOW, PUSHER_START, layout_of_seed
from uva_agents.envs.block_push.pushing import BEGUN, PAIRS, PLACED, costs, distances, next_pair, next_step

_RADIUS = 0.024, 0.032
"""Of a disc, from its centre to that of the post: a block that is met on its face, and on its corner."""
_DISC = 0.042
"""Between the centres of two discs that touch, metres."""
_LONGEST = 170
"""Steps until a table begins anew."""
_UNDECIDED = 0.08
"""How much farther a push may be, to be chosen e times as rarely, metres."""


class PlanarTables:
    """``n`` tables at once on which the pusher works, hindered.

    Its steps are disturbed, differently on each table; now and then something shoves it aside; some tables begin with things
    anywhere, most often with the post beside a block. So what the tables show is where a policy gets to that makes mistakes.

    Args:
        n: tables.
        seed: of everything.
    """

    def __init__(self, n: int, *, seed: int) -> None:
        if n < 1:
            raise ValueError(f"n={n}: at least one table")
        self.rng = np.random.default_rng(seed)
        self.here, self.blocks, self.squares = np.empty((n, 2)), np.empty((n, 2, 2)), np.empty((n, 2, 2))
        self.pair, self.age, self._radius = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n)
        self._noise, self._sway = np.zeros(n), np.zeros((n, 2))
        self._begin(np.arange(n))
        self.age -= self.rng.integers(0, _LONGEST, n)

    def __len__(self) -> int:
        return len(self.here)

    def advance(self) -> None:
        """A disturbed step on every table."""
        rng = self.rng
        self.pair = next_pair(self.here, self.blocks, self.squares, self.pair)
        self._sway = 0.7 * (self._sway + rng.normal(0.0, 1.0, self._sway.shape))
        step = next_step(self.here, self.blocks, self.squares, self.pair) + self._sway * self._noise[:, None]
        self.here, self.blocks = moved(self.here, self.blocks, self.here + step, self._radius)
        self.age += 1
        gap = distances(self.blocks, self.squares) < PLACED
        over = (gap & gap[:, ::-1]).any(1) & (rng.random(len(self)) < 0.3)
        lost = ((self.blocks < PUSHER_LOW) | (self.blocks > PUSHER_HIGH)).any((1, 2))
        self._begin(np.flatnonzero(over | lost | (self.age >= _LONGEST)))
        shoved = np.flatnonzero(rng.random(len(self)) < 0.04)
        way = rng.normal(0.0, 1.0, (len(shoved), 2)) * rng.choice([0.008, 0.015, 0.03, 0.06], (len(shoved), 1))
        self.here[shoved], self.blocks[shoved] = moved(
            self.here[shoved], self.blocks[shoved], self.here[shoved] + way, self._radius[shoved], parts=12
        )
        anew = np.flatnonzero(rng.random(len(self)) < 0.02)
        self.pair[anew] = chosen(self.here[anew], self.blocks[anew], self.squares[anew], rng)

    def demonstrate(self, tables: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """What the pusher would do on these tables, undisturbed, which changes nothing there.

        On half of them it goes on with what it is doing, on the others it chooses what to do.

        Returns:
            positions (N, length, 5, 2) of the post, the blocks and the squares before each step, and (N, length, 2) where it moves.
        """
        here, blocks, squares = self.here[tables], self.blocks[tables], self.squares[tables]
        pair = chosen(here, blocks, squares, self.rng)
        pair = np.where(self.rng.random(len(tables)) < 0.5, self.pair[tables], pair)
        seen = np.empty((len(tables), length, 5, 2), np.float32)
        targets = np.empty((len(tables), length, 2), np.float32)
        for t in range(length):
            seen[:, t, 0], seen[:, t, 1:3], seen[:, t, 3:] = here, blocks, squares
            pair = next_pair(here, blocks, squares, pair)
            target = here + next_step(here, blocks, squares, pair)
            here, blocks = moved(here, blocks, target, self._radius[tables])
            targets[:, t] = here
        return seen, targets

    def _begin(self, i: np.ndarray) -> None:
        """New scenes on tables ``i``."""
        if not len(i):
            return
        rng, n = self.rng, len(i)
        layouts = [layout_of_seed(int(seed)) for seed in rng.integers(0, 2**31, n)]
        blocks = np.array([layout.blocks for layout in layouts])[..., :2]
        squares = np.array([layout.squares for layout in layouts])[..., :2]
        start = np.array(PUSHER_START)
        here = np.tile(start, (n, 1))
        anywhere = rng.random(n) < 0.4
        scattered = np.where(rng.random((n, 2, 1)) < 0.5, rng.uniform((0.2, -0.35), (0.6, 0.28), (n, 2, 2)), blocks)
        rows, block, square = np.arange(n), rng.integers(0, 2, n), rng.integers(0, 2, n)
        nearly = rng.random(n) < 0.35
        placed = squares[rows, square] + rng.normal(0.0, 0.02, (n, 2))
        scattered[rows[nearly], block[nearly]] = placed[nearly]
        apart = np.sqrt(np.square(scattered[:, 0] - scattered[:, 1]).sum(-1)) > _DISC
        anywhere &= apart
        blocks = np.where(anywhere[:, None, None], scattered, blocks)
        angle, distance = rng.uniform(-np.pi, np.pi, n), rng.uniform(0.025, 0.1, n)
        beside = blocks[rows, rng.integers(0, 2, n)]
        beside = beside + distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        elsewhere = np.where(rng.random((n, 1)) < 0.6, beside, rng.uniform((0.17, -0.45), (0.65, 0.35), (n, 2)))
        here = np.where(anywhere[:, None], np.clip(elsewhere, PUSHER_LOW, PUSHER_HIGH), here)
        inside = (np.square(blocks - here[:, None]).sum(-1) < _RADIUS[0] ** 2).any(1)
        here[inside] = start
        self.here[i], self.blocks[i], self.squares[i] = here, blocks, squares
        self.age[i], self._sway[i] = 0, 0.0
        self._radius[i] = rng.uniform(*_RADIUS, n)
        self._noise[i] = rng.choice([0.0, 0.003, 0.006, 0.010], n)
        self.pair[i] = chosen(here, blocks, squares, rng)


def planar_demonstrations(
    n: int, *, length: int = 16, seed: int = 0, tables: int = 4096
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """``n`` short demonstrations, some thousand at a time: see :meth:`PlanarTables.demonstrate`.

    Args:
        n: demonstrations.
        length: steps of each.
        seed: of everything.
        tables: on which they are made; each takes part in every one of a few steps.
    """
    made = PlanarTables(tables, seed=seed)
    for _ in range(100):  # until the beginnings are spread over time
        made.advance()
    while n > 0:
        for _ in range(5):
            made.advance()
        selected = made.rng.permutation(tables)[: min(n, tables // 2)]
        yield made.demonstrate(selected, length)
        n -= len(selected)


def chosen(here: np.ndarray, blocks: np.ndarray, squares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) pairs: what is left or has begun; else any, near ones more often."""
    cost = costs(here, blocks, squares)
    drawn = (rng.gumbel(size=(len(here), len(PAIRS))) - cost / _UNDECIDED).argmax(1)
    return np.where(cost.min(1) > BEGUN, drawn, cost.argmin(1))


def moved(
    here: np.ndarray, blocks: np.ndarray, target: np.ndarray, radius: np.ndarray, *, parts: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Post (N, 2) and blocks (N, 2, 2) after the post went straight to ``target`` (N, 2), within the table."""
    target = np.clip(target, PUSHER_LOW, PUSHER_HIGH)
    for part in range(1, parts + 1):
        post = here + (target - here) * (part / parts)
        away = blocks - post[:, None]
        distance = np.sqrt(np.square(away).sum(-1))
        blocks = blocks + away * (np.maximum(0.0, radius[:, None] - distance) / np.maximum(distance, 1e-6))[..., None]
        # Where both meet, the one that is farther from the post gives way.
        between = blocks[:, 1] - blocks[:, 0]
        gap = np.sqrt(np.square(between).sum(-1))
        give = between * (np.maximum(0.0, _DISC - gap) / np.maximum(gap, 1e-6))[:, None]
        first = (distance[:, 0] < distance[:, 1])[:, None]
        blocks = blocks + np.stack([np.where(first, 0.0, -give), np.where(first, give, 0.0)], axis=1)
    return target, blocks
