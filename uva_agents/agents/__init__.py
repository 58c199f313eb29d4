"""Agents: Policy, WorldModel and InverseModel over one set of weights, DiffusionPolicy and TwoFrameInverse with their own.

Importing this loads no torch; naming an agent does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from uva_agents.agents.base import Agent, AgentState
from uva_agents.agents.rollout import Rollout

# Planners need the contract and Rollout only, and work on a simulator without any network.
_LAZY = {
    "UVA": "uva_agents.agents.uva",
    "DiffusionPolicy": "uva_agents.agents.baselines.diffusion_policy",
    "InverseModel": "uva_agents.agents.inverse_model",
    "Policy": "uva_agents.agents.policy",
    "TwoFrameInverse": "uva_agents.agents.baselines.two_frame",
    "WorldModel": "uva_agents.agents.world_model",
    "load_policy": "uva_agents.agents.loading",
}

if TYPE_CHECKING:
    from uva_agents.agents.baselines.diffusion_policy import DiffusionPolicy
    from uva_agents.agents.baselines.two_frame import TwoFrameInverse
    from uva_agents.agents.inverse_model import InverseModel
    from uva_agents.agents.loading import load_policy
    from uva_agents.agents.policy import Policy
    from uva_agents.agents.uva import UVA
    from uva_agents.agents.world_model import WorldModel

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


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value  # the next access does not come here
    return value
