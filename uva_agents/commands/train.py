"""``uva train``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uva_agents.training.selection import Evaluator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See :mod:`uva_agents.training.cli`."""
    from uva_agents.training import cli

    cli.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """See :mod:`uva_agents.training.cli`."""
    from uva_agents.training import cli

    return cli.run(args, make_evaluator=evaluator)


def evaluator(args: argparse.Namespace, out: Path) -> Evaluator:
    """Rollouts in ``--eval-env``, which can be made: better known now than after the first thousand steps.

    Raises:
        InputError: there is no such environment or protocol.
        MachineError: the environment cannot be made here.
    """
    import gymnasium as gym

    from uva_agents.benchmarks.evaluation.rollouts import FIRST_SEED, EnvRollouts

    found = EnvRollouts(
        args.eval_env,
        20 if args.eval_episodes is None else args.eval_episodes,
        out / "rollouts",
        protocol=args.eval_protocol,
        seed=FIRST_SEED if args.eval_seed is None else args.eval_seed,
        workers=args.eval_workers,
        progress=not args.quiet,
    )
    gym.make(args.eval_env).close()
    return found
