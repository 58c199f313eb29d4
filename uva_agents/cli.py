"""The ``uva`` command. Each subcommand is a module with ``add_arguments(parser)`` and ``run(args) -> exit status``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from uva_agents import __version__
from uva_agents.errors import UVAError


@dataclass(frozen=True, slots=True)
class _Command:
    module: str
    help: str


# Modules are imported when their command is called: `uva --help` is instant, and one that is broken breaks no other.
COMMANDS = {
    "demo": _Command("uva_agents.commands.demo", "run the shipped policy and film what it sees and imagines"),
    "eval": _Command("uva_agents.commands.evaluate", "run an agent in an environment and report its score"),
    "train": _Command("uva_agents.commands.train", "train a model on demonstrations"),
    "bench": _Command("uva_agents.commands.bench", "run a benchmark"),
    "imagine": _Command("uva_agents.commands.imagine", "film what the world model predicts beside what really happens"),
    "label": _Command("uva_agents.commands.label", "read the actions off a video"),
    "data": _Command(
        "uva_agents.commands.data", "collect demonstrations, look at datasets of any format, convert them"
    ),
    "run": _Command("uva_agents.commands.run", "let an agent drive an arm in real time, and record it"),
    "serve": _Command("uva_agents.commands.serve", "let clients on this and other computers ask an agent for actions"),
    "convert": _Command("uva_agents.commands.convert", "turn a released checkpoint into a weights folder"),
    "info": _Command(
        "uva_agents.commands.info", "versions, environments and shipped weights; or the card of some weights"
    ),
    "doctor": _Command("uva_agents.commands.doctor", "check that this installation works, and say what does not"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``uva`` with ``argv`` (default: the process's). Returns the exit status.

    0 success; 1 the command found a problem (``doctor``); 2 wrong arguments or input; 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if not word.startswith("-")), None)
    args = _parser(command).parse_args(words)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # `uva info NAME | head`: the reader has enough. Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"uva {command}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug or not _is_user_error(error):
            raise
        print(f"uva {command}: error: {_one_line(error)}", file=sys.stderr)
        return error.exit_status if isinstance(error, UVAError) else 2
    return status


def _parser(command: str | None) -> argparse.ArgumentParser:
    """All commands by name, the arguments of ``command`` only."""
    parser = argparse.ArgumentParser(
        prog="uva",
        description="Unified Video Action agents: policy, world model and inverse model from one set of weights.",
        epilog="uva COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"uva-agents {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, spec in COMMANDS.items():
        sub = commands.add_parser(name, help=spec.help, description=f"{spec.help[0].upper()}{spec.help[1:]}.")
        if name != command:
            continue
        module = importlib.import_module(spec.module)
        module.add_arguments(sub)
        # SUPPRESS: the default here must not undo a --debug given before the command.
        sub.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )
        sub.set_defaults(run=module.run)
    return parser


def _is_user_error(error: Exception) -> bool:
    from uva_agents.benchmarks import EvaluationError
    from uva_agents.envs.arx_x5.interface import DriverError

    return isinstance(
        error, UVAError | ValueError | FileNotFoundError | ConnectionError | EvaluationError | DriverError
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
