"""Recipes of UVA's network: autoencoder, keypoints, and the two stages of the network itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

from uva_agents.data import BLOCK_PUSH_FIELDS, PUSHT_FIELDS
from uva_agents.errors import InputError
from uva_agents.model import Task, UVAConfig, uva_base_config, uva_nano_config
from uva_agents.training.recipe import Changes, DataConfig, Recipe, StageConfig
from uva_agents.training.uva.joint_training import JointTraining
from uva_agents.training.uva.named_recipes import NAMED, named

STAGES = {
    "vae": ("autoencoder", "stage"),
    "points": ("keypoints", "detector"),
    "dynamics": ("keypoints", "dynamics"),
    "writer": ("keypoints", "renderer"),
    "video": ("network", "video"),
    "joint": ("network", "joint"),
}
"""Folder of a stage in a run -> where the recipe has its optimisation; in the order in which they run."""


@dataclass(frozen=True)
class World:
    """The plane that positions and actions are coordinates of.

    Args:
        size: side of the square that an image spans, in coordinate units; for augmentation.
        unit, unit_scale: what validation reports distances in, and how many of them a unit of the coordinates is.
    """

    size: float
    unit: str
    unit_scale: float = 1.0


@dataclass(frozen=True)
class Augmentation:
    """Variants of the dataset that are encoded once (see :mod:`uva_agents.data.augment`).

    Args:
        variants: how many, the data itself among them.
        max_shift, mirror: what they do.
    """

    variants: int = 8
    max_shift: int = 4
    mirror: bool = True


@dataclass(frozen=True)
class AutoencoderTraining:
    """Training of the autoencoder.

    Args:
        stage: optimisation.
        kl_weight: of the divergence from the standard normal distribution.
        focus: how much more a pixel counts that is as far off as the mean one, up to twenty times that: small things in large
            pictures are a few pixels that are far off, which a mean hardly sees.
        action_weight: of the mean squared error of actions that a small network reads off the latents meanwhile, see
            :mod:`uva_agents.training.uva.action_regressor`. A picture's summed squared error is some hundred at the end.
    """

    stage: StageConfig
    kl_weight: float = 0.01
    focus: float = 0.0
    action_weight: float = 0.0


@dataclass(frozen=True)
class KeypointTraining:
    """Training of the keypoint networks, for networks that have them.

    Args:
        detector, dynamics, renderer: optimisation.
        noise: standard deviation of noise on the keypoints in training, in units of half the world.
        agent_weight: how many times as much the points of proprioception count in the training of the detector.
    """

    detector: StageConfig
    dynamics: StageConfig
    renderer: StageConfig
    noise: float = 0.0
    agent_weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class UVARecipe(Recipe):
    """How UVA's network is trained.

    Args:
        model: network; ``vae.scale`` is measured after the autoencoder's stage.
        world: what the coordinates mean, for tasks in a plane; ``None`` for robots in general: augmentation then moves pictures
            alone, and errors are reported in shares of a number's range. Points and proprioception share their limits where the
            network has ``proprio_keypoints``, and ±1 should be the picture's edges.
        autoencoder: ``None`` where a trained one is needed, as for the released sizes.
        keypoints: ``None`` for networks without.
    """

    kind: ClassVar[str] = "uva"

    model: UVAConfig
    network: JointTraining
    world: World | None = None
    augmentation: Augmentation = Augmentation()
    autoencoder: AutoencoderTraining | None = None
    keypoints: KeypointTraining | None = None

    def __post_init__(self) -> None:
        if self.model.num_keypoints and self.world is None:
            raise InputError(f"recipe {self.name!r} has keypoints, which are places in a plane: give its world")
        if self.network.clips is not None:
            self._check_clips()

    def _check_clips(self) -> None:
        wrong = [
            ("model.num_keypoints", self.model.num_keypoints),
            ("model.standardize", self.model.standardize),
            ("network.history_dropout", self.network.history_dropout),
            ("augmentation.variants above 1", self.augmentation.variants > 1),
        ]
        if found := [name for name, value in wrong if value]:
            raise InputError(f"recipe {self.name!r} encodes frames in the training step (clips): not with {found[0]}")

    @property
    def video_model(self) -> UVAConfig:
        """The network that the video stage trains."""
        if not self.network.own_video_network:
            return self.model
        alone: dict[str, Any] = dict(predict_actions=False, predict_proprio_dim=0, proprio_dim=0)
        alone |= dict(wrist_image=False, wrist_maskable=False, predict_wrist=False)
        return dataclasses.replace(self.model, **alone)

    @property
    def plane(self) -> World:
        """The world of a recipe with keypoints."""
        assert self.world is not None
        return self.world

    @property
    def world_size(self) -> float | None:
        """Of :class:`World`, where there is one."""
        return self.world.size if self.world is not None else None

    @property
    def keypoint_noise(self) -> float:
        """Of :class:`KeypointTraining`, 0 without keypoints."""
        return self.keypoints.noise if self.keypoints is not None else 0.0

    def stage(self, name: str) -> StageConfig | None:
        """Optimisation of one of :data:`STAGES`; ``None`` where the recipe has no such stage."""
        part, attribute = STAGES[name]
        found: StageConfig | None = getattr(getattr(self, part), attribute, None)
        return found

    def with_stage(self, name: str, config: StageConfig) -> Self:
        """Another optimisation for one of the recipe's stages."""
        part, attribute = STAGES[name]
        changed = dataclasses.replace(getattr(self, part), **{attribute: config})
        return dataclasses.replace(self, **{part: changed})

    def changed(self, changes: Changes) -> Self:
        """With the command line's changes."""
        if changes.steps is not None:
            raise InputError(f"recipe {self.name!r} has several stages: use --{list(STAGES)[-1]}-steps and its like")
        recipe = super().changed(changes)
        for name, steps in changes.stage_steps.items():
            stage = recipe.stage(name)
            if stage is None:
                raise InputError(f"recipe {self.name!r} has no stage {name!r}: --{name}-steps does not apply")
            recipe = recipe.with_stage(name, stage.shortened(steps))
        for name in ("video", "joint"):
            stage = recipe.stage(name)
            assert stage is not None
            batch_size, lr = changes.batch_size or stage.batch_size, changes.lr or stage.lr
            recipe = recipe.with_stage(name, dataclasses.replace(stage, batch_size=batch_size, lr=lr))
        if changes.variants is not None:
            augmentation = dataclasses.replace(recipe.augmentation, variants=changes.variants)
            recipe = dataclasses.replace(recipe, augmentation=augmentation)
        return recipe


