"""Any recipe to the end: its kind of weights says which steps that takes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from uva_agents.data import Episodes, LinearNormalizer, WindowSpec
from uva_agents.data.transforms import Transform
from uva_agents.data.window_numbers import network_limits
from uva_agents.data.windows import WindowIndex
from uva_agents.errors import DataError, InputError
from uva_agents.training.recipe import DataConfig, Recipe
from uva_agents.training.recipe_files import read_recipe_file, recipe_to_toml
from uva_agents.training.saved_recipes import read_recipe
from uva_agents.training.selection import Selection
from uva_agents.training.sources import Data
from uva_agents.training.steps import Step, monitored, run_steps
from uva_agents.training.trackers import TrackerName, Tracking, check_trackers
from uva_agents.training.uva.named_recipes import NAMED, named_text
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
        text_encoder: folder or hub name of CLIP, for recipes whose instructions it reads.
        workers: processes that decode frames; 0 for this one, by default one for each core, up to 4.
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
    text_encoder: str | Path | None = None
    workers: int | None = None


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


def find_recipe(name: str, others: Iterable[str] = ()) -> Recipe:
    """A recipe by its name, from a TOML file (:mod:`uva_agents.training.recipe_files`), or from the ``recipe.json`` of a run.

    Args:
        others: what else could have been meant, for the error.

    Raises:
        InputError: unknown name, with the close matches.
        DataError: see :func:`~uva_agents.training.saved_recipes.read_recipe`.
    """
    if name.endswith(".json"):
        return read_recipe(name)
    if name.endswith(".toml"):
        return read_recipe_file(name)
    makers = recipe_names()
    if name not in makers:
        close = closest(name, [*others, *makers], n=2) or [*others, *makers]
        raise InputError(f"no recipe called {name!r}; did you mean {' or '.join(close)}?")
    return makers[name]()


def recipe_text(name: str) -> str:
    """A recipe as a TOML file to copy and edit, with its comments where it is kept as one.

    Raises:
        InputError, DataError: see :func:`find_recipe`.
    """
    return named_text(name) if name in NAMED else recipe_to_toml(find_recipe(name))


def write_recipe(recipe: Recipe, out: Path) -> None:
    """Write ``recipe.json`` into a run folder, from the first process."""
    if PartialState().is_main_process:
        write_text(out / "recipe.json", json.dumps(recipe.to_dict(), indent=1))


def make_normalizer(
    data: DataConfig, episodes: Episodes, window: WindowSpec | None = None, *, more: Sequence[Episodes] = ()
) -> LinearNormalizer:
    """From the recipe's limits where it has them, from the episodes elsewhere.

    Args:
        more: further datasets with the same numbers, which the limits are to hold for, too.
        window: that actions are cut into, for conventions that are relative to its 'now'.

    Raises:
        DataError: an action's number is the same in all episodes.
    """
    limits = {}
    for key in {"action", *([data.proprio_key] if data.proprio_key else []), *data.frame_state_keys}:
        dim, transforms = episodes.arrays[key].shape[-1], transforms_of(data, key)
        if not transforms and key in data.limits:
            low, high = data.limits[key]
            limits[key] = (np.broadcast_to(low, dim).copy(), np.broadcast_to(high, dim).copy())
        else:
            each = [_limits(data, one, key, transforms, window or WindowSpec()) for one in (episodes, *more)]
            limits[key] = (np.min([low for low, _ in each], axis=0), np.max([high for _, high in each], axis=0))
        for column in data.unscaled.get(key, ()):
            limits[key][0][column], limits[key][1][column] = -1.0, 1.0
        if key == "action" and key not in data.limits:
            _check_constant(data, episodes, limits[key])
    return LinearNormalizer.from_limits(limits)


def transforms_of(data: DataConfig, key: str) -> tuple[Transform, ...]:
    """Conventions that an array goes through."""
    if key == "action":
        return data.action_transforms
    return data.proprio_transforms if key == data.proprio_key else ()


def network_width(data: DataConfig, key: str, width: int) -> int:
    """Numbers in a row of an array, as the network has them."""
    for transform in transforms_of(data, key):
        width = transform.network_size(width)
    return width


def _limits(
    data: DataConfig, episodes: Episodes, key: str, transforms: tuple[Transform, ...], window: WindowSpec
) -> tuple[np.ndarray, np.ndarray]:
    is_action = key == "action"
    firsts = np.repeat(episodes.starts, np.diff(episodes.ends, prepend=0))
    low, high = network_limits(
        episodes.arrays,
        key,
        transforms,
        WindowIndex(episodes, window),
        window.actions if is_action else window.steps,
        pose_key=data.proprio_key,
        delay=data.delay if is_action else 0,
        firsts=firsts,
    )
    low, high = low.copy(), high.copy()
    for column, (lowest, highest) in transforms[-1].network_limits().items() if transforms else ():
        low[column], high[column] = lowest, highest
    return low, high


def _check_constant(data: DataConfig, episodes: Episodes, limits: tuple[np.ndarray, np.ndarray]) -> None:
    same = np.flatnonzero(limits[1] - limits[0] < 1e-6)
    if not len(same):
        return
    column = int(same[0])
    names = data.names.get("action", ())
    called = f" ({names[column]})" if len(names) > column and not data.action_transforms else ""
    raise DataError(
        f"{episodes.source}: action number {column}{called} is {limits[0][column]:g} in all {len(episodes)} episodes, so nothing "
        "can be learned of it: take other columns in the layout, or say in its limits how far it can go "
        "(uva data layout PATH > layout.toml, then --layout layout.toml)"
    )


def make_interface(
    data: DataConfig,
    episodes: Episodes,
    *,
    image_size: int | None = None,
    shapes: Mapping[str, tuple[int, int]] | None = None,
) -> InterfaceSpec:
    """What the trained weights will expect from an environment.

    Args:
        image_size: where training looks at no pictures.
        shapes: camera -> height and width of what an environment gives; those of the episodes' frames by default.
    """
    found = {name: value.shape[1:3] for name, value in episodes.arrays.items() if name.startswith("pixels")}
    found |= shapes or {}
    shape: Any = (image_size, image_size) if image_size else found["pixels"]
    wrist: Any = found.get(data.wrist_key) if data.has_wrist else None
    actions = episodes.arrays["action"]
    dim = actions.shape[-1]
    low, high = data.limits.get("action", (actions.min(0), actions.max(0)))
    low, high = np.broadcast_to(low, dim).astype(float), np.broadcast_to(high, dim).astype(float)
    natural = data.action_transforms[0].environment_limits() if data.action_transforms else {}
    for column, (lowest, highest) in natural.items():
        low[column], high[column] = lowest, highest
    return InterfaceSpec(
        image_shape=(int(shape[0]), int(shape[1])),
        wrist_shape=None if wrist is None else (int(wrist[0]), int(wrist[1])),
        action_low=tuple(float(v) for v in low),
        action_high=tuple(float(v) for v in high),
        wrist_key=data.wrist_key,
        cameras=data.cameras[: 1 if wrist is None else 2],
        proprio_key=data.proprio_key,
        proprio_transforms=data.proprio_transforms,
        action_transforms=data.action_transforms,
        action_offset=data.action_offset,
        keypoint_keys=data.frame_state_keys,
        env_id=data.env_id,
        control_hz=data.control_hz,
        execute=data.execute,
    )
