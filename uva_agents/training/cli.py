"""``uva train``."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from pathlib import Path

from uva_agents.training.config import RECIPES, STAGES, Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva train``."""
    parser.add_argument("recipe", help=f"one of: {', '.join(RECIPES)}")
    parser.add_argument("--data", type=Path, required=True, help="dataset folder (a zarr replay buffer)")
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
    for stage in STAGES:
        parser.add_argument(f"--{stage}-steps", type=int, default=None, help=f"optimiser steps of the {stage} stage")
    parser.add_argument("--batch-size", type=int, default=None, help="of the video and joint stages, per process")
    parser.add_argument("--lr", type=float, default=None, help="peak learning rate of the video and joint stages")
    parser.add_argument("--variants", type=int, default=None, help="cached augmented variants of the data")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> int:
    """Train, and say where the weights are."""
    import torch

    from uva_agents.training.pipeline import RunOptions, run_recipe

    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = configure(args)
    folder = run_recipe(
        recipe,
        RunOptions(
            args.data,
            args.out or Path("runs") / recipe.name,
            vae_weights=args.vae,
            points_weights=args.points,
            init=args.init,
            progress=not args.quiet,
        ),
    )
    if folder is not None:
        print(f"weights: {folder}")
    return 0


def configure(args: argparse.Namespace) -> Recipe:
    """The named recipe with the command line's changes.

    Raises:
        ValueError: unknown recipe, with the close matches.
    """
    if args.recipe not in RECIPES:
        close = difflib.get_close_matches(args.recipe, RECIPES, n=2) or list(RECIPES)
        raise ValueError(f"no recipe called {args.recipe!r}; did you mean {' or '.join(close)}?")
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
