"""``uva convert``: a released checkpoint to a weights folder."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva convert``."""
    parser.add_argument("checkpoint", type=Path, help="a released .ckpt file")
    parser.add_argument("out", type=Path, help="folder to write (safetensors, config.json and a card)")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="on disk; float32 keeps every bit (default %(default)s)"
    )
    parser.add_argument(
        "--heads", type=int, default=None, help="attention heads, for a network of none of the named sizes"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Convert, and say what became of every tensor.

    Raises:
        ValueError: OUT exists already, or the file is not what it should be.
    """
    import torch
    from rich.progress import Progress

    from uva_agents.checkpoints.official import load_official
    from uva_agents.checkpoints.store import save_bundle

    if args.out.exists() and not args.force:
        raise ValueError(f"{args.out} exists: choose another folder, or --force to replace it")
    with Progress(disable=args.quiet) as bar:
        tasks = {}

        def progress(part: str, done: int, total: int) -> None:
            if part not in tasks:
                tasks[part] = bar.add_task(part, total=total)
            bar.update(tasks[part], completed=done)

        bundle, report = load_official(args.checkpoint, device="cpu", heads=args.heads, progress=progress)
        writing = bar.add_task("writing", total=None)
        partial = args.out.with_name(f"{args.out.name}.{os.getpid()}.partial")
        try:
            save_bundle(
                bundle,
                partial,
                card=card(args.checkpoint, args.dtype, str(report)),
                extra={"released": {"file": args.checkpoint.name, "weights": report.weights, "config": report.config}},
                dtype=getattr(torch, args.dtype),
            )
            if args.out.exists():
                shutil.rmtree(args.out)
            partial.rename(args.out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        bar.update(writing, total=1, completed=1)
    print(report)
    print(f"weights: {args.out}")
    return 0


def card(checkpoint: Path, dtype: str, report: str) -> str:
    """Model card of converted weights."""
    return (
        f"# {checkpoint.stem}\n\nConverted from the released checkpoint `{checkpoint.name}` of Unified Video Action Model "
        f"(arXiv 2503.00200, MIT licence), stored as {dtype}.\n\n```\n{report}\n```\n"
    )
