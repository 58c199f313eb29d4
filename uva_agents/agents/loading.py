"""A policy by name, whichever kind its weights are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from uva_agents.agents.baselines.diffusion_policy import DiffusionPolicy
from uva_agents.agents.policy import Policy
from uva_agents.checkpoints.folder import Kind, is_checkpoint_file, kind_of, read_config, resolve
from uva_agents.errors import InputError


def load_policy(
    name_or_path: str | Path, *, device: str | torch.device = "auto", **options: Any
) -> Policy | DiffusionPolicy:
    """The agent that acts with these weights; ``options`` go to its constructor.

    Raises:
        FileNotFoundError: unknown name; the message lists close matches.
        ValueError: damaged or foreign files, or weights that do not act.
    """
    if is_checkpoint_file(name_or_path):
        return Policy.from_pretrained(name_or_path, device=device, **options)
    folder = resolve(name_or_path)
    kind = kind_of(read_config(folder), folder)
    if kind is Kind.UVA:
        return Policy.from_pretrained(folder, device=device, **options)
    if kind is Kind.DIFFUSION_POLICY:
        return DiffusionPolicy.from_pretrained(folder, device=device, **options)
    raise InputError(f"{folder} holds {kind.value} weights, which do not act: load them with {kind.loaded_with}")
