"""``uva data inspect`` and ``uva data checksum``: what a dataset holds, what is wrong with it, and that it stays as it is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from uva_agents.commands.data_formats import add_source, parse_fields

if TYPE_CHECKING:
    from uva_agents.data.inspect import Inspection

_LABELS = {"error": "wrong", "warn": "wrong", "note": "note"}


def add_inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva data inspect PATH``."""
    add_source(parser)
    parser.add_argument(
        "--sheet", type=Path, default=None, metavar="PNG", help="contact sheet to write (default: NAME_sheet.png here)"
    )
    parser.add_argument("--every-frame", action="store_true", help="decode all pictures, not some of them")
    parser.add_argument(
        "--json", default=None, metavar="FILE", help="write everything found as JSON, to standard output if FILE is -"
    )
    parser.add_argument(
        "--ci",
        action="store_true",
        help="a line per finding, `LEVEL: sentence`, and nothing else; no contact sheet unless --sheet asks for it",
    )
    parser.add_argument(
        "--fail-on",
        choices=("error", "warn"),
        default="warn",
        help="end with status 1 from this level on: error, what cannot be used; warn, also what looks odd (default)",
    )
    parser.set_defaults(action=inspect)


def add_checksum_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva data checksum PATH``."""
    parser.add_argument("path", type=Path, help="dataset, file or folder")
    parser.set_defaults(action=checksum)


def inspect(args: argparse.Namespace) -> int:
    """Print what is in a dataset and write its contact sheet. 1 if something is wrong with it.

    Raises:
        FileNotFoundError, DataError: see :func:`uva_agents.data.inspect_path`.
        MachineError: a file that was asked for cannot be written.
    """
    from uva_agents.data.inspect import LEVELS, Finding, inspect_path
    from uva_agents.data.sheet import contact_sheet
    from uva_agents.utils.files import check_file_target, write_text

    for target in (args.sheet, args.json):
        if target is not None and str(target) != "-":
            check_file_target(target)
    found = inspect_path(args.path, format=args.format, fields=parse_fields(args.field), every_frame=args.every_frame)
    quiet = args.ci or args.json == "-"
    if not quiet:
        _describe(found)
    findings = [*found.findings]
    if found.dataset is not None and found.dataset.cameras and (args.sheet is not None or not quiet):
        sheet = args.sheet or Path(f"{args.path.resolve().name}_sheet.png")
        try:
            contact_sheet(found.dataset, sheet, without=found.skip)
            if not quiet:
                print(f"contact sheet: {sheet}")
        except OSError as error:
            print(f"no contact sheet: {sheet} cannot be written: {error.strerror}", file=sys.stderr)
        except ValueError as error:
            findings.append(Finding("error", f"no contact sheet: {error}"))
    if args.json == "-":
        print(found.to_json())
    elif args.json is not None:
        write_text(args.json, found.to_json() + "\n")
    if args.json != "-":
        for finding in findings:
            print(f"{finding.level if args.ci else _LABELS[finding.level]}: {finding.message}")
        if not quiet:
            _advise(found)
    worst = max((LEVELS.index(finding.level) for finding in findings), default=0)
    return 1 if worst >= LEVELS.index(args.fail_on) else 0


def checksum(args: argparse.Namespace) -> int:
    """Write the checksums of a dataset's files beside it.

    Raises:
        FileNotFoundError, DataError, MachineError: see :func:`uva_agents.data.checksums.write_sums`.
    """
    from uva_agents.data.checksums import write_sums

    target = write_sums(args.path)
    print(f"{target}: inspect, convert and train hold {args.path} against it from now on")
    return 0


def _describe(found: Inspection) -> None:
    import numpy as np

    from uva_agents.data.inspect import title

    dataset, lengths = found.dataset, found.lengths
    if dataset is None:
        print(f"{found.path}: cannot be opened")
        return
    print(f"{found.path}: {title(dataset)}")
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


def _advise(found: Inspection) -> None:
    """What to do about what was found."""
    if found.skip_option:
        print(
            f"without what is wrong: --episodes '{found.skip_option}' ({len(found.lengths) - len(found.skip)} episodes)"
        )
    if not found.problems:
        print("nothing wrong was found")
