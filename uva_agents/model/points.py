"""Points read from latent maps (a spatial softmax with offsets), and given to the transformer as numbers."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class PointReader(nn.Module):
    """One 1x1 convolution: per point a softmax over the map's cells, and an offset in every cell.

    The reading is shared by all cells, so it carries over from places seen in training to places that were not.

    Args:
        channels: of the latent map.
        points: how many.
        size: side of the map, cells.
    """

    def __init__(self, channels: int, points: int, size: int) -> None:
        super().__init__()
        self.points = points
        self.net = nn.Conv2d(channels, 3 * points, 1)
        center = (torch.arange(size) + 0.5) / size * 2 - 1
        y, x = torch.meshgrid(center, center, indexing="ij")
        self.register_buffer("cells", torch.stack([x, y], dim=-1).view(1, 1, -1, 2), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """Latents (B, C, h, h) -> points (B, K, 2) in [-1, 1], x to the right and y down."""
        scores = self.net(z).reshape(len(z), self.points, 3, -1)
        share = scores[:, :, 0].softmax(-1)[..., None]
        place = self.get_buffer("cells") + scores[:, :, 1:].transpose(2, 3) / 2
        return cast(Tensor, (share * place).sum(2))
