"""Camera frames to a few numbers: convolutional trunk, spatial softmax, linear layer (as in robomimic's image encoders)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uva_agents.model.vision.resnet import ResNet


@dataclass(frozen=True)
class EncoderConfig:
    """What determines an :class:`ImageEncoder`. The defaults are Diffusion Policy's for PushT.

    Args:
        image_size: side of a whole image, pixels.
        crop: side of the part that the network sees: at a random place in training, the centre afterwards.
        frames: images stacked along the channels.
        widths, blocks, stem, pool: see :class:`~uva_agents.model.vision.resnet.ResNet`.
        keypoints: of the spatial softmax; 0 for the average of the trunk's features over the image instead, which says what is
            there rather than where.
        features: numbers that come out, without ``positions``.
        positions: positions of so many objects come out instead, from two more layers, as in a
            :class:`~uva_agents.model.keypoints.detector.ConvDetector`, which an encoder can be taken from.
        full_coordinates: report keypoints in the coordinates of the whole image, whatever was cropped. The published encoder
            reports them relative to the crop, so that a random crop also moves the scene against the measured positions.
    """

    image_size: int = 96
    crop: int = 84
    frames: int = 1
    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    stem: tuple[int, int] = (7, 2)
    pool: bool = True
    keypoints: int = 32
    features: int = 64
    positions: int = 0
    full_coordinates: bool = False

    def __post_init__(self) -> None:
        # JSON has no tuples.
        for name in ("widths", "blocks", "stem"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.positions and not self.keypoints:
            raise ValueError("positions= are made from key points: keypoints must not be 0")
        if not 0 < self.crop <= self.image_size:
            raise ValueError(f"crop {self.crop} must be between 1 and image_size {self.image_size}")

    @property
    def outputs(self) -> int:
        """Numbers per image."""
        return 2 * self.positions or self.features


class SpatialSoftmax(nn.Module):
    """Where each of K learned features is strongest, on average; (B, C, h, w) -> (B, K, 2), x and y in [-1, 1]."""

    def __init__(self, *, channels: int, keypoints: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, keypoints, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, h, w) -> points (B, K, 2), x and y in [-1, 1]."""
        heat = self.conv(x)
        height, width = heat.shape[-2:]
        weight = heat.flatten(2).softmax(-1).unflatten(2, (height, width))
        across = torch.linspace(-1, 1, width, device=x.device, dtype=weight.dtype)
        down = torch.linspace(-1, 1, height, device=x.device, dtype=weight.dtype)
        return torch.stack([weight.sum(2) @ across, weight.sum(3) @ down], dim=-1)


class ImageEncoder(nn.Module):
    """uint8 frames -> features."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = ResNet(
            channels=3 * config.frames,
            widths=config.widths,
            blocks=config.blocks,
            stem=config.stem,
            pool=config.pool,
        )
        self.keypoints: nn.Module = nn.Identity()
        if config.keypoints:
            self.keypoints = SpatialSoftmax(channels=config.widths[-1], keypoints=config.keypoints)
        self.out = nn.Linear(2 * config.keypoints or config.widths[-1], config.features)
        if config.positions:
            hidden = 2 * config.features
            self.head = nn.Sequential(
                nn.Linear(config.features, hidden), nn.GELU(), nn.Linear(hidden, 2 * config.positions)
            )

    def forward(self, frames: Tensor, corner: Tensor | None = None) -> Tensor:
        """What the images show (B, outputs); see :meth:`locate`."""
        return self.describe(self.locate(frames, corner))

    def describe(self, found: Tensor) -> Tensor:
        """Features, or the positions of objects, (..., outputs) from keypoints (..., 2 * keypoints)."""
        features = F.relu(self.out(found))
        return cast(Tensor, self.head(features)) if self.config.positions else features

    def locate(self, frames: Tensor, corner: Tensor | None = None) -> Tensor:
        """Keypoints (B, 2 * keypoints), or averages (B, widths[-1]) without any.

        Args:
            frames: uint8 (B, H, W, 3 * frames), whole images (the centre is cut out) or crops of ``config.crop``.
            corner: (B, 2) x and y of the crops' upper left corners in the whole images, pixels; ``None`` for centre crops.
        """
        c = self.config
        if frames.shape[1:3] == (c.image_size, c.image_size):
            begin = (c.image_size - c.crop) // 2
            frames = frames[:, begin : begin + c.crop, begin : begin + c.crop]
        if frames.shape[1:] != (c.crop, c.crop, 3 * c.frames):
            wanted = f"(B, {c.image_size}, {c.image_size}, {3 * c.frames})"
            raise ValueError(f"frames must be {wanted}, or crops of {c.crop}, got {tuple(frames.shape)}")
        # A permuted view of channels-last memory stays in that layout, which convolutions like best.
        images = frames.permute(0, 3, 1, 2).to(self.out.weight.dtype).div_(127.5).sub_(1.0)
        if not c.keypoints:
            averages: Tensor = self.trunk(images).mean((2, 3))
            return averages
        found = self.keypoints(self.trunk(images))
        if c.full_coordinates:
            found = found * (c.crop / c.image_size)
            if corner is not None:
                found = found + ((2.0 * corner + c.crop) / c.image_size - 1.0)[:, None].to(found.dtype)
        located: Tensor = found.flatten(1)
        return located