NANO_AUTOENCODER = StageConfig(
    steps=1700, batch_size=64, lr=2e-3, warmup=170, weight_decay=0.0, betas=(0.9, 0.99), clip=200.0
)
"""Of the autoencoder on two CPU cores."""
NANO_NETWORK = JointTraining(
    video=StageConfig(steps=200, batch_size=128, lr=1e-3),
    joint=StageConfig(steps=11_000, batch_size=128, lr=1e-3, validate_every=1000),
    task_weights={
        Task.POLICY: 0.35,
        Task.POLICY_VIDEO: 0.1,
        Task.FORWARD: 0.25,
        Task.INVERSE: 0.15,
        Task.VIDEO: 0.15,
    },
    history_dropout=0.3,
    latent_noise=0.1,
    action_weight=2.0,
)
"""Of the network on two CPU cores."""
_GPU_STAGE = StageConfig(
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
GPU_NETWORK = JointTraining(
    video=_GPU_STAGE,
    joint=_GPU_STAGE,
    task_weights=dict.fromkeys(Task, 0.2),
    mask_minimum=0.7,
    mask_std=0.25,
    gradient_checkpointing=True,
)
"""Of larger networks on GPUs, on latents that are computed once."""


def pusht_nano() -> UVARecipe:
    """PushT from the 206 human demonstrations, on two CPU cores."""
    detector = StageConfig(steps=6500, batch_size=128, lr=2e-3, warmup=100, weight_decay=0.02, validate_every=500)
    return UVARecipe(
        name="pusht-nano",
        model=uva_nano_config(
            action_dim=2,
            proprio_dim=2,
            frame_state_dim=20,
            num_keypoints=10,
            keypoint_detector="conv",
            rendered_prior=True,
            proprio_keypoints=1,
        ),
        data=DataConfig(
            fields=dict(PUSHT_FIELDS),
            limits={"action": (0.0, 512.0), "agent_pos": (0.0, 512.0), "keypoints": (0.0, 512.0)},
            proprio_key="agent_pos",
            frame_state_keys=("agent_pos", "keypoints"),
            control_hz=10.0,
            env_id="uva/PushT-v0",
        ),
        world=World(size=512.0, unit="px"),
        autoencoder=AutoencoderTraining(NANO_AUTOENCODER),
        keypoints=KeypointTraining(
            detector=detector,
            dynamics=dataclasses.replace(detector, steps=9000, batch_size=512, validate_every=1000),
            renderer=dataclasses.replace(detector, steps=12_000, batch_size=256, lr=1e-3, validate_every=1000),
            noise=0.006,
            agent_weight=9.0,
        ),
        network=NANO_NETWORK,
    )


BLOCK_PUSH_PICTURE = (0.108, -0.47), (0.732, 0.33)
"""Where on the table the camera of uva/BlockPush-v0 looks, metres: x from the picture's top to its bottom, y from left to right."""


def block_push_nano() -> UVARecipe:
    """Block pushing in random order, on two CPU cores.

    As :func:`pusht_nano`, without augmentation, for which a thousand episodes leave no need.
    """
    pusht = pusht_nano()
    assert pusht.keypoints is not None
    model = dataclasses.replace(
        pusht.model,
        frame_state_dim=10,
        num_keypoints=5,
        keypoint_detector="conv",
        keypoint_axes="yx",
        keypoint_dynamics="steps",
    )
    keypoints = dataclasses.replace(
        pusht.keypoints,
        detector=dataclasses.replace(pusht.keypoints.detector, steps=4000, batch_size=64, validate_every=1000),
        # Sixteen steps of a network per window: fewer and smaller batches. Gradients of long contacts are large and rare.
        dynamics=dataclasses.replace(pusht.keypoints.dynamics, steps=4000, batch_size=256, lr=1e-3, clip=0.05),
        noise=0.012,
        agent_weight=1.0,
    )
    data = dataclasses.replace(
        pusht.data,
        fields=dict(BLOCK_PUSH_FIELDS),
        limits={
            "action": ((0.15, -0.5), (0.7, 0.5)),
            "agent_pos": BLOCK_PUSH_PICTURE,
            "keypoints": (4 * BLOCK_PUSH_PICTURE[0], 4 * BLOCK_PUSH_PICTURE[1]),
        },
        env_id="uva/BlockPush-v0",
        execute=6,
        held_out=50,
    )
    return dataclasses.replace(
        pusht,
        name="block-push-nano",
        model=model,
        data=data,
        world=World(size=1.0, unit="mm", unit_scale=1000.0),
        augmentation=Augmentation(variants=1, max_shift=0, mirror=False),
        keypoints=keypoints,
    )


def uva_base() -> UVARecipe:
    """The released size (``mar_base``) on PushT: two stages, for many GPUs. ``uva-pusht`` is the released recipe.

    Give it the kl-f16 autoencoder and MAR's weights: ``--vae kl16.ckpt --init mar_base.pth``. What differs from the released one:
    tasks and mask ratios are drawn per sample, latents are posterior means that were computed once, and shifts stand in for crops.
    """
    return UVARecipe(
        name="uva-base",
        model=uva_base_config(action_dim=2),
        data=DataConfig(
            fields=dict(PUSHT_FIELDS),
            limits={"action": (0.0, 512.0)},
            control_hz=10.0,
            held_out=4,
            env_id="uva/PushT-v0",
        ),
        world=World(size=512.0, unit="px"),
        augmentation=Augmentation(variants=4, mirror=False),
        network=GPU_NETWORK,
    )


RECIPES: dict[str, Callable[[], UVARecipe]] = {
    "pusht-nano": pusht_nano,
    "block-push-nano": block_push_nano,
    "uva-base": uva_base,
    **{name: partial(named, name) for name in NAMED},
}
