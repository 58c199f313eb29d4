"""One set of weights behind all three agents: preprocessing and encoding that they share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from uva_agents.checkpoints.store import Bundle, load_bundle
from uva_agents.data.latents import weights_fingerprint

if TYPE_CHECKING:
    from uva_agents.agents.inverse_model import InverseModel
    from uva_agents.agents.policy import Policy
    from uva_agents.agents.world_model import WorldModel


@dataclass(frozen=True)
class FrameCode:
    """What the network sees of frames: tokens (..., S, C) and, where it uses them, points (..., 2K)."""

    tokens: Tensor
    points: Tensor | None

    def __getitem__(self, index: int) -> FrameCode:
        return FrameCode(self.tokens[index], None if self.points is None else self.points[index])


class UVA:
    """Unified Video Action model: ``.policy()``, ``.world_model()`` and ``.inverse_model()`` share these weights.

    Args:
        bundle: network, autoencoder, normaliser and interface.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, device: str | torch.device = "auto") -> Self:
        """A shipped name or a weights folder.

        Raises:
            FileNotFoundError: unknown name; the message lists close matches.
            ValueError: damaged or foreign files.
        """
        return cls(load_bundle(name_or_path, device=device))

    def policy(self) -> Policy:
        """Observations to actions."""
        from uva_agents.agents.policy import Policy

        return Policy(self)

    def world_model(self) -> WorldModel:
        """Observations and actions to future frames."""
        from uva_agents.agents.world_model import WorldModel

        return WorldModel(self)

    def inverse_model(self) -> InverseModel:
        """Frames to actions."""
        from uva_agents.agents.inverse_model import InverseModel

        return InverseModel(self)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all tensors."""
        return weights_fingerprint(self.bundle.model) + weights_fingerprint(self.bundle.vae)

    @property
    def device(self) -> torch.device:
        return self.bundle.device

    @property
    def history_offsets(self) -> np.ndarray:
        """(T,) control steps of the history frames relative to now, ending in 0."""
        c = self.bundle.model.config
        return np.arange(1 - c.n_frames, 1) * c.frame_stride

    @torch.no_grad()
    def encode(self, frames: np.ndarray) -> FrameCode:
        """uint8 (N, H, W, 3) -> tokens (N, S, C) and points (N, 2K), on the device."""
        images = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)
        images = images.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)
        side = self.bundle.model.config.image_size
        if images.shape[-2:] != (side, side):
            images = torch.nn.functional.interpolate(images, (side, side), mode="bilinear", align_corners=False)
        model = self.bundle.model
        tokens = model.to_tokens(self.bundle.vae.encode(images))
        return FrameCode(tokens, model.point_reader(images) if model.config.frame_points else None)

    @torch.no_grad()
    def decode(self, tokens: Tensor, *, batch_size: int = 64) -> np.ndarray:
        """Tokens (..., S, C) -> uint8 frames (..., H, W, 3) at the environment's image size."""
        lead = tokens.shape[:-2]
        maps = self.bundle.model.to_latents(tokens.flatten(0, -3))
        height, width = self.bundle.spec.image_shape
        parts = []
        for begin in range(0, len(maps), batch_size):
            chunk = maps[begin : begin + batch_size]
            images = self.bundle.vae.decode(chunk).clamp(-1, 1)
            if images.shape[-2:] != (height, width):
                images = torch.nn.functional.interpolate(
                    images, (height, width), mode="bilinear", align_corners=False, antialias=True
                )
            parts.append(images.add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu())
        return torch.cat(parts).numpy().reshape(*lead, height, width, 3)

    def normalize_actions(self, actions: np.ndarray | Tensor) -> Tensor:
        """Environment units -> network units, on the device."""
        value = torch.as_tensor(np.asarray(actions) if not isinstance(actions, Tensor) else actions)
        return self.bundle.normalizer.normalize("action", value.to(self.device, torch.float32))

    def environment_actions(self, normalized: Tensor) -> np.ndarray:
        """Network units (..., A) -> environment units, clipped to the action space, float32."""
        actions = self.bundle.normalizer.unnormalize("action", normalized).float().cpu().numpy()
        space = self.bundle.spec.action_space
        return np.clip(np.nan_to_num(actions), space.low, space.high).astype(np.float32)

    def normalize_proprio(self, proprio: np.ndarray) -> Tensor:
        """Environment units (..., P) -> network units, on the device."""
        key = self.bundle.spec.proprio_key
        assert key is not None
        return self.bundle.normalizer.normalize(key, torch.from_numpy(proprio).to(self.device))
