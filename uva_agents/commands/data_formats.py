"""``uva data convert``: datasets of any known format in another one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uva_agents.data.fields import Field


ALL = "*"
"""``--skip`` without a name."""


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva data convert IN OUT --to FORMAT``."""
    from uva_agents.data.writers.convert import TARGETS

    add_source(parser)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument(
        "--to", choices=TARGETS, required=True, help="lerobot: v3, parquet and mp4; zarr: replay buffer"
    )
    parser.add_argument(
        "--episodes",
        default=None,
        metavar="LIST",
        help="only these, for example 0-4,7, or '!3,8' for all but these (default: all)",
    )
    parser.add_argument(
        "--skip",
        action="append",
        nargs="?",
        const=ALL,
        default=[],
        metavar="NAME",
        help="leave the array NAME out; without NAME, whatever cannot be read. Otherwise leaving something out is status 1",
    )
    parser.add_argument(
        "--task", default=None, metavar="TEXT", help="an instruction for all episodes, in place of theirs"
    )
    parser.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="NAME=FEATURE",
        help="lerobot: what a camera is called there, for example pixels=observation.image (default: observation.images.NAME)",
    )
    parser.add_argument(
        "--names",
        action="append",
        default=[],
        metavar="NAME=A,B,...",
        help="lerobot: names of the numbers of an array, for example action=x,y (default: dim_0, dim_1, ...)",
    )
    parser.add_argument(
        "--hz", type=float, default=None, help="steps per second, where the data do not say, or LeRobot's whole number"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(action=convert)


def convert(args: argparse.Namespace) -> int:
    """Write a dataset in another format. 1 if something of it is left out that ``--skip`` does not name.

    Raises:
        FileNotFoundError, ValueError: see :func:`uva_agents.data.open_dataset` and :func:`uva_agents.data.convert_dataset`.
    """
    from uva_agents.data import open_dataset
    from uva_agents.data.writers.convert import convert_dataset
    from uva_agents.utils.progress import progress_bar

    fields = parse_fields(args.field)
    skip = [name for name in args.skip if name != ALL]
    dataset = open_dataset(args.path, format=args.format, fields=fields, episodes=args.episodes, skip=skip, verify=True)
    for note in dataset.notes:
        print(f"note: {note}")
    with progress_bar(disable=args.quiet) as bar:
        task = bar.add_task("episodes", total=len(dataset))
        lost = convert_dataset(
            dataset,
            args.out,
            args.to,
            control_hz=args.hz,
            force=args.force,
            task=args.task,
            cameras=dict(_pair("--camera", text, "pixels=observation.image") for text in args.camera),
            names={
                name: [part.strip() for part in listed.split(",")]
                for name, listed in (_pair("--names", text, "action=x,y") for text in args.names)
            },
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"{len(dataset)} episodes, {dataset.ends[-1]} steps: {args.out}")
    if ALL in args.skip:
        return 0
    for key in lost:
        why = "see above" if key in dataset.left_out else f"nothing to hold it in {args.to}"
        print(f"not in {args.out}: {key} ({why}); --skip {key} says that this is meant", file=sys.stderr)
    return 1 if lost else 0


def _pair(option: str, text: str, example: str) -> tuple[str, str]:
    from uva_agents.errors import InputError

    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise InputError(f"{option} {text}: give NAME=..., for example {example}")
    return name, value


def add_source(parser: argparse.ArgumentParser) -> None:
    """Arguments that say what to open."""
    parser.add_argument("path", type=Path, help="dataset, file or folder")
    parser.add_argument(
        "--format", default=None, help="lerobot, umi, zarr, minari, hdf5 or video (default: recognise it)"
    )
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME=KEY",
        help="take the array NAME (pixels, action, agent_pos, ...) from the stored KEY; several keys, with + between, are joined",
    )


def parse_fields(given: list[str]) -> dict[str, str | Field]:
    """``NAME=KEY`` or ``NAME=KEY+KEY`` as given on the command line.

    Raises:
        InputError: one is something else.
    """
    from uva_agents.data.fields import Field
    from uva_agents.errors import InputError

    found: dict[str, str | Field] = {}
    for text in given:
        name, equals, keys = text.partition("=")
        if not (name and equals and keys):
            raise InputError(f"--field {text}: give NAME=KEY, for example pixels=obs/agentview_image")
        parts = tuple(part.strip() for part in keys.split("+"))
        found[name] = Field(parts if len(parts) > 1 else parts[0])
    return found
