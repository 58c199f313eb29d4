"""Recipes of single networks that look at pixels: Diffusion Policy, and the two-frame inverse dynamics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from uva_agents.data import BLOCK_PUSH_FIELDS, PUSHT_FIELDS, Field
from uva_agents.model import (
    DiffusionPolicyConfig,
    TwoFrameConfig,
    dp_c_config,
    dp_c_nano_config,
    dp_c_points_config,
    dp_t_config,
    two_frame_nano_config,
)
from uva_agents.training.baselines.point_augmentation import PointAugmentation
from uva_agents.training.uva.recipes import BLOCK_PUSH_PICTURE, Limits, StageConfig

PUSHT_LIMITS: Limits = {"action": (0.0, 512.0), "agent_pos": (0.0, 512.0)}
BLOCK_PUSH_LIMITS: Limits = {"action": ((0.15, -0.5), (0.7, 0.5)), "agent_pos": ((0.15, -0.5), (0.7, 0.5))}
"""Metres; the box to which the simulation clips a commanded position."""


@dataclass(frozen=True)
class NetworkRecipe:
    """What a named run of one network consists of.

    Args:
        name: of the weights.
        model: the network; its kind says what is trained.
        stage: optimisation.
        guesses: optimisation of the guesses alone, before that; ``None`` for none. See
            :mod:`~uva_agents.training.baselines.mixture_prior_stage`.
        fields: where the dataset keeps ``pixels``, ``action`` and ``agent_pos``.
        limits: (low, high) of a key, one number or one per dimension; keys not named are fitted to the data.
        env_id: environment that the weights act in.
        proprio_key: low-dimensional input; ``None`` for a network without.
        held_out: episodes kept from training, the same ones that UVA's recipes keep.
        draws: noise draws for every encoded observation (Diffusion Policy). 1 is published; more are cheap where the encoder
            is what costs.
        crop_together: frames of a window are cropped at the same place, which keeps what moved between them.
        positions_key: of recorded positions of the things that an encoder of ``points`` finds after the effector; training with
            ``--points`` then looks at them instead of frames. ``None``: at what the encoder finds in the frames.
        points_limits: (low, high) of the positions that a point reader gives as -1 and 1, two numbers each, where they are not
            those of proprioception: its last layer is changed so that it speaks of the same units.
        whole_chunks: only windows all of whose actions were recorded (Diffusion Policy). Published: the last action of an
            episode is repeated, which teaches to rest at its end; where a record only stops, there is no such end.
        point_augmentation: of the positions that an encoder of ``points`` gives.
        encoder_weight_decay: of the image encoder, where it differs from the stage's.
        control_hz, execute: see :class:`~uva_agents.checkpoints.InterfaceSpec`.
        seed: of everything.
    """

    name: str
    model: DiffusionPolicyConfig | TwoFrameConfig
    stage: StageConfig
    guesses: StageConfig | None = None
    fields: Mapping[str, Field] = field(default_factory=lambda: dict(PUSHT_FIELDS))
    limits: Limits = field(default_factory=lambda: dict(PUSHT_LIMITS))
    env_id: str = "uva/PushT-v0"
    proprio_key: str | None = "agent_pos"
    held_out: int = 10
    draws: int = 1
    crop_together: bool = False
    positions_key: str | None = None
    points_limits: tuple[tuple[float, float], tuple[float, float]] | None = None
    whole_chunks: bool = False
    point_augmentation: PointAugmentation | None = None
    encoder_weight_decay: float | None = None
    control_hz: float = 10.0
    execute: int = 8
    seed: int = 0

    @property
    def readout_keys(self) -> tuple[str, ...]:
        """None: these networks have no auxiliary state head."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and model cards."""
        values = dataclasses.asdict(self)
        values["model"] = self.model.to_dict()
        values["fields"] = {k: f"{f.key}{'' if f.columns is None else f.columns}" for k, f in self.fields.items()}
        return values


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
_NANO = dataclasses.replace(_DP_C, steps=12_000, lr=5e-4, warmup=300, clip=5.0, ema_max=0.9995, validate_every=1000)
_PAIRS = StageConfig(steps=2000, batch_size=128, lr=1e-3, warmup=200, weight_decay=0.01, validate_every=1000)


