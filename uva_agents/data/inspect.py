"""What a dataset holds, and what is wrong with it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from uva_agents.data.checksums import check_sums, sums_path
from uva_agents.data.fields import Field
from uva_agents.data.formats import format_named
from uva_agents.data.holes import listed
from uva_agents.data.opening import open_dataset
from uva_agents.data.readers.dataset import Dataset
from uva_agents.data.selection import format_episodes
from uva_agents.data.windows import WindowSpec
from uva_agents.errors import DataError

SCHEMA = "uva-agents/inspect/1"
LEVELS = ("note", "warn", "error")
"""From what is only worth knowing to what cannot be used."""
_SAMPLED_EPISODES = 64
_FAR = 1e6
"""Actions and positions beyond this are a mistake in any unit."""


@dataclass(frozen=True)
class Finding:
    """Something worth knowing.

    Attributes:
        level: ``"error"``: it cannot be used as it is; ``"warn"``: it can, and somebody should look; ``"note"``: nothing is wrong.
        message: a sentence.
        where: array, stored key or file; empty for the whole.
        episodes: that it is confined to, or ``None``.
    """

    level: Literal["error", "warn", "note"]
    message: str
    where: str = ""
    episodes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class KeySummary:
    """One canonical array.

    Attributes:
        name: canonical.
        source: stored keys.
        shape: (N, ...).
        dtype: as it comes out.
        low, high: smallest and largest finite number (of some frames, for pictures); NaN if there is none.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float


