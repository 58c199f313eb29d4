"""Weights that are one network, such as Diffusion Policy and the two-frame baseline. The same folder layout as UVA's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from uva_agents.checkpoints.described import describe
from uva_agents.checkpoints.folder import is_checkpoint_file, pick_device, resolve, write_folder
from uva_agents.checkpoints.kinds import DIFFUSION_POLICY, TWO_FRAME, WeightsKind, kind_of_network
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.errors import WeightsError
from uva_agents.model import DiffusionPolicyNet, TwoFrameNet

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class NetBundle(Generic[Net]):
    """A network, its normaliser and its interface. The network has its sizes as the attribute ``config``."""

    model: Net
    normalizer: LinearNormalizer
    spec: InterfaceSpec
    name: str

    @property
    def device(self) -> torch.device:
        """The network's device."""
        return next(self.model.parameters()).device


def save_net(
    bundle: NetBundle[Any],
    folder: str | Path,
    *,
    card: str | None = None,
    extra: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write a bundle; see :func:`~uva_agents.checkpoints.folder.write_folder`. ``extra``: further entries of ``config.json``.

    Raises:
        InputError: the network is of no kind that has a row in :mod:`~uva_agents.checkpoints.kinds`.
    """
    config = {
        "name": bundle.name,
        "model": bundle.model.config.to_dict(),
        "normalizer": bundle.normalizer.to_dict(),
        "interface": bundle.spec.to_dict(),
        **(extra or {}),
    }
    kind = kind_of_network(bundle.model.config)
    return write_folder(folder, kind, {"model": bundle.model}, config, card=card, dtype=dtype)


def load_net(name_or_path: str | Path, kind: WeightsKind, *, device: str | torch.device = "auto") -> NetBundle[Any]:
    """A shipped name or a folder of weights of this kind, in evaluation mode and float32.

    Raises:
        FileNotFoundError: unknown name.
        WeightsError: damaged or foreign files; weights of another kind, with the class that takes them.
    """
    if is_checkpoint_file(name_or_path):
        raise WeightsError(f"{name_or_path} is a torch file; only UVA's are read, by uva.Policy: give a weights folder")
    about = describe(resolve(name_or_path), kind)
    model = about.filled("model", lambda: kind.network(about.sizes))
    return NetBundle(model.to(pick_device(device)), about.normalizer, about.spec, about.name)


def load_diffusion_policy(
    name_or_path: str | Path, *, device: str | torch.device = "auto"
) -> NetBundle[DiffusionPolicyNet]:
    """:func:`load_net` for Diffusion Policy."""
    return load_net(name_or_path, DIFFUSION_POLICY, device=device)


def load_two_frame(name_or_path: str | Path, *, device: str | torch.device = "auto") -> NetBundle[TwoFrameNet]:
    """:func:`load_net` for the two-frame baseline."""
    return load_net(name_or_path, TWO_FRAME, device=device)
