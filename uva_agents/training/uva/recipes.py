"""Recipes: everything that determines a training run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from uva_agents.data import BLOCK_PUSH_FIELDS, PUSHT_FIELDS, Field
from uva_agents.model import Task, UVAConfig, uva_base_config, uva_nano_config


@dataclass(frozen=True)
class StageConfig:
    """Optimisation of one stage.

    Args:
        steps: optimiser steps.
        batch_size: per process.
        lr: peak learning rate; linear warm-up, then cosine to ``lr * final_lr``.
        warmup: steps.
        weight_decay: on matrices only.
        betas: AdamW.
        clip: largest gradient norm.
        ema_power, ema_max: decay ``min(ema_max, 1 - (1 + step) ** -ema_power)``.
        validate_every: steps.
    """

    steps: int
    batch_size: int
    lr: float
    warmup: int = 200
    final_lr: float = 0.01
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    ema_power: float = 0.75
    ema_max: float = 0.999
    validate_every: int = 500


class DataLayout(Protocol):
    """What a recipe says about a dataset's low-dimensional arrays."""

    @property
    def proprio_key(self) -> str | None: ...

    @property
    def readout_keys(self) -> tuple[str, ...]: ...

    @property
    def limits(self) -> Mapping[str, tuple[Any, Any]]: ...


STAGES = ("vae", "points", "dynamics", "writer", "video", "joint")
"""In the order in which they run."""


Limits = Mapping[str, tuple[float | tuple[float, ...], float | tuple[float, ...]]]
"""(low, high) of an array's last axis, one number or one per dimension."""


@dataclass(frozen=True)
class Recipe:
    """A named training run: data layout, network, and the stages.

    Args:
        name: of the weights.
        model: network; ``vae.scale`` is measured after the VAE stage.
        fields: where the dataset keeps the canonical arrays.
        limits: (low, high) of each coordinate-valued key; keys not named are fitted to the data. Points and proprioception
            share theirs where the network has ``proprio_points``, and ±1 should be the picture's edges.
        env_id, control_hz, execute: see :class:`~uva_agents.checkpoints.InterfaceSpec`.
        unit, unit_scale: what validation reports distances in, and how many of them a unit of the coordinates is.
        world_size: side of the square world that an image spans, in coordinate units; for augmentation.
        variants: cached augmented variants of the dataset (see :mod:`uva_agents.data.augment`).
        max_shift, mirror: what the variants do.
        held_out: episodes kept from training.
        proprio_key, readout_keys: low-dimensional inputs and auxiliary targets.
        task_weights: share of each task in the joint stage.
        mask_minimum, mask_std: of the truncated normal that draws how much of a future frame is masked.
        history_dropout: share of samples whose history is the current frame repeated, as at the start of an episode.
        proprio_dropout: share of samples that get no proprioception.
        history_action_dropout: share of the actions before now that are hidden, where they are an input.
        varied_history: draw which past frames a step's history consists of, instead of evenly spaced ones.
        latent_noise: standard deviation of noise on the latents in training (their own is 1).
        action_weight, readout_weight: of the action loss and the auxiliary state loss.
        kl_weight: of the autoencoder.
        point_noise: standard deviation of noise on the frames' points in training, in units of half the world.
        agent_point_weight: how many times as much the points of proprioception count in the training of the point reader.
        gradient_checkpointing: recompute the transformer's activations in the backward pass instead of keeping them.
        vae, points, dynamics, writer, video, joint: stages.
        seed: of everything.
    """

    name: str
    model: UVAConfig
    vae: StageConfig
    points: StageConfig
    dynamics: StageConfig
    writer: StageConfig
    video: StageConfig
    joint: StageConfig
    fields: Mapping[str, Field] = field(default_factory=lambda: dict(PUSHT_FIELDS))
    limits: Limits = field(default_factory=dict)
    env_id: str = "uva/PushT-v0"
    control_hz: float = 10.0
    execute: int = 8
    unit: str = "px"
    unit_scale: float = 1.0
    world_size: float = 512.0
    variants: int = 8
    max_shift: int = 4
    mirror: bool = True
    held_out: int = 10
    proprio_key: str | None = "agent_pos"
    readout_keys: tuple[str, ...] = ()
    task_weights: Mapping[Task, float] = field(default_factory=dict)
    mask_minimum: float = 0.2
    mask_std: float = 0.5
    proprio_dropout: float = 0.1
    history_dropout: float = 0.0
    history_action_dropout: float = 0.5
    varied_history: bool = False
    latent_noise: float = 0.0
    action_weight: float = 1.0
    readout_weight: float = 2.0
    kl_weight: float = 0.01
    point_noise: float = 0.0
    agent_point_weight: float = 1.0
    gradient_checkpointing: bool = False
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and model cards."""
        values = dataclasses.asdict(self)
        values["fields"] = {k: f.key for k, f in self.fields.items()}
        values["task_weights"] = {task.value: weight for task, weight in self.task_weights.items()}
        return values


def pusht_nano() -> Recipe:
    """PushT from the 206 human demonstrations, on two CPU cores."""
    return Recipe(
        name="pusht-nano",
        model=uva_nano_config(
            action_dim=2,
            proprio_dim=2,
            readout_dim=20,
            frame_points=10,
            point_reader="conv",
            frame_sketch=True,
            proprio_points=1,
        ),
        limits={"action": (0.0, 512.0), "agent_pos": (0.0, 512.0), "keypoints": (0.0, 512.0)},
        readout_keys=("agent_pos", "keypoints"),
        history_dropout=0.3,
        latent_noise=0.1,
        action_weight=2.0,
        point_noise=0.006,
        agent_point_weight=9.0,
        task_weights={
            Task.POLICY: 0.35,
            Task.POLICY_VIDEO: 0.1,
            Task.FORWARD: 0.25,
            Task.INVERSE: 0.15,
            Task.VIDEO: 0.15,
        },
        vae=StageConfig(
            steps=1700, batch_size=64, lr=2e-3, warmup=170, weight_decay=0.0, betas=(0.9, 0.99), clip=200.0
        ),
        points=StageConfig(steps=6500, batch_size=128, lr=2e-3, warmup=100, weight_decay=0.02, validate_every=500),
        dynamics=StageConfig(steps=9000, batch_size=512, lr=2e-3, warmup=100, weight_decay=0.02, validate_every=1000),
        writer=StageConfig(steps=12_000, batch_size=256, lr=1e-3, warmup=100, weight_decay=0.02, validate_every=1000),
        video=StageConfig(steps=200, batch_size=128, lr=1e-3),
        joint=StageConfig(steps=11_000, batch_size=128, lr=1e-3, validate_every=1000),
    )


BLOCK_PUSH_PICTURE = (0.108, -0.47), (0.732, 0.33)
"""Where on the table the camera of uva/BlockPush-v0 looks, metres: x from the picture's top to its bottom, y from left to right."""


