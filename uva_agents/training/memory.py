"""What a training run holds in memory at its peak, computed from sizes alone, so that it is refused before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uva_agents.errors import MachineError
from uva_agents.utils.files import check_folder_target
from uva_agents.utils.memory import available_memory, in_words

_REST = 400 << 20
"""Bytes for a small network, its optimiser and batches: what does not grow with the data."""


@dataclass(frozen=True)
class Shape:
    """What of a dataset is loaded.

    Attributes:
        source: its path.
        steps: rows.
        frame: bytes of a frame of all cameras that are loaded, 0 without.
        numbers: bytes of a row of the other arrays.
    """

    source: str
    steps: int
    frame: int
    numbers: int


@dataclass(frozen=True)
class Holds:
    """How a recipe keeps its data.

    Attributes:
        copies: of all frames at the peak.
        tokens: bytes of a frame's latents, in all variants and copies.
        resized: bytes of a frame at the network's size, where it is another.
        variants: copies of the numbers.
    """

    copies: float
    tokens: int = 0
    resized: int = 0
    variants: int = 1


def latents_held(*, tokens: int, variants: int, sources: int, has_autoencoder: bool, reduced: float = 0.0) -> Holds:
    """A recipe of several stages: frames and a copy of those that a stage trains on, then latents of all variants.

    Args:
        tokens: numbers in a frame's latents.
        has_autoencoder: whether it is trained, which joins the frames of several datasets.
        reduced: copies of the frames that a keypoint detector is trained on.
    """
    # Latents as they come, normalised, and joined for the windows, two bytes each; one variant in float32 meanwhile.
    copies = 2.1 + max(1.0 if has_autoencoder and sources > 1 else 0.0, reduced)
    return Holds(copies, tokens=tokens * (variants * 3 * 2 + 3 * 4), variants=variants + 1)


def check_out(out: Path) -> None:
    """That a run can write where it shall, before anything is loaded. Makes no folder.

    Raises:
        MachineError: a file is there, it may not be written, or the disk is full.
    """
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if there != out and there.is_file():
        raise MachineError(f"{out} cannot be made: {there} is a file")
    check_folder_target(there)


def check_memory(shapes: Sequence[Shape], holds: Holds) -> None:
    """Refuse a run that would not fit.

    Raises:
        MachineError: with what it needs, what there is, and how to need less.
    """
    free = available_memory()
    frames = sum(shape.steps * shape.frame for shape in shapes)
    latents = sum(shape.steps * (holds.tokens + holds.resized) for shape in shapes)
    numbers = sum(shape.steps * shape.numbers * holds.variants for shape in shapes)
    need = int(frames * holds.copies + latents + numbers) + _REST
    if free is None or need <= free:
        return
    steps = sum(shape.steps for shape in shapes)
    fits = max(0, math.floor((free - _REST) / max(1, need - _REST) * steps))
    where = shapes[0].source if len(shapes) == 1 else f"{len(shapes)} datasets"
    raise MachineError(
        f"training on {where} needs about {in_words(need)} of memory ({steps:,} steps: {in_words(frames)} of frames, held "
        f"{holds.copies:g} times at the peak, and {in_words(latents + numbers)} made from them), and {in_words(free)} are free: "
        f"take fewer episodes, up to {fits:,} steps in all (--episodes 0-99), keep every second step (--every 2), or use a larger "
        "machine"
    )
