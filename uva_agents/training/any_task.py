"""Training on anybody's demonstrations: the layout comes from the data, the recipe from it and a network size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uva_agents.data import Dataset, open_dataset
from uva_agents.errors import DataError, InputError
from uva_agents.training.baselines.sizes import BASELINES
from uva_agents.training.layout import find_layout, without_proprio
from uva_agents.training.layout_files import layout_from_toml
from uva_agents.training.recipe import Changes, DataConfig, Instructions, Recipe
from uva_agents.training.run import RunOptions, find_recipe
from uva_agents.training.run import train as run_recipe
from uva_agents.training.sources import Source, sources_of
from uva_agents.training.uva.sizes import SIZES, OptionalInputs, recipe_for


@dataclass(frozen=True)
class LayoutOptions:
    """What somebody says of their data that it does not say, or says otherwise.

    Attributes:
        layout: instead of the one that is found.
        fields: canonical name -> stored key.
        control_hz: rate of the recording.
        instructions: where vectors of instructions come from.
        env_id: environment that the weights are for.
        held_out: episodes kept from training.
        execute: actions of a chunk that are executed.
        proprio: whether proprioception is an input, where the data has it.
    """

    layout: DataConfig | None = None
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    control_hz: float | None = None
    instructions: Instructions | None = None
    env_id: str | None = None
    held_out: int | None = None
    execute: int | None = None
    proprio: bool = True


def layout_of(sources: Sequence[Source], about: LayoutOptions) -> tuple[DataConfig, Dataset]:
    """The layout of the first dataset with actions, and that dataset.

    Raises:
        DataError: no dataset has actions; see :func:`~uva_agents.training.layout.find_layout`.
        InputError: a layout and fields are both given; proprioception is left out that actions are relative to.
    """
    if about.layout is not None and about.fields:
        raise InputError("the layout has the fields already: edit them there, or leave one of the two out")
    preferred = about.layout.fields if about.layout is not None else None
    opened = []
    for source in sources:
        dataset = open_dataset(
            source.path, fields=about.fields or preferred, episodes=source.episodes, verify=False, skip=()
        )
        if "action" in dataset.arrays:
            break
        opened.append(str(source.path))
    else:
        raise DataError(
            f"no actions in {', '.join(opened)}: video alone trains the video task beside data with actions; give another --data "
            "with some, or name them with --field action=KEY"
        )
    if about.layout is None:
        wanted = None if about.instructions is None else about.instructions != "none"
        layout = find_layout(dataset, control_hz=about.control_hz, instructions=wanted)
        if about.instructions is not None:
            layout = dataclasses.replace(layout, instructions=about.instructions)
    else:
        layout = about.layout
    changes = {name: getattr(about, name) for name in ("env_id", "held_out", "execute")}
    layout = dataclasses.replace(layout, **{k: v for k, v in changes.items() if v is not None})
    return layout if about.proprio else without_proprio(layout), dataset


def widths_of(dataset: Dataset) -> dict[str, int]:
    """Canonical array -> numbers in a row."""
    return {name: int(np.prod(v.shape[1:])) for name, v in dataset.arrays.items() if not name.startswith("pixels")}


def train(
    recipe: str | Recipe,
    data: str | Path | Sequence[str | Path | Source],
    out: str | Path | None = None,
    *,
    layout: DataConfig | str | Path | None = None,
    steps: int | None = None,
    name: str | None = None,
    inputs: OptionalInputs | None = None,
    changes: Changes | None = None,
    about: LayoutOptions | None = None,
    options: Mapping[str, object] | None = None,
) -> Path | None:
    """Train on demonstrations of any layout: a policy, a world model and an inverse model in one, or a baseline.

    ``uva_agents.train("nano", "recordings")`` is all that it takes; a run that was interrupted goes on where it was. ``uva train``
    does the same.

    Args:
        recipe: a network size, a baseline for any robot (``"diffusion-policy"``, ``"two-frame"``), the name of a recipe, its file,
            or a recipe.
        data: dataset of any format that ``uva data inspect`` knows, or several (``"PATH:WEIGHT"``).
        out: run folder; ``runs/NAME`` by default.
        layout: of the data, or a file that has it; found in the data when absent.
        steps: of the joint stage of a network size, or of the only stage of a baseline, instead of the recipe's.
        name: of the weights.
        inputs: what else is an input, or predicted; for a network size.
        changes: of the recipe.
        about: what the data does not say.
        options: further fields of :class:`~uva_agents.training.run.RunOptions`.

    Returns: the weights folder; ``None`` in all processes but the first.

    Raises:
        InputError, DataError, MachineError: see :func:`make_recipe`, and :func:`~uva_agents.training.run.train`.
    """
    given = [data] if isinstance(data, str | Path) else list(data)
    sources = [one if isinstance(one, Source) else Source.parse(str(one)) for one in given]
    about = about or LayoutOptions()
    if layout is not None:
        found = layout if isinstance(layout, DataConfig) else layout_from_toml(layout)
        about = dataclasses.replace(about, layout=found)
    if steps is not None:
        changes = dataclasses.replace(changes or Changes(), steps=steps)
    made = make_recipe(recipe, sources, about, name=name, inputs=inputs, changes=changes)
    folder = Path("runs") / made.name if out is None else Path(out)
    settings = {"data": data_of(sources), "out": folder, "fields": fields_of_run(recipe, about), **(options or {})}
    return run_recipe(made, RunOptions(**settings))  # type: ignore[arg-type]


def make_recipe(
    recipe: str | Recipe,
    sources: Sequence[Source],
    about: LayoutOptions,
    *,
    name: str | None = None,
    inputs: OptionalInputs | None = None,
    changes: Changes | None = None,
    report: Callable[[DataConfig, Dataset], None] | None = None,
) -> Recipe:
    """The recipe of a network size or a baseline on this data, or the one that has this name, with changes.

    Args:
        recipe, name, inputs, changes: see :func:`train`.
        sources: the data.
        about: what it does not say. Of a recipe, only ``fields`` can be said otherwise.
        report: told the layout, before the recipe is made from it.

    Raises:
        InputError: unknown recipe, with the close matches; something is asked for that the recipe has no use for.
        DataError: see :func:`layout_of`.
    """
    inputs, changes = inputs or OptionalInputs(), changes or Changes()
    if not _for_any_layout(recipe):
        found = find_recipe(recipe, (*SIZES, *BASELINES)) if isinstance(recipe, str) else recipe
        _check_unused(about, name, inputs, recipe=True)
        return found.changed(changes)
    assert isinstance(recipe, str)
    if recipe in BASELINES:
        _check_unused(LayoutOptions(), None, inputs, recipe=False)
    layout, dataset = layout_of(sources, about)
    if report is not None:
        report(layout, dataset)
    name, widths = name or name_of(sources, recipe), widths_of(dataset)
    if recipe in BASELINES:
        return BASELINES[recipe](layout, widths, name=name).changed(changes)
    if changes.steps is not None:
        changes = dataclasses.replace(changes, steps=None, stage_steps={**changes.stage_steps, "joint": changes.steps})
    return recipe_for(recipe, layout, widths, name=name, inputs=inputs).changed(changes)


def fields_of_run(recipe: str | Recipe, about: LayoutOptions) -> Mapping[str, str] | None:
    """What :class:`~uva_agents.training.run.RunOptions` is told of fields: nothing where the recipe's layout has them."""
    return None if _for_any_layout(recipe) else about.fields or None


