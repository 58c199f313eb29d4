"""``uva train``."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
from pathlib import Path

from uva_agents.training.baselines.network_recipes import NETWORK_RECIPES, NetworkRecipe
from uva_agents.training.uva.recipes import RECIPES, STAGES, Recipe
from uva_agents.utils.files import check_folder_target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva train``."""
    parser.add_argument("recipe", help=f"one of: {', '.join([*RECIPES, *NETWORK_RECIPES])}")
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
    parser.add_argument("--points", type=Path, default=None, help="trained point reader (safetensors): skips its stage")
    parser.add_argument(
        "--init", default=None, help="go on from these weights (a shipped name, a folder, or a MAR file)"
    )
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--steps", type=int, default=None, help="optimiser steps, for recipes of one stage (dp-*, two-frame-*)"
    )
    for stage in STAGES:
        parser.add_argument(f"--{stage}-steps", type=int, default=None, help=f"optimiser steps of the {stage} stage")
    parser.add_argument("--batch-size", type=int, default=None, help="per process; of the video and joint stages")
    parser.add_argument("--lr", type=float, default=None, help="peak learning rate; of the video and joint stages")
    parser.add_argument("--variants", type=int, default=None, help="cached augmented variants of the data")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> int:
    """Train, and say where the weights are."""
    import torch

    from uva_agents.training.baselines.network_pipeline import run_network_recipe
    from uva_agents.training.sources import Source, with_episodes
    from uva_agents.training.uva.pipeline import RunOptions, run_recipe

    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "WORLD_SIZE" not in os.environ:
        # However many were asked for: without MPI it starts one and does not say so.
        print(
            "training as one process; for several on these CPUs: torchrun --nproc_per_node N -m uva_agents.cli train ..."
        )
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = configure(args)
    sources = with_episodes([Source.parse(text) for text in args.data], args.episodes)
    options = RunOptions(
        sources[0].path if len(sources) == 1 and sources[0].episodes is None else sources,
        args.out or Path("runs") / recipe.name,
        vae_weights=args.vae,
        points_weights=args.points,
        init=args.init,
        progress=not args.quiet,
        fields=_fields(args.field),
        every=args.every,
    )
    check_folder_target(options.out)
    folder = run_recipe(recipe, options) if isinstance(recipe, Recipe) else run_network_recipe(recipe, options)
    if folder is not None:
        print(f"weights: {folder}")
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


def configure(args: argparse.Namespace) -> Recipe | NetworkRecipe:
    """The named recipe with the command line's changes.

    Raises:
        ValueError: unknown recipe, with the close matches; an option that the recipe has no use for.
    """
    names = [*RECIPES, *NETWORK_RECIPES]
    if args.recipe not in names:
        close = difflib.get_close_matches(args.recipe, names, n=2) or names
        raise ValueError(f"no recipe called {args.recipe!r}; did you mean {' or '.join(close)}?")
    if args.recipe in NETWORK_RECIPES:
        return _configure_network(args)
    if args.steps is not None:
        raise ValueError(f"recipe {args.recipe!r} has several stages: use --{STAGES[-1]}-steps and its like")
    recipe = RECIPES[args.recipe]()
    for name in STAGES:
        stage = getattr(recipe, name)
        steps = getattr(args, f"{name}_steps")
        if steps is not None:
            stage = dataclasses.replace(stage, steps=steps, validate_every=min(stage.validate_every, max(1, steps)))
        if args.batch_size and name in ("video", "joint"):
            stage = dataclasses.replace(stage, batch_size=args.batch_size)
        if args.lr and name in ("video", "joint"):
            stage = dataclasses.replace(stage, lr=args.lr)
        recipe = dataclasses.replace(recipe, **{name: stage})
    if args.seed is not None:
        recipe = dataclasses.replace(recipe, seed=args.seed)
    if args.variants is not None:
        recipe = dataclasses.replace(recipe, variants=args.variants)
    return recipe


def _configure_network(args: argparse.Namespace) -> NetworkRecipe:
    recipe = NETWORK_RECIPES[args.recipe]()
    unused = [f"--{name}-steps" for name in STAGES if getattr(args, f"{name}_steps") is not None]
    unused += ["--variants"] if args.variants is not None else []
    if unused:
        raise ValueError(
            f"recipe {args.recipe!r} is one network with one stage: {unused[0]} does not apply, --steps does"
        )
    stage = recipe.stage
    if args.steps is not None:
        every, warmup = min(stage.validate_every, max(1, args.steps)), min(stage.warmup, args.steps // 10)
        stage = dataclasses.replace(stage, steps=args.steps, validate_every=every, warmup=warmup)
    if args.batch_size:
        stage = dataclasses.replace(stage, batch_size=args.batch_size)
    if args.lr:
        stage = dataclasses.replace(stage, lr=args.lr)
    return dataclasses.replace(recipe, stage=stage, seed=recipe.seed if args.seed is None else args.seed)
