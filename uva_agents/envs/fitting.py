"""What an environment has to be made with so that weights see what they were trained on.

An environment that can be made in several ways says so itself: a static method ``options_for(interface, given)`` of its class,
with the weights' interface (an :class:`~uva_agents.checkpoints.InterfaceSpec`, or anything with its attributes) and the options
that are given already, returns the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym


def options_for(env_id: str, agent: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, and what goes with it for an agent that has an interface (``agent.spec``); ``given`` is never changed."""
    interface, name = getattr(agent, "spec", None), env_id.rpartition(":")[2]
    if interface is None or name not in gym.registry:
        return dict(given)
    entry = gym.spec(name).entry_point
    kind = gym.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    ask = getattr(kind, "options_for", None)
    return {**(ask(interface, given) if callable(ask) else {}), **given}
