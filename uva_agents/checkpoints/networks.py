"""Weights that are one network: Diffusion Policy and the two-frame baseline. The same folder layout as UVA's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from uva_agents.checkpoints.described import describe
from uva_agents.checkpoints.folder import Kind, is_checkpoint_file, pick_device, resolve, write_folder
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.errors import WeightsError
from uva_agents.model import DiffusionPolicyNet, TwoFrameNet

Net = TypeVar("Net", DiffusionPolicyNet, TwoFrameNet)


@dataclass(frozen=True)
class NetBundle(Generic[Net]):
    """A network, its normaliser and its interface."""

    model: Net
    normalizer: LinearNormalizer
    spec: InterfaceSpec
    name: str

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def save_net(
    bundle: NetBundle[DiffusionPolicyNet] | NetBundle[TwoFrameNet],
    folder: str | Path,
    *,
    card: str | None = None,
    extra: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write a bundle; see :func:`~uva_agents.checkpoints.folder.write_folder`. ``extra``: further entries of ``config.json``."""
    kind = Kind.DIFFUSION_POLICY if isinstance(bundle.model, DiffusionPolicyNet) else Kind.TWO_FRAME
    config = {
        "name": bundle.name,
        "model": bundle.model.config.to_dict(),
        "normalizer": bundle.normalizer.to_dict(),
        "interface": bundle.spec.to_dict(),
        **(extra or {}),
    }
    return write_folder(folder, kind, {"model": bundle.model}, config, card=card, dtype=dtype)


def load_diffusion_policy(
    name_or_path: str | Path, *, device: str | torch.device = "auto"
) -> NetBundle[DiffusionPolicyNet]:
    """A shipped name or a folder, in evaluation mode and float32.

    Raises:
        FileNotFoundError: unknown name.
        WeightsError: damaged or foreign files; weights of another kind, with the class that takes them.
    """
    return _load(name_or_path, Kind.DIFFUSION_POLICY, DiffusionPolicyNet, device)


def load_two_frame(name_or_path: str | Path, *, device: str | torch.device = "auto") -> NetBundle[TwoFrameNet]:
    """As :func:`load_diffusion_policy`, for the two-frame baseline."""
    return _load(name_or_path, Kind.TWO_FRAME, TwoFrameNet, device)


def _load(
    name_or_path: str | Path, kind: Kind, make: Callable[[Any], Net], device: str | torch.device
) -> NetBundle[Net]:
    if is_checkpoint_file(name_or_path):
        raise WeightsError(f"{name_or_path} is a torch file; only UVA's are read, by uva.Policy: give a weights folder")
    about = describe(resolve(name_or_path), kind)
    model = about.filled("model", lambda: make(about.sizes))
    return NetBundle(model.to(pick_device(device)), about.normalizer, about.spec, about.name)
