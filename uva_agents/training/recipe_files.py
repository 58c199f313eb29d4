"""Recipes as TOML files that people copy and edit: a size, a layout of the data, and numbers.

::

    kind = "uva"
    name = "mine"
    size = "base"          # of the network: nano, tiny, small, base, large or huge

    [model]                # what differs from that size
    action_dim = 7

    [data]                 # a layout, see DataConfig
    [network]              # the rest of the recipe, setting by setting

What a file leaves out has the default that the recipe's class gives it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from uva_agents.checkpoints.schema import did_you_mean, shown
from uva_agents.errors import DataError
from uva_agents.model.uva.builders import CONFIGS
from uva_agents.training.layout_files import without_none
from uva_agents.training.recipe import Recipe, plain
from uva_agents.training.saved_recipes import recipe_from_dict
from uva_agents.utils.files import read_regular_text

_LIMIT = 4 << 20


def read_recipe_file(path: str | Path) -> Recipe:
    """The recipe of a TOML file.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is not one that this version understands; it names the setting.
    """
    return recipe_from_toml(read_regular_text(Path(path), limit=_LIMIT), str(path))


def recipe_from_toml(text: str, where: str = "recipe") -> Recipe:
    """The recipe that a TOML file's text says.

    Raises:
        DataError: see :func:`read_recipe_file`.
    """
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{where} is no TOML: {error}") from error
    values.setdefault("kind", "uva")
    if "size" in values:
        if values["kind"] != "uva":
            raise DataError(f"{where}: 'size' is of recipes of kind 'uva', this is of kind {shown(values['kind'])}")
        values["model"] = _sized(values.pop("size"), values.get("model", {}), where)
    return recipe_from_dict(values, where)


def recipe_to_toml(recipe: Recipe) -> str:
    """A recipe as the text of such a file, network and all; :func:`recipe_from_toml` is the inverse."""
    return tomli_w.dumps(without_none(recipe.to_dict()))


def _sized(size: Any, changes: Any, where: str) -> dict[str, Any]:
    """Settings of a network of one of the named sizes, with changes."""
    if not isinstance(size, str) or size not in CONFIGS:
        raise DataError(f"{where}: no size {shown(size)}{did_you_mean(size, CONFIGS)}")
    if not isinstance(changes, Mapping):
        raise DataError(f"{where}: model is {shown(changes)}, not a table of settings")
    return _changed(plain(CONFIGS[size]().to_dict()), changes, f"{where}: model")


def _changed(values: dict[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """With changes, table by table: a head's width is changed without saying its depth again."""
    changed = dict(values)
    for name, value in changes.items():
        if name not in values:
            raise DataError(f"{where} has an unknown setting {shown(name)}{did_you_mean(name, values)}")
        inner = isinstance(values[name], dict) and isinstance(value, Mapping)
        changed[name] = _changed(values[name], value, f"{where}.{name}") if inner else value
    return changed
