"""Points of a frame, where the named parts of a scene are: read from the image, and drawn back into tokens."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PointReader(nn.Module):
    """A small MLP on the pooled image.

    The image is inverted first, so that a white background is zero. With the background at 1 the same network hardly
    learned in the time in which it otherwise came to a few pixels (docs/experiments.md).

    Args:
        image_size: side of the images, pixels.
        points: how many points.
        width: of the hidden layers.
        pool: side of the averaged squares, pixels.
    """

    def __init__(self, *, image_size: int, points: int, width: int = 512, pool: int = 4) -> None:
        super().__init__()
        self.pool = pool
        self.net = nn.Sequential(
            nn.Linear(3 * (image_size // pool) ** 2, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 2 * points),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> points (B, 2 * K) in [-1, 1]: x to the right and y down, interleaved."""
        return self.read_pooled(F.avg_pool2d(images, self.pool))

    def read_pooled(self, pooled: Tensor) -> Tensor:
        """The same from images that have been averaged already, (B, 3, H / pool, W / pool)."""
        return cast(Tensor, self.net((2.0 * (1.0 - pooled)).flatten(1)))


class PointWriter(nn.Module):
    """Frame tokens from points: a first sketch of a frame, for a video head to complete.

    Args:
        points: how many points.
        tokens, channels: of a frame.
        width: of the hidden layers.
    """

    def __init__(self, *, points: int, tokens: int, channels: int, width: int = 512) -> None:
        super().__init__()
        self.shape = (tokens, channels)
        # A token changes completely within a few pixels: plain coordinates would be learned as a blur.
        self.register_buffer("rates", math.pi * torch.tensor([1.0, 2.0, 4.0, 8.0]), persistent=False)
        self.net = nn.Sequential(
            nn.Linear(2 * points * 9, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, tokens * channels),
        )

    def forward(self, points: Tensor) -> Tensor:
        """(..., 2 * K) in [-1, 1] -> tokens (..., S, C)."""
        angles = (points[..., None] * self.get_buffer("rates")).flatten(-2)
        features = torch.cat([points, angles.sin(), angles.cos()], dim=-1)
        drawn: Tensor = self.net(features)
        return drawn.view(*points.shape[:-1], *self.shape)
