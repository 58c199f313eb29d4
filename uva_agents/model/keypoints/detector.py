"""Keypoints of a frame: where the named parts of a scene are. Two small networks, each trained by itself in minutes."""

from __future__ import annotations

from typing import ClassVar, cast

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from uva_agents.model.keypoints.mlp import mlp
from uva_agents.model.vision.encoder import SpatialSoftmax
from uva_agents.model.vision.resnet import ResNet


class PooledDetector(nn.Module):
    """A small MLP on the pooled image.

    The image is inverted first, so that a white background is zero. With the background at 1 the same network hardly
    learned in the time in which it otherwise came to a few pixels (docs/experiments.md).

    Args:
        image_size: side of the images, pixels.
        keypoints: how many keypoints.
        width: of the hidden layers.
        pool: side of the averaged squares, pixels.
    """

    training_variants: ClassVar[int] = 10
    """Mirrored and shifted copies of the data that fit in memory as :meth:`reduce` keeps them."""

    def __init__(self, *, image_size: int, keypoints: int, width: int = 512, pool: int = 4) -> None:
        super().__init__()
        self.pool = pool
        self.net = mlp(3 * (image_size // pool) ** 2, width, 2 * keypoints)

    def reduce(self, frames: np.ndarray) -> np.ndarray:
        """What training keeps of frames uint8 (N, H, W, 3): their averages (N, H / pool, W / pool, 3)."""
        n, h, w, _ = frames.shape
        squares = frames.reshape(n, h // self.pool, self.pool, w // self.pool, self.pool, 3)
        reduced: np.ndarray = np.round(squares.mean((2, 4))).astype(np.uint8)
        return reduced

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> keypoints (B, 2 * K) in [-1, 1], interleaved; see ``UVAConfig.keypoint_axes``."""
        return self.read_reduced(F.avg_pool2d(images, self.pool))

    def read_reduced(self, pooled: Tensor) -> Tensor:
        """The same from images that have been averaged already, (B, 3, H / pool, W / pool)."""
        return cast(Tensor, self.net((2.0 * (1.0 - pooled)).flatten(1)))


class ConvDetector(nn.Module):
    """Convolutions and a spatial softmax: for things of a few pixels, which averaging would blur.

    Args:
        keypoints: how many keypoints.
        widths: of the convolutional levels.
        features: soft positions that the keypoints are computed from.
        width: of the hidden layers behind them.
    """

    training_variants: ClassVar[int] = 4

    def __init__(
        self,
        *,
        keypoints: int,
        widths: tuple[int, ...] = (32, 64, 96),
        features: int = 32,
        width: tuple[int, int] = (64, 128),
    ) -> None:
        super().__init__()
        self.trunk = ResNet(channels=3, widths=widths, blocks=(1,) * len(widths), stem=(7, 4), pool=False)
        self.keypoints = SpatialSoftmax(channels=widths[-1], keypoints=features)
        self.out = nn.Linear(2 * features, width[0])
        self.head = nn.Sequential(nn.Linear(width[0], width[1]), nn.GELU(), nn.Linear(width[1], 2 * keypoints))

    def reduce(self, frames: np.ndarray) -> np.ndarray:
        """What training keeps of frames uint8 (N, H, W, 3): everything."""
        return frames

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> keypoints (B, 2 * K) in [-1, 1]."""
        seen = self.keypoints(self.trunk(images)).flatten(1)
        return cast(Tensor, self.head(F.relu(self.out(seen))))

    read_reduced = forward
