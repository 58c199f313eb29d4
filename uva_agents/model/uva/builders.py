"""Named sizes. Widths and depths of the released family follow MAR; ``uva_nano`` trains and runs on two CPU cores."""

from __future__ import annotations

from typing import Any

from uva_agents.model.uva.config import HeadConfig, UVAConfig
from uva_agents.model.uva.net import UVANet
from uva_agents.model.vae import nano_vae_config


def uva_nano_config(*, action_dim: int = 2, vae_scale: float = 1.0, **overrides: Any) -> UVAConfig:
    """96x96 pixels, 9 tokens per frame, width 160, 2 + 2 blocks: about 4 M parameters (8 M with keypoints and a rendered prior)."""
    values: dict[str, Any] = dict(
        vae=nano_vae_config(scale=vae_scale),
        image_size=96,
        patch_size=2,
        width=160,
        encoder_depth=2,
        decoder_depth=2,
        heads=5,
        mlp_ratio=3.0,
        attention_dropout=0.0,
        dropout=0.0,  # drawing the masks costs a seventh of a step on a CPU; the aggregator's dropout is nearly free
        aggregator_dropout=0.1,
        action_dim=action_dim,
        video_head=HeadConfig(width=192, depth=3, prediction="flow", share=0.5),
        action_head=HeadConfig(width=320, depth=3, prediction="flow", clip=1.1, draws=4),
        aggregator="flatten",
        proprio_steps=4,
        proprio_maskable=True,
        standardize=True,
    )
    return UVAConfig(**(values | overrides))


def _released(width: int, depth: int, heads: int, overrides: dict[str, Any]) -> UVAConfig:
    encoder, decoder = (depth + 1) // 2, depth // 2
    return UVAConfig(
        **({"width": width, "encoder_depth": encoder, "decoder_depth": decoder, "heads": heads} | overrides)
    )


def uva_tiny_config(**overrides: Any) -> UVAConfig:
    """``mar_tiny``: 768 wide, 3 + 3 blocks, 6 heads."""
    return _released(768, 6, 6, overrides)


def uva_small_config(**overrides: Any) -> UVAConfig:
    """``mar_small``: 768 wide, 6 + 6 blocks, 6 heads."""
    return _released(768, 12, 6, overrides)


def uva_base_config(**overrides: Any) -> UVAConfig:
    """``mar_base``, the released size: 768 wide, 12 + 12 blocks, 12 heads, 261 M parameters."""
    return _released(768, 24, 12, overrides)


def uva_large_config(**overrides: Any) -> UVAConfig:
    """``mar_large``: 1024 wide, 16 + 16 blocks, 16 heads."""
    return _released(1024, 32, 16, overrides)


def uva_huge_config(**overrides: Any) -> UVAConfig:
    """``mar_huge``: 1280 wide, 20 + 20 blocks, 16 heads."""
    return _released(1280, 40, 16, overrides)


CONFIGS = {
    "nano": uva_nano_config,
    "tiny": uva_tiny_config,
    "small": uva_small_config,
    "base": uva_base_config,
    "large": uva_large_config,
    "huge": uva_huge_config,
}


def uva_nano(**overrides: Any) -> UVANet:
    """Untrained :func:`uva_nano_config` network."""
    return UVANet(uva_nano_config(**overrides))


def uva_tiny(**overrides: Any) -> UVANet:
    """Untrained :func:`uva_tiny_config` network."""
    return UVANet(uva_tiny_config(**overrides))


def uva_small(**overrides: Any) -> UVANet:
    """Untrained :func:`uva_small_config` network."""
    return UVANet(uva_small_config(**overrides))


def uva_base(**overrides: Any) -> UVANet:
    """Untrained :func:`uva_base_config` network (= ``mar_base``)."""
    return UVANet(uva_base_config(**overrides))


def uva_large(**overrides: Any) -> UVANet:
    """Untrained :func:`uva_large_config` network."""
    return UVANet(uva_large_config(**overrides))


def uva_huge(**overrides: Any) -> UVANet:
    """Untrained :func:`uva_huge_config` network."""
    return UVANet(uva_huge_config(**overrides))
