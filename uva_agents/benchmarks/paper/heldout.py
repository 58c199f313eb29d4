"""Held-out metrics of all five tasks. ``python -m uva_agents.benchmarks.paper.heldout --data FOLDER``.

Runs shipped (or other) weights on the episodes that their training held out: action errors in pixels (or mm), frames in decibels
against copying the current one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Generator
from functools import partial
from pathlib import Path

import numpy as np

from uva_agents.benchmarks.skeleton import Benchmark, Outcome, add_held_out
from uva_agents.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--data", type=Path, required=True, help="the replay buffer that the weights were trained on")
    parser.add_argument("--weights", default="pusht-nano")
    parser.add_argument(
        "--recipe", default=None, help="that the weights were trained with (default: the one of their name)"
    )
    add_held_out(parser)
    parser.add_argument("--actions", type=int, default=1212, help="windows for action errors")
    parser.add_argument("--videos", type=int, default=256, help="windows for frames")


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """The metrics, ``heldout.json`` and ``futures.png``."""
    from uva_agents.agents import UVA
    from uva_agents.training.report import Reporter

    uva = UVA.from_pretrained(args.weights)
    recipe = args.recipe or uva.name
    with tempfile.TemporaryDirectory() as folder:
        # The reporter draws in the middle of the work, where a folder that is gone would end it. It is closed before the
        # folder goes: TensorBoard writes from a thread of its own.
        with Reporter(Path(folder), "heldout", 1, 0, show=False, write=True) as reporter:
            metrics = evaluate_heldout(uva, recipe, args.data, args.held_out, args.actions, args.videos, reporter)
        pictures = {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.png"))}
    for name, value in metrics.items():
        yield f"  {name:22s} {value:8.2f}"
    files = {name: partial(_write, content=content) for name, content in pictures.items()}
    return Outcome({"metrics": metrics, "weights": uva.fingerprint}, files)


def _write(path: Path, *, content: bytes) -> None:
    path.write_bytes(content)


def evaluate_heldout(
    uva: object, recipe_name: str, data: Path, held_out: int | None, actions: int, videos: int, reporter: object
) -> dict[str, float]:
    """Metrics by name; see :class:`uva_agents.training.uva.validation.Validator`.

    Args:
        recipe_name: says what the data are called, which episodes training held out, and the unit of errors.

    Raises:
        InputError: there is no such recipe.
    """
    import torch

    from uva_agents.agents import UVA
    from uva_agents.data import LatentWindows, Variant, read_replay_buffer
    from uva_agents.data.episodes import split_by
    from uva_agents.training.keypoints.detector_stage import keypoint_scale, stack_keypoints
    from uva_agents.training.report import Reporter
    from uva_agents.training.uva.recipes import RECIPES
    from uva_agents.training.uva.validation import Validator

    assert isinstance(uva, UVA) and isinstance(reporter, Reporter)
    if recipe_name not in RECIPES:
        raise InputError(
            f"no recipe called {recipe_name!r}: say with --recipe which of {', '.join(RECIPES)} fits the data"
        )
    recipe = RECIPES[recipe_name]()
    episodes = read_replay_buffer(data, recipe.data.fields)
    count = recipe.data.held_out if held_out is None else held_out
    episodes = episodes.select(split_by(len(episodes), count, seed=42)[1])
    frames = episodes.arrays["pixels"]
    codes = [uva.encode(frames[i : i + 64]) for i in range(0, len(frames), 64)]
    tokens = torch.cat([c.tokens for c in codes]).half().cpu().numpy()
    keypoints = [c.keypoints for c in codes if c.keypoints is not None]
    c, spec = uva.config, uva.spec
    windows = LatentWindows(
        episodes,
        [tokens],
        [Variant()],
        uva.normalizer,
        spec.window(c.n_frames, c.frame_stride, c.action_steps),
        proprio_key=spec.proprio_key,
        frame_state_keys=recipe.data.frame_state_keys if c.frame_state_dim else (),
        keypoints=[torch.cat(keypoints).cpu().numpy()] if keypoints else None,
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
    if keypoints:
        truth = stack_keypoints(recipe.data.frame_state_keys, episodes)
        scale, offset = keypoint_scale(recipe.data.frame_state_keys, uva.normalizer)
        read = (torch.cat(keypoints).cpu().numpy().reshape(truth.shape) - offset) / scale
        metrics[f"points_{recipe.plane.unit}"] = (
            float(np.linalg.norm(read - truth, axis=-1).mean()) * recipe.plane.unit_scale
        )
    return metrics


BENCHMARK = Benchmark("heldout", __doc__, add_arguments, run, folder="outputs/heldout")
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
