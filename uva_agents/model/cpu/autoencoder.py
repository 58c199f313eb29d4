"""The autoencoder of the released weights on a CPU: its residual blocks write into tensors that they own.

diffusers allocates five more per block: at 256 x 256 pixels, 32 MiB each for the system to clear. Whoever hooks into the network
sees inputs of blocks that were written over.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from uva_agents.model.cpu import winograd
from uva_agents.model.cpu.scratch import Scratch
from uva_agents.model.vae import VAE

_scratch = Scratch()


def install(vae: VAE, on: bool = True) -> None:
    """Have a kl-f16 autoencoder compute this way, channels-last, or (``on=False``) as it was built."""
    vae.to(memory_format=torch.channels_last if on else torch.contiguous_format)  # type: ignore[call-overload]
    for block in vae.modules():
        kind = type(block).__name__
        if kind == "Upsample2D":
            winograd.install(block, on)
        if kind in _QUICK:
            block.__dict__.pop("forward", None)
            if on:
                block.forward = partial(_QUICK[kind], block)


def _residual_block(block: Any, x: Tensor, temb: None = None) -> Tensor:
    """A diffusers ``ResnetBlock2D`` without time embedding, dropout and output scale, as autoencoders have it."""
    if not winograd.handles(block.conv1, x):
        y = block.conv1(F.silu(block.norm1(x), inplace=True))
        y = block.conv2(F.silu(block.norm2(y), inplace=True))
        return cast(Tensor, y.add_(x if block.conv_shortcut is None else block.conv_shortcut(x)))
    # Nothing in an autoencoder reads a block's input again, so the sum can go where it is.
    out = x if block.conv_shortcut is None else block.conv_shortcut(x)
    hidden = _scratch.take("hidden", 1, *x.shape[2:], block.conv1.out_channels).permute(0, 3, 1, 2)
    for image, to in zip(x.split(1), out.split(1), strict=True):
        winograd.convolve(block.conv1, image, norm=block.norm1, out=hidden)
        winograd.convolve(block.conv2, hidden, norm=block.norm2, out=to, add=True)
    return cast(Tensor, out)


def _downsample(block: Any, x: Tensor) -> Tensor:
    """A diffusers ``Downsample2D``: zeros after the last row and column, in memory that is kept, and a strided convolution."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.device.type != "cpu":
        return cast(Tensor, block.conv(F.pad(x, (0, 1, 0, 1))))
    _, channels, height, width = x.shape
    padded = _scratch.take("padded", 1, height + 1, width + 1, channels, dtype=x.dtype).permute(0, 3, 1, 2)
    padded[:, :, height:] = 0
    padded[:, :, :, width:] = 0
    parts = []
    for image in x.split(1):
        padded[:, :, :height, :width] = image
        parts.append(block.conv(padded))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


_QUICK = {"ResnetBlock2D": _residual_block, "Downsample2D": _downsample}
"""Blocks of diffusers, by name, and what they are replaced with."""
