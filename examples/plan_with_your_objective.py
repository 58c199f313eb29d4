"""Plan with an objective of your own: any function of a rollout. ``python examples/plan_with_your_objective.py``"""

import gymnasium as gym
import numpy as np

import uva_agents as uva
from uva_agents.planners import SamplingPlanner

BLOCK = np.array([119, 136, 153])
"""The T's colour."""


def left_of_the_table(rollout):
    """Costs (S,): how far right the T is in the last imagined frame; low is good."""
    close = np.abs(rollout.frames[:, -1].astype(int) - BLOCK).max(axis=-1) < 40  # (S, H, W)
    columns = np.arange(close.shape[-1])
    return (close * columns).sum((1, 2)) / np.maximum(close.sum((1, 2)), 1)


model = uva.UVA.from_pretrained("pusht-nano")
planner = SamplingPlanner(
    dynamics=model.world_model(), objective=left_of_the_table, proposals=model.policy(), n_samples=8, steps=4
)
env = gym.make("uva/PushT-v0")
obs, info = env.reset(seed=1)
plan = planner.plan(obs, seed=0)
print(f"costs {plan.costs.min():.1f} to {plan.costs.max():.1f}; the best chunk begins with {plan.actions[0]}")
