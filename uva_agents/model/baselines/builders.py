"""Named sizes of Diffusion Policy and of the two-frame baseline."""

from __future__ import annotations

from typing import Any

from uva_agents.model.baselines.net import (
    DiffusionPolicyConfig,
    DiffusionPolicyNet,
    TransformerConfig,
    UNetConfig,
)
from uva_agents.model.baselines.two_frame import TwoFrameConfig, TwoFrameNet
from uva_agents.model.vision.encoder import EncoderConfig

_SMALL: dict[str, Any] = dict(widths=(32, 64, 96), blocks=(1, 1, 1), stem=(7, 4), pool=False)
"""A trunk that two CPU cores train: an early stride of 4 leaves most of the work out, and 21x21 cells are enough to point with."""


def dp_c_config(**overrides: Any) -> DiffusionPolicyConfig:
    """DP-C at the published size for PushT's images: U-Net 512/1024/2048 behind a ResNet-18, 262.7 M parameters."""
    return DiffusionPolicyConfig(**overrides)


def dp_t_config(**overrides: Any) -> DiffusionPolicyConfig:
    """DP-T at the published size: 8 layers, 256 wide, behind the same encoder, 20.2 M parameters."""
    return DiffusionPolicyConfig(**({"denoiser": TransformerConfig()} | overrides))


def dp_c_nano_config(**overrides: Any) -> DiffusionPolicyConfig:
    """DP-C for two CPU cores: U-Net 64/128/256 behind a small residual encoder."""
    values: dict[str, Any] = dict(
        encoder=EncoderConfig(**_SMALL, full_coordinates=True), denoiser=UNetConfig(stages=(64, 128, 256))
    )
    return DiffusionPolicyConfig(**(values | overrides))


def dp_c_positions_config(**overrides: Any) -> DiffusionPolicyConfig:
    """DP-C that sees where five things are, for two CPU cores: U-Net 32/64/128 on steps from where the effector is now.

    Made for block pushing, where a centimetre decides, on uva/BlockPush-v0's scale: steps of at most 35 mm.
    """
    values: dict[str, Any] = dict(
        encoder=EncoderConfig(**_SMALL, full_coordinates=True, positions=5),
        denoiser=UNetConfig(stages=(32, 64, 128)),
        obs_steps=1,
        relations=512,
        modes=8,
        max_step=(0.1273, 0.07),
    )
    return DiffusionPolicyConfig(**(values | overrides))


def two_frame_nano_config(*, pooled: bool = False, **overrides: Any) -> TwoFrameConfig:
    """Two-frame inverse dynamics for two CPU cores. A smaller margin is cropped: an arm at the image's edge must stay in it.

    ``pooled`` averages over the image as UniPi's does, instead of finding keypoints.
    """
    keypoints = 0 if pooled else 32
    encoder = EncoderConfig(**_SMALL, frames=2, crop=88, features=256, full_coordinates=True, keypoints=keypoints)
    return TwoFrameConfig(**({"encoder": encoder} | overrides))


def dp_c(**overrides: Any) -> DiffusionPolicyNet:
    """Untrained :func:`dp_c_config` network."""
    return DiffusionPolicyNet(dp_c_config(**overrides))


def dp_t(**overrides: Any) -> DiffusionPolicyNet:
    """Untrained :func:`dp_t_config` network."""
    return DiffusionPolicyNet(dp_t_config(**overrides))


def dp_c_nano(**overrides: Any) -> DiffusionPolicyNet:
    """Untrained :func:`dp_c_nano_config` network."""
    return DiffusionPolicyNet(dp_c_nano_config(**overrides))


def two_frame_nano(**overrides: Any) -> TwoFrameNet:
    """Untrained :func:`two_frame_nano_config` network."""
    return TwoFrameNet(two_frame_nano_config(**overrides))
