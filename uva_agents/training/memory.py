"""What a training run takes of memory and disk, computed from sizes alone, so that it is refused before anything is decoded."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uva_agents.errors import MachineError
from uva_agents.utils.files import check_folder_target
from uva_agents.utils.memory import available_memory, in_words

_REST = 400 << 20
"""Bytes for a small network, its optimiser and batches: what does not grow with the data."""
_ORDER = 64
"""Bytes of a row for the order in which windows are drawn."""


@dataclass(frozen=True)
class Shape:
    """How much of a dataset is trained on.

    Attributes:
        source: its path.
        steps: rows.
        cameras: that are looked at.
        numbers: bytes of a row of the other arrays.
    """

    source: str
    steps: int
    cameras: int
    numbers: int


@dataclass(frozen=True)
class Holds:
    """How a recipe keeps its data.

    Attributes:
        side: of the square frames on disk, pixels.
        variants: copies of the numbers in memory.
        tokens: bytes of a frame's latents on disk, in all variants and forms.
    """

    side: int
    variants: int = 1
    tokens: int = 0


def check_out(out: Path) -> None:
    """That a run can write where it shall, before anything is loaded. Makes no folder.

    Raises:
        MachineError: a file is there, it may not be written, or the disk is full.
    """
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if there != out and there.is_file():
        raise MachineError(f"{out} cannot be made: {there} is a file")
    check_folder_target(there)


def disk_needed(shapes: Sequence[Shape], holds: Holds) -> int:
    """Bytes that frames and latents take."""
    frame = 3 * holds.side * holds.side + holds.tokens
    return sum(shape.steps * shape.cameras * frame for shape in shapes)


def memory_needed(shapes: Sequence[Shape], holds: Holds) -> int:
    """Bytes that a small network's run takes: frames and latents are on disk, numbers are in memory."""
    return sum(shape.steps * (shape.numbers * holds.variants + _ORDER) for shape in shapes) + _REST


def check_needs(shapes: Sequence[Shape], holds: Holds, out: Path | None) -> str:
    """Refuse a run that would not fit.

    Args:
        out: run folder. The disk is not looked at where a run has begun to fill it: its steps do that.

    Returns: what the run takes, in words.

    Raises:
        MachineError: with what it needs, what there is, and how to need less.
    """
    where = shapes[0].source if len(shapes) == 1 else f"{len(shapes)} datasets"
    steps = sum(shape.steps for shape in shapes)
    need, free = memory_needed(shapes, holds), available_memory()
    if free is not None and need > free:
        fits = max(0, math.floor((free - _REST) / max(1, need - _REST) * steps))
        raise MachineError(
            f"training on {where} needs about {in_words(need)} of memory for the numbers of {steps:,} steps, and {in_words(free)} "
            f"are free: take fewer episodes, up to {fits:,} steps in all (--episodes 0-99), keep every second step (--every 2), or "
            "use a larger machine"
        )
    disk = disk_needed(shapes, holds)
    if disk and out is not None and not (out / "frames").exists():
        _check_disk(f"training on {where}", f"the frames and latents of {steps:,} steps", disk, out)
    on_disk = f"{in_words(disk)} of frames and latents on disk, " if disk else ""
    return f"{where}: {steps:,} steps; {on_disk}about {in_words(need)} of memory beside a large network's"


def _check_disk(who: str, what: str, need: int, out: Path) -> None:
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if need > free:
        raise MachineError(
            f"{who} needs {in_words(need)} of disk in {out} for {what}, and {in_words(free)} are free: free some, put the run on a "
            "larger disk (--out), or take fewer episodes or variants (--episodes, --variants)"
        )
