"""A dataset as a replay buffer in zarr: everything exactly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from uva_agents.data.readers.dataset import Dataset
from uva_agents.data.readers.zarr_buffer import CONVERTED
from uva_agents.data.replay_buffer import write_replay_buffer_by_episode
from uva_agents.data.writers.writer import Progress, WriteOptions

ZARR_NAMES = {"pixels": "img", "pixels_wrist": "img_wrist"}
"""Canonical name -> name under ``data/``, where they differ: what tools for diffusion-policy data expect."""


def write_zarr(out: Path, dataset: Dataset, options: WriteOptions) -> None:
    """Write ``dataset`` into a new folder, with what lies beside its steps."""
    beside = {key: value for key, value in dataset.beside.items() if value is not None}
    attributes = {
        **{key.removeprefix("attributes/"): v for key, v in beside.items() if key.startswith("attributes/")},
        "control_hz": options.control_hz,
        "tasks": list(options.tasks or ()) or None,
        "names": {_zarr_name(name, dataset): list(names) for name, names in dataset.names.items()} or None,
        CONVERTED: dataset.format,
    }
    write_replay_buffer_by_episode(
        out,
        _rows(dataset, options.progress),
        meta={key.removeprefix("meta/"): v for key, v in beside.items() if key.startswith("meta/")},
        attributes={key: value for key, value in attributes.items() if value is not None},
    )


def _rows(dataset: Dataset, progress: Progress | None) -> Iterator[dict[str, np.ndarray]]:
    starts = dataset.starts
    for i, (start, end) in enumerate(zip(starts, dataset.ends, strict=True)):
        yield {_zarr_name(name, dataset): np.asarray(value[start:end]) for name, value in dataset.arrays.items()}
        if progress is not None:
            progress(i + 1, len(dataset))


def _zarr_name(name: str, dataset: Dataset) -> str:
    """Its own where another array has the usual one."""
    usual = ZARR_NAMES.get(name, name)
    return name if usual in dataset.arrays else usual
