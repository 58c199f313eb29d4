"""What a format needs for datasets to be written in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uva_agents.data.readers.dataset import Dataset

Progress = Callable[[int, int], None]
"""Called with (episodes done, all)."""


@dataclass(frozen=True)
class WriteOptions:
    """What is written, beyond what the dataset says.

    Attributes:
        control_hz: steps per second, where it is known.
        tasks: an instruction per episode, where there are any.
        cameras, names: of features, see :func:`~uva_agents.data.writers.lerobot.write_lerobot`.
        progress: called after each episode.
    """

    control_hz: float | None = None
    tasks: Sequence[str] | None = None
    cameras: Mapping[str, str] | None = None
    names: Mapping[str, Sequence[str]] | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class Writer:
    """How datasets are written in a format.

    Attributes:
        write: (a new folder or file, dataset, options): writes it; the caller moves it into place at the end.
        keeps_beside: whether it has a place for what lies beside the steps (:attr:`~uva_agents.data.Dataset.beside`).
        needs_rate: whether the format stores steps per second.
        whole_rate: whether they are a whole number.
        names_features: whether cameras and numbers have names there that can be given.
    """

    write: Callable[[Path, Dataset, WriteOptions], None]
    keeps_beside: bool = False
    needs_rate: bool = False
    whole_rate: bool = False
    names_features: bool = False
