"""KL-regularised image autoencoders with 16x spatial down-sampling (``kl-f16``).

Two members of one family behind one interface:

* ``"kl-f16"``: the LDM/MAR autoencoder that the released UVA weights use, carried by
  :class:`diffusers.AutoencoderKL` (128 channels, 66 M parameters), and
* ``"nano"``: a small one that trains on two CPU cores in half an hour (about 2 M parameters). It works on a 4x
  pixel-unshuffled image, so that no convolution runs at full resolution.

Images are floats in [-1, 1], channels first. Latents are ``z_channels`` maps at 1/16 of the image size, multiplied
by ``scale`` so that their standard deviation is about 1 (0.2325 for the released autoencoder).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uva_agents.model.defaults import in_float32

VAEKind = Literal["kl-f16", "nano"]


@dataclass(frozen=True)
class VAEConfig:
    """Shape of an autoencoder.

    Args:
        kind: ``"kl-f16"`` (diffusers, official shape) or ``"nano"``.
        channels: width of the first level; level widths follow from ``channel_mult``.
        channel_mult: width multipliers, highest resolution first (5 levels for kl-f16, 3 for nano).
        res_blocks: residual blocks per encoder level.
        z_channels: channels of the latent.
        scale: factor between the encoder's mean and the latent the transformer sees.
    """

    kind: VAEKind = "kl-f16"
    channels: int = 128
    channel_mult: tuple[float, ...] = (1, 1, 2, 2, 4)
    res_blocks: int = 2
    z_channels: int = 16
    scale: float = 0.2325


def nano_vae_config(*, scale: float = 1.0) -> VAEConfig:
    """The autoencoder of ``uva_nano``: 96x96 pixels to 6x6x16."""
    return VAEConfig("nano", channels=48, channel_mult=(1, 2, 3), res_blocks=1, z_channels=16, scale=scale)


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussian over latents, before scaling. ``mean`` and ``logvar``: (B, C, h, w)."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor | None = None) -> Tensor:
        """One reparameterised draw, (B, C, h, w)."""
        if noise is None:  # not randn_like: it would fill a channels-last tensor in another order
            noise = torch.randn(self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """KL divergence to the unit Gaussian, summed over a sample's elements: (B,)."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar).flatten(1).sum(1)


class ResBlock(nn.Module):
    """Two 3x3 convolutions with group normalisation; (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, channels: int, *, groups: int = 8) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        y = self.conv1(F.silu(self.norm1(x)))
        return x + cast(Tensor, self.conv2(F.silu(self.norm2(y))))


class NanoAutoencoder(nn.Module):
    """Small KL autoencoder: pixel-unshuffle by 4, two strided levels, and the mirror image of it."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [int(config.channels * m) for m in config.channel_mult]
        n = config.res_blocks
        encoder: list[nn.Module] = [nn.PixelUnshuffle(4), nn.Conv2d(48, widths[0], 3, padding=1)]
        for i, width in enumerate(widths):
            encoder += [ResBlock(width) for _ in range(n)]
            if i + 1 < len(widths):
                encoder.append(nn.Conv2d(width, widths[i + 1], 3, stride=2, padding=1))
        encoder += [nn.GroupNorm(8, widths[-1], eps=1e-6), nn.SiLU(), nn.Conv2d(widths[-1], 2 * config.z_channels, 1)]
        decoder: list[nn.Module] = [nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)]
        for i in reversed(range(len(widths))):
            decoder += [ResBlock(widths[i]) for _ in range(n + 1)]  # one more than the encoder, as in kl-f16
            if i > 0:
                decoder += [nn.Conv2d(widths[i], 4 * widths[i - 1], 1), nn.PixelShuffle(2)]
        decoder += [nn.GroupNorm(8, widths[0], eps=1e-6), nn.SiLU(), nn.Conv2d(widths[0], 48, 3, padding=1)]
        decoder.append(nn.PixelShuffle(4))
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(*decoder)


class VAE(nn.Module):
    """Image autoencoder; see the module docstring for conventions.

    Args:
        config: shape of the network.
    """

    @in_float32
    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.net: Any
        if config.kind == "nano":
            self.net = NanoAutoencoder(config)
        elif config.kind == "kl-f16":
            self.net = _diffusers_autoencoder(config)
        else:
            raise ValueError(f"unknown VAE kind {config.kind!r}: use 'kl-f16' or 'nano'")

    def posterior(self, images: Tensor) -> Posterior:
        """(B, 3, H, W) in [-1, 1] -> Gaussian over unscaled latents (B, C, H/16, W/16).

        Raises:
            ValueError: H or W is not a multiple of 16.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % 16 or images.shape[3] % 16:
            raise ValueError(f"images must be (B, 3, H, W) with H and W multiples of 16, got {tuple(images.shape)}")
        moments = self.net.encoder(images)
        if self.config.kind == "kl-f16":
            moments = self.net.quant_conv(moments)
        mean, logvar = moments.chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(-30.0, 20.0))

    def encode(self, images: Tensor, *, sample: bool = False, noise: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> scaled latents (B, C, H/16, W/16): the mean, or a draw from the posterior."""
        posterior = self.posterior(images)
        return (posterior.sample(noise) if sample or noise is not None else posterior.mean) * self.config.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) -> images (B, 3, 16h, 16w), not clamped."""
        z = latents / self.config.scale
        if self.config.kind == "kl-f16":
            z = self.net.post_quant_conv(z)
        return cast(Tensor, self.net.decoder(z))


def _diffusers_autoencoder(config: VAEConfig) -> nn.Module:
    import diffusers  # imported late: it costs a second, and nano does not need it

    autoencoder: Any = diffusers.AutoencoderKL

    levels = len(config.channel_mult)
    if levels != 5:
        raise ValueError(f"kl-f16 has 5 levels, channel_mult has {levels}")
    down = ("DownEncoderBlock2D",) * (levels - 1) + ("AttnDownEncoderBlock2D",)
    return cast(
        nn.Module,
        autoencoder(
            down_block_types=down,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(int(config.channels * m) for m in config.channel_mult),
            layers_per_block=config.res_blocks,
            latent_channels=config.z_channels,
        ),
    )
