"""Pictures between the two forms they have here: uint8 (..., H, W, 3), and float (..., 3, H, W) in [-1, 1] for networks."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Resize = Literal["antialiased", "bilinear"]
"""How frames are brought to a network's size. ``"antialiased"``: bilinear with antialiasing, rounded to uint8, in training and by
agents alike. ``"bilinear"``: without antialiasing or rounding, as the released code does it: for weights that were trained so."""


def to_images(frames: np.ndarray | Tensor, device: torch.device | str | None = None) -> Tensor:
    """uint8 (..., H, W, 3) -> float32 (..., 3, H, W) in [-1, 1], on the device."""
    if isinstance(frames, np.ndarray):
        frames = np.ascontiguousarray(frames)
        # torch warns of arrays that are read-only, though nothing is written here.
        frames = torch.from_numpy(frames if frames.flags.writeable else frames.copy())
    return frames.to(device).movedim(-1, -3).float().div(127.5).sub(1.0)


def to_frames(images: Tensor) -> np.ndarray:
    """Inverse of :func:`to_images`, clamped and rounded."""
    # The clamped copy is written over: a batch of frames is tens of megabytes.
    frames = images.detach().float().clamp(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8)
    return np.ascontiguousarray(frames.movedim(-3, -1).cpu().numpy())


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """float (N, 3, H, W) -> (N, 3, *size), bilinear with antialiasing; as they are when they fit already."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def resize_frames(frames: np.ndarray, side: int, *, batch_size: int = 512) -> np.ndarray:
    """uint8 (N, H, W, 3) -> uint8 (N, side, side, 3), bilinear with antialiasing; as they are when they fit already."""
    if frames.shape[1:3] == (side, side):
        return frames
    out = np.empty((len(frames), side, side, 3), np.uint8)
    for begin in range(0, len(frames), batch_size):
        images = torch.from_numpy(np.ascontiguousarray(frames[begin : begin + batch_size])).permute(0, 3, 1, 2).float()
        images = resize_images(images, (side, side))
        out[begin : begin + batch_size] = images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return out


def network_images(
    frames: np.ndarray, side: int, *, resize: Resize = "antialiased", device: torch.device | str | None = None
) -> Tensor:
    """uint8 (N, H, W, 3) -> (N, 3, side, side) in [-1, 1], on the device: what a network is shown, in training and by agents."""
    if resize == "antialiased":
        return to_images(resize_frames(frames, side), device)
    images = to_images(frames, device)
    if images.shape[-2:] != (side, side):
        images = F.interpolate(images, (side, side), mode="bilinear", align_corners=False)
    return images
