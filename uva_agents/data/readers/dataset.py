"""What a reader gives: a dataset as it was found, and its episodes under canonical names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from uva_agents.data.episodes import Episodes
from uva_agents.data.fields import Field, require_key
from uva_agents.data.lazy import LazyFrames

MAX_NUMBERS = 4096
"""Stored arrays with more numbers per row than this are left out (depth images, point clouds)."""


class MissingExtraError(ImportError, ValueError):
    """A reader needs a package that is not installed; the message names the extra."""


@dataclass(frozen=True)
class Stored:
    """What a file format holds, under its own keys.

    Attributes:
        frames: cameras, uint8 (N, H, W, 3).
        numbers: everything else with one row per step, (N,) or (N, ...), in any numeric type.
        ends: (E,) index one past each episode's last step.
        defaults: canonical name -> where it usually is in this format.
        control_hz: steps per second, where the format says it.
        tasks: an instruction per episode, where the format has them.
        notes: what the reader decided or left out.
    """

    frames: Mapping[str, LazyFrames]
    numbers: Mapping[str, np.ndarray]
    ends: np.ndarray
    defaults: Mapping[str, Field]
    control_hz: float | None = None
    tasks: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """An opened dataset. Frames are on disk until they are looked at; everything else is in memory.

    Attributes:
        path: where it is.
        format: name of its format, see :func:`~uva_agents.data.recognise`.
        arrays: canonical arrays as in :class:`~uva_agents.data.Episodes`, unchecked: they may have NaN.
        ends: (E,) index one past each episode's last step.
        sources: canonical name -> stored keys.
        control_hz: steps per second, or ``None`` where the format does not say.
        tasks: an instruction per episode, or ``None``.
        notes: what the reader decided or left out.
    """

    path: Path
    format: str
    arrays: Mapping[str, np.ndarray]
    ends: np.ndarray
    sources: Mapping[str, str]
    control_hz: float | None = None
    tasks: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ends)

    @cached_property
    def episodes(self) -> Episodes:
        """Checked.

        Raises:
            ValueError: see :class:`~uva_agents.data.Episodes`.
        """
        return Episodes(self.arrays, self.ends, source=str(self.path))

    @property
    def starts(self) -> np.ndarray:
        """(E,) first step of each episode."""
        return np.concatenate([[0], self.ends[:-1]])

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the arrays that are frames, ``pixels`` first."""
        return tuple(name for name in self.arrays if name.startswith("pixels"))


def to_dataset(path: Path, format_name: str, stored: Stored, fields: Mapping[str, str | Field] | None) -> Dataset:
    """Put stored arrays under canonical names; what nothing asked for keeps its own name.

    Args:
        fields: canonical name -> stored key or :class:`Field`, before the format's defaults.

    Raises:
        ValueError: a key that does not exist, a camera where numbers are wanted or the other way round, no episode, lengths that
            differ.
    """
    if not len(stored.ends):
        raise ValueError(f"{path}: the dataset is empty (no episode in it)")
    asked = {name: Field(value) if isinstance(value, str) else value for name, value in (fields or {}).items()}
    chosen = {**stored.defaults, **asked}
    arrays: dict[str, np.ndarray] = {}
    sources: dict[str, str] = {}
    for name, field in chosen.items():
        is_camera = name.startswith("pixels")
        for key in field.keys:
            require_key(key, stored.frames if is_camera else stored.numbers, name=name, source=str(path))
        if is_camera:
            arrays[name] = stored.frames[str(field.key)].as_array()
        else:
            arrays[name] = _rows(field.take(lambda key: stored.numbers[key]))
        sources[name] = " + ".join(field.keys)
    whole = {field.keys[0] for field in chosen.values() if field.whole}
    for key, frames in stored.frames.items():
        if key not in whole:
            name = short_name(key)
            name = _free(name if name.startswith("pixels") else f"pixels_{name}", arrays)
            arrays[name], sources[name] = frames.as_array(), key
    for key, value in stored.numbers.items():
        if key not in whole:
            name = _free(short_name(key), arrays)
            arrays[name], sources[name] = _rows(value), key
    lengths = {name: len(value) for name, value in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{path}: arrays have unequal lengths {lengths}; frames and actions must match step by step")
    ordered = sorted(arrays, key=lambda name: (name != "pixels", not name.startswith("pixels")))
    return Dataset(
        path=path,
        format=format_name,
        arrays={name: arrays[name] for name in ordered},
        ends=np.asarray(stored.ends, np.int64),
        sources={name: sources[name] for name in ordered},
        control_hz=stored.control_hz,
        tasks=stored.tasks,
        notes=stored.notes,
    )


def short_name(key: str) -> str:
    """The last part of a stored key, in letters, digits and underscores."""
    last = re.split(r"[/.](?=[^/.]*$)", key)[-1]
    return re.sub(r"\W+", "_", last)


def too_wide(shape: tuple[int, ...]) -> bool:
    """Whether rows of an array (N, ...) hold more than :data:`MAX_NUMBERS`."""
    return int(np.prod(shape[1:], dtype=np.int64)) > MAX_NUMBERS


def _rows(value: np.ndarray) -> np.ndarray:
    """float32 (N, ...) with at least two axes."""
    value = np.asarray(value, np.float32)
    return value[:, None] if value.ndim == 1 else value


def _free(name: str, taken: Mapping[str, object]) -> str:
    while name in taken:
        name += "_"
    return name
