"""A world whose best plan is known: a point that goes where it is pushed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.agents import Rollout
from uva_agents.agents.rollout import frame_indices
from uva_agents.planners import CEM, MPPI, ActionPenalty, GaussianProposals, SamplingPlanner, StateCost

SPACE = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
GOAL = np.array([2.0, -1.5])
T = 8
EFFORT = 0.2


class Point:
    """Position plus the sum of the actions; states are positions, pictures are empty.

    Attributes:
        calls: number of candidates of every rollout so far.
    """

    action_space = SPACE

    def __init__(self, space: gym.spaces.Box = SPACE) -> None:
        self.action_space = space
        self.calls: list[int] = []

    def rollout(self, obs: Any, actions: np.ndarray, *, frames: Sequence[int] | None = None) -> Rollout:
        self.calls.append(len(actions))
        start = np.asarray(obs["agent_pos"], np.float64)
        path = start + np.cumsum(np.asarray(actions, np.float64), axis=1)
        all_steps = np.arange(1, actions.shape[1] + 1)
        wanted = frame_indices(frames, actions.shape[1])
        return Rollout(
            frames=np.empty((len(actions), 0, 1, 1, 3), np.uint8),
            latents=None,
            frame_steps=all_steps[wanted],
            actions=actions,
            all_steps=all_steps,
            states=tuple(tuple(row[wanted]) for row in path),
        )


def distance(state: np.ndarray) -> float:
    return float(np.square(state - GOAL[: len(state)]).sum())


def quadratic() -> Any:
    """Squared distance at the end plus effort."""
    return StateCost(distance) + EFFORT * ActionPenalty(smoothness=0, effort=1)


def optimum() -> tuple[np.ndarray, float]:
    """The best plan (T, 2) from the origin, and its cost: every action the same, by symmetry and convexity."""
    each = GOAL * T / (T**2 + EFFORT / 2)
    plan = np.tile(each, (T, 1))
    return plan, distance(plan.sum(0)) + EFFORT * float(np.square(plan).mean())


def at(*position: float) -> dict[str, np.ndarray]:
    return {"agent_pos": np.array(position or (0.0, 0.0), np.float32)}


class FakeTime:
    """Seconds that pass only when somebody spends them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowPoint(Point):
    """Takes ``call`` seconds per rollout and ``each`` per candidate; the rollout with index ``hiccup`` takes twice as long."""

    def __init__(self, clock: FakeTime, *, call: float, each: float, hiccup: int | None = None) -> None:
        super().__init__()
        self.clock, self.call, self.each, self.hiccup = clock, call, each, hiccup

    def rollout(self, obs: Any, actions: np.ndarray, *, frames: Sequence[int] | None = None) -> Rollout:
        slower = 2 if len(self.calls) == self.hiccup else 1
        self.clock.now += slower * (self.call + self.each * len(actions))
        return super().rollout(obs, actions, frames=frames)


PLANNERS = {
    "sampling": lambda **o: SamplingPlanner(**{"n_samples": 4000} | o),
    "cem": lambda **o: CEM(**{"n_samples": 200, "iterations": 8} | o),
    "mppi": lambda **o: MPPI(**{"n_samples": 200, "iterations": 8} | o),
}


def toy(kind: str = "sampling", **options: Any) -> Any:
    defaults = {
        "dynamics": Point(),
        "objective": quadratic(),
        "proposals": GaussianProposals(SPACE, horizon=T, correlation=0.8),
        "execute": 3,
    }
    return PLANNERS[kind](**defaults | options)
