"""Latents made in the training step, as the released code makes them: frames are augmented, encoded, and drawn from the posterior.

Beside :mod:`uva_agents.data.latents`, which encodes a dataset once and keeps the posterior's means. That is many times faster; this
draws another picture of every window every time, which is what the released recipes train on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from uva_agents.data.clip_augmentation import ClipAugmentation, ClipDraws
from uva_agents.data.dataset import Batch
from uva_agents.model import VAE, Context, UVANet


@dataclass(frozen=True)
class Clips:
    """Frames of a batch of B windows, and what is to happen to them.

    Attributes:
        frames, wrist_frames: uint8 (B, 2 T, H, W, 3), history first.
        draws: of the augmentation.
    """

    frames: Tensor
    wrist_frames: Tensor | None
    draws: ClipDraws

    @classmethod
    def of(cls, batch: Batch, draws: ClipDraws) -> Clips:
        """Of a batch of :class:`~uva_agents.data.clip_windows.ClipWindows`."""
        assert batch.frames is not None
        return cls(batch.frames, batch.wrist_frames, draws)

    def to(self, device: torch.device | str) -> Clips:
        """The frames on a device; the draws steer what runs there."""
        wrist = None if self.wrist_frames is None else self.wrist_frames.to(device, non_blocking=True)
        return replace(self, frames=self.frames.to(device, non_blocking=True), wrist_frames=wrist)


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

    def filled(self, context: Context, clips: Clips) -> Context:
        """The context with the tokens of the frames, of those cameras that the network sees."""
        history, future = self.tokens(clips.frames, clips.draws)
        context = replace(context, history=history, future=future)
        if not self.model.config.wrist_image or clips.wrist_frames is None:
            return context
        history, future = self.tokens(clips.wrist_frames, clips.draws, wrist=True)
        return replace(context, wrist_history=history, wrist_future=future)

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
