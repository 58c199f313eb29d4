"""What a run trains on: one dataset of any format, or several with weights, as episodes that fit a recipe."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from uva_agents.data import Dataset, Episodes, open_dataset
from uva_agents.data.picture_masks import blacked_out
from uva_agents.errors import DataError, InputError
from uva_agents.training.memory import Holds, Shape, check_memory
from uva_agents.training.recipe import DataConfig, Recipe
from uva_agents.utils.images import resize_frames

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A dataset and its share of what is drawn.

    Args:
        path: file or folder of any format that :func:`~uva_agents.data.open_dataset` knows.
        weight: up to a common factor, above 0.
        episodes: only these, as :func:`~uva_agents.data.selection.parse_episodes` takes them; all by default.
    """

    path: Path
    weight: float = 1.0
    episodes: str | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"{self.path}: its weight must be above 0, got {self.weight:g}")

    @classmethod
    def parse(cls, text: str) -> Source:
        """``PATH`` or ``PATH:WEIGHT``; what exists under the whole text is a path.

        Raises:
            ValueError: what follows the colon is no number above 0.
        """
        path, colon, weight = text.rpartition(":")
        if not colon or Path(text).exists():
            return cls(Path(text))
        try:
            return cls(Path(path), float(weight))
        except ValueError as error:
            if "must be above 0" in str(error):
                raise
            raise ValueError(f"{text}: PATH or PATH:WEIGHT, and {weight!r} is no number") from None


def with_what_names_say(part: Part, data: DataConfig) -> Part:
    """The part with what the layout says of datasets of its name: an instruction, and what is blacked out in its pictures.

    Raises:
        InputError: see :func:`~uva_agents.data.picture_masks.blacked_out`.
    """
    name = Path(part.episodes.source).name.partition(".")[0]
    if (text := data.instructions_of.get(name)) is not None and part.tasks is None:
        part = dataclasses.replace(part, tasks=(text,) * len(part.episodes))
    if (mask := data.blacked_out.get(name)) is None:
        return part
    cameras = {key: value for key, value in part.episodes.arrays.items() if key.startswith("pixels")}
    arrays = {**part.episodes.arrays, **{key: blacked_out(value, mask) for key, value in cameras.items()}}
    episodes = Episodes(arrays, part.episodes.ends, part.episodes.source, part.episodes.numbers)
    return dataclasses.replace(part, episodes=episodes)


def with_episodes(sources: Sequence[Source], chosen: Sequence[str]) -> tuple[Source, ...]:
    """Sources with the episodes that ``--episodes`` names, once for each of them, in their order.

    Raises:
        InputError: another number of lists than of datasets.
    """
    if not chosen:
        return tuple(sources)
    if len(chosen) != len(sources):
        raise InputError(
            f"--episodes is given {len(chosen)} times for {len(sources)} datasets: give it once for each --data, in their order "
            "(`all` for all episodes)"
        )
    return tuple(
        dataclasses.replace(source, episodes=None if text.strip() == "all" else text)
        for source, text in zip(sources, chosen, strict=True)
    )


Data = Path | Sequence[Source]
"""One dataset, or several."""


def sources_of(data: Data) -> tuple[Source, ...]:
    """As sources.

    Raises:
        ValueError: there is none.
    """
    found = (Source(data),) if isinstance(data, Path) else tuple(data)
    if not found:
        raise ValueError("no dataset to train on")
    return found


@dataclass(frozen=True)
class Part:
    """A dataset ready to be cut into windows: frames in memory, keys as the recipe names them.

    Attributes:
        episodes: frames of the size that they are trained on.
        weight: see :class:`Source`.
        tasks: an instruction per episode, where the dataset has them.
        shapes: camera -> height and width of its frames as they are stored.
    """

    episodes: Episodes
    weight: float
    tasks: tuple[str, ...] | None = None
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def has_actions(self) -> bool:
        """False for video alone."""
        return "action" in self.episodes.arrays


