"""``uva data layout``: what training takes of a dataset, as a file that people edit."""

from __future__ import annotations

import argparse
from pathlib import Path

from uva_agents.commands.data_formats import add_source, parse_fields


def add_layout_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva data layout PATH``."""
    add_source(parser)
    parser.add_argument("--hz", type=float, default=None, help="rate of the recording, where the data does not say it")
    parser.add_argument(
        "--out", type=Path, default=None, metavar="TOML", help="file to write (default: standard output)"
    )
    parser.set_defaults(action=layout)


def layout(args: argparse.Namespace) -> int:
    """Write the layout that is found.

    Raises:
        FileNotFoundError, DataError: see :func:`uva_agents.data.open_dataset` and
            :func:`uva_agents.training.layout.find_layout`.
        MachineError: the file cannot be written.
    """
    from uva_agents.data import open_dataset
    from uva_agents.training.layout import find_layout
    from uva_agents.training.layout_files import layout_to_toml
    from uva_agents.utils.files import check_file_target, write_text

    if args.out is not None:
        check_file_target(args.out)
    dataset = open_dataset(args.path, format=args.format, fields=parse_fields(args.field))
    text = layout_to_toml(find_layout(dataset, control_hz=args.hz), str(args.path))
    if args.out is None:
        print(text, end="")
    else:
        write_text(args.out, text)
    return 0
