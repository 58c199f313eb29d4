"""A residual convolutional trunk with group norm: ResNet-18 for the published policies, narrower ones for two CPU cores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


def group_norm(channels: int, per_group: int = 16) -> nn.GroupNorm:
    """Group norm with ``per_group`` channels in a group: an averaged copy of the weights needs no statistics of its own."""
    if channels % per_group:
        raise ValueError(f"{channels} channels are not a multiple of {per_group}, the channels in a group")
    return nn.GroupNorm(channels // per_group, channels)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip; (B, channels, H, W) -> (B, width, H / stride, W / stride)."""

    def __init__(self, *, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm1 = group_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = group_norm(width)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.skip = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), group_norm(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, width, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x), inplace=True)


class ResNet(nn.Module):
    """Stem and stages of :class:`BasicBlock`, without pooling and classifier (He et al. 2016).

    With the defaults this is ResNet-18 up to its last feature map, 11,176,512 parameters.

    Args:
        channels: of the input.
        widths: of the stages; every stage but the first halves the map.
        blocks: per stage.
        stem: kernel and stride of the first convolution.
        pool: halve the map once more after the stem.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512),
        blocks: Sequence[int] = (2, 2, 2, 2),
        stem: tuple[int, int] = (7, 2),
        pool: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks) or not widths:
            raise ValueError(f"widths {tuple(widths)} and blocks {tuple(blocks)} must have one entry per stage")
        kernel, stride = stem
        self.stem = nn.Conv2d(channels, widths[0], kernel, stride, (kernel - 1) // 2, bias=False)
        self.norm = group_norm(widths[0])
        self.pool: nn.Module = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()
        stages = []
        before = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(count):
                step = 2 if stage > 0 and block == 0 else 1
                stages.append(BasicBlock(channels=before, width=width, stride=step))
                before = width
        self.blocks = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, channels, H, W) -> feature map (B, widths[-1], h, w)."""
        x = self.pool(F.relu(self.norm(self.stem(x)), inplace=True))
        return cast(Tensor, self.blocks(x))