def _pairs(stride: int, *, pooled: bool = False) -> dict[str, Any]:
    return dict(
        model=two_frame_nano_config(stride=stride, pooled=pooled), stage=_PAIRS, proprio_key=None, crop_together=True
    )


def _block_push() -> dict[str, Any]:
    return dict(fields=dict(BLOCK_PUSH_FIELDS), limits=dict(BLOCK_PUSH_LIMITS), env_id="uva/BlockPush-v0", held_out=50)


def dp_c() -> NetworkRecipe:
    """DP-C at the published size on PushT; for a GPU."""
    return NetworkRecipe(name="dp-c", model=dp_c_config(), stage=_DP_C)


def dp_t() -> NetworkRecipe:
    """DP-T at the published size on PushT; for a GPU."""
    stage = dataclasses.replace(_DP_C, betas=(0.9, 0.95), warmup=1000, weight_decay=1e-3)
    return NetworkRecipe(name="dp-t", model=dp_t_config(), stage=stage, encoder_weight_decay=1e-6)


def dp_c_nano() -> NetworkRecipe:
    """DP-C on PushT for two CPU cores."""
    return NetworkRecipe(name="dp-c-nano", model=dp_c_nano_config(), stage=_NANO, draws=2, crop_together=True)


def dp_c_block_push() -> NetworkRecipe:
    """DP-C on block pushing in random order, for two CPU cores: the source of proposals in the planning experiments."""
    # Positions are read to about 5 mm, a step is at most 35 mm.
    augmentation = PointAugmentation(noise=0.12)
    return NetworkRecipe(
        name="dp-c-block-push",
        model=dp_c_points_config(),
        stage=dataclasses.replace(_NANO, steps=3000, batch_size=256, lr=1e-3, validate_every=500),
        guesses=dataclasses.replace(_NANO, steps=10_000, batch_size=1024, lr=1e-3, final_lr=0.005, weight_decay=1e-4),
        positions_key="keypoints",
        points_limits=BLOCK_PUSH_PICTURE,
        point_augmentation=augmentation,
        execute=6,
        whole_chunks=True,
        **(_block_push() | dict(held_out=500)),
    )


def two_frame_pusht() -> NetworkRecipe:
    """UniPi's inverse dynamics on PushT, on the frames that UVA's networks see: every 4th."""
    return NetworkRecipe(name="two-frame-pusht", **_pairs(4))


def two_frame_pusht_dense() -> NetworkRecipe:
    """The same on every frame: four times as many pictures of the same motion as UVA's networks get."""
    return NetworkRecipe(name="two-frame-pusht-dense", **_pairs(1))


def two_frame_pusht_pooled() -> NetworkRecipe:
    """UniPi's own form, which averages over the image."""
    return NetworkRecipe(name="two-frame-pusht-pooled", **_pairs(4, pooled=True))


def two_frame_block_push() -> NetworkRecipe:
    """UniPi's inverse dynamics on block pushing, on every 4th frame."""
    return NetworkRecipe(name="two-frame-block-push", **_pairs(4), **_block_push())


def two_frame_block_push_dense() -> NetworkRecipe:
    """The same on every frame."""
    return NetworkRecipe(name="two-frame-block-push-dense", **_pairs(1), **_block_push())


def two_frame_block_push_pooled() -> NetworkRecipe:
    """UniPi's own form, which averages over the image."""
    return NetworkRecipe(name="two-frame-block-push-pooled", **_pairs(4, pooled=True), **_block_push())


NETWORK_RECIPES: dict[str, Callable[[], NetworkRecipe]] = {
    "dp-c": dp_c,
    "dp-t": dp_t,
    "dp-c-nano": dp_c_nano,
    "dp-c-block-push": dp_c_block_push,
    "two-frame-pusht": two_frame_pusht,
    "two-frame-pusht-dense": two_frame_pusht_dense,
    "two-frame-pusht-pooled": two_frame_pusht_pooled,
    "two-frame-block-push": two_frame_block_push,
    "two-frame-block-push-dense": two_frame_block_push_dense,
    "two-frame-block-push-pooled": two_frame_block_push_pooled,
}