@dataclass(frozen=True)
class Inspection:
    """What an inspection found.

    Attributes:
        path: of the dataset.
        dataset: opened as far as it can be; ``None`` if it cannot be opened at all.
        lengths: (E,) steps of each episode; 0 for one that cannot be read.
        keys: the arrays.
        findings: the gravest first.
    """

    path: Path
    dataset: Dataset | None
    lengths: np.ndarray
    keys: tuple[KeySummary, ...]
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """Errors and warnings, in words; empty if none was found."""
        return tuple(f.message for f in self.findings if f.level != "note")

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing and not wrong."""
        return tuple(f.message for f in self.findings if f.level == "note")

    @property
    def worst(self) -> str:
        """The gravest level found; ``"ok"`` if there is not even a note."""
        return max((f.level for f in self.findings), key=LEVELS.index, default="ok")

    @property
    def skip(self) -> tuple[int, ...]:
        """Episodes that cannot be used."""
        bad = {e for f in self.findings if f.level == "error" for e in f.episodes or ()}
        return tuple(sorted(bad | {int(e) for e in np.flatnonzero(self.lengths == 0)}))

    @property
    def skip_option(self) -> str:
        """What ``--episodes`` takes to leave :attr:`skip` out; empty if nothing is to be left out, or nothing would be left."""
        return format_episodes(self.skip, others=True) if len(self.skip) < len(self.lengths) else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the schema is in docs/data.md."""
        dataset = self.dataset
        return {
            "schema": SCHEMA,
            "path": str(self.path),
            "format": None if dataset is None else dataset.format,
            "worst": self.worst,
            "episodes": len(self.lengths),
            "steps": int(self.lengths.sum()),
            "lengths": [int(n) for n in self.lengths],
            "control_hz": None if dataset is None else dataset.control_hz,
            "tasks": sorted(set((dataset.tasks if dataset is not None else None) or ()) - {""}),
            "arrays": [
                {
                    "name": key.name,
                    "source": key.source,
                    "shape": list(key.shape),
                    "dtype": key.dtype,
                    "low": key.low if math.isfinite(key.low) else None,
                    "high": key.high if math.isfinite(key.high) else None,
                }
                for key in self.keys
            ],
            "findings": [
                {
                    "level": f.level,
                    "where": f.where,
                    "message": f.message,
                    "episodes": None if f.episodes is None else list(f.episodes),
                }
                for f in self.findings
            ],
            "skip": {"episodes": list(self.skip), "option": self.skip_option},
        }

    def to_json(self) -> str:
        """:meth:`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False, ensure_ascii=False)


def inspect_path(
    path: str | Path,
    *,
    format: str | None = None,
    fields: Mapping[str, str | Field] | None = None,
    spec: WindowSpec | None = None,
    every_frame: bool = False,
) -> Inspection:
    """Look at a dataset of which nothing may be whole: what cannot be read is named, and the rest is looked at.

    Raises:
        FileNotFoundError: nothing there.
        DataError: no dataset of a known format.
        MissingExtraError, InputError, MachineError: see :func:`~uva_agents.data.open_dataset`.
    """
    path = Path(path)
    more: list[Finding] = []
    try:
        if path.exists() and check_sums(path):
            more.append(Finding("note", f"every file is as {sums_path(path).name} says", sums_path(path).name))
    except DataError as error:
        more.append(Finding("error", str(error), sums_path(path).name))
    try:
        dataset = open_dataset(path, format=format, fields=fields, lenient=True)
    except DataError as error:
        if "holds no dataset of a known format" in str(error):
            raise
        return Inspection(path, None, np.zeros(0, np.int64), (), (Finding("error", str(error)), *more))
    found = inspect_dataset(dataset, spec=spec, every_frame=every_frame)
    return Inspection(path, dataset, found.lengths, found.keys, _ordered([*more, *found.findings]))


def inspect_dataset(dataset: Dataset, *, spec: WindowSpec | None = None, every_frame: bool = False) -> Inspection:
    """Look at everything but pictures, and at some pictures of some episodes.

    Args:
        spec: the window that episodes are held against; the released one by default.
        every_frame: decode all pictures: slow, finds every damaged one.
    """
    spec = spec or WindowSpec()
    lengths = np.diff(dataset.ends, prepend=0)
    found = [Finding(hole.level, hole.message, hole.where, hole.episodes) for hole in dataset.holes]
    bad = {e for f in found if f.level == "error" for e in f.episodes or ()}
    found += _lengths(dataset, lengths, spec, bad)
    keys = []
    for name, value in dataset.arrays.items():
        low, high = float("nan"), float("nan")
        if name in dataset.cameras:
            pictures, faults = _sampled_frames(dataset, name, value, every_frame, bad)
            found += faults
            if len(pictures):
                low, high = float(pictures.min()), float(pictures.max())
                found += _pictures(name, pictures)
        else:
            finite = value[np.isfinite(value)]
            if finite.size:
                low, high = float(finite.min()), float(finite.max())
            found += _numbers(dataset, name, value, bad)
        keys.append(KeySummary(name, dataset.sources[name], tuple(value.shape), str(value.dtype), low, high))
    known = {f.message for f in found} | {f"left out {hole.where}: {hole.message}" for hole in dataset.holes}
    found += [Finding("note", note) for note in dataset.notes if note not in known]
    if "action" not in dataset.arrays and not any("no actions" in note for note in dataset.notes):
        text = f"no array was taken for action: name it with --field action=KEY (stored: {_stored(dataset)})"
        found.append(Finding("note", text, "action"))
    if not dataset.cameras:
        found.append(Finding("note", "no pictures: nothing to train a model on that sees"))
    if dataset.control_hz is None:
        found.append(Finding("note", "the format does not say the control rate"))
    return Inspection(dataset.path, dataset, lengths, tuple(keys), _ordered(found))


def title(dataset: Dataset) -> str:
    """A dataset's format, in words."""
    return format_named(dataset.format).title


def _ordered(found: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(found, key=lambda f: -LEVELS.index(f.level)))


def _lengths(dataset: Dataset, lengths: np.ndarray, spec: WindowSpec, bad: set[int]) -> Iterator[Finding]:
    gone = [int(e) for e in np.flatnonzero(lengths <= 0) if int(e) not in bad]
    if gone:
        text = f"episode ends do not increase (episode {listed(gone)})"
        yield Finding("error", text, "episode ends", tuple(gone))
    rows = len(next(iter(dataset.arrays.values())))
    if rows != dataset.ends[-1]:
        yield Finding("error", f"the last episode ends at step {dataset.ends[-1]}, the arrays have {rows} rows")
    window = int(max(spec.future[-1], spec.actions[-1]) - spec.history[0] + 1)
    short = [int(e) for e in np.flatnonzero((lengths < window) & (lengths > 0))]
    if short:
        text = (
            f"{len(short)} of {len(lengths)} episodes are shorter than a window of {window} steps (first: episode {short[0]}, "
            f"{lengths[short[0]]} steps): their windows repeat the first or last step"
        )
        yield Finding("note", text, "", tuple(short))


