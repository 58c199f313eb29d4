"""Agents for the protocol ``pusht-goal``: a planner, and the random walk that it is compared with."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.agents.observations import split
from uva_agents.agents.stateful import StatefulAgent
from uva_agents.errors import InputError
from uva_agents.planners.goal.objective import ObservedGoal
from uva_agents.planners.goal.proposals import MixedProposals, RandomWalk
from uva_agents.planners.planner import SamplingPlanner
from uva_agents.planners.state import PlannerState


def pusht_goal_planner(weights: str = "pusht-nano", *, n_samples: int = 16, proposals: str = "both") -> SamplingPlanner:
    """The planner measured in docs/pusht.md: ``uva eval uva_agents.planners.goal:pusht_goal_planner --protocol pusht-goal``.

    Args:
        weights: whose policy proposes and whose world model imagines.
        n_samples: candidates per decision.
        proposals: ``"policy"`` (which pushes the block onto the mark and does not see the goal), ``"walk"`` (:class:`RandomWalk`)
            or ``"both"``.
    """
    from uva_agents.agents import UVA

    uva = UVA.from_pretrained(weights)
    policy, world = uva.policy(), uva.world_model()
    walk = RandomWalk(policy.action_space)
    kinds: dict[str, Any] = {"policy": policy, "walk": walk, "both": MixedProposals(policy, walk)}
    if proposals not in kinds:
        raise InputError(f"proposals={proposals!r}: choose one of {', '.join(kinds)}")
    return SamplingPlanner(
        dynamics=world,
        objective=ObservedGoal(frames=(1, 3), nearest=True),
        proposals=kinds[proposals],
        n_samples=n_samples,
        execute=6,
        steps=4,
    )


def policy_only_planner() -> SamplingPlanner:
    """:func:`pusht_goal_planner` with the policy's proposals alone, for a command line."""
    return pusht_goal_planner(proposals="policy")


class RandomWalker(StatefulAgent[PlannerState]):
    """An agent that carries out random walks: the baseline. Its state is a random stream per environment.

    Args:
        action_space: positions, (A,).
        walk: see :class:`~uva_agents.planners.goal.proposals.RandomWalk`.
    """

    state_type = PlannerState
    name = "RandomWalker"

    def __init__(self, action_space: gym.spaces.Box, **walk: Any) -> None:
        super().__init__()
        self.action_space = action_space
        self._walk = RandomWalk(action_space, **walk)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its actions, as JSON values."""
        return self._walk.identity

    def predict(
        self,
        observation: Any,
        state: PlannerState | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, PlannerState]:
        """stable-baselines3's ``predict``."""
        observations, batched = split(observation)
        state = self._current(state, len(observations), episode_start)
        actions, rows = [], []
        for row, obs in zip(state.rows, observations, strict=True):
            if row.needs_replan:
                key = int(np.random.SeedSequence([row.seed, row.decisions]).generate_state(1)[0])
                queue = self._walk.sample(obs, 1, seed=key)[0]
                row = dataclasses.replace(row.observed(obs, 1), queue=queue, decisions=row.decisions + 1)
            action, row = row.acted()
            actions.append(action)
            rows.append(row)
        return (np.stack(actions) if batched else actions[0]), PlannerState(tuple(rows))


def random_walker() -> RandomWalker:
    """For PushT: ``uva eval uva_agents.planners.goal:random_walker --protocol pusht-goal``."""
    return RandomWalker(gym.spaces.Box(0.0, 512.0, (2,), np.float32))
