"""Unified Video Action model: one network, one set of weights, three agents.

Importing this registers the environments and loads no torch; the agents are imported when they are first named.
"""

from __future__ import annotations

import gc
import importlib
from typing import TYPE_CHECKING, Any

import uva_agents.envs  # noqa: F401  (registers the environments)
from uva_agents.version import __version__

_LAZY = {
    "UVA": "uva_agents.agents",
    "Policy": "uva_agents.agents",
    "WorldModel": "uva_agents.agents",
    "InverseModel": "uva_agents.agents",
    "DiffusionPolicy": "uva_agents.agents",
    "TwoFrameInverse": "uva_agents.agents",
    "evaluate": "uva_agents.benchmarks",
    "train": "uva_agents.training.any_task",
}

if TYPE_CHECKING:
    from uva_agents.agents import UVA, DiffusionPolicy, InverseModel, Policy, TwoFrameInverse, WorldModel
    from uva_agents.benchmarks import evaluate
    from uva_agents.training.any_task import train

__all__ = [
    "UVA",
    "DiffusionPolicy",
    "InverseModel",
    "Policy",
    "TwoFrameInverse",
    "WorldModel",
    "__version__",
    "evaluate",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    collects = gc.isenabled()
    gc.disable()  # importing torch makes objects by the hundred thousand, none of them garbage: a tenth of its time
    try:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    finally:
        if collects:
            gc.enable()
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY))
