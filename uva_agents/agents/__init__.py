"""Agents: Policy, WorldModel and InverseModel over one set of weights."""

from uva_agents.agents.base import Agent, AgentState
from uva_agents.agents.core import UVA
from uva_agents.agents.inverse_model import InverseModel
from uva_agents.agents.policy import Policy
from uva_agents.agents.world_model import Rollout, WorldModel

__all__ = ["UVA", "Agent", "AgentState", "InverseModel", "Policy", "Rollout", "WorldModel"]
