"""Training on anybody's demonstrations: the layout comes from the data, the recipe from it and a network size."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uva_agents.data import Dataset, open_dataset
from uva_agents.errors import DataError, InputError
from uva_agents.training.layout import find_layout
from uva_agents.training.layout_files import layout_from_toml
from uva_agents.training.recipe import Changes, DataConfig, Instructions
from uva_agents.training.run import RunOptions, find_recipe
from uva_agents.training.run import train as run_recipe
from uva_agents.training.sources import Source, sources_of
from uva_agents.training.uva.recipes import UVARecipe
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
    """

    layout: DataConfig | None = None
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    control_hz: float | None = None
    instructions: Instructions | None = None
    env_id: str | None = None
    held_out: int | None = None
    execute: int | None = None


def layout_of(sources: Sequence[Source], about: LayoutOptions) -> tuple[DataConfig, Dataset]:
    """The layout of the first dataset with actions, and that dataset.

    Raises:
        DataError: no dataset has actions; see :func:`~uva_agents.training.layout.find_layout`.
        InputError: a layout and fields are both given.
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
    return dataclasses.replace(layout, **{k: v for k, v in changes.items() if v is not None}), dataset


def widths_of(dataset: Dataset) -> dict[str, int]:
    """Canonical array -> numbers in a row."""
    return {name: int(np.prod(v.shape[1:])) for name, v in dataset.arrays.items() if not name.startswith("pixels")}


def train(
    recipe: str | UVARecipe,
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
    """Train a policy, a world model and an inverse model, one set of weights, on demonstrations of any layout.

    ``uva_agents.train("nano", "recordings")`` is all that it takes; a run that was interrupted goes on where it was.

    Args:
        recipe: a network size, the name of a recipe, its file, or a recipe.
        data: dataset of any format that ``uva data inspect`` knows, or several (``"PATH:WEIGHT"``).
        out: run folder; ``runs/NAME`` by default.
        layout: of the data, or a file that has it; found in the data when absent.
        steps: of the joint stage, instead of the recipe's.
        name: of the weights.
        inputs: what else is an input, or predicted; for a network size.
        changes: of the recipe.
        about: what the data does not say.
        options: further fields of :class:`~uva_agents.training.run.RunOptions`.

    Returns: the weights folder; ``None`` in all processes but the first.

    Raises:
        InputError, DataError, MachineError: see :func:`layout_of`, and :func:`~uva_agents.training.run.train`.
    """
    given = [data] if isinstance(data, str | Path) else list(data)
    sources = [one if isinstance(one, Source) else Source.parse(str(one)) for one in given]
    about = about or LayoutOptions()
    if layout is not None:
        found = layout if isinstance(layout, DataConfig) else layout_from_toml(layout)
        about = dataclasses.replace(about, layout=found)
    made = recipe if not isinstance(recipe, str) else make_recipe(recipe, sources, about, name=name, inputs=inputs)
    if steps is not None:
        changes = dataclasses.replace(changes or Changes(), stage_steps={"joint": steps})
    if changes is not None:
        made = made.changed(changes)
    folder = Path("runs") / made.name if out is None else Path(out)
    settings = {"data": data_of(sources), "out": folder, **(options or {})}
    return run_recipe(made, RunOptions(**settings))  # type: ignore[arg-type]


def make_recipe(
    name_or_size: str,
    sources: Sequence[Source],
    about: LayoutOptions,
    *,
    name: str | None = None,
    inputs: OptionalInputs | None = None,
) -> UVARecipe:
    """The recipe of a size on this data, or the one that has this name."""
    if name_or_size not in SIZES:
        found = find_recipe(name_or_size, SIZES)
        assert isinstance(found, UVARecipe)
        return found
    layout, dataset = layout_of(sources, about)
    return recipe_for(
        name_or_size, layout, widths_of(dataset), name=name or name_of(sources, name_or_size), inputs=inputs
    )


def data_of(sources: Sequence[Source]) -> Path | tuple[Source, ...]:
    """As :class:`~uva_agents.training.run.RunOptions` takes them."""
    alone = len(sources) == 1 and sources[0].episodes is None
    return sources[0].path if alone else sources_of(tuple(sources))


def name_of(sources: Sequence[Source], size: str) -> str:
    """Of weights of this size trained on this data."""
    path = sources[0].path.resolve()
    stem = path.name.split(".")[0] or "data"
    return f"{stem}-{size}"
