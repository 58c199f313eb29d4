"""``uva data``: demonstrations from simulators; looking at datasets and converting them."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva data``: ``collect ENVIRONMENT OUT``, ``planar OUT``, ``inspect``, ``layout`` and ``convert``."""
    from uva_agents.commands.data_collect import add_collect_arguments
    from uva_agents.commands.data_formats import add_convert_arguments
    from uva_agents.commands.data_inspect import add_checksum_arguments, add_inspect_arguments
    from uva_agents.commands.data_layout import add_layout_arguments
    from uva_agents.commands.data_planar import add_planar_arguments

    actions = parser.add_subparsers(
        title="what to do", metavar="collect | planar | inspect | layout | checksum | convert", required=True
    )
    add_inspect_arguments(
        actions.add_parser("inspect", help="what a dataset of any format holds, and what is wrong with it")
    )
    add_layout_arguments(
        actions.add_parser("layout", help="what training takes of a dataset, as a file to edit (--layout of uva train)")
    )
    add_checksum_arguments(
        actions.add_parser(
            "checksum", help="write checksums of a dataset's files beside it; inspect, train and convert check them"
        )
    )
    add_convert_arguments(actions.add_parser("convert", help="write a dataset as LeRobot v3 or zarr"))
    add_planar_arguments(
        actions.add_parser(
            "planar",
            aliases=["sketch"],  # its name before
            help="demonstrations of block pushing in a planar simulator: many, positions only",
        )
    )
    collect = actions.add_parser("collect", help="demonstrations of an environment into a replay buffer")
    add_collect_arguments(collect)


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    status: int = args.action(args)
    return status
