"""Frames from keypoints: the current one's tokens, redrawn where keypoints have moved."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class KeypointRenderer(nn.Module):
    """Draws a future frame: the current one's tokens, changed for keypoints that are somewhere else. A video head completes it.

    Every token is drawn by the same network, from where the keypoints lie as seen from that token: what an edge looks like is
    learned once and not once per place.

    Args:
        keypoints: how many keypoints.
        grid: tokens along a side of a frame.
        channels: of a token.
        width: of the hidden layers.
        axes: see ``UVAConfig.keypoint_axes``.
    """

    def __init__(self, *, keypoints: int, grid: int, channels: int, width: int = 384, axes: str = "xy") -> None:
        super().__init__()
        # A token changes completely within a few pixels: plain coordinates would be learned as a blur.
        self.register_buffer("rates", math.pi * torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0]), persistent=False)
        centre = (2 * torch.arange(grid) + 1) / grid - 1
        across, down = centre.repeat(grid), centre.repeat_interleave(grid)  # tokens go row by row
        place = torch.stack([across, down] if axes == "xy" else [down, across], dim=-1)
        self.register_buffer("centres", place.repeat(1, keypoints), persistent=False)
        self.embed = nn.Linear(channels + 2 * 2 * keypoints * 11, width)
        self.place = nn.Parameter(torch.zeros(grid**2, width))  # the background differs from place to place
        self.net = nn.Sequential(
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, channels),
        )

    def forward(self, now: Tensor, keypoints: Tensor, moved: Tensor) -> Tensor:
        """Latent tokens (..., S, C) of a frame, its keypoints (..., 2K), where they move (..., 2K) -> latent tokens (..., S, C)."""
        inputs = torch.cat([now, self._seen(keypoints), self._seen(moved)], dim=-1)
        change: Tensor = self.net(self.embed(inputs) + self.place)
        return now + change

    def _seen(self, keypoints: Tensor) -> Tensor:
        """Keypoints (..., 2K) relative to every token's centre, with their sines and cosines: (..., S, 22K)."""
        relative = keypoints[..., None, :] - self.get_buffer("centres")
        angles = (relative[..., None] * self.get_buffer("rates")).flatten(-2)
        return torch.cat([relative, angles.sin(), angles.cos()], dim=-1)
