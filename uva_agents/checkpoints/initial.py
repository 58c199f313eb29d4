"""Pretrained parts to start a training from: an autoencoder, and MAR's transformer (or any weights of ours)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from uva_agents.checkpoints.archive import read_archive
from uva_agents.checkpoints.folder import load_tensors
from uva_agents.checkpoints.official_keys import rename, rename_vae
from uva_agents.checkpoints.store import is_checkpoint_file
from uva_agents.model import VAE

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Match:
    """What an initialisation found.

    Attributes:
        matched: tensors taken over.
        fresh: tensors of the network that keep their random start.
        reshaped: tensors of that name with another shape, among the fresh.
        left: tensors of the file that the network has no place for.
    """

    matched: tuple[str, ...]
    fresh: tuple[str, ...]
    reshaped: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.matched)} tensors taken over"]
        for title, names in (("start fresh", self.fresh), ("not used from the file", self.left)):
            if names:
                some = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
                parts.append(f"{len(names)} {title} ({some})")
        if self.reshaped:
            parts.append(f"{len(self.reshaped)} of another shape ({', '.join(self.reshaped[:6])})")
        return "; ".join(parts)


def match_into(module: nn.Module, tensors: Mapping[str, Tensor]) -> Match:
    """Copy every tensor whose name and shape match."""
    own = module.state_dict()
    matching = {k: v for k, v in tensors.items() if k in own and own[k].shape == v.shape}
    for name, tensor in matching.items():
        own[name].copy_(tensor)
    return Match(
        tuple(sorted(matching)),
        tuple(sorted(own.keys() - matching.keys())),
        tuple(sorted(k for k in tensors.keys() & own.keys() if k not in matching)),
        tuple(sorted(tensors.keys() - own.keys())),
    )


def load_mar(module: nn.Module, path: Path) -> Match:
    """Start from a MAR checkpoint (``model_ema``) or a released video stage (``state_dicts.ema_model``).

    Raises:
        ValueError: neither is in the file, or nothing in it matches.
    """
    payload = read_archive(path)
    found: Any = None
    if isinstance(payload, Mapping):
        states = payload.get("state_dicts")
        found = payload.get("model_ema") or (states.get("ema_model") if isinstance(states, Mapping) else None)
    if not isinstance(found, Mapping):
        keys = sorted(map(str, payload)) if isinstance(payload, Mapping) else type(payload).__name__
        raise ValueError(f"{path} has no 'model_ema' (MAR) and no 'state_dicts' (released UVA) weights, only {keys}")
    tensors = {rename(str(k).replace("module.", "").removeprefix("model.")): v for k, v in found.items()}
    match = match_into(module, {k: v for k, v in tensors.items() if isinstance(v, Tensor)})
    if not match.matched:
        raise ValueError(f"{path}: no tensor matches this network in name and shape ({match})")
    _LOG.warning("%s: %s", path.name, match)
    return match


def load_vae(vae: VAE, path: Path) -> None:
    """An autoencoder's weights: ours (safetensors) or the original ``kl16.ckpt`` (key ``model``).

    Raises:
        ValueError: something is missing or has another shape.
    """
    if not is_checkpoint_file(path):
        vae.load_state_dict({k: v.float() for k, v in load_tensors(path).items()})
        return
    payload = read_archive(path)
    tensors = payload.get("model", payload) if isinstance(payload, Mapping) else {}
    named = {str(k): v for k, v in tensors.items() if isinstance(v, Tensor) and not str(k).startswith("loss.")}
    match = match_into(vae, rename_vae(named))
    if match.fresh:
        raise ValueError(f"{path} does not fill this autoencoder: {match}")
    _LOG.warning("%s: %s", path.name, match)
