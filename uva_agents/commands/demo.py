"""``uva demo``."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva demo``."""
    parser.add_argument("--agent", default="pusht-nano", help="shipped name or weights folder (default %(default)s)")
    parser.add_argument("--episodes", type=int, default=3, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=100_000, help="of the first episode (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"), help="folder of the video and the picture")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """See :mod:`uva_agents.agents.demo`."""
    from uva_agents.agents import demo

    return demo.main(agent=args.agent, episodes=args.episodes, seed=args.seed, out=args.out, device=args.device)
