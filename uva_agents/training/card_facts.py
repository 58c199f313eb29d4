"""What a run knows about its weights, for their model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.data import Episodes
from uva_agents.training.recipe import Recipe
from uva_agents.training.sources import Part


@dataclass(frozen=True)
class DatasetFacts:
    """One dataset of a run.

    Attributes:
        name: of its file or folder.
        episodes, rows: how many.
        held_out: numbers of the episodes that were not trained on.
        weight: share of what is drawn, up to a common factor.
        fingerprint: of its numbers; empty for video alone.
        has_actions: false for video alone.
        instructions: different ones.
    """

    name: str
    episodes: int
    rows: int
    held_out: tuple[int, ...] = ()
    weight: float = 1.0
    fingerprint: str = ""
    has_actions: bool = True
    instructions: tuple[str, ...] = ()


@dataclass(frozen=True)
class CardFacts:
    """What a run knows about its weights.

    Attributes:
        recipe, spec: of the weights.
        datasets: that with actions which is held out from first.
        parameters: part of the network -> how many numbers.
        origin: weights that training went on from.
    """

    recipe: Recipe
    spec: InterfaceSpec
    datasets: tuple[DatasetFacts, ...]
    parameters: Mapping[str, int] = field(default_factory=dict)
    origin: str | None = None


def dataset_facts(part: Part, held_out: np.ndarray) -> DatasetFacts:
    """Of a dataset that was opened.

    Args:
        held_out: places of the episodes that were not trained on.
    """
    episodes = part.episodes
    values = {name: value for name, value in episodes.arrays.items() if not name.startswith("pixels")}
    numbers = episodes.numbers if episodes.numbers is not None else range(len(episodes))
    return DatasetFacts(
        Path(episodes.source).name,
        len(episodes),
        episodes.steps,
        tuple(int(numbers[i]) for i in held_out),
        part.weight,
        Episodes(values, episodes.ends).fingerprint if values else "",
        part.has_actions,
        tuple(sorted(set(part.tasks or ()) - {""})),
    )
