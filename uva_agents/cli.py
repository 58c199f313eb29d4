"""The ``uva`` command. Each subcommand is a module with ``add_arguments(parser)`` and ``run(args) -> exit status``."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import select
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from uva_agents import __version__
from uva_agents.causes import BUG, cause_of


@dataclass(frozen=True, slots=True)
class _Command:
    module: str
    help: str


# Modules are imported when their command is called: `uva --help` is instant, and one that is broken breaks no other.
COMMANDS = {
    "demo": _Command(
        "uva_agents.commands.demo", "run the shipped policy and write a video of what it sees and imagines"
    ),
    "eval": _Command("uva_agents.commands.evaluate", "run an agent in an environment and report its score"),
    "train": _Command("uva_agents.commands.train", "train a model on demonstrations"),
    "bench": _Command("uva_agents.commands.bench", "run a benchmark"),
    "imagine": _Command(
        "uva_agents.commands.imagine", "a video of what the world model predicts beside what really happens"
    ),
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

    0 success; 1 the command found a problem (``doctor``), or an episode failed; 2 wrong arguments or input; 3 data or weights
    that are damaged; 4 the machine lacks something; 70 a mistake in this package; 130 interrupted; 143 terminated. What an error
    counts as is in :mod:`uva_agents.causes`.
    """
    _make_printing_safe()
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if not word.startswith("-")), None)
    debug = "--debug" in words
    try:
        args = _parser(command).parse_args(words)
        debug = args.debug
        with _terminated_cleanly():
            status: int = args.run(args)
            sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"uva {command}: interrupted", file=sys.stderr)
        return 130
    except _Terminated:
        print(f"uva {command}: terminated", file=sys.stderr)
        return 143
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_has_left():
            return 0
        cause = cause_of(error)
        if debug:
            raise
        if cause is None:
            traceback.print_exc()
            print(_how_to_report(command, words), file=sys.stderr)
            return BUG
        print(f"uva {command}: error: {cause.line}", file=sys.stderr)
        return cause.status
    return status


def _reader_has_left() -> bool:
    """Whether it is standard output that nobody reads any more, as in ``uva info NAME | head``; other pipes break, too."""
    try:
        number = sys.stdout.fileno()
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            left = True
        else:
            looked = select.poll()
            looked.register(number, select.POLLOUT)
            left = any(events & (select.POLLERR | select.POLLHUP) for _, events in looked.poll(0))
    except (OSError, ValueError, AttributeError):  # it is no file, or this system has no poll
        return False
    if left:  # Python would complain once more while it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return left


def _how_to_report(command: str | None, words: Sequence[str]) -> str:
    # What a token or password might be in is left out.
    secret = any(word.startswith("--token") for word in words)
    shown = f"uva {command} ..." if secret else f"uva {shlex.join(words)}"
    return (
        f"uva {command}: this is a mistake in uva-agents {__version__}, not in what you did. Please report it with the lines "
        f"above, what `uva doctor` prints, and the command: {shown}"
    )


class _Terminated(BaseException):
    """SIGTERM came. Not an ``Exception``: nothing that survives the errors of an episode may swallow it."""


def _terminate(*_: object) -> None:
    raise _Terminated


@contextlib.contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does: files are closed, workers stopped. Commands may have an answer of their own."""
    try:
        before = signal.signal(signal.SIGTERM, _terminate)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _not_in_children() -> None:
    # A forked worker is to end at once, also where it is deep in a simulator.
    if signal.getsignal(signal.SIGTERM) is _terminate:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_not_in_children)


def _make_printing_safe() -> None:
    """Neither symbols that the terminal's encoding lacks, which are shown escaped, nor a stream that is closed end a command."""
    for name in ("stdout", "stderr"):
        if (
            getattr(sys, name) is None
        ):  # `>&-`; where there is nothing open, the next file that is opened takes its number
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


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


if __name__ == "__main__":
    sys.exit(main())