def _for_any_layout(recipe: str | Recipe) -> bool:
    return isinstance(recipe, str) and recipe in (*SIZES, *BASELINES)


def _check_unused(about: LayoutOptions, name: str | None, inputs: OptionalInputs, *, recipe: bool) -> None:
    """Raises ``InputError`` where something is asked for that would be passed over."""
    asked: dict[str, object] = {"name": name}
    for part in (about, inputs):
        default = type(part)()
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            asked[field.name] = None if value == getattr(default, field.name) else value
    wrong = [key for key, value in asked.items() if value is not None and key != "fields"]
    if not wrong:
        return
    option = _OPTIONS.get(wrong[0], wrong[0].replace("_", "-"))
    if not recipe:
        raise InputError(f"--{option} goes with a network size ({', '.join(SIZES)}), not with a baseline")
    raise InputError(
        f"--{option} goes with a network size or a baseline ({', '.join((*SIZES, *BASELINES))}), not with a recipe, which has its "
        "own: change it there (uva info --recipe NAME > mine.toml)"
    )


_OPTIONS = {"control_hz": "hz", "env_id": "env", "proprio": "no-proprio"}
"""Attribute of :class:`LayoutOptions` -> the command's option, where it is called otherwise."""


def data_of(sources: Sequence[Source]) -> Path | tuple[Source, ...]:
    """As :class:`~uva_agents.training.run.RunOptions` takes them."""
    alone = len(sources) == 1 and sources[0].episodes is None
    return sources[0].path if alone else sources_of(tuple(sources))


def name_of(sources: Sequence[Source], size: str) -> str:
    """Of weights of this size trained on this data."""
    path = sources[0].path.resolve()
    stem = path.name.split(".")[0] or "data"
    return f"{stem}-{size}"
