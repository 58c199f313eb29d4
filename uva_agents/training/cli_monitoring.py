"""Options of ``uva train`` for what happens beside the optimisation: trackers, rollouts, early stopping."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uva_agents.errors import InputError
from uva_agents.training.selection import EarlyStopping, Evaluator, Rollouts, Selection
from uva_agents.training.trackers import TRACKERS, check_trackers

MakeEvaluator = Callable[[argparse.Namespace, Path], Evaluator]
"""(arguments, run folder) -> what makes rollouts in ``--eval-env``."""


def add_monitoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.add_argument(
        "--tracker",
        action="append",
        default=[],
        metavar="NAME",
        help=f"log to {', '.join(TRACKERS)} too (several times for several); TensorBoard is, wherever it is installed",
    )
    parser.add_argument(
        "--project", default="uva-agents", help="what trackers file the run under (default %(default)s)"
    )
    parser.add_argument(
        "--eval-env",
        metavar="ENV",
        help="gymnasium id, for example uva/PushT-v0: rollouts during training of the network; the best weights are kept in "
        "RUN/weights-best",
    )
    parser.add_argument(
        "--eval-every", type=int, metavar="N", help="steps between rollouts (default: a tenth of the stage's)"
    )
    parser.add_argument("--eval-episodes", type=int, metavar="N", help="episodes of each (default 20)")
    parser.add_argument(
        "--eval-seed", type=int, metavar="N", help="of the first episode; default: none that a protocol publishes"
    )
    parser.add_argument("--eval-protocol", metavar="NAME", help="step limit and score; default: the usual ones of ENV")
    parser.add_argument(
        "--eval-workers", type=int, metavar="N", help="processes with an environment each (default: none)"
    )
    parser.add_argument(
        "--stop-early",
        metavar="METRIC:PATIENCE",
        help="end training of the network when METRIC, of validation or rollouts (success_rate), has not improved for PATIENCE "
        "measurements in a row; METRIC:PATIENCE:min or :max where the name does not say what is better",
    )


def selection_of(args: argparse.Namespace, out: Path, make_evaluator: MakeEvaluator | None) -> Selection | None:
    """What the arguments ask for.

    Args:
        out: run folder.
        make_evaluator: ``None`` where whoever calls knows no environments.

    Raises:
        InputError: an option without the one that it belongs to, or what :class:`EarlyStopping` and the evaluator refuse.
    """
    rule = None if args.stop_early is None else EarlyStopping.parse(args.stop_early)
    if args.eval_env is None:
        names = ("eval_every", "eval_episodes", "eval_seed", "eval_protocol", "eval_workers")
        if given := next((name for name in names if getattr(args, name) is not None), None):
            raise InputError(f"--{given.replace('_', '-')} belongs to --eval-env, which is not given")
        return None if rule is None else Selection(early_stopping=rule)
    if make_evaluator is None:
        raise InputError("--eval-env: rollouts are made by `uva train` only")
    return Selection(Rollouts(make_evaluator(args, out), args.eval_every), rule)


def trackers_of(args: argparse.Namespace) -> tuple[Any, ...]:
    """The trackers, which are known and installed.

    Raises:
        InputError, MachineError: see :func:`~uva_agents.training.trackers.check_trackers`.
    """
    check_trackers(args.tracker)
    return tuple(dict.fromkeys(args.tracker))
