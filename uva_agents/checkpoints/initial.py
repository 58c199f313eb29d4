"""Pretrained parts to start a training from: an autoencoder, and MAR's transformer (or any weights of ours)."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from uva_agents.checkpoints.filling import finite, refilled
from uva_agents.checkpoints.folder import is_checkpoint_file
from uva_agents.checkpoints.official.archive import read_archive
from uva_agents.checkpoints.official.keys import rename, rename_vae
from uva_agents.checkpoints.stored import StoredTensor
from uva_agents.checkpoints.tensor_files import stored_tensors
from uva_agents.errors import WeightsError
from uva_agents.model import VAE, UVANet

_LOG = logging.getLogger(__name__)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Match:
    """What an initialisation found.

    Attributes:
        matched: tensors taken over.
        unmatched: tensors of the network that keep their random start.
        reshaped: tensors of that name with another shape, among the unmatched.
        unused: tensors of the file that the network has no place for.
        shapes: of what was not taken over: name -> (the network's, the file's), ``None`` where one of the two has none.
        partly: of unmatched tensors, which part was taken over, in words.
    """

    matched: tuple[str, ...]
    unmatched: tuple[str, ...]
    reshaped: tuple[str, ...]
    unused: tuple[str, ...]
    shapes: Mapping[str, tuple[Shape | None, Shape | None]] = field(default_factory=dict)
    partly: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{len(self.matched)} tensors taken over"]
        for title, names in (("start fresh", self.unmatched), ("not used from the file", self.unused)):
            if names:
                first = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
                parts.append(f"{len(names)} {title} ({first})")
        if self.reshaped:
            parts.append(f"{len(self.reshaped)} of another shape ({', '.join(self.reshaped[:6])})")
        return "; ".join(parts)

    def lines(self) -> list[str]:
        """All that was not taken over, by name and shape, a line each."""
        random = [name for name in self.unmatched if name not in self.reshaped]
        return [
            *(
                f"of another shape: {name}, {_sizes(self.shapes[name][0])} here and {_sizes(self.shapes[name][1])} there"
                + (f"; {self.partly[name]}" if name in self.partly else "")
                for name in self.reshaped
            ),
            *(f"starts fresh: {name}, {_sizes(self.shapes[name][0])}" for name in random),
            *(f"not used: {name}, {_sizes(self.shapes[name][1])}" for name in self.unused),
        ]


def _sizes(shape: Shape | None) -> str:
    return "x".join(map(str, shape)) if shape else "one number"


def match_into(module: nn.Module, tensors: Mapping[str, Tensor] | Mapping[str, StoredTensor], where: str = "") -> Match:
    """Copy every tensor whose name and shape match; of a file, after a look at its numbers.

    Raises:
        WeightsError: one of them is damaged, of another type or not finite.
    """
    own = module.state_dict()
    matching = {k: v for k, v in tensors.items() if k in own and tuple(own[k].shape) == tuple(v.shape)}
    for name, tensor in matching.items():
        if tensor.dtype.is_floating_point != own[name].dtype.is_floating_point:
            raise WeightsError(f"{where}: {name!r} has numbers of type {tensor.dtype}")
        own[name].copy_(finite(tensor.load(), name, where) if isinstance(tensor, StoredTensor) else tensor)
    left = sorted((own.keys() | tensors.keys()) - matching.keys())
    return Match(
        tuple(sorted(matching)),
        tuple(sorted(own.keys() - matching.keys())),
        tuple(sorted(k for k in tensors.keys() & own.keys() if k not in matching)),
        tuple(sorted(tensors.keys() - own.keys())),
        {k: (_shape_of(own.get(k)), _shape_of(tensors.get(k))) for k in left},
    )


def _shape_of(tensor: Tensor | StoredTensor | None) -> Shape | None:
    return None if tensor is None else tuple(tensor.shape)


def continue_from(network: UVANet, origin: UVANet) -> Match:
    """Go on from weights that may take other inputs: all that matches, and of the layer that mixes the inputs the part for each.

    An input that ``origin`` does not have counts nothing at first: the network begins as the one that it goes on from.
    """
    match = match_into(network, origin.state_dict())
    if "mix.weight" not in match.reshaped or network.config.width != origin.config.width:
        return match
    width = network.config.width
    there = {group.name: i for i, group in enumerate(origin.inputs)}
    own, source = network.mix.weight.data, origin.mix.weight.data
    for i, group in enumerate(network.inputs):
        block = own[:, i * width : (i + 1) * width]
        if group.name in there:
            j = there[group.name]
            block.copy_(source[:, j * width : (j + 1) * width])
        else:
            block.zero_()
    taken = [group.name for group in network.inputs if group.name in there]
    new = [group.name for group in network.inputs if group.name not in there]
    words = f"its part for {', '.join(taken)} is taken over" + (
        f", {', '.join(new)} count nothing at first" if new else ""
    )
    return dataclasses.replace(match, partly={"mix.weight": words})


def load_mar(module: nn.Module, path: Path) -> Match:
    """Start from a MAR checkpoint (``model_ema``) or a released video stage (``state_dicts.ema_model``).

    Raises:
        WeightsError: neither is in the file, or nothing in it matches.
    """
    payload = read_archive(path)
    found: Any = None
    if isinstance(payload, Mapping):
        states = payload.get("state_dicts")
        found = payload.get("model_ema") or (states.get("ema_model") if isinstance(states, Mapping) else None)
    if not isinstance(found, Mapping):
        keys = sorted(str(k)[:40] for k in payload)[:10] if isinstance(payload, Mapping) else type(payload).__name__
        raise WeightsError(f"{path} has no 'model_ema' (MAR) and no 'state_dicts' (released UVA) weights, only {keys}")
    match = match_into(
        module,
        {
            rename(k.replace("module.", "").removeprefix("model.")): v
            for k, v in found.items()
            if isinstance(v, StoredTensor) and isinstance(k, str) and len(k) <= 300
        },
        str(path),
    )
    if not match.matched:
        raise WeightsError(f"{path}: no tensor matches this network in name and shape ({match})")
    _LOG.warning("%s: %s", path.name, match)
    return match


def load_vae(vae: VAE, path: Path) -> None:
    """An autoencoder's weights: ours (safetensors) or the original ``kl16.ckpt`` (key ``model``).

    Raises:
        WeightsError: something is missing or has another shape.
    """
    if not is_checkpoint_file(path):
        refilled(vae, stored_tensors(path), where=str(path), what="autoencoder")
        return
    payload = read_archive(path)
    tensors = payload.get("model", payload) if isinstance(payload, Mapping) else {}
    named = {
        k: v
        for k, v in (tensors.items() if isinstance(tensors, Mapping) else ())
        if isinstance(v, StoredTensor) and isinstance(k, str) and len(k) <= 300 and not k.startswith("loss.")
    }
    match = match_into(vae, rename_vae(named, str(path)), str(path))
    if match.unmatched:
        raise WeightsError(f"{path} does not fill this autoencoder: {match}")
    _LOG.warning("%s: %s", path.name, match)
