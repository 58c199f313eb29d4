"""``uva info``."""

from __future__ import annotations

import argparse

import gymnasium as gym


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva info``."""
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME_OR_PATH",
        help="shipped weights or a weights folder: prints configuration and card",
    )
    parser.add_argument(
        "--recipe",
        metavar="RECIPE",
        default=None,
        help="print a recipe of `uva train` as a file to copy and edit: uva info --recipe uva-pusht > mine.toml",
    )


def run(args: argparse.Namespace) -> int:
    """Print what there is."""
    from uva_agents import checkpoints

    if args.recipe is not None:
        from uva_agents.training.run import recipe_text

        print(recipe_text(args.recipe), end="")
        return 0
    if args.name is not None:
        print(checkpoints.info(args.name))
        return 0
    from uva_agents.benchmarks import describe_protocols
    from uva_agents.benchmarks.evaluation.machine import hardware, versions

    shipped = checkpoints.shipped_names()
    sections = {
        "versions": [f"{name} {version}" for name, version in versions().items()],
        "machine": [hardware()],
        "environments": sorted(name for name in gym.registry if name.startswith("uva/")),
        "protocols": [f"{name}: {description}" for name, description in describe_protocols()],
        "shipped weights": shipped or ["none"],
    }
    for title, lines in sections.items():
        print(title)
        print("".join(f"  {line}\n" for line in lines), end="")
    if shipped:
        print(f"\n`uva info {shipped[0]}` prints the card of these weights.")
    return 0
