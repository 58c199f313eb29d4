"""``uva bench NAME``: the benchmarks, each also a module ``uva_agents.benchmarks.NAME``."""

from __future__ import annotations

import argparse
import difflib
import importlib

BENCHMARKS = {
    "table5": "block pushing with a named block and square: Diffusion Policy alone, guided by UVA, guided by the simulator",
    "guidance": "what limits guided block pushing: proposals, world model or detector",
    "table6": "actions read off video: InverseModel, two consecutive frames, a constant",
    "fidelity": "imagined frames and objects in them, 4 to 64 steps ahead",
    "heldout": "metrics of all tasks on held-out episodes",
    "latency": "one decision, beside the official size",
    "throughput": "training windows per second",
    "data-loading": "a dataset of 100,000 frames: opening it, and windows of cached latents per second",
    "env-speed": "steps and resets per second of every environment that is installed",
    "realtime": "the control loop on the twin of the arm: late steps, jitter, gaps between chunks, a network that pauses",
    "planning": "one replanning, against a straight loop",
    "block-push-replay": "recorded block-push actions in our simulator",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva bench``."""
    listed = "; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items())
    parser.add_argument("name", help=listed)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="of the benchmark; NAME --help explains them")


def run(args: argparse.Namespace) -> int:
    """Run one.

    Raises:
        ValueError: an unknown name, with the close matches.
    """
    if args.name not in BENCHMARKS:
        close = difflib.get_close_matches(args.name, BENCHMARKS, n=2) or list(BENCHMARKS)
        raise ValueError(f"no benchmark called {args.name!r}; did you mean {' or '.join(close)}?")
    module = importlib.import_module(f"uva_agents.benchmarks.{args.name.replace('-', '_')}")
    status: int = module.main(args.rest)
    return status