def open_sources(
    data: Data,
    recipe: Recipe,
    wanted: Sequence[str],
    *,
    fields: Mapping[str, str] | None = None,
    every: int | None = None,
    holds: Callable[[int, tuple[int, int]], Holds] | None = None,
    side: int | None = None,
) -> list[Part]:
    """Datasets with what ``wanted`` names; video without actions has frames only. All get the frame size of the first with actions.

    Args:
        recipe: whose rate they must have: datasets that say another one are refused, or cut down by ``every``. Video without
            actions at a whole multiple of the rate is cut down by itself.
        wanted: canonical names, ``"action"`` among them, and ``"pixels"`` unless no frame is looked at.
        fields: canonical name -> stored key, where it is not where the format usually has it.
        every: keep each episode's first step and every so many after it, in datasets with actions. Right for actions that are
            positions; changes would have to be added up.
        holds: (number of datasets, frame's height and width) -> how the recipe keeps its data; without it memory is not looked at.
        side: frames with more pixels than its square are brought to that as they are read, as agents bring them.

    Raises:
        MachineError: the data would not fit into memory.
        FileNotFoundError: nothing at a path.
        ValueError: no known format; no actions anywhere; missing keys, or another rate or size of frames, with what to do.
    """
    sources = sources_of(data)
    opened = [_open(source, recipe, wanted, fields or {}) for source in sources]
    steps = [_step(found, recipe, every) for found in opened]
    _check_names(opened)
    if holds is not None:
        _check_memory(opened, steps, wanted, holds, side)
    parts = [
        Part(_load(found, needed, step, side), source.weight, found.tasks, _shapes(found, needed))
        for (found, needed), step, source in zip(opened, steps, sources, strict=True)
    ]
    parts = [with_what_names_say(part, recipe.data) for part in parts]
    with_actions = [part for part in parts if part.has_actions]
    if not with_actions:
        where = ", ".join(part.episodes.source for part in parts)
        raise ValueError(
            f"no actions in {where}: video alone trains the video task beside data with actions; give another --data with some"
        )
    for name in wanted:
        if not name.startswith("pixels"):
            widths = {part.episodes.arrays[name].shape[1:]: part.episodes.source for part in with_actions}
            if len(widths) > 1:
                sizes = "; ".join(f"{shape[0]} numbers in {path}" for shape, path in widths.items())
                raise ValueError(f"{name!r} differs between the datasets: {sizes}")
    if "pixels" not in wanted:
        return parts
    shape = with_actions[0].episodes.arrays["pixels"].shape[1:3]
    return [dataclasses.replace(part, episodes=_sized(part.episodes, (shape[0], shape[1]))) for part in parts]


def _open(
    source: Source, recipe: Recipe, wanted: Sequence[str], fields: Mapping[str, str]
) -> tuple[Dataset, list[str]]:
    """A dataset and the names of what of it is loaded; frames are still on disk."""
    own = None if fields else {name: recipe.data.fields[name] for name in wanted if name in recipe.data.fields}
    dataset = open_dataset(
        source.path, fields=fields or None, episodes=source.episodes, verify=True, needed=wanted, preferred=own
    )
    needed = ["pixels"] if "action" not in dataset.arrays else list(wanted)
    if missing := [name for name in needed if name not in dataset.arrays]:
        raise DataError(_missing(dataset, recipe, missing))
    return dataset, needed


def _check_names(opened: Sequence[tuple[Dataset, list[str]]]) -> None:
    """That numbers which have names have the same ones in all datasets: sizes alone do not tell one robot from another."""
    named: dict[str, tuple[tuple[str, ...], Dataset]] = {}
    for dataset, needed in opened:
        for key in needed:
            names = dataset.names.get(key)
            if names is None:
                continue
            first, other = named.setdefault(key, (names, dataset))
            if names != first:
                raise DataError(
                    f"the numbers of {key!r} are {', '.join(names)} in {dataset.path}, and {', '.join(first)} in {other.path}: "
                    "bring them into one order and meaning, or train on them one by one"
                )


def _shapes(dataset: Dataset, needed: Sequence[str]) -> dict[str, tuple[int, int]]:
    shapes = {name: dataset.arrays[name].shape for name in needed if name.startswith("pixels")}
    return {name: (int(shape[1]), int(shape[2])) for name, shape in shapes.items()}


def _reduced(shape: tuple[int, ...], side: int | None) -> tuple[int, int]:
    """Height and width that frames of this size are kept at."""
    height, width = int(shape[0]), int(shape[1])
    return (height, width) if side is None or height * width <= side * side else (side, side)


def _load(dataset: Dataset, needed: Sequence[str], step: int, side: int | None = None) -> Episodes:
    """What is needed of it, in memory, every ``step``-th row."""
    # Copies of the numbers: some readers give views of files, which torch does not take.
    kept = {
        k: v if k.startswith("pixels") else v.reshape(len(v), -1).copy() for k in needed for v in [dataset.arrays[k]]
    }
    episodes = Episodes(kept, dataset.ends, source=str(dataset.path), numbers=dataset.numbers)
    if step > 1:
        episodes = episodes.downsampled(step)
    loaded = {
        k: _frames(dataset, episodes, k, side) if k.startswith("pixels") else v for k, v in episodes.arrays.items()
    }
    return Episodes(loaded, episodes.ends, source=str(dataset.path))


