"""``uva train``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from uva_agents.checkpoints.kinds import OWN_KINDS, resolved
from uva_agents.training.cli_monitoring import MakeEvaluator, add_monitoring_arguments, selection_of, trackers_of
from uva_agents.training.recipe import Changes, Recipe
from uva_agents.training.run import RunOptions, find_recipe, train
from uva_agents.training.sources import Source, with_episodes
from uva_agents.training.uva.recipes import STAGES
from uva_agents.utils.files import check_folder_target

_ALIASES = {"vae": "autoencoder", "points": "detector", "writer": "renderer"}
"""First name of a stage, and of its folder -> what it is called today."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva train``."""
    names = [name for kind in OWN_KINDS.values() for name in resolved(kind.recipes)]
    parser.add_argument(
        "recipe",
        help=f"one of: {', '.join(names)}; one that another package adds; or the recipe.json of a run, for another like it",
    )
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="PATH[:WEIGHT]",
        help="dataset of any format that `uva data inspect` knows; several times for a mixture, with each one's share of what is "
        "drawn (default 1). Video without actions trains the video task",
    )
    parser.add_argument(
        "--episodes",
        action="append",
        default=[],
        metavar="LIST",
        help="only these episodes, for example 0-4,7, or '!3,8' for all but these (default: all); with several --data once for "
        "each, in their order, `all` for all",
    )
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME=KEY",
        help="where the data keeps what a recipe calls NAME (pixels, action, agent_pos, ...), if not at the format's usual place",
    )
    parser.add_argument(
        "--every",
        type=int,
        default=None,
        metavar="N",
        help="keep every Nth step, where the data was recorded N times as fast as the recipe acts; for actions that are positions",
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="run folder; the same folder resumes (default runs/RECIPE)"
    )
    parser.add_argument(
        "--vae", type=Path, default=None, help="trained autoencoder (safetensors or kl16.ckpt): skips its stage"
    )
    parser.add_argument(
        "--points", type=Path, default=None, help="trained keypoint detector (safetensors): skips its stage"
    )
    parser.add_argument(
        "--init", default=None, help="go on from these weights (a shipped name, a folder, or a MAR file)"
    )
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--steps", type=int, default=None, help="optimiser steps, for recipes of one stage (dp-*, two-frame-*)"
    )
    for stage in STAGES:
        names = [f"--{stage}-steps", *([f"--{_ALIASES[stage]}-steps"] if stage in _ALIASES else [])]
        title = _ALIASES.get(stage, stage)
        parser.add_argument(
            *names, dest=f"{stage}_steps", type=int, default=None, help=f"optimiser steps of the {title} stage"
        )
    parser.add_argument("--batch-size", type=int, default=None, help="per process; of the video and joint stages")
    parser.add_argument("--lr", type=float, default=None, help="peak learning rate; of the video and joint stages")
    parser.add_argument("--variants", type=int, default=None, help="cached augmented variants of the data")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    add_monitoring_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(args: argparse.Namespace, *, make_evaluator: MakeEvaluator | None = None) -> int:
    """Train, and say where the weights are.

    Args:
        make_evaluator: of ``--eval-env``: training knows no environments.
    """
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "WORLD_SIZE" not in os.environ:
        # However many were asked for: without MPI it starts one and does not say so.
        print(
            "training as one process; for several on these CPUs: torchrun --nproc_per_node N -m uva_agents.cli train ..."
        )
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = configure(args)
    out = args.out or Path("runs") / recipe.name
    trackers = trackers_of(args)
    selection = selection_of(args, out, make_evaluator)
    sources = with_episodes([Source.parse(text) for text in args.data], args.episodes)
    options = RunOptions(
        sources[0].path if len(sources) == 1 and sources[0].episodes is None else sources,
        out,
        vae_weights=args.vae,
        detector_weights=args.points,
        init=args.init,
        progress=not args.quiet,
        fields=_fields(args.field),
        every=args.every,
        trackers=trackers,
        project=args.project,
        selection=selection,
    )
    check_folder_target(options.out)
    folder = train(recipe, options)
    if folder is not None:
        print(f"weights: {folder}")
        if selection is not None and (best := out / "weights-best").exists():
            print(f"the best by {selection.criterion}: {best}")
    return 0


def _fields(texts: list[str]) -> dict[str, str]:
    """``NAME=KEY`` as given on the command line.

    Raises:
        ValueError: one has no ``=``.
    """
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, key) in zip(texts, pairs, strict=True):
        if not (name and equals and key):
            raise ValueError(f"--field {text}: NAME=KEY, for example agent_pos=observation.state")
    return {name: key for name, _, key in pairs}


def configure(args: argparse.Namespace) -> Recipe:
    """The named recipe with the command line's changes.

    Raises:
        ValueError: unknown recipe, with the close matches; an option that the recipe has no use for.
    """
    steps = {name: getattr(args, f"{name}_steps") for name in STAGES}
    changes = Changes(
        steps=args.steps,
        stage_steps={name: count for name, count in steps.items() if count is not None},
        batch_size=args.batch_size,
        lr=args.lr,
        variants=args.variants,
        seed=args.seed,
    )
    return find_recipe(args.recipe).changed(changes)
