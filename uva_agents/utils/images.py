"""Frames at the size that a network takes."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F


def resize_frames(frames: np.ndarray, side: int, *, batch_size: int = 512) -> np.ndarray:
    """uint8 (N, H, W, 3) -> uint8 (N, side, side, 3), bilinear with antialiasing; as they are when they fit already.

    Training resizes a dataset once and agents every frame, through this same function.
    """
    if frames.shape[1:3] == (side, side):
        return frames
    out = np.empty((len(frames), side, side, 3), np.uint8)
    for begin in range(0, len(frames), batch_size):
        images = torch.from_numpy(np.ascontiguousarray(frames[begin : begin + batch_size])).permute(0, 3, 1, 2).float()
        images = F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)
        out[begin : begin + batch_size] = images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return out
