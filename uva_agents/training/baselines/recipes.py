"""Recipes of the baselines: Diffusion Policy, and the two-frame inverse dynamics."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from uva_agents.data import BLOCK_PUSH_FIELDS, PUSHT_FIELDS
from uva_agents.model import (
    DiffusionPolicyConfig,
    TwoFrameConfig,
    dp_c_config,
    dp_c_nano_config,
    dp_c_positions_config,
    dp_t_config,
    two_frame_nano_config,
)
from uva_agents.training.baselines.position_augmentation import PositionAugmentation
from uva_agents.training.recipe import DataConfig, NetworkRecipe, StageConfig
from uva_agents.training.uva.recipes import BLOCK_PUSH_PICTURE


@dataclass(frozen=True, kw_only=True)
class DiffusionPolicyRecipe(NetworkRecipe):
    """How Diffusion Policy is trained.

    Args:
        mixture_prior: optimisation of the mixture prior alone, before the denoiser; ``None`` for none. See
            :mod:`~uva_agents.training.baselines.mixture_prior_stage`.
        draws: noise draws for every encoded observation. 1 is published; more are cheap where the encoder is what costs.
        crop_together: frames of a window are cropped at the same place, which keeps what moved between them.
        positions_key: of recorded positions of the objects that an encoder of ``points`` finds after the effector; training with
            ``--points`` then looks at them instead of frames. ``None``: at what the encoder finds in the frames.
        position_limits: (low, high) of the positions that a keypoint detector gives as -1 and 1, two numbers each, where they are
            not those of proprioception: its last layer is changed so that it speaks of the same units.
        whole_chunks: only windows all of whose actions were recorded. Published: the last action of an episode is repeated,
            which teaches to rest at its end; where a record only stops, there is no such end.
        augmentation: of the positions that an encoder of ``points`` gives.
        encoder_weight_decay: of the image encoder, where it differs from the stage's.
    """

    kind: ClassVar[str] = "diffusion-policy"

    model: DiffusionPolicyConfig
    mixture_prior: StageConfig | None = None
    draws: int = 1
    crop_together: bool = False
    positions_key: str | None = None
    position_limits: tuple[tuple[float, float], tuple[float, float]] | None = None
    whole_chunks: bool = False
    augmentation: PositionAugmentation | None = None
    encoder_weight_decay: float | None = None


@dataclass(frozen=True, kw_only=True)
class TwoFrameRecipe(NetworkRecipe):
    """How the two-frame inverse dynamics is trained. Both frames of a pair are cropped at the same place."""

    kind: ClassVar[str] = "two-frame-inverse"

    model: TwoFrameConfig


# Published: AdamW 1e-4, betas 0.95 and 0.999, decay 1e-6, 500 warm-up steps, cosine to 0, no clipping, decay of the average up
# to 0.9999. Steps are LeRobot's run of the same network (200k of 64), which scored as the authors' 3050 epochs did.
_DP_C = StageConfig(
    steps=200_000,
    batch_size=64,
    lr=1e-4,
    warmup=500,
    final_lr=0.0,
    weight_decay=1e-6,
    betas=(0.95, 0.999),
    clip=math.inf,
    ema_max=0.9999,
    validate_every=5000,
)
NANO = dataclasses.replace(_DP_C, steps=12_000, lr=5e-4, warmup=300, clip=5.0, ema_max=0.9995, validate_every=1000)
"""Of Diffusion Policy on two CPU cores."""
PAIRS = StageConfig(steps=2000, batch_size=128, lr=1e-3, warmup=200, weight_decay=0.01, validate_every=1000)
"""Of the two-frame network on two CPU cores."""


def _pusht(proprio_key: str | None = "agent_pos") -> DataConfig:
    return DataConfig(
        fields=dict(PUSHT_FIELDS),
        limits={"action": (0.0, 512.0), "agent_pos": (0.0, 512.0)},
        proprio_key=proprio_key,
        control_hz=10.0,
        env_id="uva/PushT-v0",
    )


def _block_push(proprio_key: str | None = "agent_pos", *, held_out: int = 50, execute: int = 8) -> DataConfig:
    # Metres; the box to which the simulation clips a commanded position.
    box = (0.15, -0.5), (0.7, 0.5)
    return DataConfig(
        fields=dict(BLOCK_PUSH_FIELDS),
        limits={"action": box, "agent_pos": box},
        proprio_key=proprio_key,
        held_out=held_out,
        control_hz=10.0,
        execute=execute,
        env_id="uva/BlockPush-v0",
    )


def dp_c() -> DiffusionPolicyRecipe:
    """DP-C at the published size on PushT; for a GPU."""
    return DiffusionPolicyRecipe(name="dp-c", model=dp_c_config(), data=_pusht(), stage=_DP_C)


def dp_t() -> DiffusionPolicyRecipe:
    """DP-T at the published size on PushT; for a GPU."""
    stage = dataclasses.replace(_DP_C, betas=(0.9, 0.95), warmup=1000, weight_decay=1e-3)
    return DiffusionPolicyRecipe(
        name="dp-t", model=dp_t_config(), data=_pusht(), stage=stage, encoder_weight_decay=1e-6
    )


def dp_c_nano() -> DiffusionPolicyRecipe:
    """DP-C on PushT for two CPU cores."""
    return DiffusionPolicyRecipe(
        name="dp-c-nano", model=dp_c_nano_config(), data=_pusht(), stage=NANO, draws=2, crop_together=True
    )


def dp_c_block_push() -> DiffusionPolicyRecipe:
    """DP-C on block pushing in random order, for two CPU cores: the source of proposals in the planning experiments."""
    return DiffusionPolicyRecipe(
        name="dp-c-block-push",
        model=dp_c_positions_config(),
        data=_block_push(held_out=500, execute=6),
        stage=dataclasses.replace(NANO, steps=3000, batch_size=256, lr=1e-3, validate_every=500),
        mixture_prior=dataclasses.replace(
            NANO, steps=10_000, batch_size=1024, lr=1e-3, final_lr=0.005, weight_decay=1e-4
        ),
        positions_key="keypoints",
        position_limits=BLOCK_PUSH_PICTURE,
        # Positions are read to about 5 mm, a step is at most 35 mm.
        augmentation=PositionAugmentation(noise=0.12),
        whole_chunks=True,
    )


def _pairs(name: str, data: DataConfig, **sizes: Any) -> TwoFrameRecipe:
    return TwoFrameRecipe(name=name, model=two_frame_nano_config(**sizes), data=data, stage=PAIRS)


def two_frame_pusht() -> TwoFrameRecipe:
    """UniPi's inverse dynamics on PushT, on the frames that UVA's networks see: every 4th."""
    return _pairs("two-frame-pusht", _pusht(None), stride=4)


def two_frame_pusht_dense() -> TwoFrameRecipe:
    """The same on every frame: four times as many pictures of the same motion as UVA's networks get."""
    return _pairs("two-frame-pusht-dense", _pusht(None), stride=1)


def two_frame_pusht_pooled() -> TwoFrameRecipe:
    """UniPi's own form, which averages over the image."""
    return _pairs("two-frame-pusht-pooled", _pusht(None), stride=4, pooled=True)


def two_frame_block_push() -> TwoFrameRecipe:
    """UniPi's inverse dynamics on block pushing, on every 4th frame."""
    return _pairs("two-frame-block-push", _block_push(None), stride=4)


def two_frame_block_push_dense() -> TwoFrameRecipe:
    """The same on every frame."""
    return _pairs("two-frame-block-push-dense", _block_push(None), stride=1)


def two_frame_block_push_pooled() -> TwoFrameRecipe:
    """UniPi's own form, which averages over the image."""
    return _pairs("two-frame-block-push-pooled", _block_push(None), stride=4, pooled=True)
