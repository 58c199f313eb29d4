"""``uva data planar``: demonstrations of block pushing without a simulator."""

from __future__ import annotations

import argparse
from pathlib import Path

from uva_agents.utils.files import check_folder_target
from uva_agents.utils.progress import progress_bar


def add_planar_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva data planar OUT``."""
    parser.add_argument(
        "out", type=Path, help="replay buffer (.zarr folder) to write: positions and actions, no pictures"
    )
    parser.add_argument("--demonstrations", type=int, default=1_500_000, help="default %(default)s")
    parser.add_argument("--length", type=int, default=16, help="steps of each (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace OUT")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(action=run_planar)


def run_planar(args: argparse.Namespace) -> int:
    """Write them.

    Raises:
        ValueError: OUT exists already, or there is nothing to write.
        MachineError: OUT cannot be written; known before the work.
    """
    from uva_agents.data.collect.planar_block_push import write_planar_demonstrations

    check_folder_target(args.out.absolute().parent)
    with progress_bar(disable=args.quiet) as bar:
        task = bar.add_task("demonstrations", total=args.demonstrations)
        rows = write_planar_demonstrations(
            args.out,
            args.demonstrations,
            length=args.length,
            seed=args.seed,
            force=args.force,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"{args.demonstrations} demonstrations, {rows} rows: {args.out}")
    return 0
