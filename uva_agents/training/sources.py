"""What a run trains on: one dataset of any format, or several with weights, as episodes that fit a recipe."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from uva_agents.data import Dataset, Episodes, Field, open_dataset
from uva_agents.data.lazy import LazyFrames, as_lazy
from uva_agents.data.picture_masks import blacked_out
from uva_agents.errors import DataError, InputError
from uva_agents.training.memory import Holds, Shape, check_needs
from uva_agents.training.recipe import DataConfig, Recipe

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
class Reopening:
    """Opens a dataset once more, in another process, which gets this by pickle.

    Attributes:
        source: the dataset.
        recipe, wanted, fields: as of :func:`open_sources`.
        step: every how manieth row is kept.
    """

    source: Source
    recipe: Recipe
    wanted: tuple[str, ...]
    fields: Mapping[str, str]
    step: int

    def frames(self, name: str) -> LazyFrames:
        """Of a camera, as they are recorded."""
        dataset, needed = _open(self.source, self.recipe, self.wanted, self.fields, verify=False)
        found = as_lazy(_part(self.source, dataset, needed, self.step, self).episodes.arrays[name])
        assert found is not None
        return found


@dataclass(frozen=True)
class Part:
    """A dataset ready to be cut into windows: frames on disk, keys as the recipe names them.

    Attributes:
        episodes: numbers in memory, and frames: as they are recorded, until a step has decoded them.
        weight: see :class:`Source`.
        tasks: an instruction per episode, where the dataset has them.
        shapes: camera -> height and width of its frames as they are recorded.
        reopens: opens it in another process.
        fields: canonical name -> where it was taken from.
    """

    episodes: Episodes
    weight: float
    tasks: tuple[str, ...] | None = None
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    reopens: Reopening | None = None
    fields: Mapping[str, Field] = field(default_factory=dict)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the arrays that are frames."""
        return tuple(name for name in self.episodes.arrays if name.startswith("pixels"))

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
    holds: Holds | None = None,
    out: Path | None = None,
    show: bool = False,
) -> list[Part]:
    """Datasets with what ``wanted`` names; video without actions has frames only. No frame is looked at.

    Args:
        recipe: whose rate they must have: datasets that say another one are refused, or cut down by ``every``. Video without
            actions at a whole multiple of the rate is cut down by itself.
        wanted: canonical names, ``"action"`` among them, and ``"pixels"`` unless no frame is looked at.
        fields: canonical name -> stored key, where it is not where the format usually has it.
        every: keep each episode's first step and every so many after it, in datasets with actions. Right for actions that are
            positions; changes would have to be added up.
        holds: how the recipe keeps its data; without it neither memory nor disk is looked at.
        out: run folder, for that.
        show: print what the run takes.

    Raises:
        MachineError: the numbers would not fit into memory, or the frames on the disk.
        FileNotFoundError: nothing at a path.
        ValueError: no known format; no actions anywhere; missing keys, or another rate, with what to do.
    """
    sources = sources_of(data)
    opened = [_open(source, recipe, wanted, fields or {}) for source in sources]
    steps = [_step(found, recipe, every) for found in opened]
    _check_names(opened)
    if holds is not None:
        needs = check_needs([_shape(*found, step) for found, step in zip(opened, steps, strict=True)], holds, out)
        if show:
            print(needs, flush=True)
    parts = [
        _part(source, *found, step, Reopening(source, recipe, tuple(wanted), dict(fields or {}), step))
        for found, step, source in zip(opened, steps, sources, strict=True)
    ]
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
    return parts


def _open(
    source: Source, recipe: Recipe, wanted: Sequence[str], fields: Mapping[str, str], *, verify: bool = True
) -> tuple[Dataset, list[str]]:
    """A dataset and the names of what of it is loaded; frames are still on disk."""
    own = None if fields else {name: recipe.data.fields[name] for name in wanted if name in recipe.data.fields}
    dataset = open_dataset(
        source.path, fields=fields or None, episodes=source.episodes, verify=verify, needed=wanted, preferred=own
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


def _part(source: Source, dataset: Dataset, needed: Sequence[str], step: int, reopens: Reopening) -> Part:
    """The same in every process that opens it."""
    shapes = _shapes(dataset, needed)
    found = _episodes(dataset, needed, step)
    part = Part(found, source.weight, dataset.tasks, shapes, reopens, _origins(dataset, needed))
    return with_what_names_say(part, reopens.recipe.data)


def _shapes(dataset: Dataset, needed: Sequence[str]) -> dict[str, tuple[int, int]]:
    shapes = {name: dataset.arrays[name].shape for name in needed if name.startswith("pixels")}
    return {name: (int(shape[1]), int(shape[2])) for name, shape in shapes.items()}


def _origins(dataset: Dataset, needed: Sequence[str]) -> dict[str, Field]:
    return {name: dataset.fields.get(name) or Field(dataset.sources[name]) for name in needed}


def _episodes(dataset: Dataset, needed: Sequence[str], step: int) -> Episodes:
    """What is needed of it, every ``step``-th row: numbers in memory, frames on disk."""
    # Copies of the numbers: some readers give views of files, which torch does not take.
    kept = {
        k: v if k.startswith("pixels") else v.reshape(len(v), -1).copy() for k in needed for v in [dataset.arrays[k]]
    }
    numbers = tuple(range(len(dataset))) if dataset.numbers is None else dataset.numbers
    episodes = Episodes(kept, dataset.ends, source=str(dataset.path), numbers=numbers)
    return episodes.downsampled(step) if step > 1 else episodes


def _shape(dataset: Dataset, needed: Sequence[str], step: int) -> Shape:
    """How much of it there is, from sizes alone."""
    numbers = sum(4 * math.prod(dataset.arrays[k].shape[1:]) for k in needed if not k.startswith("pixels"))
    lengths = np.diff(dataset.ends, prepend=0)
    cameras = sum(name.startswith("pixels") for name in needed)
    return Shape(str(dataset.path), int((-(-lengths // step)).sum()), cameras, numbers)


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


def joined_frames(parts: Sequence[Episodes]) -> Episodes:
    """The frames of all of them and of all cameras, one after another, for what looks at single frames. None is looked at here."""
    views = [
        Episodes({"pixels": frames}, part.ends, source=part.source)
        for part in parts
        for name, frames in part.arrays.items()
        if name.startswith("pixels")
    ]
    if len(views) == 1:
        return parts[0]
    ends = np.concatenate([view.ends + sum(v.steps for v in views[:i]) for i, view in enumerate(views)])
    frames = [as_lazy(view.arrays["pixels"]) for view in views]
    lazy = [found for found in frames if found is not None]
    if len(lazy) == len(views):
        pixels = LazyFrames.joined(lazy).as_array()
    else:
        pixels = np.concatenate([np.asarray(view.arrays["pixels"]) for view in views])
    return Episodes({"pixels": pixels}, ends, source="all datasets")