def _numbers(dataset: Dataset, name: str, value: np.ndarray, bad: set[int]) -> Iterator[Finding]:
    rows = value.reshape(len(value), math.prod(value.shape[1:]))
    finite = np.isfinite(rows).all(1)
    episode_of = np.searchsorted(dataset.ends, np.arange(len(rows)), side="right")
    wrong = np.flatnonzero(~finite & ~np.isin(episode_of, sorted(bad)))
    if len(wrong):
        episodes = tuple(int(e) for e in np.unique(episode_of[wrong]))
        text = (
            f"{name} has NaN or infinity in {len(wrong)} steps, first at step {wrong[0]} (episode {episodes[0]}), "
            f"its row {wrong[0] - dataset.starts[episodes[0]]}; in episodes {listed(episodes)}"
        )
        yield Finding("error", text, name, episodes)
    good = rows[finite]
    if name in ("action", "agent_pos") and len(good) and np.abs(good).max() > _FAR:
        row = int(np.flatnonzero(finite)[np.abs(good).max(1).argmax()])
        text = f"{name} goes up to {np.abs(good).max():.3g}, first in step {row} (episode {episode_of[row]}): in which unit?"
        yield Finding("warn", text, name, (int(episode_of[row]),))
    if name in ("action", "agent_pos") and len(good) > 1:
        constant = np.flatnonzero((good == good[:1]).all(0))
        if len(constant):
            columns = ", ".join(str(c) for c in constant[:8])
            text = f"{name} never changes in column{'s' if len(constant) > 1 else ''} {columns}"
            yield Finding("warn", text, name)
    if name == "action":
        ends, starts = dataset.ends, dataset.starts
        still = [
            int(e)
            for e, (a, b) in enumerate(zip(starts, ends, strict=True))
            if b - a > 1 and (rows[a:b] == rows[a]).all()
        ]
        if still and len(still) < len(ends):
            text = f"the action is the same in every step of {len(still)} episodes (first: episode {still[0]})"
            yield Finding("warn", text, name, tuple(still))


def _pictures(name: str, frames: np.ndarray) -> Iterator[Finding]:
    flat = frames.reshape(len(frames), math.prod(frames.shape[1:]))
    same = (flat.max(1) == flat.min(1)).mean()
    if same > 0:
        text = f"{name}: {same:.0%} of the pictures looked at are of one colour (a camera that was off?)"
        yield Finding("warn", text, name)
    if flat.max() <= 1:
        yield Finding("warn", f"{name}: no value is above 1: pictures must be in 0 to 255", name)
    if len(frames) > 2 and (flat == flat[0]).all() and same < 1:
        yield Finding("warn", f"{name}: all pictures looked at are the same (a camera that froze?)", name)


def _sampled_frames(
    dataset: Dataset, name: str, value: np.ndarray, every_frame: bool, bad: set[int]
) -> tuple[np.ndarray, list[Finding]]:
    """First, middle and last frames of some episodes, and the episodes whose frames cannot be read."""
    starts, ends = dataset.starts, dataset.ends
    whole = [int(e) for e in np.flatnonzero(ends > starts) if int(e) not in bad]
    faults: dict[int, str] = {}
    if every_frame:
        for episode in whole:
            try:
                for begin in range(int(starts[episode]), int(ends[episode]), 128):
                    np.asarray(value[begin : min(begin + 128, int(ends[episode]))])
            except ValueError as error:
                faults[episode] = str(error)
    looked_at = np.unique(np.linspace(0, len(whole) - 1, min(_SAMPLED_EPISODES, len(whole))).round().astype(int))
    chosen = [whole[i] for i in looked_at if whole[i] not in faults]
    rows = {e: np.unique([starts[e], (starts[e] + ends[e]) // 2, ends[e] - 1]) for e in chosen}
    empty = np.zeros((0, *value.shape[1:]), np.uint8)
    try:
        frames = np.asarray(value[np.concatenate([rows[e] for e in chosen])]) if chosen else empty
    except ValueError:
        found = []
        for episode in chosen:
            try:
                found.append(np.asarray(value[rows[episode]]))
            except ValueError as error:
                faults[episode] = str(error)
        frames = np.concatenate(found) if found else empty
    if not faults:
        return frames, []
    numbers = tuple(sorted(faults))
    text = f"{name}: pictures of episode{'s' if len(numbers) > 1 else ''} {listed(numbers)} cannot be read: {faults[numbers[0]]}"
    return frames, [Finding("error", text, name, numbers)]


def _stored(dataset: Dataset) -> str:
    return ", ".join(sorted(set(dataset.sources.values())))
