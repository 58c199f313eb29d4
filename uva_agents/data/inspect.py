"""What a dataset holds, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uva_agents.data.readers.dataset import Dataset
from uva_agents.data.windows import WindowSpec

_SOME_EPISODES = 64


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
    """What :func:`inspect_dataset` found. ``problems`` are sentences; an empty tuple means that none was found."""

    dataset: Dataset
    lengths: np.ndarray
    keys: tuple[KeySummary, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def inspect_dataset(dataset: Dataset, *, spec: WindowSpec | None = None, every_frame: bool = False) -> Inspection:
    """Look at everything but pictures, and at some pictures of some episodes.

    Args:
        spec: the window that episodes are held against; the released one by default.
        every_frame: decode all pictures: slow, finds every damaged one.
    """
    spec = spec or WindowSpec()
    lengths = np.diff(dataset.ends, prepend=0)
    problems = [*_lengths(dataset, lengths, spec)]
    keys = []
    pictures: dict[str, np.ndarray] = {}
    for name, value in dataset.arrays.items():
        low, high = float("nan"), float("nan")
        if name in dataset.cameras:
            try:
                pictures[name] = _some_frames(dataset, value, every_frame)
                low, high = float(pictures[name].min()), float(pictures[name].max())
                problems += _pictures(dataset, name, pictures[name])
            except ValueError as error:
                problems.append(f"{name}: {error}")
        else:
            finite = value[np.isfinite(value)]
            if finite.size:
                low, high = float(finite.min()), float(finite.max())
            problems += _numbers(dataset, name, value)
        keys.append(KeySummary(name, dataset.sources[name], tuple(value.shape), str(value.dtype), low, high))
    notes = [*dataset.notes]
    if "action" not in dataset.arrays and not any("no actions" in note for note in notes):
        notes.append(f"no array was taken for action: name it with --field action=KEY (stored: {_stored(dataset)})")
    if not dataset.cameras:
        notes.append("no pictures: nothing to train a model on that sees")
    if dataset.control_hz is None:
        notes.append("the format does not say the control rate")
    return Inspection(dataset, lengths, tuple(keys), tuple(problems), tuple(notes))


def contact_sheet(dataset: Dataset, path: Path, *, episodes: int = 6, frames: int = 8, side: int = 128) -> None:
    """Write a PNG: a row per episode, moments of it from left to right, all cameras below each other.

    Raises:
        ValueError: there are no pictures, or they cannot be read.
    """
    from PIL import Image, ImageDraw

    if not dataset.cameras:
        raise ValueError(f"{dataset.path} has no pictures to show")
    starts = dataset.starts
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(episodes, len(dataset))).round().astype(int))
    cameras = dataset.cameras[:3]
    side = min(side, max(max(dataset.arrays[name].shape[1:3]) for name in cameras))
    label = 14
    sheet = Image.new("RGB", (frames * side, len(chosen) * len(cameras) * (side + label)), (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    top = 0
    for episode in chosen:
        steps = np.linspace(starts[episode], dataset.ends[episode] - 1, frames).round().astype(int)
        for name in cameras:
            draw.text(
                (4, top + 1), f"episode {episode}  {name}  steps 0 to {steps[-1] - starts[episode]}", (220, 220, 220)
            )
            for column, frame in enumerate(dataset.arrays[name][steps]):
                picture = Image.fromarray(frame)
                picture.thumbnail((side, side))
                sheet.paste(picture, (column * side, top + label))
            top += side + label
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _lengths(dataset: Dataset, lengths: np.ndarray, spec: WindowSpec) -> Iterator[str]:
    if (lengths <= 0).any():
        yield f"episode ends do not increase (episode {int(np.flatnonzero(lengths <= 0)[0])})"
    rows = len(next(iter(dataset.arrays.values())))
    if rows != dataset.ends[-1]:
        yield f"the last episode ends at step {dataset.ends[-1]}, the arrays have {rows} rows"
    window = int(max(spec.future[-1], spec.actions[-1]) - spec.history[0] + 1)
    short = np.flatnonzero(lengths < window)
    if len(short):
        yield (
            f"{len(short)} of {len(lengths)} episodes are shorter than a window of {window} steps (first: episode {short[0]}, "
            f"{lengths[short[0]]} steps): their windows repeat the first or last step"
        )


def _numbers(dataset: Dataset, name: str, value: np.ndarray) -> Iterator[str]:
    rows = value.reshape(len(value), -1)
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(bad):
        episode = int(np.searchsorted(dataset.ends, bad[0], side="right"))
        yield f"{name} has NaN or infinity in {len(bad)} steps, first at step {bad[0]} (episode {episode})"
    if name in ("action", "agent_pos") and len(value) > 1:
        constant = np.flatnonzero((rows == rows[:1]).all(0))
        if len(constant):
            listed = ", ".join(str(c) for c in constant[:8])
            yield f"{name} never changes in column{'s' if len(constant) > 1 else ''} {listed}"
    if name == "action":
        ends = dataset.ends
        starts = np.concatenate([[0], ends[:-1]])
        still = [
            int(e)
            for e, (a, b) in enumerate(zip(starts, ends, strict=True))
            if b - a > 1 and (rows[a:b] == rows[a]).all()
        ]
        if still and len(still) < len(ends):
            yield f"the action is the same in every step of {len(still)} episodes (first: episode {still[0]})"


def _pictures(dataset: Dataset, name: str, frames: np.ndarray) -> Iterator[str]:
    flat = frames.reshape(len(frames), -1)
    same = (flat.max(1) == flat.min(1)).mean()
    if same > 0:
        yield f"{name}: {same:.0%} of the pictures looked at are of one colour (a camera that was off?)"
    if flat.max() <= 1:
        yield f"{name}: no value is above 1: pictures must be in 0 to 255"
    if len(frames) > 2 and (flat == flat[0]).all() and same < 1:
        yield f"{name}: all pictures looked at are the same (a camera that froze?)"


def _some_frames(dataset: Dataset, value: np.ndarray, every_frame: bool) -> np.ndarray:
    """First, middle and last frames of some episodes; after reading all of them where that is wanted."""
    starts = dataset.starts
    if every_frame:
        for start, end in zip(starts, dataset.ends, strict=True):
            for begin in range(int(start), int(end), 128):
                np.asarray(value[begin : min(begin + 128, int(end))])
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(_SOME_EPISODES, len(dataset))).round().astype(int))
    rows = [r for e in chosen for r in (starts[e], (starts[e] + dataset.ends[e]) // 2, dataset.ends[e] - 1)]
    return np.asarray(value[np.unique(rows)])


def _stored(dataset: Dataset) -> str:
    return ", ".join(sorted(set(dataset.sources.values())))
