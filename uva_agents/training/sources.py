"""What a run trains on: one dataset of any format, or several with weights, as episodes that fit a recipe."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from uva_agents.data import Dataset, Episodes, Field, open_dataset, read_replay_buffer, recognise
from uva_agents.data.images import resize_frames
from uva_agents.data.zarr_store import ZarrFiles

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A dataset and its share of what is drawn.

    Args:
        path: file or folder of any format that :func:`~uva_agents.data.open_dataset` knows.
        weight: up to a common factor, above 0.
    """

    path: Path
    weight: float = 1.0

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


class Wants(Protocol):
    """What a recipe says about its data."""

    @property
    def name(self) -> str: ...

    @property
    def fields(self) -> Mapping[str, Field]: ...

    @property
    def control_hz(self) -> float: ...

    @property
    def proprio_key(self) -> str | None: ...


@dataclass(frozen=True)
class Part:
    """A dataset ready to be cut into windows: frames in memory, keys as the recipe names them."""

    episodes: Episodes
    weight: float

    @property
    def has_actions(self) -> bool:
        """False for video alone."""
        return "action" in self.episodes.arrays


def open_sources(
    data: Data,
    recipe: Wants,
    wanted: Sequence[str],
    *,
    fields: Mapping[str, str] | None = None,
    every: int | None = None,
) -> list[Part]:
    """Datasets with what ``wanted`` names; video without actions has frames only. All get the frame size of the first with actions.

    Args:
        recipe: whose rate they must have: datasets that say another one are refused, or cut down by ``every``. Video without
            actions at a whole multiple of the rate is cut down by itself.
        wanted: canonical names, ``"action"`` among them, and ``"pixels"`` unless no frame is looked at.
        fields: canonical name -> stored key, where it is not where the format usually has it.
        every: keep each episode's first step and every so many after it, in datasets with actions. Right for actions that are
            positions; changes would have to be added up.

    Raises:
        FileNotFoundError: nothing at a path.
        ValueError: no known format; no actions anywhere; missing keys, or another rate or size of frames, with what to do.
    """
    parts = []
    for source in sources_of(data):
        episodes = _open(source.path, recipe, wanted, fields or {}, every)
        parts.append(Part(episodes, source.weight))
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


def _open(path: Path, recipe: Wants, wanted: Sequence[str], fields: Mapping[str, str], every: int | None) -> Episodes:
    own = {name: recipe.fields[name] for name in wanted if name in recipe.fields}
    if not fields and every is None and _is_recipe_buffer(path, own):
        return read_replay_buffer(path, own)
    dataset = open_dataset(path, fields=fields or None)
    action_free = "action" not in dataset.arrays
    needed = ["pixels"] if action_free else list(wanted)
    if missing := [name for name in needed if name not in dataset.arrays]:
        raise ValueError(_missing(dataset, recipe, missing))
    loaded = {name: np.asarray(dataset.arrays[name]) for name in needed}
    # Copies of the numbers: some readers give views of files, which torch does not take.
    loaded = {k: v if k.startswith("pixels") else v.reshape(len(v), -1).copy() for k, v in loaded.items()}
    episodes = Episodes(loaded, dataset.ends, source=str(path))
    return _at_rate(episodes, dataset.control_hz, recipe, every, action_free=action_free)


def _is_recipe_buffer(path: Path, fields: Mapping[str, Field]) -> bool:
    """Whether it is a replay buffer that has what the recipe asks for where the recipe says."""
    if recognise(path).name != "zarr":
        return False
    names = set(ZarrFiles(path).children("data"))
    return all(key in names for field in fields.values() for key in field.keys)


def _missing(dataset: Dataset, recipe: Wants, names: Sequence[str]) -> str:
    found = ", ".join(f"{name} {tuple(value.shape[1:])}" for name, value in dataset.arrays.items())
    what = " and ".join(map(repr, names))
    return (
        f"recipe {recipe.name!r} needs {what}, and {dataset.path} ({dataset.format}) has {found}: "
        f"say which of them it is with --field {names[0]}=KEY, or take a recipe that does without"
    )


def _at_rate(episodes: Episodes, hz: float | None, recipe: Wants, every: int | None, *, action_free: bool) -> Episodes:
    rate = recipe.control_hz
    step = every or 1
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
        raise ValueError(f"{episodes.source} has {hz:g} steps a second, and recipe {recipe.name!r} {rate:g}: {hint}")
    if step > 1:
        _LOG.info("%s: every %d. step, %g of %g a second", episodes.source, step, rate, hz or rate * step)
        return episodes.downsampled(step)
    return episodes


def _sized(episodes: Episodes, shape: tuple[int, int]) -> Episodes:
    pixels = episodes.arrays["pixels"]
    if pixels.shape[1:3] == shape:
        return episodes
    if shape[0] != shape[1]:
        raise ValueError(
            f"{episodes.source} has frames of {pixels.shape[1]}x{pixels.shape[2]}, and the first dataset of "
            f"{shape[0]}x{shape[1]}: bring them to one size"
        )
    resized = resize_frames(pixels, shape[0])
    return Episodes({**episodes.arrays, "pixels": resized}, episodes.ends, source=episodes.source)


def joined_frames(parts: Sequence[Episodes]) -> Episodes:
    """The frames of all of them, one after another, for what looks at single frames."""
    if len(parts) == 1:
        return parts[0]
    ends = np.concatenate([part.ends + sum(p.steps for p in parts[:i]) for i, part in enumerate(parts)])
    return Episodes({"pixels": np.concatenate([part.arrays["pixels"] for part in parts])}, ends, source="all datasets")
