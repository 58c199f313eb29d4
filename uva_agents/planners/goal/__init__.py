"""Goals that come with the observation, as a picture: the objective, proposals, and agents for the protocol ``pusht-goal``."""

from uva_agents.planners.goal.agent import RandomWalker, policy_only_planner, pusht_goal_planner, random_walker
from uva_agents.planners.goal.objective import ObservedGoal
from uva_agents.planners.goal.proposals import MixedProposals, RandomWalk

__all__ = [
    "MixedProposals",
    "ObservedGoal",
    "RandomWalk",
    "RandomWalker",
    "policy_only_planner",
    "pusht_goal_planner",
    "random_walker",
]
