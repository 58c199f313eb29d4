"""Scores: blocks inside squares, the published reward, and success of one given assignment."""

from __future__ import annotations

import math
from dataclasses import dataclass

from uva_agents.envs.block_push.layout import Layout, Pose

IN_SQUARE = 0.05
"""A block is inside a square if their centres are closer than this, metres; orientation does not matter."""
ONE_REWARD, BOTH_REWARD = 0.49, 0.51

Pairs = tuple[tuple[int, int], tuple[int, int]]
"""Per block and square."""


@dataclass(frozen=True, slots=True)
class Score:
    """What an episode has earned so far. A value: every step makes a new one.

    Attributes:
        entered: for block i and square j, the step at which i was first inside j; -1 for never.
        rewards: the different values of the published reward seen so far, in order of appearance.
        steps: control steps since the reset.
    """

    entered: Pairs = ((-1, -1), (-1, -1))
    rewards: tuple[float, ...] = ()
    steps: int = 0

    @property
    def total(self) -> float:
        """Published score: the sum of the different rewards of the episode, at most 1."""
        return min(sum(self.rewards), 1.0)

    @property
    def p1(self) -> bool:
        """At least one block was inside a square."""
        return self.total > 0.4

    @property
    def p2(self) -> bool:
        """Both blocks were inside different squares at once."""
        return BOTH_REWARD in self.rewards


def distances(blocks: tuple[Pose, Pose], layout: Layout) -> tuple[tuple[float, float], tuple[float, float]]:
    """Metres between the centres of block i and square j."""
    first, second = (tuple(math.dist(block[:2], square[:2]) for square in layout.squares) for block in blocks)
    return (first[0], first[1]), (second[0], second[1])


def both_placed(d: tuple[tuple[float, float], tuple[float, float]]) -> bool:
    """Both blocks inside squares, and not nearest to the same one."""
    nearest = [0 if row[0] <= row[1] else 1 for row in d]
    return nearest[0] != nearest[1] and all(min(row) < IN_SQUARE for row in d)


def advance(score: Score, d: tuple[tuple[float, float], tuple[float, float]]) -> tuple[Score, float]:
    """The score after one more step that ended with distances ``d``, and the published reward of that step.

    A pair pays 0.49 the first time; the step that places both blocks pays exactly 0.51.
    """
    steps = score.steps + 1
    new = [[score.entered[i][j] < 0 and d[i][j] < IN_SQUARE for j in (0, 1)] for i in (0, 1)]
    reward = BOTH_REWARD if both_placed(d) else ONE_REWARD * sum(map(sum, new))
    first, second = ([steps if new[i][j] else score.entered[i][j] for j in (0, 1)] for i in (0, 1))
    seen = score.rewards if reward == 0 or reward in score.rewards else (*score.rewards, reward)
    return Score(((first[0], first[1]), (second[0], second[1])), seen, steps), reward