def block_push_nano() -> Recipe:
    """Block pushing in random order, on two CPU cores: as :func:`pusht_nano`, without augmentation, for which a thousand
    episodes leave no need."""
    pusht = pusht_nano()
    points: dict[str, Any] = dict(
        readout_dim=10, frame_points=5, point_reader="conv", point_axes="yx", point_dynamics="steps"
    )
    return dataclasses.replace(
        pusht,
        name="block-push-nano",
        model=dataclasses.replace(pusht.model, **points),
        fields=dict(BLOCK_PUSH_FIELDS),
        limits={
            "action": ((0.15, -0.5), (0.7, 0.5)),
            "agent_pos": BLOCK_PUSH_PICTURE,
            "keypoints": (4 * BLOCK_PUSH_PICTURE[0], 4 * BLOCK_PUSH_PICTURE[1]),
        },
        env_id="uva/BlockPush-v0",
        execute=6,
        unit="mm",
        unit_scale=1000.0,
        world_size=1.0,
        variants=1,
        max_shift=0,
        mirror=False,
        held_out=50,
        points=dataclasses.replace(pusht.points, steps=4000, batch_size=64, validate_every=1000),
        point_noise=0.012,
        agent_point_weight=1.0,
        # Sixteen steps of a network per window: fewer and smaller batches. Gradients of long contacts are large and rare.
        dynamics=dataclasses.replace(pusht.dynamics, steps=4000, batch_size=256, lr=1e-3, clip=0.05),
    )


def uva_base() -> Recipe:
    """The released recipe at the released size (``mar_base``) on PushT: two stages, for many GPUs.

    Give it the kl-f16 autoencoder and MAR's weights: ``--vae kl16.ckpt --init mar_base.pth``. Not the released one: tasks and mask
    ratios are drawn per sample, latents are posterior means that were computed once, and the shifts stand in for crops.
    """
    stage = StageConfig(
        steps=100_000,
        batch_size=32,
        lr=1e-4,
        warmup=1000,
        final_lr=0.0,
        weight_decay=0.02,
        clip=math.inf,
        ema_max=0.9999,
        validate_every=5000,
    )
    none = dataclasses.replace(stage, steps=0)
    return Recipe(
        name="uva-base",
        model=uva_base_config(action_dim=2),
        vae=none,
        points=none,
        dynamics=none,
        writer=none,
        video=stage,
        joint=stage,
        limits={"action": (0.0, 512.0)},
        variants=4,
        held_out=4,
        mirror=False,
        proprio_key=None,
        task_weights=dict.fromkeys(Task, 0.2),
        mask_minimum=0.7,
        mask_std=0.25,
        gradient_checkpointing=True,
    )


RECIPES = {"pusht-nano": pusht_nano, "block-push-nano": block_push_nano, "uva-base": uva_base}
