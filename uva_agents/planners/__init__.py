"""Planning by imagined futures: proposals x dynamics x objective x budget. Nothing in this package imports torch by itself."""

from uva_agents.planners.blocks import BlockReading, BlockToSquare
from uva_agents.planners.coverage import PushTCoverage
from uva_agents.planners.goal import MixedProposals, ObservedGoal, RandomWalk
from uva_agents.planners.iterative import CEM, MPPI
from uva_agents.planners.objective import MaskedCosts, Objective, RequiredFrames, WeightedSum, as_objective
from uva_agents.planners.objectives import ActionPenalty, GoalImage, StateCost
from uva_agents.planners.plan import Plan
from uva_agents.planners.planner import Planner, SamplingPlanner
from uva_agents.planners.proposals import GaussianProposals, UniformProposals
from uva_agents.planners.protocols import (
    Dynamics,
    HasActionSpace,
    HasLookback,
    HasWeights,
    Identified,
    Named,
    OneEnvironment,
    Prepares,
    Proposals,
    RolloutOptions,
    SampleOptions,
    SharesEncoding,
)
from uva_agents.planners.search import Screen
from uva_agents.planners.simulator import SimulatorModel
from uva_agents.planners.state import PlannerState
from uva_agents.planners.vision.camera import Homography, PlaneProjection, block_push_camera

__all__ = [
    "CEM",
    "MPPI",
    "ActionPenalty",
    "BlockReading",
    "BlockToSquare",
    "Dynamics",
    "GaussianProposals",
    "GoalImage",
    "HasActionSpace",
    "HasLookback",
    "HasWeights",
    "Homography",
    "Identified",
    "MaskedCosts",
    "MixedProposals",
    "Named",
    "Objective",
    "ObservedGoal",
    "OneEnvironment",
    "Plan",
    "PlaneProjection",
    "Planner",
    "PlannerState",
    "Prepares",
    "Proposals",
    "PushTCoverage",
    "RandomWalk",
    "RequiredFrames",
    "RolloutOptions",
    "SampleOptions",
    "SamplingPlanner",
    "Screen",
    "SharesEncoding",
    "SimulatorModel",
    "StateCost",
    "UniformProposals",
    "WeightedSum",
    "as_objective",
    "block_push_camera",
]
