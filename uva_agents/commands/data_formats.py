"""``uva data inspect`` and ``uva data convert``: datasets of any known format."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uva_agents.data.fields import Field


ALL = "*"
"""``--skip`` without a name."""


def add_inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva data inspect FOLDER``."""
    _add_source(parser)
    parser.add_argument(
        "--sheet", type=Path, default=None, metavar="PNG", help="contact sheet to write (default: NAME_sheet.png here)"
    )
    parser.add_argument("--every-frame", action="store_true", help="decode all pictures, not some of them")
    parser.set_defaults(action=inspect)


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva data convert IN OUT --to FORMAT``."""
    from uva_agents.data.writers import TARGETS

    _add_source(parser)
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
    parser.add_argument("--hz", type=float, default=None, help="steps per second, where the data do not say")
    parser.add_argument("--force", action="store_true", help="replace OUT")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(action=convert)


def inspect(args: argparse.Namespace) -> int:
    """Print what is in a dataset and write its contact sheet. 1 if something is wrong with it.

    Raises:
        FileNotFoundError, ValueError: see :func:`uva_agents.data.open_dataset`.
    """
    import numpy as np

    from uva_agents.data.inspect import contact_sheet, inspect_dataset
    from uva_agents.data.readers import FORMATS, open_dataset

    dataset = open_dataset(args.path, format=args.format, fields=_fields(args.field))
    found = inspect_dataset(dataset, every_frame=args.every_frame)
    lengths = found.lengths
    print(f"{args.path}: {FORMATS[dataset.format].title}")
    rate = "control rate unknown" if dataset.control_hz is None else f"{dataset.control_hz:g} Hz"
    if dataset.control_hz is not None:
        rate += f", {lengths.sum() / dataset.control_hz / 60:.1f} minutes"
    print(
        f"{len(lengths)} episodes of {lengths.min()} to {lengths.max()} steps (median {np.median(lengths):g}), "
        f"{lengths.sum()} steps, {rate}"
    )
    tasks = sorted(set(dataset.tasks or ()) - {""})
    for task in tasks[:5]:
        print(f"task: {task}")
    if len(tasks) > 5:
        print(f"... and {len(tasks) - 5} more tasks")
    width = max(len(key.name) for key in found.keys)
    for key in found.keys:
        shape = " x ".join(map(str, key.shape))
        origin = "" if key.source == key.name else f"  from {key.source}"
        print(f"  {key.name:<{width}}  {key.dtype:<7}  {shape:<22}  {key.low:.4g} to {key.high:.4g}{origin}")
    for note in found.notes:
        print(f"note: {note}")
    problems = [*found.problems]
    if dataset.cameras:
        sheet = args.sheet or Path(f"{args.path.resolve().name}_sheet.png")
        try:
            contact_sheet(dataset, sheet)
            print(f"contact sheet: {sheet}")
        except ValueError as error:
            problems.append(f"no contact sheet: {error}")
    for problem in problems:
        print(f"wrong: {problem}")
    if not problems:
        print("nothing wrong was found")
    return 1 if problems else 0


def convert(args: argparse.Namespace) -> int:
    """Write a dataset in another format. 1 if an array of it is left out that ``--skip`` does not name.

    Raises:
        FileNotFoundError, ValueError: see :func:`uva_agents.data.open_dataset` and :func:`uva_agents.data.convert_dataset`.
    """
    from rich.progress import Progress

    from uva_agents.data.readers import open_dataset
    from uva_agents.data.selection import parse_episodes
    from uva_agents.data.writers import convert_dataset

    dataset = open_dataset(args.path, format=args.format, fields=_fields(args.field))
    dataset = dataset.without([name for name in args.skip if name != ALL])
    lost = {} if ALL in args.skip else dataset.left_out
    if args.episodes is not None:
        dataset = dataset.select(parse_episodes(args.episodes, len(dataset)))
    for note in dataset.notes:
        print(f"note: {note}")
    with Progress(disable=args.quiet) as bar:
        task = bar.add_task("episodes", total=len(dataset))
        convert_dataset(
            dataset,
            args.out,
            args.to,
            control_hz=args.hz,
            force=args.force,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"{len(dataset)} episodes, {dataset.ends[-1]} steps: {args.out}")
    for key in lost:
        print(f"not in {args.out}: {key} (see above); --skip {key} says that this is meant", file=sys.stderr)
    return 1 if lost else 0


def _add_source(parser: argparse.ArgumentParser) -> None:
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


def _fields(given: list[str]) -> dict[str, str | Field]:
    from uva_agents.data.fields import Field

    found: dict[str, str | Field] = {}
    for text in given:
        name, equals, keys = text.partition("=")
        if not (name and equals and keys):
            raise ValueError(f"--field {text}: give NAME=KEY, for example pixels=obs/agentview_image")
        parts = tuple(part.strip() for part in keys.split("+"))
        found[name] = Field(parts if len(parts) > 1 else parts[0])
    return found
