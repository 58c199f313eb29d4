"""Recipes: everything that determines a training run, as nested frozen dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Literal, Self

from uva_agents.data import Field
from uva_agents.data.transforms import Transform
from uva_agents.errors import InputError

Precision = Literal["auto", "fp16", "bf16", "no"]
Instructions = Literal["none", "table", "clip", "given"]
Limits = Mapping[str, tuple[float | tuple[float, ...], float | tuple[float, ...]]]
"""(low, high) of an array's last axis, one number or one per dimension."""


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
        ema_delay: steps by which that decay begins later; until then the average is the weights themselves.
        decay_embeddings: decay positions and mask tokens as well, which are matrices of one row.
        epochs: passes over the training windows, instead of ``steps``.
        validate_epochs: passes between validations, instead of ``validate_every``.
        shared_warmup: ``warmup`` counts the batches of all processes, as accelerate's scheduler does: 1000 are 125 steps of 8.
        precision: what GPUs compute in, ``"auto"`` being bf16 where they are fast at it; CPUs compute in float32.
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
    ema_delay: int = 0
    decay_embeddings: bool = False
    epochs: int | None = None
    validate_epochs: int | None = None
    shared_warmup: bool = False
    precision: Precision = "auto"

    def resolved(self, *, windows: int, processes: int) -> StageConfig:
        """In optimiser steps alone, for data of so many training windows.

        Raises:
            InputError: the windows do not fill a batch.
        """
        epoch = windows // (self.batch_size * processes)
        if (self.epochs or self.validate_epochs) and not epoch:
            raise InputError(
                f"{windows} training windows do not fill one batch of {self.batch_size} x {processes}: lower batch_size"
            )
        return dataclasses.replace(
            self,
            steps=self.steps if self.epochs is None else self.epochs * epoch,
            validate_every=self.validate_every if self.validate_epochs is None else self.validate_epochs * epoch,
            warmup=-(-self.warmup // processes) if self.shared_warmup else self.warmup,
            epochs=None,
            validate_epochs=None,
            shared_warmup=False,
        )

    @property
    def will_run(self) -> bool:
        """Whether there are steps to take."""
        return bool(self.steps or self.epochs)

    def shortened(self, steps: int) -> StageConfig:
        """For so many steps, validated at least once."""
        every = min(self.validate_every, max(1, steps)) if self.validate_epochs is None else max(1, steps)
        return dataclasses.replace(self, steps=steps, validate_every=every, epochs=None, validate_epochs=None)

    def signature(self) -> dict[str, Any]:
        """What checkpoints know a stage's optimisation by: settings that came later count where they change something."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if not self._unchanged(f)}

    def _unchanged(self, f: dataclasses.Field[Any]) -> bool:
        return f.name in _LATER and getattr(self, f.name) == f.default


_LATER = {"ema_delay", "decay_embeddings", "epochs", "validate_epochs", "shared_warmup", "precision"}
"""Settings of a stage that the first versions did not have."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What a recipe says about its data: the layout of a robot's recordings.

    Args:
        fields: canonical name -> where the dataset keeps it: ``pixels``, ``action``, and what the other entries name;
            what ``wrist_key`` names where a second camera is an input.
        limits: (low, high) of an array, one number or one per dimension; arrays not named are fitted to the data.
        proprio_key: low-dimensional input; ``None`` for a network without.
        frame_state_keys: arrays that the auxiliary state consists of, in this order.
        held_out: episodes kept from training; a share of each dataset's where it is below 1, drawn as the released code draws it.
        control_hz, execute, env_id: see :class:`~uva_agents.checkpoints.InterfaceSpec`.
        wrist_key: canonical name of the second camera, on the wrist as a rule.
        cameras: see :class:`~uva_agents.checkpoints.InterfaceSpec`.
        names, units: canonical name -> what each of its numbers is called, and in which unit it is; empty where nobody said.
        action_transforms, proprio_transforms: from the recorded numbers to those the network learns, one after the other.
        instructions: where vectors of the recorded instructions come from: ``"none"`` (they are no input), ``"table"`` (each has
            its own, saved with the weights), ``"clip"`` (CLIP's text tower) or ``"given"`` (an array of the data,
            ``task_embedding`` in ``fields``).
        normalize: limits of several datasets together, or of each by itself where their units differ; weights keep those of the
            first one with actions.
        action_offset, rows_per_step: see :class:`~uva_agents.data.WindowSpec`.
        trim: rows at an episode's beginning and end that are no window's 'now'.
        pose_delay: rows from an action's own to the one that says where the robot was when it was given, for conventions that
            refer to that; ``action_offset`` by default.
        start_key: array with the pose at the episode's start, for recordings that say it in every row; it is what the first row of
            ``proprio_key`` says otherwise.
        unscaled: canonical name -> columns that the network learns as they are, counted after the transforms.
        instructions_of: name of a dataset (of its file or folder, without what follows a dot) -> the instruction of its
            episodes, for recordings that do not say it.
        blacked_out: name of a dataset -> what is blacked out in its pictures, one of
            :data:`~uva_agents.data.picture_masks.PICTURE_MASKS`.
    """

    fields: Mapping[str, Field]
    control_hz: float
    limits: Limits = field(default_factory=dict)
    proprio_key: str | None = None
    frame_state_keys: tuple[str, ...] = ()
    held_out: int | float = 10
    execute: int = 8
    env_id: str | None = None
    wrist_key: str = "pixels_wrist"
    cameras: tuple[str, ...] = ()
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    units: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    action_transforms: tuple[Transform, ...] = ()
    proprio_transforms: tuple[Transform, ...] = ()
    instructions: Instructions = "none"
    normalize: Literal["together", "each"] = "together"
    action_offset: int = 0
    rows_per_step: int = 1
    trim: tuple[int, int] = (0, 0)
    pose_delay: int | None = None
    start_key: str | None = None
    unscaled: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    instructions_of: Mapping[str, str] = field(default_factory=dict)
    blacked_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def delay(self) -> int:
        """``pose_delay``, or what it is by default."""
        return self.action_offset if self.pose_delay is None else self.pose_delay

    @property
    def has_wrist(self) -> bool:
        """Whether there is a second camera."""
        return self.wrist_key in self.fields

    @property
    def arrays(self) -> tuple[str, ...]:
        """Canonical arrays that are trained on."""
        names = ["pixels", *([self.wrist_key] if self.has_wrist else []), "action"]
        names += [key for key in (self.proprio_key, self.start_key) if key]
        names += [*self.frame_state_keys, *(["task_embedding"] if self.instructions == "given" else [])]
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class Changes:
    """What ``uva train`` changes of a recipe; ``None`` leaves it as it is.

    Args:
        steps: of the only stage.
        stage_steps: of stages by name.
        batch_size, lr: of the stages that train the network itself.
        variants: augmented variants of the data.
        seed: of everything.
    """

    steps: int | None = None
    stage_steps: Mapping[str, int] = field(default_factory=dict)
    batch_size: int | None = None
    lr: float | None = None
    variants: int | None = None
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named training run: data, network and optimisation. Every kind of weights has a subclass.

    Args:
        name: of the weights.
        model: sizes of the network.
        data: what it trains on.
        seed: of everything.
    """

    kind: ClassVar[str]
    """Of weights that it trains; see :mod:`uva_agents.checkpoints.kinds`."""

    name: str
    model: Any
    data: DataConfig
    seed: int = 0

    def changed(self, changes: Changes) -> Self:
        """With the command line's changes.

        Raises:
            InputError: one does not apply.
        """
        return self if changes.seed is None else dataclasses.replace(self, seed=changes.seed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and model cards; :func:`~uva_agents.training.saved_recipes.recipe_from_dict` reads them."""
        return {"kind": self.kind, **{f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}}


@dataclass(frozen=True, kw_only=True)
class NetworkRecipe(Recipe):
    """A recipe of one network that one stage trains.

    Args:
        stage: its optimisation.
    """

    stage: StageConfig

    def changed(self, changes: Changes) -> Self:
        """With the command line's changes; a shorter run warms up for a tenth of its steps at most."""
        unused = [f"--{name}-steps" for name in changes.stage_steps]
        unused += ["--variants"] if changes.variants is not None else []
        if unused:
            raise InputError(
                f"recipe {self.name!r} is one network with one stage: {unused[0]} does not apply, --steps does"
            )
        stage = self.stage
        if (steps := changes.steps) is not None:
            stage = dataclasses.replace(stage.shortened(steps), warmup=min(stage.warmup, steps // 10))
        if changes.batch_size:
            stage = dataclasses.replace(stage, batch_size=changes.batch_size)
        if changes.lr:
            stage = dataclasses.replace(stage, lr=changes.lr)
        return dataclasses.replace(super().changed(changes), stage=stage)


def plain(value: Any) -> Any:
    """Dataclasses, mappings and tuples as what JSON has; sizes of networks as their own ``to_dict`` gives them."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, slice):
        return {"start": value.start, "stop": value.stop}
    if isinstance(value, Enum):
        return value.value
    return [plain(entry) for entry in value] if isinstance(value, tuple | list) else value
