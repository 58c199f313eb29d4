"""``uva convert``: a released checkpoint to a weights folder."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from uva_agents.errors import InputError, MachineError
from uva_agents.utils.files import check_folder_target
from uva_agents.utils.progress import progress_bar

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
        InputError: OUT exists already, or must not be replaced.
        FileNotFoundError: no such checkpoint.
        WeightsError: the file is not what it should be.
        MachineError: OUT cannot be written.
    """
    out = _check_target(args.checkpoint, args.out, force=args.force)
    import torch

    from uva_agents.checkpoints.official.load import load_official
    from uva_agents.checkpoints.store import save_bundle

    with progress_bar(disable=args.quiet) as bar:
        tasks = {}

        def progress(part: str, done: int, total: int) -> None:
            if part not in tasks:
                tasks[part] = bar.add_task(part, total=total)
            bar.update(tasks[part], completed=done)

        bundle, report = load_official(args.checkpoint, device="cpu", heads=args.heads, progress=progress)
        writing = bar.add_task("writing", total=None)
        partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
        try:
            save_bundle(
                bundle,
                partial,
                card=card(args.checkpoint, args.dtype, str(report)),
                extra={"released": {"file": args.checkpoint.name, "weights": report.weights, "config": report.config}},
                dtype=getattr(torch, args.dtype),
            )
            _put(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        bar.update(writing, total=1, completed=1)
    print(report)
    print(f"weights: {args.out}")
    return 0


def _check_target(checkpoint: Path, out: Path, *, force: bool) -> Path:
    """That the work will have a place to go to; OUT as an absolute path."""
    if not checkpoint.exists():
        raise FileNotFoundError(f"no file {checkpoint}")
    target = out.absolute()
    if target.is_symlink() or target.exists():
        if not force:
            raise InputError(f"{out} exists: choose another folder, or --force to replace it")
        # What --force deletes is weights, never somebody's home.
        if (
            target.is_symlink()
            or not target.is_dir()
            or (any(target.iterdir()) and not (target / "config.json").exists())
        ):
            raise InputError(f"{out} is not a weights folder, which is what --force replaces: choose another one")
        if checkpoint.resolve().is_relative_to(target.resolve()):
            raise InputError(f"{checkpoint} is in {out}, which --force would delete: choose another folder")
    check_folder_target(target.parent)
    return target


def _put(partial: Path, out: Path) -> None:
    """A finished folder in its place, at once; what was there is deleted afterwards."""
    old = partial.with_suffix(".old")
    try:
        if out.exists():
            out.rename(old)
        partial.rename(out)
    except OSError as error:
        raise MachineError(f"{out} cannot be written: {error.strerror}") from error
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(old, ignore_errors=True)


def card(checkpoint: Path, dtype: str, report: str) -> str:
    """Model card of converted weights."""
    return (
        f"# {checkpoint.stem}\n\nConverted from the released checkpoint `{checkpoint.name}` of Unified Video Action Model "
        f"(arXiv 2503.00200, MIT licence), stored as {dtype}.\n\n```\n{report}\n```\n"
    )
