"""Planning by imagined futures: proposals x dynamics x objective x budget. Nothing in this package imports torch by itself."""

from uva_agents.planners.blocks import BlockReading, BlockToSquare
from uva_agents.planners.coverage import PushTCoverage
from uva_agents.planners.goal import Both, ObservedGoal, RandomWalk
from uva_agents.planners.iterative import CEM, MPPI
from uva_agents.planners.objectives import ActionPenalty, GoalImage, StateCost, Term, WeightedSum
from uva_agents.planners.plan import Plan
from uva_agents.planners.planner import Planner, SamplingPlanner
from uva_agents.planners.proposals import GaussianProposals, UniformProposals
from uva_agents.planners.protocols import Dynamics, Judgement, Looks, Objective, Proposals
from uva_agents.planners.search import Screen
from uva_agents.planners.simulator import SimulatorModel
from uva_agents.planners.state import PlannerState
from uva_agents.planners.vision.camera import Camera, Homography, block_push_camera

__all__ = [
    "CEM",
    "MPPI",
    "ActionPenalty",
    "BlockReading",
    "BlockToSquare",
    "Both",
    "Camera",
    "Dynamics",
    "GaussianProposals",
    "GoalImage",
    "Homography",
    "Judgement",
    "Looks",
    "Objective",
    "ObservedGoal",
    "Plan",
    "Planner",
    "PlannerState",
    "Proposals",
    "PushTCoverage",
    "RandomWalk",
    "SamplingPlanner",
    "Screen",
    "SimulatorModel",
    "StateCost",
    "Term",
    "UniformProposals",
    "WeightedSum",
    "block_push_camera",
]
