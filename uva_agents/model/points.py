"""Points of a frame, where the named parts of a scene are: read from the image, moved by actions, drawn back into tokens.

Three small MLPs, each trained by itself in minutes. What they say is an input of the joint network, which does the rest.
"""

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
        self.net = _mlp(3 * (image_size // pool) ** 2, width, 2 * points)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> points (B, 2 * K) in [-1, 1]: x to the right and y down, interleaved."""
        return self.read_pooled(F.avg_pool2d(images, self.pool))

    def read_pooled(self, pooled: Tensor) -> Tensor:
        """The same from images that have been averaged already, (B, 3, H / pool, W / pool)."""
        return cast(Tensor, self.net((2.0 * (1.0 - pooled)).flatten(1)))


class PointDynamics(nn.Module):
    """Where the points will be, from where they were and what is done.

    Predicts displacements, so that what does not move costs nothing to predict.

    Args:
        points: how many points.
        frames: history frames, and future ones.
        steps, action_dim: of the action chunk.
        width: of the hidden layers.
    """

    def __init__(self, *, points: int, frames: int, steps: int, action_dim: int, width: int = 768) -> None:
        super().__init__()
        self.net = _mlp(2 * points * frames + steps * action_dim, width, 2 * points * frames)

    def forward(self, history: Tensor, actions: Tensor) -> Tensor:
        """Points (B, T, 2K) of the history frames and normalised actions (B, steps, A) -> points (B, T, 2K) of the future ones."""
        moved: Tensor = self.net(torch.cat([history.flatten(1), actions.flatten(1)], dim=1))
        # Displacements are a fraction of the world: the network's outputs are of the order of 1.
        return history[:, -1:] + 0.25 * moved.view_as(history)


class PointWriter(nn.Module):
    """Draws a future frame: the current one's tokens, changed for points that are somewhere else. A video head completes it.

    Every token is drawn by the same network, from where the points lie as seen from that token: what an edge looks like is
    learned once and not once per place.

    Args:
        points: how many points.
        grid: tokens along a side of a frame.
        channels: of a token.
        width: of the hidden layers.
    """

    def __init__(self, *, points: int, grid: int, channels: int, width: int = 384) -> None:
        super().__init__()
        # A token changes completely within a few pixels: plain coordinates would be learned as a blur.
        self.register_buffer("rates", math.pi * torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0]), persistent=False)
        centre = (2 * torch.arange(grid) + 1) / grid - 1
        xy = torch.stack([centre.repeat(grid), centre.repeat_interleave(grid)], dim=-1)  # tokens go row by row
        self.register_buffer("centres", xy.repeat(1, points), persistent=False)
        self.embed = nn.Linear(channels + 2 * 2 * points * 11, width)
        self.place = nn.Parameter(torch.zeros(grid**2, width))  # the background differs from place to place
        self.net = nn.Sequential(
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, channels),
        )

    def forward(self, now: Tensor, points: Tensor, moved: Tensor) -> Tensor:
        """Latent tokens (..., S, C) of a frame, its points (..., 2K), where they move (..., 2K) -> latent tokens (..., S, C)."""
        inputs = torch.cat([now, self._seen(points), self._seen(moved)], dim=-1)
        change: Tensor = self.net(self.embed(inputs) + self.place)
        return now + change

    def _seen(self, points: Tensor) -> Tensor:
        """Points (..., 2K) relative to every token's centre, with their sines and cosines: (..., S, 22K)."""
        relative = points[..., None, :] - self.get_buffer("centres")
        angles = (relative[..., None] * self.get_buffer("rates")).flatten(-2)
        return torch.cat([relative, angles.sin(), angles.cos()], dim=-1)


def _mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Linear(width, outputs),
    )
