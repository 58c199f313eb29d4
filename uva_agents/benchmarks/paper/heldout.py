"""Held-out metrics of all five tasks. ``python -m uva_agents.benchmarks.paper.heldout --weights W --data PATH``.

Runs shipped (or other) weights on the episodes that their training held out: action errors in pixels or mm where the recipe has a
plane, else in percent of each number's range; frames in decibels against copying the current one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uva_agents.benchmarks.skeleton import Benchmark, Outcome, add_held_out
from uva_agents.errors import DataError, InputError

if TYPE_CHECKING:
    from torch import Tensor

    from uva_agents.agents import UVA
    from uva_agents.data import Dataset, Episodes
    from uva_agents.training.report import Reporter
    from uva_agents.training.uva.recipes import UVARecipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--data", type=Path, required=True, help="the dataset that the weights were trained on")
    parser.add_argument("--weights", default="pusht-nano")
    parser.add_argument(
        "--recipe",
        default=None,
        help="that the weights were trained with, by name or the recipe.json of a run (default: the one that is saved with them, "
        "else the one of their name)",
    )
    add_held_out(parser)
    parser.add_argument("--actions", type=int, default=1212, help="windows for action errors")
    parser.add_argument("--videos", type=int, default=256, help="windows for frames")


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """The metrics, ``heldout.json`` and ``futures.png``."""
    from uva_agents.agents import UVA
    from uva_agents.data.selection import format_episodes
    from uva_agents.training.report import Reporter

    uva = UVA.from_pretrained(args.weights)
    recipe = recipe_of(args.weights, uva.name, args.recipe)
    held_out = held_out_of(args.weights, recipe, args.data, args.held_out)
    yield f"  episodes {format_episodes(held_out.numbers)} of {held_out.of} in {args.data}"
    with tempfile.TemporaryDirectory() as folder:
        # The reporter draws in the middle of the work, where a folder that is gone would end it. It is closed before the
        # folder goes: TensorBoard writes from a thread of its own.
        with Reporter(Path(folder), "heldout", 1, 0, show=False, write=True) as reporter:
            metrics = evaluate_heldout(uva, recipe, held_out, args.actions, args.videos, reporter)
        pictures = {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.png"))}
    for name, value in metrics.items():
        yield f"  {name:22s} {value:8.2f}"
    files = {name: partial(_write, content=content) for name, content in pictures.items()}
    return Outcome({"metrics": metrics, "weights": uva.fingerprint}, files)


def _write(path: Path, *, content: bytes) -> None:
    path.write_bytes(content)


@dataclass(frozen=True)
class HeldOut:
    """Episodes that training kept from its networks.

    Attributes:
        dataset: those alone, frames on disk; arrays under the recipe's names.
        of: how many there are in all.
        rows_per_step: recorded rows in a control step.
    """

    dataset: Dataset
    of: int
    rows_per_step: int

    @property
    def numbers(self) -> tuple[int, ...]:
        """In the dataset."""
        return self.dataset.numbers or ()


def recipe_of(weights: str | Path, name: str, given: str | None = None) -> UVARecipe:
    """The recipe that weights were trained with, which says what the data are called and the unit of errors.

    Args:
        weights: name or folder.
        name: that they have themselves.
        given: name of a recipe, or the ``recipe.json`` of a run, instead of what they say.

    Raises:
        InputError: nobody says, or there is no such recipe.
        DataError: one that this version does not understand.
    """
    from uva_agents.checkpoints.trained import saved_recipe
    from uva_agents.training.saved_recipes import read_recipe, recipe_from_dict
    from uva_agents.training.uva.recipes import RECIPES, UVARecipe

    saved = saved_recipe(weights) if given is None else None
    if given is not None and given.endswith(".json"):
        found = read_recipe(given)
    elif saved is not None:
        found = recipe_from_dict(saved, f"the recipe of {weights}")
    elif (given or name) in RECIPES:
        found = RECIPES[given or name]()
    else:
        raise InputError(
            f"no recipe called {given or name!r}: say with --recipe which of {', '.join(RECIPES)} fits the data, or give the "
            "recipe.json of their run"
        )
    if not isinstance(found, UVARecipe):
        raise InputError(f"recipe {found.name!r} is of {found.kind} weights, not of UVA's")
    return found


def held_out_of(weights: str | Path, recipe: UVARecipe, path: Path, count: int | None = None) -> HeldOut:
    """The episodes of a dataset that training held out: as its run says, else drawn again as it drew them.

    Args:
        weights: name or folder.
        recipe: how they were trained.
        path: the dataset, or the same data in another format.
        count: how many, instead of what the run or the recipe says.

    Raises:
        DataError: an array is missing.
        InputError: no episode would be left to train on.
    """
    from uva_agents.checkpoints.folder import is_checkpoint_file, resolve
    from uva_agents.data import open_dataset
    from uva_agents.data.episodes import split_by
    from uva_agents.data.run_data import data_of_run

    wanted = recipe.data.arrays
    own = {name: recipe.data.fields[name] for name in wanted if name in recipe.data.fields}
    dataset = open_dataset(path, needed=wanted, preferred=own)
    if missing := [name for name in wanted if name not in dataset.arrays]:
        found = ", ".join(f"{name} {value.shape[1:]}" for name, value in dataset.arrays.items())
        raise DataError(f"{path} has no {missing[0]!r}, which these weights were trained with; it has {found}")
    run = None if is_checkpoint_file(weights) else data_of_run(resolve(weights))
    same = run is not None and run.main.path.name == path.resolve().name
    if count is None and same and run is not None and run.main.held_out:
        chosen = np.array(run.main.held_out)
        if chosen.max() >= len(dataset):
            raise DataError(
                f"{path} has {len(dataset)} episodes, and training held out number {chosen.max()} of its data"
            )
    else:
        chosen = split_by(len(dataset), recipe.data.held_out if count is None else count, seed=42)[1]
    if not len(chosen):
        raise InputError("no episode was held out: say how many to take with --held-out N")
    rows = run.rows_per_step if same and run is not None else recipe.data.rows_per_step
    return HeldOut(dataset.select(chosen), len(dataset), rows)


def evaluate_heldout(
    uva: UVA, recipe: UVARecipe, held_out: HeldOut, actions: int, videos: int, reporter: Reporter
) -> dict[str, float]:
    """Metrics by name; see :class:`uva_agents.training.uva.validation.Validator`.

    Args:
        uva: the weights.
        recipe: says what the data are called, and the unit of errors.
        held_out: the episodes.
        actions, videos: windows for the two kinds of metric.
        reporter: gets the pictures.
    """
    from uva_agents.data import LatentWindows, Variant, WindowSpec
    from uva_agents.data.dataset import Extras
    from uva_agents.training.uva.validation import Validator

    c, spec, dataset = uva.config, uva.spec, held_out.dataset
    episodes = _numbers(dataset, recipe)
    frames = dataset.arrays["pixels"]
    tokens, keypoints = _encoded(uva, frames)
    wrist = None
    if c.wrist_image:
        views = dataset.arrays[spec.wrist_key]
        wrist = [_joined([uva.encode_wrist(views[i : i + 64]) for i in range(0, len(views), 64)], half=True)]
    states = recipe.data.frame_state_keys if c.frame_state_dim else ()
    windows = LatentWindows(
        episodes,
        [tokens],
        [Variant()],
        uva.normalizer,
        WindowSpec(c.n_frames, c.frame_stride, c.action_steps, spec.action_offset, held_out.rows_per_step),
        proprio_key=spec.proprio_key,
        frame_state_keys=states,
        keypoints=None if keypoints is None else [keypoints],
        history_actions=c.history_actions,
        extras=Extras(
            wrist=wrist,
            text=_texts(uva, dataset) if c.text_dim else None,
            action_transforms=spec.action_transforms,
            proprio_transforms=spec.proprio_transforms,
            every_step=bool(c.proprio_dim) and c.proprio_steps != c.n_frames,
            proprio_target=c.predict_proprio_dim,
        ),
    )
    validator = Validator(
        windows,
        uva.vae,
        uva.normalizer,
        frames,
        recipe.world,
        n_actions=actions,
        n_videos=videos,
        frame_state_keys=recipe.data.frame_state_keys,
    )
    metrics = validator.run(uva.net, reporter)
    if keypoints is not None:
        metrics |= _keypoint_error(uva, recipe, episodes, keypoints)
    return metrics


def _numbers(dataset: Dataset, recipe: UVARecipe) -> Episodes:
    """All arrays but frames, two-dimensional, as training has them."""
    from uva_agents.data import Episodes

    names = [name for name in recipe.data.arrays if not name.startswith("pixels")]
    arrays = {name: np.array(dataset.arrays[name], np.float32).reshape(len(dataset.arrays[name]), -1) for name in names}
    return Episodes(arrays, dataset.ends, source=str(dataset.path), numbers=dataset.numbers)


def _encoded(uva: UVA, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """float16 tokens (N, S, C), and keypoints (N, 2K) where the network has some."""
    codes = [uva.encode(frames[i : i + 64]) for i in range(0, len(frames), 64)]
    keypoints = [code.keypoints for code in codes if code.keypoints is not None]
    return _joined([code.tokens for code in codes], half=True), _joined(keypoints) if keypoints else None


def _joined(parts: list[Tensor], *, half: bool = False) -> np.ndarray:
    import torch

    whole = torch.cat(parts)
    found: np.ndarray = (whole.half() if half else whole).cpu().numpy()
    return found


def _texts(uva: UVA, dataset: Dataset) -> np.ndarray:
    """(E, D) vector of each episode's instruction, given or in words."""
    if "task_embedding" in dataset.arrays:
        return np.asarray(dataset.arrays["task_embedding"][dataset.starts], np.float32)
    if dataset.tasks is None:
        raise DataError(f"{dataset.path} has no instructions, which these weights take")
    vectors = [uva.embed_task(text) for text in dataset.tasks]
    return np.stack([vector.float().cpu().numpy() for vector in vectors if vector is not None])


def _keypoint_error(uva: UVA, recipe: UVARecipe, episodes: Episodes, keypoints: np.ndarray) -> dict[str, float]:
    """Of the points that the network reads from frames."""
    from uva_agents.training.keypoints.detector_stage import keypoint_scale, stack_keypoints

    truth = stack_keypoints(recipe.data.frame_state_keys, episodes)
    scale, offset = keypoint_scale(recipe.data.frame_state_keys, uva.normalizer)
    read = (keypoints.reshape(truth.shape) - offset) / scale
    error = float(np.linalg.norm(read - truth, axis=-1).mean())
    return {f"points_{recipe.plane.unit}": error * recipe.plane.unit_scale}


BENCHMARK = Benchmark("heldout", __doc__, add_arguments, run, folder="outputs/heldout")
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