def _frames(dataset: Dataset, episodes: Episodes, name: str, side: int | None = None) -> np.ndarray:
    """Frames in memory; where they cannot be read, the episode is named."""
    frames = episodes.arrays[name]
    height, width = _reduced(frames.shape[1:3], side)
    out = np.empty((len(frames), height, width, 3), np.uint8)
    for number, (start, end) in enumerate(zip(episodes.starts, episodes.ends, strict=True)):
        try:
            for begin in range(int(start), int(end), 512):
                rows = slice(begin, min(begin + 512, int(end)))
                read = frames[rows]
                out[rows] = read if read.shape[1:3] == (height, width) else resize_frames(read, height)
        except ValueError as error:
            episode = number if dataset.numbers is None else dataset.numbers[number]
            raise DataError(
                f"{dataset.path}: {name} of episode {episode} cannot be read: {error}; repair it, or leave that episode out: "
                f"--episodes '!{episode}' (uva data inspect --every-frame finds all that are damaged)"
            ) from error
    return out


def _check_memory(
    opened: Sequence[tuple[Dataset, list[str]]],
    steps: Sequence[int],
    wanted: Sequence[str],
    holds: Callable[[int, tuple[int, int]], Holds],
    side: int | None,
) -> None:
    """Refuse what would not fit, from sizes alone."""
    acted = [dataset for dataset, needed in opened if "action" in needed]
    size = (0, 0)
    if "pixels" in wanted and acted:
        size = _reduced(acted[0].arrays["pixels"].shape[1:3], side)
    shapes = []
    for (dataset, needed), step in zip(opened, steps, strict=True):
        # As they are read; those of other datasets are then brought to the first one's size, one dataset at a time.
        frame = sum(
            3 * max(math.prod(_reduced(dataset.arrays[k].shape[1:3], side)), math.prod(size))
            for k in needed
            if k.startswith("pixels")
        )
        numbers = sum(4 * math.prod(dataset.arrays[k].shape[1:]) for k in needed if not k.startswith("pixels"))
        lengths = np.diff(dataset.ends, prepend=0)
        shapes.append(Shape(str(dataset.path), int((-(-lengths // step)).sum()), frame, numbers))
    check_memory(shapes, holds(len(opened), size))


def _missing(dataset: Dataset, recipe: Recipe, names: Sequence[str]) -> str:
    found = ", ".join(f"{name} {tuple(value.shape[1:])}" for name, value in dataset.arrays.items())
    what = " and ".join(map(repr, names))
    return (
        f"recipe {recipe.name!r} needs {what}, and {dataset.path} ({dataset.format}) has {found}: "
        f"say which of them it is with --field {names[0]}=KEY, or take a recipe that does without"
    )


def _step(opened: tuple[Dataset, list[str]], recipe: Recipe, every: int | None) -> int:
    """Every how manieth row of a dataset is kept.

    Raises:
        InputError: ``every`` is below 1.
        DataError: it has another rate than the recipe.
    """
    dataset, needed = opened
    hz, action_free = dataset.control_hz, "action" not in needed
    rate = recipe.data.control_hz * recipe.data.rows_per_step
    step = 1 if every is None else every
    if step < 1:
        raise InputError(f"every={every}: at least 1 (keep all steps)")
    if hz is not None and action_free:
        step = max(1, round(hz / rate))
    if hz is not None and abs(hz / step - rate) > 0.05 * rate:
        ratio = round(hz / rate)
        whole = ratio > 1 and abs(hz / ratio - rate) <= 0.05 * rate
        hint = (
            f"--every {ratio} keeps every {ratio}th step (right for actions that are positions)"
            if whole and not action_free
            else "bring it to a whole multiple of that rate first"
        )
        raise DataError(f"{dataset.path} has {hz:g} steps a second, and recipe {recipe.name!r} {rate:g}: {hint}")
    if step > 1:
        _LOG.info("%s: every %d. step, %g of %g a second", dataset.path, step, rate, hz or rate * step)
    return step


def _sized(episodes: Episodes, shape: tuple[int, int]) -> Episodes:
    """All cameras at one size."""
    other = {k: v for k, v in episodes.arrays.items() if k.startswith("pixels") and v.shape[1:3] != shape}
    if not other:
        return episodes
    if shape[0] != shape[1]:
        name, pixels = next(iter(other.items()))
        raise ValueError(
            f"{episodes.source} has {'frames' if name == 'pixels' else name} of {pixels.shape[1]}x{pixels.shape[2]}, and the "
            f"first dataset of {shape[0]}x{shape[1]}: bring them to one size"
        )
    resized = {name: resize_frames(pixels, shape[0]) for name, pixels in other.items()}
    return Episodes({**episodes.arrays, **resized}, episodes.ends, source=episodes.source)


def joined_frames(parts: Sequence[Episodes]) -> Episodes:
    """The frames of all of them and of all cameras, one after another, for what looks at single frames."""
    views = [
        Episodes({"pixels": frames}, part.ends, source=part.source)
        for part in parts
        for name, frames in part.arrays.items()
        if name.startswith("pixels")
    ]
    if len(views) == 1:
        return parts[0]
    ends = np.concatenate([view.ends + sum(v.steps for v in views[:i]) for i, view in enumerate(views)])
    return Episodes({"pixels": np.concatenate([view.arrays["pixels"] for view in views])}, ends, source="all datasets")
