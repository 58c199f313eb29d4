"""What all benchmarks have in common: options, targets that are checked before the work, a table, files with machine and versions.

A benchmark is a module with a :class:`Benchmark`. Its ``run`` is a generator: it yields the lines of its table, each as soon as it
is known, and returns its :class:`Outcome`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uva_agents.benchmarks.evaluation.machine import hardware, versions
from uva_agents.utils.files import check_file_target, check_folder_target
from uva_agents.utils.results import Results


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a benchmark found.

    Attributes:
        numbers: for the JSON file, which also gets the options, the machine and the versions.
        files: name -> function that writes it at a path; beside the JSON file.
        status: exit status: 1 where the benchmark has aims and misses one, or where a part of it failed.
    """

    numbers: Mapping[str, Any]
    files: Mapping[str, Callable[[Path], object]] = field(default_factory=dict)
    status: int = 0


Run = Callable[[argparse.Namespace], Generator[str, None, Outcome]]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark, a command.

    Attributes:
        name: as in ``uva bench NAME``.
        description: the module's docstring.
        add_arguments: its own options.
        run: yields the lines of the table, returns the outcome.
        folder: where its files go by default, with options in braces, such as ``"outputs/fidelity-{task}"``: it has an option
            ``--out`` and always writes ``NAME.json`` there. Without it, numbers are written where ``--json FILE`` says.
        folder_help: what else there is to know of the folder.
        threads: whether there is an option for the number of torch's threads.
    """

    name: str
    description: str | None
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Run
    folder: str | None = None
    folder_help: str = ""
    threads: bool = True

    def parser(self) -> argparse.ArgumentParser:
        """Its own options and those that all have."""
        parser = argparse.ArgumentParser(prog=f"uva bench {self.name}", description=self.description)
        self.add_arguments(parser)
        if self.folder is None:
            text = "write the numbers, the machine and the versions there"
            parser.add_argument("--json", type=Path, metavar="FILE", default=None, help=text)
        else:
            default = self.folder.format_map(_Capitals())
            parser.add_argument("--out", type=Path, default=None, help=f"default {default}{self.folder_help}")
        if self.threads:
            parser.add_argument("--threads", type=int, default=None, help="CPU threads of torch")
        return parser

    def main(self, argv: list[str] | None = None) -> int:
        """Measure, print the table, write the files. Returns the exit status.

        Raises:
            MachineError: nothing can be written at ``--json`` or ``--out``; known before the work.
            UnwrittenError: something is not where it was wanted; the message says where it is.
        """
        args = self.parser().parse_args(argv)
        if self.folder is not None:
            args.out = check_folder_target(args.out or Path(self.folder.format(**vars(args))))
        elif args.json is not None:
            check_file_target(args.json)
        if self.threads and args.threads:
            import torch

            torch.set_num_threads(args.threads)
        outcome = _printed(self.run(args))
        print(f"on {hardware()}; " + ", ".join(f"{name} {version}" for name, version in versions().items()))
        self._save(args, outcome)
        return outcome.status

    def _save(self, args: argparse.Namespace, outcome: Outcome) -> None:
        path = args.json if self.folder is None else args.out / f"{self.name}.json"
        if path is None:
            return
        with Results() as results:
            results.text(path, json_text({"settings": vars(args), **outcome.numbers}))
            for name, write in outcome.files.items():
                results.save(path.parent / name, write)
        if self.folder is not None:
            print(", ".join(str(path.parent / name) for name in (path.name, *outcome.files)))


class _Capitals(dict[str, str]):
    """In a template, the names of options in capitals, as argparse shows them."""

    def __missing__(self, name: str) -> str:
        return name.upper()


def _printed(lines: Generator[str, None, Outcome]) -> Outcome:
    while True:
        try:
            line = next(lines)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        print(line, flush=True)


def json_text(numbers: Mapping[str, Any]) -> str:
    """Numbers, with what they were measured on."""
    return json.dumps({**numbers, "hardware": hardware(), "versions": versions()}, indent=1, default=str) + "\n"


def add_seed(parser: argparse.ArgumentParser, default: int) -> None:
    """``--seed`` of the first episode."""
    parser.add_argument("--seed", type=int, default=default, help="of the first episode (default %(default)s)")


def add_workers(parser: argparse.ArgumentParser, default: int, note: str = "") -> None:
    """``--workers``, processes."""
    parser.add_argument("--workers", type=int, default=default, help=f"processes{note} (default %(default)s)")


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device`` of the weights."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default %(default)s)")


def add_recording(parser: argparse.ArgumentParser, tasks: tuple[str, ...]) -> None:
    """``--task``, ``--data``, ``--weights`` and ``--held-out`` of benchmarks on episodes that training held out."""
    parser.add_argument("--task", choices=tasks, default=tasks[0])
    parser.add_argument("--data", type=Path, required=True, help="the replay buffer that the weights were trained on")
    parser.add_argument("--weights", default=None, help="UVA weights (default: the shipped ones of the task)")
    add_held_out(parser)


def add_held_out(parser: argparse.ArgumentParser) -> None:
    """``--held-out``: how many episodes training kept from its networks."""
    text = "episodes held out in training (default: the recipe's)"
    parser.add_argument("--held-out", type=int, default=None, help=text)
