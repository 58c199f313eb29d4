"""What stands for the slow steps of a UVA run in a dry run: arrays of the shape that they make, one row repeated without memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from uva_agents.data import Episodes, Variant
from uva_agents.training.uva.run import UVARun


class TokenSource(Protocol):
    """Latents of a dataset's variants; see :class:`~uva_agents.data.LatentStore`."""

    def get_all(self, episodes: Episodes, variants: Sequence[Variant], progress: Any = None) -> Any:
        """(N, S, C) for each variant."""
        ...


def stand_in_latents(run: UVARun, source: TokenSource) -> int:
    """Give the run the latents of the first frame of every dataset for all of its frames.

    Returns: bytes of the latents on disk.
    """
    written = 0

    def stand_in(episodes: Episodes | None, variants: Sequence[Variant]) -> list[np.ndarray]:
        nonlocal written
        if episodes is None:
            return []
        arrays = {
            name: np.asarray(values[:1]) for name, values in episodes.arrays.items() if not name.startswith("pixels_")
        }
        first = Episodes(arrays, np.array([1]), episodes.source)
        row = np.asarray(source.get_all(first, variants[:1])[0][:1])
        written += len(variants) * episodes.steps * row.nbytes
        return [np.broadcast_to(row, (episodes.steps, *row.shape[1:]))] * len(variants)

    parts = [run.episodes, *(part.episodes for part in run.others)]
    run.tokens, *run.more_tokens = [stand_in(episodes, run.variants) for episodes in parts]
    if run.recipe.data.has_wrist:
        views = [stand_in(run.wrist_view(episodes), run.wrist_variants) for episodes in parts]
        run.wrist_tokens, *run.more_wrist_tokens = views
    return written * (2 if run.recipe.model.standardize else 1)  # as they come, and standardised


def stand_in_keypoints(run: UVARun) -> None:
    """Keypoints in the middle of every frame."""
    numbers = 2 * run.recipe.model.num_keypoints

    def stand_in(episodes: Episodes) -> list[np.ndarray]:
        row = np.zeros((1, numbers), np.float32)
        return [np.broadcast_to(row, (episodes.steps, numbers))] * len(run.variants)

    run.keypoints, *run.more_keypoints = [stand_in(part.episodes) for part in (run.main, *run.others)]
