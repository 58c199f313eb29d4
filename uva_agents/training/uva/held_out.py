"""What is kept from training of every dataset of a run, and measured on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uva_agents.data import LatentWindows
from uva_agents.data.episodes import held_out_split, split_by
from uva_agents.training.sources import Part
from uva_agents.training.uva.clip_data import encoded_clip_windows
from uva_agents.training.uva.validation import Validator

if TYPE_CHECKING:
    from uva_agents.training.uva.run import UVARun

LARGEST_SHARE = 10
"""Of a further dataset at most every tenth episode is held out: one of fewer than ten is all trained on, and not measured on."""


def further_splits(parts: Sequence[Part], held_out: int | float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and held-out episode numbers of further datasets.

    Args:
        held_out: episodes that are held out of each, where it is large enough; or a share of each, below 1.
    """
    if isinstance(held_out, float) and 0 < held_out < 1:
        return [split_by(len(part.episodes), held_out) for part in parts]
    held_out = int(held_out)
    return [held_out_split(n, min(held_out, n // LARGEST_SHARE), seed=42) for n in (len(p.episodes) for p in parts)]


def make_validator(run: UVARun) -> Validator:
    """On the held-out windows of all datasets; those of further ones by name, ``NAME/metric``."""
    recipe = run.recipe
    others: dict[str, Validator] = {}
    for i, part in enumerate(run.others):
        _, held_out = run.more_splits[i]
        if len(held_out):
            name = _free_name(Path(part.episodes.source).name, others)
            others[name] = Validator(
                _windows(run, i, part, held_out),
                run.vae,
                run.normalizer_of(part),
                part.episodes.arrays["pixels"],
                world=recipe.world,
                n_actions=128,
                n_videos=32,
                video_only=not part.has_actions,
                frame_state_keys=recipe.data.frame_state_keys,
            )
    return Validator(
        run.held_out_windows,
        run.vae,
        run.normalizer,
        run.episodes.arrays["pixels"],
        world=recipe.world,
        frame_state_keys=recipe.data.frame_state_keys,
        tasks=run.main.tasks if recipe.data.instructions != "none" else None,
        others=others,
    )


def _windows(run: UVARun, number: int, part: Part, held_out: np.ndarray) -> LatentWindows:
    """Held-out windows of a further dataset, as they are."""
    if run.recipe.network.clips is not None:
        return encoded_clip_windows(run, 1 + number, part, held_out)
    return run.more_windows(number, part, held_out, run.variants[:1])


def _free_name(name: str, taken: dict[str, Validator]) -> str:
    number = 2
    free = name
    while free in taken:
        free, number = f"{name} {number}", number + 1
    return free
