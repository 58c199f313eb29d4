"""A policy by name, whichever kind its weights are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from uva_agents.checkpoints.folder import is_checkpoint_file, kind_of, read_config, resolve
from uva_agents.checkpoints.kinds import UVA_WEIGHTS, resolved
from uva_agents.errors import InputError


def load_policy(name_or_path: str | Path, *, device: str | torch.device = "auto", **options: Any) -> Any:
    """The agent that acts with these weights, of this package or of another that adds a kind of weights.

    Args:
        options: of the agent's constructor.

    Returns: for this package's weights a :class:`~uva_agents.agents.policy.Policy` or a
    :class:`~uva_agents.agents.baselines.diffusion_policy.DiffusionPolicy`.

    Raises:
        FileNotFoundError: unknown name; the message lists close matches.
        ValueError: damaged or foreign files, weights of an unknown kind, or weights that do not act.
    """
    if is_checkpoint_file(name_or_path):  # released ones are UVA's
        kind, path = UVA_WEIGHTS, Path(name_or_path)
    else:
        path = resolve(name_or_path)
        kind = kind_of(read_config(path), path)
    if kind.policy is None:
        raise InputError(f"{path} holds {kind.name} weights, which do not act: load them with {kind.loaded_with}")
    return resolved(kind.policy).from_pretrained(path, device=device, **options)
