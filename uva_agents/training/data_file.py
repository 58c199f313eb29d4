"""What a run trained on, written beside its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accelerate import PartialState

from uva_agents.data.run_data import RunData, RunDataset, write_run_data
from uva_agents.training.recipe import DataConfig
from uva_agents.training.sources import Part


def write_data(out: Path, data: DataConfig, parts: Sequence[Part], held_out: np.ndarray, *, every: int | None) -> None:
    """Write ``data.json`` into a run folder, from the first process.

    Args:
        parts: the datasets, the one that is held out from first.
        held_out: numbers of its episodes (n,), counted among those that were chosen.
        every: stored rows to one that was used.
    """
    if not PartialState().is_main_process:
        return
    datasets = []
    for i, part in enumerate(parts):
        numbers = part.episodes.numbers
        held = held_out if i == 0 else np.zeros(0, np.int64)
        datasets.append(
            RunDataset(
                path=Path(part.episodes.source).resolve(),
                weight=part.weight,
                episodes=None if numbers is None else tuple(int(n) for n in numbers),
                held_out=tuple(int(n) if numbers is None else int(numbers[n]) for n in held),
                fields=part.fields,
            )
        )
    rows = data.rows_per_step * (every or 1)
    write_run_data(out, RunData(tuple(datasets), rows, data.action_offset, data.control_hz))
