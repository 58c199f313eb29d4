"""Latents made in the training step, as the released code makes them: frames are augmented, encoded, and drawn from the posterior.

Beside :mod:`uva_agents.data.latents`, which encodes a dataset once and keeps the posterior's means. That is many times faster; this
draws another picture of every window every time, which is what the released recipes train on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from uva_agents.data.clip_augmentation import ClipAugmentation, ClipDraws
from uva_agents.model import VAE, UVANet


@dataclass(frozen=True)
class ClipEncoder:
    """What turns the frames of a batch of windows into the network's tokens.

    Args:
        vae: frozen, on the device that trains.
        model: whose tokens they are.
        augmentation: of every window's frames.
    """

    vae: VAE
    model: UVANet
    augmentation: ClipAugmentation

    @torch.no_grad()
    def tokens(self, clips: Tensor, draws: ClipDraws, *, wrist: bool = False) -> tuple[Tensor, Tensor]:
        """Tokens of a camera's history and future, (B, T, S, C) each, drawn from the posterior with torch's generator.

        Args:
            clips: uint8 (B, 2 T, H, W, 3), history first.
            draws: of B windows; other cameras of the same windows get the same.
            wrist: whether it is the second camera.
        """
        images = self.augmentation.apply(clips, draws) * 2 - 1
        history, future = images.split(images.shape[1] // 2, dim=1)
        # The future first, as in the released code: the order decides which noise is whose.
        ahead = self._encoded(future, wrist=wrist)
        return self._encoded(history, wrist=wrist), ahead

    def _encoded(self, images: Tensor, *, wrist: bool) -> Tensor:
        """(B, T, 3, H, W) in [-1, 1] -> (B, T, S, C); brought to the network's size without antialiasing or rounding."""
        side = self.model.config.image_size
        flat = images.flatten(0, 1)
        if flat.shape[-2:] != (side, side):
            flat = F.interpolate(flat, (side, side), mode="bilinear", align_corners=False)
        latents = self.vae.encode(flat, sample=True)
        return self.model.to_tokens(latents.float(), wrist=wrist).view(*images.shape[:2], *self._shape)

    @property
    def _shape(self) -> tuple[int, int]:
        c = self.model.config
        return c.tokens_per_frame, c.token_dim
