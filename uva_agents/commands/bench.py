"""``uva bench NAME``: the benchmarks, each also a module of ``uva_agents.benchmarks.paper`` or ``uva_agents.benchmarks.speed``."""

from __future__ import annotations

import argparse
import difflib
import importlib

BENCHMARKS: dict[str, tuple[str, str]] = {
    "table2": (
        "paper.table2",
        "the twin of the arm, reach and cup: success under looks as in training and under unseen ones, beside baselines",
    ),
    "table5": (
        "paper.table5",
        "block pushing with a named block and square: Diffusion Policy, the same guided by UVA, and guided by the simulator",
    ),
    "guidance": (
        "paper.guidance",
        "what limits guided block pushing: proposals, world model or detector",
    ),
    "table6": (
        "paper.table6",
        "actions read off video: InverseModel, two consecutive frames, a constant",
    ),
    "table6-arx": (
        "paper.table6_arx",
        "actions read off the arm's wrist camera: InverseModel, two frames, visual odometry, the replay of what was recorded",
    ),
    "fidelity": (
        "paper.fidelity",
        "imagined frames and objects in them, 4 to 64 steps ahead",
    ),
    "heldout": (
        "paper.heldout",
        "metrics of all tasks on held-out episodes",
    ),
    "latency": (
        "speed.latency",
        "one decision, beside the official size",
    ),
    "throughput": (
        "speed.throughput",
        "training windows per second",
    ),
    "data-loading": (
        "speed.data_loading",
        "a dataset of 100,000 frames: opening it, and windows of cached latents per second",
    ),
    "env-speed": (
        "speed.env_speed",
        "steps and resets per second of every environment that is installed",
    ),
    "realtime": (
        "speed.realtime",
        "the control loop on the twin of the arm: late steps, jitter, gaps between chunks, a network that pauses",
    ),
    "planning": (
        "speed.planning",
        "one replanning, against a straight loop",
    ),
    "call-trace": (
        "speed.call_trace",
        "through how many files of this package a decision and a plan go",
    ),
    "block-push-replay": (
        "paper.block_push_replay",
        "recorded block-push actions in our simulator",
    ),
}
"""Of each, its module and what it measures."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva bench``."""
    listed = "; ".join(f"{name}: {what}" for name, (_, what) in BENCHMARKS.items())
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
    module = importlib.import_module(f"uva_agents.benchmarks.{BENCHMARKS[args.name][0]}")
    status: int = module.main(args.rest)
    return status
