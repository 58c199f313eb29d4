"""Any recipe to the end: its kind of weights says which steps that takes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from uva_agents.checkpoints.kinds import all_kinds, resolved, weights_kind
from uva_agents.checkpoints.schema import closest
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.data import Episodes, LinearNormalizer
from uva_agents.errors import InputError
from uva_agents.training.recipe import DataConfig, Recipe
from uva_agents.training.saved_recipes import read_recipe
from uva_agents.training.selection import Selection
from uva_agents.training.sources import Data
from uva_agents.training.steps import Step, monitored, run_steps
from uva_agents.training.trackers import TrackerName, Tracking, check_trackers
from uva_agents.utils.files import write_text

_LOG = logging.getLogger(__name__)

_LONGEST_WAIT = timedelta(hours=12)
"""Of processes for the first one, which encodes, validates and makes rollouts."""


@dataclass(frozen=True)
class RunOptions:
    """Where a run reads and writes.

    Args:
        data: dataset of any format, or several with weights (:class:`~uva_agents.training.sources.Source`). Of UVA's recipes, the
            first with actions is held out from, and trains the keypoint networks; the others take part in the autoencoder, video
            and joint stages.
        out: run folder; its stages live in sub-folders, the finished weights in ``weights/``.
        vae_weights: trained autoencoder (safetensors, or the original ``kl16.ckpt``) instead of the first stage.
        detector_weights: trained keypoint detector (safetensors) instead of its stage, which writes ``points/reader.safetensors``.
        init: weights to go on from (a shipped name or a folder): their autoencoder and keypoint detector are kept as they are,
            the network continues from theirs wherever names and shapes match. Or a MAR or released UVA checkpoint file, from
            which matching tensors of the network are taken.
        progress: show progress bars, and which steps are skipped.
        stop_after: stop each stage after so many steps in this process, for tests.
        fields, every: see :func:`~uva_agents.training.sources.open_sources`.
        trackers: names of :data:`~uva_agents.training.trackers.TRACKERS`, or trackers of accelerate's that are made already; beside
            ``metrics.jsonl``, and TensorBoard where it is installed.
        project: what the trackers file the run under.
        selection: rollouts during training, early stopping; the best weights are kept in ``weights-best/``.
    """

    data: Data
    out: Path
    vae_weights: Path | None = None
    detector_weights: Path | None = None
    init: str | Path | None = None
    progress: bool = True
    stop_after: int | None = None
    fields: Mapping[str, str] | None = None
    every: int | None = None
    trackers: Sequence[TrackerName] = ()
    project: str = "uva-agents"
    selection: Selection | None = None


def train(recipe: Recipe, options: RunOptions) -> Path | None:
    """Train a recipe to the end, resuming what ``options.out`` holds of it.

    Returns: the weights folder; ``None`` when ``stop_after`` cut it short, and in all processes but the first.

    Raises:
        ValueError: the data does not fit the network, the folder holds another run, or ``options`` ask for what this recipe does
            not have.
        MachineError: the memory or the disk is not enough, or a tracker is not installed or cannot be started.
    """
    check_trackers(options.trackers)
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_LONGEST_WAIT)
    steps = steps_of(recipe, options)
    with Tracking(options.trackers, options.out, options.project, recipe.to_dict()) as tracking:
        if not run_steps(monitored(steps, tracking, options.selection), show=options.progress):
            return None
    return options.out / "weights" if state.is_main_process else None


def steps_of(recipe: Recipe, options: RunOptions) -> list[Step]:
    """The steps of a run, over data that is opened here.

    Raises:
        InputError: such weights are not trained here.
        ValueError: see :func:`train`.
    """
    kind = weights_kind(recipe.kind)
    if kind.steps is None:
        raise InputError(f"weights of kind {kind.name!r} are not trained here")
    steps: list[Step] = resolved(kind.steps)(recipe, options)
    return steps


def recipe_names() -> dict[str, Callable[[], Recipe]]:
    """Name -> function that makes the recipe: this package's, then those of other packages."""
    return {name: make for kind in all_kinds() for name, make in resolved(kind.recipes).items()}


def find_recipe(name: str) -> Recipe:
    """A recipe by its name, or from the ``recipe.json`` of a run.

    Raises:
        InputError: unknown name, with the close matches.
        DataError: see :func:`~uva_agents.training.saved_recipes.read_recipe`.
    """
    if name.endswith(".json"):
        return read_recipe(name)
    makers = recipe_names()
    if name not in makers:
        close = closest(name, makers, n=2) or list(makers)
        raise InputError(f"no recipe called {name!r}; did you mean {' or '.join(close)}?")
    return makers[name]()


def write_recipe(recipe: Recipe, out: Path) -> None:
    """Write ``recipe.json`` into a run folder, from the first process."""
    if PartialState().is_main_process:
        write_text(out / "recipe.json", json.dumps(recipe.to_dict(), indent=1))


def make_normalizer(data: DataConfig, episodes: Episodes) -> LinearNormalizer:
    """From the recipe's limits where it has them, from the episodes elsewhere."""
    limits = {}
    for key in {"action", *([data.proprio_key] if data.proprio_key else []), *data.frame_state_keys}:
        value = episodes.arrays[key]
        dim = value.shape[-1]
        low, high = data.limits.get(key, (value.min(0), value.max(0)))
        limits[key] = (np.broadcast_to(low, dim).copy(), np.broadcast_to(high, dim).copy())
    return LinearNormalizer.from_limits(limits)


def make_interface(data: DataConfig, episodes: Episodes, *, image_size: int | None = None) -> InterfaceSpec:
    """What the trained weights will expect from an environment; ``image_size`` where training looks at no pictures."""
    shape: Any = (image_size, image_size) if image_size else episodes.arrays["pixels"].shape[1:3]
    actions = episodes.arrays["action"]
    low, high = data.limits.get("action", (actions.min(0), actions.max(0)))
    dim = actions.shape[-1]
    return InterfaceSpec(
        image_shape=(shape[0], shape[1]),
        action_low=tuple(float(v) for v in np.broadcast_to(low, dim)),
        action_high=tuple(float(v) for v in np.broadcast_to(high, dim)),
        proprio_key=data.proprio_key,
        keypoint_keys=data.frame_state_keys,
        env_id=data.env_id,
        control_hz=data.control_hz,
        execute=data.execute,
    )
