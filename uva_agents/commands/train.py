"""``uva train``."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See :mod:`uva_agents.training.cli`."""
    from uva_agents.training import cli

    cli.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """See :mod:`uva_agents.training.cli`."""
    from uva_agents.training import cli

    return cli.run(args)
