"""Points of a frame, where the named parts of a scene are: read from the image, moved by actions, drawn back into tokens.

Three small MLPs, each trained by itself in minutes. What they say is an input of the joint network, which does the rest.
"""

from __future__ import annotations

import math
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uva_agents.model.vision.encoder import SpatialSoftmax
from uva_agents.model.vision.resnet import ResNet


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

    training_variants: ClassVar[int] = 10
    """Mirrored and shifted copies of the data that fit in memory as :meth:`reduce` keeps them."""

    def __init__(self, *, image_size: int, points: int, width: int = 512, pool: int = 4) -> None:
        super().__init__()
        self.pool = pool
        self.net = _mlp(3 * (image_size // pool) ** 2, width, 2 * points)

    def reduce(self, frames: np.ndarray) -> np.ndarray:
        """What training keeps of frames uint8 (N, H, W, 3): their averages (N, H / pool, W / pool, 3)."""
        n, h, w, _ = frames.shape
        squares = frames.reshape(n, h // self.pool, self.pool, w // self.pool, self.pool, 3)
        reduced: np.ndarray = np.round(squares.mean((2, 4))).astype(np.uint8)
        return reduced

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> points (B, 2 * K) in [-1, 1], interleaved; see ``UVAConfig.point_axes``."""
        return self.read_reduced(F.avg_pool2d(images, self.pool))

    def read_reduced(self, pooled: Tensor) -> Tensor:
        """The same from images that have been averaged already, (B, 3, H / pool, W / pool)."""
        return cast(Tensor, self.net((2.0 * (1.0 - pooled)).flatten(1)))


class ConvPointReader(nn.Module):
    """Convolutions and a spatial softmax: for things of a few pixels, which averaging would blur.

    Args:
        points: how many points.
        widths: of the convolutional levels.
        features: soft positions that the points are computed from.
        width: of the hidden layers behind them.
    """

    training_variants: ClassVar[int] = 4

    def __init__(
        self,
        *,
        points: int,
        widths: tuple[int, ...] = (32, 64, 96),
        features: int = 32,
        width: tuple[int, int] = (64, 128),
    ) -> None:
        super().__init__()
        self.trunk = ResNet(channels=3, widths=widths, blocks=(1,) * len(widths), stem=(7, 4), pool=False)
        self.keypoints = SpatialSoftmax(channels=widths[-1], keypoints=features)
        self.out = nn.Linear(2 * features, width[0])
        self.head = nn.Sequential(nn.Linear(width[0], width[1]), nn.GELU(), nn.Linear(width[1], 2 * points))

    def reduce(self, frames: np.ndarray) -> np.ndarray:
        """What training keeps of frames uint8 (N, H, W, 3): everything."""
        return frames

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> points (B, 2 * K) in [-1, 1]."""
        seen = self.keypoints(self.trunk(images)).flatten(1)
        return cast(Tensor, self.head(F.relu(self.out(seen))))

    read_reduced = forward


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
        axes: see ``UVAConfig.point_axes``.
    """

    def __init__(self, *, points: int, grid: int, channels: int, width: int = 384, axes: str = "xy") -> None:
        super().__init__()
        # A token changes completely within a few pixels: plain coordinates would be learned as a blur.
        self.register_buffer("rates", math.pi * torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0]), persistent=False)
        centre = (2 * torch.arange(grid) + 1) / grid - 1
        across, down = centre.repeat(grid), centre.repeat_interleave(grid)  # tokens go row by row
        place = torch.stack([across, down] if axes == "xy" else [down, across], dim=-1)
        self.register_buffer("centres", place.repeat(1, points), persistent=False)
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
