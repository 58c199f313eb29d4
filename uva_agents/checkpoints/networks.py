"""Weights that are one network: Diffusion Policy and the two-frame baseline. The same folder layout as UVA's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from uva_agents.checkpoints.folder import Kind, pick_device, read_config, read_tensors, resolve, write_folder
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.model import DiffusionPolicyConfig, DiffusionPolicyNet, TwoFrameConfig, TwoFrameNet

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
        ValueError: damaged or foreign files; weights of another kind, with the class that takes them.
    """
    folder = _folder(name_or_path)
    config = read_config(folder, Kind.DIFFUSION_POLICY)
    return _fill(folder, config, DiffusionPolicyNet(DiffusionPolicyConfig.from_dict(config["model"])), device)


def load_two_frame(name_or_path: str | Path, *, device: str | torch.device = "auto") -> NetBundle[TwoFrameNet]:
    """As :func:`load_diffusion_policy`, for the two-frame baseline."""
    folder = _folder(name_or_path)
    config = read_config(folder, Kind.TWO_FRAME)
    return _fill(folder, config, TwoFrameNet(TwoFrameConfig.from_dict(config["model"])), device)


def _folder(name_or_path: str | Path) -> Path:
    if str(name_or_path).endswith((".ckpt", ".pt", ".pth")):
        raise ValueError(f"{name_or_path} is a torch file; only UVA's are read, by uva.Policy: give a weights folder")
    return resolve(name_or_path)


def _fill(folder: Path, config: Mapping[str, Any], model: Net, device: str | torch.device) -> NetBundle[Net]:
    read_tensors(folder / "model.safetensors", model)
    return NetBundle(
        model.eval().requires_grad_(False).to(pick_device(device)),
        LinearNormalizer.from_dict(config["normalizer"]),
        InterfaceSpec.from_dict(config["interface"]),
        str(config.get("name", folder.name)),
    )
