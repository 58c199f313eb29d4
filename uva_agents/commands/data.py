"""``uva data``: demonstrations from simulators; looking at datasets and converting them."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uva_agents.data.collect import Driver


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva data collect ENVIRONMENT OUT``, ``sketch OUT``, ``inspect PATH`` and ``convert IN OUT``."""
    from uva_agents.commands.data_formats import add_convert_arguments, add_inspect_arguments
    from uva_agents.commands.data_sketch import add_sketch_arguments

    actions = parser.add_subparsers(title="what to do", metavar="collect | sketch | inspect | convert", required=True)
    add_inspect_arguments(
        actions.add_parser("inspect", help="what a dataset of any format holds, and what is wrong with it")
    )
    add_convert_arguments(actions.add_parser("convert", help="write a dataset as LeRobot v3 or zarr"))
    add_sketch_arguments(
        actions.add_parser("sketch", help="demonstrations of block pushing without a simulator: many, positions only")
    )
    collect = actions.add_parser("collect", help="demonstrations of an environment into a replay buffer")
    collect.add_argument("environment", choices=("block-push",))
    collect.add_argument("out", type=Path, help="replay buffer (.zarr folder) to write")
    collect.add_argument("--episodes", type=int, default=None, help="default: 1000, or all of --replay")
    collect.add_argument("--seed", type=int, default=0, help="of the first episode (default %(default)s)")
    collect.add_argument(
        "--demonstrator",
        choices=("oracle", "pusher"),
        default="oracle",
        help="oracle: the published script; pusher: looks at positions only and recovers (default %(default)s)",
    )
    collect.add_argument(
        "--noise",
        type=float,
        default=None,
        help="standard deviation added to every step, metres (default: 0 for the oracle, 0.002 for the pusher)",
    )
    collect.add_argument(
        "--disturbed",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the episodes, in which something moves the pusher aside before the record begins (default %(default)s)",
    )
    collect.add_argument(
        "--policy",
        default=None,
        metavar="WEIGHTS",
        help="a Diffusion Policy that drives the pusher in disturbed episodes instead, until the demonstrator takes over",
    )
    collect.add_argument("--workers", type=int, default=2, help="processes (default %(default)s)")
    collect.add_argument(
        "--replay",
        type=Path,
        default=None,
        metavar="RECORDED.zarr",
        help="execute these recorded relative actions instead of a script's; episode i has seed SEED + i",
    )
    collect.add_argument(
        "--image-size", type=int, default=96, help="side of the pictures, 0 for none (default %(default)s)"
    )
    collect.add_argument("--camera", choices=("workspace", "published"), default="workspace")
    collect.add_argument(
        "--max-steps", type=int, default=350, help="after these the script gives up (default %(default)s)"
    )
    collect.add_argument("--only-successful", action="store_true", help="leave the other episodes out")
    collect.add_argument("--force", action="store_true", help="replace OUT")
    collect.add_argument("--quiet", action="store_true", help="no progress bar")
    collect.set_defaults(action=run_collect)


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    status: int = args.action(args)
    return status


def _driver(weights: str) -> Driver:
    """The policy, in a worker process: one thread each."""
    import torch

    from uva_agents.agents import DiffusionPolicy

    torch.set_num_threads(1)
    return DiffusionPolicy.from_pretrained(weights)


def run_collect(args: argparse.Namespace) -> int:
    """Collect, and say how many episodes succeeded. 1 if some were lost.

    Raises:
        ValueError: OUT exists already, or the settings do not go together.
        FileNotFoundError: no recording there.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from uva_agents.data.collect import BlockPushPlan, collect_block_push, recorded_ends

    episodes = args.episodes
    if episodes is None:
        episodes = 1000 if args.replay is None else len(recorded_ends(args.replay))
    plan = BlockPushPlan(
        episodes=episodes,
        seed=args.seed,
        demonstrator=args.demonstrator,
        noise=args.noise if args.noise is not None else 0.002 if args.demonstrator == "pusher" else 0.0,
        disturbed=args.disturbed,
        policy=args.policy,
        replay=None if args.replay is None else str(args.replay.resolve()),
        image_size=args.image_size,
        camera=args.camera,
        max_steps=args.max_steps,
    )
    columns = TextColumn("episodes"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, disable=args.quiet) as bar:
        task = bar.add_task("episodes", total=plan.episodes)
        result = collect_block_push(
            args.out,
            plan,
            driver=None if plan.policy is None else partial(_driver, plan.policy),
            workers=args.workers,
            only_successful=args.only_successful,
            force=args.force,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(
        f"{result.episodes} episodes ({result.resumed} from an earlier start), both blocks placed in {result.successes} "
        f"({result.successes / result.episodes:.1%})"
    )
    print(f"{result.written} episodes, {result.rows} rows: {args.out}")
    for index, error in sorted(result.failures.items()):
        print(f"lost: episode {index} (seed {plan.seed + index}): {error}")
    return 1 if result.failures else 0
