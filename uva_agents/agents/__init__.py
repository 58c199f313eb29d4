"""Agents: Policy, WorldModel, InverseModel over one set of weights; DiffusionPolicy and TwoFrameInverse with their own."""

from uva_agents.agents.base import Agent, AgentState
from uva_agents.agents.core import UVA
from uva_agents.agents.diffusion_policy import DiffusionPolicy
from uva_agents.agents.inverse_model import InverseModel
from uva_agents.agents.loading import load_policy
from uva_agents.agents.policy import Policy
from uva_agents.agents.two_frame import TwoFrameInverse
from uva_agents.agents.world_model import Rollout, WorldModel

__all__ = [
    "UVA",
    "Agent",
    "AgentState",
    "DiffusionPolicy",
    "InverseModel",
    "Policy",
    "Rollout",
    "TwoFrameInverse",
    "WorldModel",
    "load_policy",
]
