"""Dreams by name: what ``gymnasium.make`` calls for a dream's ``spec``."""

from __future__ import annotations

import importlib

from uva_agents.agents.dream import DreamEnv
from uva_agents.agents.world_model import WorldModel


def make_dream(
    *,
    weights: str,
    objective: str,
    horizon: int = 64,
    hold: bool = True,
    success_cost: float | None = None,
    render_mode: str | None = None,
) -> DreamEnv:
    """Entry point of a dream's ``spec``.

    Args:
        weights: a name or folder.
        objective: ``"module:function"``.
        render_mode: dreams have one, whatever is asked for.
    """
    module, _, name = objective.partition(":")
    function = getattr(importlib.import_module(module), name)
    world = WorldModel.from_pretrained(weights)
    return world.as_env(function, horizon=horizon, hold=hold, success_cost=success_cost)
