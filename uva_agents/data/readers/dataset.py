"""What a reader gives: a dataset as it was found, and its episodes under canonical names."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.data.episodes import Episodes
from uva_agents.data.fields import Field, as_float32, require_key
from uva_agents.data.holes import Hole, raise_first
from uva_agents.data.lazy import LazyFrames, as_lazy
from uva_agents.data.readers.naming import is_key, means, names_of_numbers, short_name
from uva_agents.errors import DataError, InputError

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
        notes: what the reader decided.
        left_out: stored key -> why it is not read. It is said wherever the dataset is looked at, and a conversion that would lose
            it does not succeed without being told.
        beside: what is stored beside the steps: key -> an array (one entry per episode, where it has as many), a value for JSON, or
            ``None`` for what nothing else can hold. Nothing here uses it; conversions keep it or say that they do not.
        control_hz_assumed: whether the rate is the format's usual one, and not said.
        names: stored key -> what each of its numbers is called, where the format says it.
        action_offset: rows from an observation to the action that is taken at it: 1 where a row's observation is what its action
            led to.
        holes: what is missing or wrong. An episode that cannot be read may have no row; what cannot be read of others is NaN.
    """

    frames: Mapping[str, LazyFrames]
    numbers: Mapping[str, np.ndarray]
    ends: np.ndarray
    defaults: Mapping[str, Field]
    control_hz: float | None = None
    tasks: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    holes: tuple[Hole, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    control_hz_assumed: bool = False
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    action_offset: int = 0


@dataclass(frozen=True)
class Dataset:
    """An opened dataset. Frames are on disk until they are looked at; everything else is in memory.

    Attributes:
        path: where it is.
        format: name of its format, see :func:`~uva_agents.data.recognise`.
        arrays: canonical arrays as in :class:`~uva_agents.data.Episodes`, unchecked: they may have NaN.
        ends: (E,) index one past each episode's last step.
        sources: canonical name -> stored keys.
        fields: canonical name -> where it was taken from, for those that the format or the caller named.
        control_hz: steps per second, or ``None`` where the format does not say.
        tasks: an instruction per episode, or ``None``.
        notes: what the reader decided or left out.
        left_out: stored key -> why it is not among the arrays.
        holes: what is missing or wrong and did not keep it from being opened.
        numbers: of the episodes in the files, where only some were chosen.
        names: canonical name -> what each of its numbers is called, where the format says it.
        beside, control_hz_assumed, action_offset: see :class:`Stored`.
    """

    path: Path
    format: str
    arrays: Mapping[str, np.ndarray]
    ends: np.ndarray
    sources: Mapping[str, str]
    control_hz: float | None = None
    tasks: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    holes: tuple[Hole, ...] = ()
    numbers: tuple[int, ...] | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)
    control_hz_assumed: bool = False
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    action_offset: int = 0
    fields: Mapping[str, Field] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ends)

    @cached_property
    def episodes(self) -> Episodes:
        """Checked.

        Raises:
            ValueError: see :class:`~uva_agents.data.Episodes`.
        """
        return Episodes(self.arrays, self.ends, source=str(self.path), numbers=self.numbers)

    @property
    def starts(self) -> np.ndarray:
        """(E,) first step of each episode."""
        return np.concatenate([[0], self.ends[:-1]])

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the arrays that are frames, ``pixels`` first."""
        return tuple(name for name in self.arrays if name.startswith("pixels"))

    def select(self, episodes: np.ndarray) -> Dataset:
        """Only these episodes (n,), in this order; frames stay on disk."""
        starts = self.starts
        rows = np.concatenate([np.arange(starts[e], self.ends[e]) for e in episodes])
        arrays = {}
        for name, value in self.arrays.items():
            frames = as_lazy(value)
            arrays[name] = value[rows] if frames is None else frames.select(rows).as_array()
        return replace(
            self,
            arrays=arrays,
            ends=np.cumsum([self.ends[e] - starts[e] for e in episodes]),
            tasks=None if self.tasks is None else tuple(self.tasks[e] for e in episodes),
            beside={
                key: value[episodes] if isinstance(value, np.ndarray) and len(value) == len(self) else value
                for key, value in self.beside.items()
            },
            numbers=tuple(int(e) if self.numbers is None else self.numbers[e] for e in episodes),
        )

    def without(self, names: Iterable[str]) -> Dataset:
        """Without these arrays, by canonical name or stored key; left-out keys are forgotten too.

        Raises:
            InputError: there is no such array.
        """
        wanted = set(names)
        known = {*self.arrays, *self.sources.values(), *self.left_out, *self.beside}
        for name in sorted(wanted):
            if any(is_key(name, key) for key in known):
                continue
            close = difflib.get_close_matches(name, known, n=3) or sorted(known)
            raise InputError(f"{self.path} has no array {name!r} to leave out; found {', '.join(close)}")

        def goes(*keys: str) -> bool:
            return any(is_key(name, key) for name in wanted for key in keys)

        kept = [name for name in self.arrays if not goes(name, self.sources[name])]
        if not kept:
            raise InputError(f"{self.path}: nothing would be left of it")
        return replace(
            self,
            arrays={name: self.arrays[name] for name in kept},
            sources={name: self.sources[name] for name in kept},
            left_out={key: why for key, why in self.left_out.items() if not goes(key)},
            beside={key: value for key, value in self.beside.items() if not goes(key)},
        )


def to_dataset(
    path: Path,
    format_name: str,
    stored: Stored,
    fields: Mapping[str, str | Field] | None,
    *,
    chosen: Callable[[int], np.ndarray] | None = None,
    needed: Iterable[str] | None = None,
    skip: Sequence[str] = (),
    lenient: bool = False,
    preferred: Mapping[str, Field] | None = None,
) -> Dataset:
    """Put stored arrays under canonical names; what nothing asked for keeps its own name.

    Args:
        fields: canonical name -> stored key or :class:`Field`, before the format's defaults.
        chosen: number of episodes -> numbers of those to keep; all by default.
        needed: canonical names of what will be used; holes in other arrays do not matter then.
        skip: see :meth:`Dataset.without`; holes in those do not matter, and they are not read.
        lenient: keep what can be read in spite of holes, and say the rest in :attr:`Dataset.holes`.
        preferred: taken before the format's defaults, where all of it is there.

    Raises:
        InputError: a field without a name, or a camera of several keys or columns.
        DataError: a hole that touches what is kept, a key that does not exist, a camera where numbers are wanted or the other way
            round, no episode, lengths that differ.
    """
    asked = {name: Field(value) if isinstance(value, str) else value for name, value in (fields or {}).items()}
    for name, origin in asked.items():
        _check_field(name, origin)
    known = {*stored.frames, *stored.numbers}
    usual = stored.defaults
    if preferred and all(key in known for origin in preferred.values() for key in origin.keys):
        usual = {**usual, **preferred}
    wanted = {**usual, **asked}
    holes = [*_replaced(stored.holes, asked)]
    if needed is not None:
        used = {key for name in needed if name in wanted for key in wanted[name].keys}
        unused = {key for key in (*stored.frames, *stored.numbers) if key not in used and short_name(key) not in needed}
        idle = {where for where in (hole.where for hole in holes) if any(is_key(key, where) for key in unused)}
        holes = [replace(hole, level="warn") if hole.where in idle else hole for hole in holes]
    if skip:
        stored, wanted, gone, skip = _skipped(stored, wanted, skip)
        # What is not used cannot harm.
        holes = [hole for hole in holes if not any(is_key(key, hole.where) for key in gone)]
    numbers = chosen(len(stored.ends)) if chosen is not None and len(stored.ends) else None
    if not lenient:
        raise_first(holes, path, numbers)
    if not len(stored.ends):
        raise DataError(f"{path}: the dataset is empty (no episode in it)")
    left_out = dict(stored.left_out)
    arrays: dict[str, np.ndarray] = {}
    sources: dict[str, str] = {}
    for name, origin in wanted.items():
        is_camera = name.startswith("pixels")
        for key in origin.keys:
            if why := next((why for left, why in left_out.items() if is_key(key, left)), None):
                raise DataError(f"{path}: {key} (wanted as {name!r}) cannot be read: {why}")
            require_key(key, stored.frames if is_camera else stored.numbers, name=name, source=str(path))
        if is_camera:
            arrays[name] = stored.frames[str(origin.key)].as_array()
        else:
            try:
                arrays[name] = _rows(origin.take(lambda key: stored.numbers[key]), f"{path}: {name!r}")
            except DataError as error:
                if not lenient:
                    raise
                holes.append(Hole(str(error), name))
                continue
            except (ValueError, IndexError) as error:  # parts of other lengths, columns that are not there
                raise DataError(
                    f"{path}: {' + '.join(origin.keys)} (wanted as {name!r}) do not fit: {error}"
                ) from error
        sources[name] = " + ".join(origin.keys)
    whole = {origin.keys[0] for origin in wanted.values() if origin.whole}
    for key, frames in stored.frames.items():
        if key not in whole:
            name = short_name(key)
            name = _free(name if name.startswith("pixels") else f"pixels_{name}", arrays)
            arrays[name], sources[name] = frames.as_array(), key
    for key, value in stored.numbers.items():
        if key not in whole:
            name = _free(short_name(key), arrays)
            try:
                arrays[name], sources[name] = _rows(value, key), key
            except DataError as error:
                left_out[key] = str(error)
    lengths = {name: len(value) for name, value in arrays.items()}
    if len(set(lengths.values())) > 1:
        text = f"{path}: arrays have unequal lengths {lengths}; frames and actions must match step by step"
        if not lenient:
            raise DataError(text)
        holes.append(Hole(text, "data"))
        arrays = {name: value for name, value in arrays.items() if len(value) == stored.ends[-1]}
    if not arrays:
        raise DataError(f"{path}: there is no array in it that can be read")
    ordered = sorted(arrays, key=lambda name: (name != "pixels", not name.startswith("pixels")))
    dataset = Dataset(
        path=path,
        format=format_name,
        arrays={name: arrays[name] for name in ordered},
        ends=np.asarray(stored.ends, np.int64),
        sources={name: sources[name] for name in ordered},
        control_hz=stored.control_hz,
        tasks=stored.tasks,
        notes=(
            *stored.notes,
            *(f"left out {key}: {why}" for key, why in left_out.items()),
            *(hole.message for hole in holes if hole.message not in left_out.values() and not lenient),
        ),
        left_out=left_out,
        holes=tuple(holes),
        beside=stored.beside,
        control_hz_assumed=stored.control_hz_assumed,
        names=names_of_numbers(arrays, {**{n: Field(key) for n, key in sources.items()}, **wanted}, stored.names),
        action_offset=stored.action_offset,
        fields=wanted,
    )
    dataset = dataset.without(skip) if skip else dataset
    return dataset if numbers is None else dataset.select(numbers)


def _check_field(name: str, origin: Field) -> None:
    if not name.strip() or not origin.keys or not all(origin.keys):
        what = f"fields={{{name!r}: {origin.key!r}}}"
        raise InputError(f"{what} lacks a name: give that of the array, and the stored key that it is taken from")
    if name.startswith("pixels") and not origin.whole:
        what = "columns" if len(origin.keys) == 1 else " + ".join(origin.keys)
        raise InputError(f"{name!r} is a camera and takes the pictures of one stored key as they are, not {what}")


def _skipped(
    stored: Stored, wanted: Mapping[str, Field], names: Sequence[str]
) -> tuple[Stored, dict[str, Field], set[str], list[str]]:
    """What is stored and wanted without these arrays, their keys, and those of the names that mean no stored array."""
    whole = {name: wanted[name].keys[0] for name in names if name in wanted and wanted[name].whole}
    known = {*stored.frames, *stored.numbers, *stored.left_out}
    gone = {key for name in names for key in known if means(name, key)} | {*whole.values()}
    unknown = [name for name in names if name not in whole and not any(means(name, key) for key in known)]
    frames = {key: value for key, value in stored.frames.items() if key not in gone}
    numbers = {key: value for key, value in stored.numbers.items() if key not in gone}
    if not frames and not numbers:
        raise InputError("nothing would be left of it: skip less")
    left_out = {key: value for key, value in stored.left_out.items() if key not in gone}
    kept = {name: origin for name, origin in wanted.items() if not gone & set(origin.keys)}
    return replace(stored, frames=frames, numbers=numbers, left_out=left_out), kept, gone, unknown


def _replaced(holes: Iterable[Hole], asked: Mapping[str, Field]) -> Iterator[Hole]:
    """Holes in arrays that the caller has said something else to take for are no errors any more."""
    usual = {"action": "action", "actions": "action", "agent_pos": "agent_pos", "state": "agent_pos"}
    for hole in holes:
        name = usual.get(short_name(hole.where), "")
        other = name in asked and not any(is_key(key, hole.where) for key in asked[name].keys)
        yield replace(hole, level="warn") if other and hole.level == "error" else hole


def too_wide(shape: tuple[int, ...]) -> bool:
    """Whether rows of an array (N, ...) hold more than :data:`MAX_NUMBERS`."""
    return int(np.prod(shape[1:], dtype=np.int64)) > MAX_NUMBERS


def _rows(value: np.ndarray, name: str) -> np.ndarray:
    """float32 (N, ...) with at least two axes."""
    value = as_float32(value, name)
    return value[:, None] if value.ndim == 1 else value


def _free(name: str, taken: Mapping[str, object]) -> str:
    while name in taken:
        name += "_"
    return name
