"""Recipes that are files, in ``named/``: those of the released code, with every number, and this package's own."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, cast

from uva_agents.training.recipe_files import recipe_from_toml

if TYPE_CHECKING:
    from uva_agents.training.uva.recipes import UVARecipe

RELEASED = ("uva-pusht", "uva-pusht-m", "uva-toolhang", "uva-libero10", "uva-umi-multitask")
"""Names of those of the released code: both stages, at the released size."""
NAMED = (*RELEASED, "arx-x5-nano")
"""Names of all of them."""


def named(name: str) -> UVARecipe:
    """One of :data:`NAMED`."""
    return cast("UVARecipe", recipe_from_toml(named_text(name), name))


def named_text(name: str) -> str:
    """The file of one of :data:`NAMED`, to be copied and edited."""
    return (resources.files(__package__) / "named" / f"{name}.toml").read_text(encoding="utf-8")
