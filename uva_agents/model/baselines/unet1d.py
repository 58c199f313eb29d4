"""Conditional U-Net over time: the noise predictor of Diffusion Policy's convolutional variant (DP-C)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class StepEmbedding(nn.Module):
    """Sines and cosines of the diffusion step; (B,) -> (B, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 2 or dim < 4:
            raise ValueError(f"the step embedding's size must be even and at least 4, got {dim}")
        self.frequencies = dim // 2

    def forward(self, t: Tensor) -> Tensor:
        """(B,) -> (B, dim)."""
        rate = -math.log(10_000.0) / (self.frequencies - 1)
        frequency = torch.exp(torch.arange(self.frequencies, device=t.device, dtype=torch.float32) * rate)
        angle = t.float()[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class _Mish(torch.autograd.Function):
    """One exponential per direction. The kernels of torch take three times as long on a CPU."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        e = x.clamp(max=20.0).exp_()  # beyond 20 the factor is 1 in float32
        e = e.mul(e + 2.0)
        return e.div_(e + 2.0).mul_(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        e = x.clamp(max=20.0).exp_()
        slope = e.div(e + 1.0).mul_(x)
        e = e.mul_(e + 2.0)
        factor = e.div_(e + 2.0)
        return torch.addcmul(factor, slope, 1.0 - factor.square()).mul_(grads[0])


def mish(x: Tensor) -> Tensor:
    """x * tanh(softplus(x))."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return F.mish(x)
    return cast(Tensor, _Mish.apply(x))  # type: ignore[no-untyped-call]


class TimeConv(nn.Module):
    """Convolution over time that keeps the length; (B, T, channels) -> (B, T, width).

    Written as one matrix product over shifted copies: with so few time steps, up to 1.7 times as fast on a CPU as its convolution.
    """

    def __init__(self, *, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        self.kernel = kernel
        self.weight = nn.Linear(kernel * channels, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, channels) -> (B, T, width)."""
        length, margin = x.shape[1], self.kernel // 2
        padded = F.pad(x, (0, 0, margin, margin))
        shifted = torch.cat([padded[:, k : k + length] for k in range(self.kernel)], dim=-1)
        return cast(Tensor, self.weight(shifted))


class ConvBlock(nn.Module):
    """Convolution over time, group norm, Mish; (B, T, channels) -> (B, T, width)."""

    def __init__(self, *, channels: int, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.conv = TimeConv(channels=channels, width=width, kernel=kernel)
        self.norm = nn.GroupNorm(groups, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, channels) -> (B, T, width)."""
        return mish(self.norm(self.conv(x).transpose(1, 2)).transpose(1, 2).contiguous())


class FilmBlock(nn.Module):
    """Two :class:`ConvBlock` with a skip; between them every channel is scaled and shifted as the condition says (FiLM).

    The scale is a factor as it comes out, not an offset from 1.
    """

    def __init__(self, *, channels: int, width: int, condition: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.first = ConvBlock(channels=channels, width=width, kernel=kernel, groups=groups)
        self.second = ConvBlock(channels=width, width=width, kernel=kernel, groups=groups)
        self.film = nn.Linear(condition, 2 * width)
        self.skip: nn.Module = nn.Linear(channels, width) if channels != width else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, T, channels), (B, condition) after its Mish -> (B, T, width)."""
        scale, bias = self.film(condition)[:, None].chunk(2, dim=2)
        y = self.second(torch.addcmul(bias, scale, self.first(x)))
        return cast(Tensor, y + self.skip(x))


class ConditionalUNet1D(nn.Module):
    """Predicts the noise in a chunk of actions, given the diffusion step and what was observed.

    ::

        x (B, T, A) -> stage 1 -> half -> stage 2 -> half -> ... -> last stage -> middle
                                     |                                |           |
                   noise <- out <- twice <- stage <-- concatenate <---+-----------+

    The skip of the first stage is not used: there are as many upward stages as halvings (Chi et al. 2023, released code).

    Args:
        action_dim: A.
        condition: numbers that describe the observations.
        beside: further channels of x, which are not denoised.
        stages: channels per stage; T must be a multiple of 2 ** (len(stages) - 1).
        kernel: of the convolutions over time.
        groups: of the group norms.
        step_dim: size of the step embedding.
    """

    def __init__(
        self,
        *,
        action_dim: int,
        condition: int,
        stages: Sequence[int] = (512, 1024, 2048),
        kernel: int = 5,
        groups: int = 8,
        step_dim: int = 128,
        beside: int = 0,
    ) -> None:
        super().__init__()
        if len(stages) < 2:
            raise ValueError(f"a U-Net needs at least two stages, got {tuple(stages)}")
        if any(width % groups for width in stages):
            raise ValueError(f"every stage's channels must be a multiple of groups {groups}, got {tuple(stages)}")

        def block(channels: int, width: int) -> FilmBlock:
            return FilmBlock(
                channels=channels, width=width, condition=step_dim + condition, kernel=kernel, groups=groups
            )

        self.factor = 2 ** (len(stages) - 1)
        self.step = nn.Sequential(
            StepEmbedding(step_dim), nn.Linear(step_dim, 4 * step_dim), nn.Mish(), nn.Linear(4 * step_dim, step_dim)
        )
        before = [action_dim + beside, *stages[:-1]]
        self.down = nn.ModuleList(
            nn.ModuleList([block(channels, width), block(width, width)])
            for channels, width in zip(before, stages, strict=True)
        )
        self.halvings = nn.ModuleList(nn.Conv1d(width, width, 3, 2, 1) for width in stages[:-1])
        self.middle = nn.ModuleList([block(stages[-1], stages[-1]), block(stages[-1], stages[-1])])
        pairs = list(zip(stages[:0:-1], stages[-2::-1], strict=True))
        self.up = nn.ModuleList(
            nn.ModuleList([block(2 * width, narrower), block(narrower, narrower)]) for width, narrower in pairs
        )
        self.doublings = nn.ModuleList(nn.ConvTranspose1d(narrower, narrower, 4, 2, 1) for _, narrower in pairs)
        self.last = ConvBlock(channels=stages[0], width=stages[0], kernel=kernel, groups=groups)
        self.out = nn.Linear(stages[0], action_dim)

    def forward(self, x: Tensor, t: Tensor, observed: Tensor) -> Tensor:
        """Noise (B, T, A).

        Args:
            x: (B, T, A + beside) noisy actions, and what stands beside them.
            t: (B,) diffusion step.
            observed: (B, To, F) observation features, oldest first.
        """
        if x.shape[1] % self.factor:
            raise ValueError(
                f"{x.shape[1]} actions cannot be halved {len(self.halvings)} times: use a multiple of {self.factor}"
            )
        # Every block passes the condition through the same Mish first: once is enough.
        condition = mish(torch.cat([self.step(t).to(observed.dtype), observed.flatten(1)], dim=-1))
        y = x
        skips = []
        for i, blocks in enumerate(self.down):
            for block in cast(nn.ModuleList, blocks):
                y = block(y, condition)
            skips.append(y)
            if i < len(self.halvings):
                y = self.halvings[i](y.transpose(1, 2)).transpose(1, 2)
        for block in self.middle:
            y = block(y, condition)
        for blocks, double in zip(self.up, self.doublings, strict=True):
            y = torch.cat([y, skips.pop()], dim=2)
            for block in cast(nn.ModuleList, blocks):
                y = block(y, condition)
            y = double(y.transpose(1, 2)).transpose(1, 2)
        return cast(Tensor, self.out(self.last(y)))
