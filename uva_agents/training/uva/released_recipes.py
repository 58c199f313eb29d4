"""The recipes of the released code, one file each in ``released/``: both stages, at the released size, with every number."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, cast

from uva_agents.training.recipe_files import recipe_from_toml

if TYPE_CHECKING:
    from uva_agents.training.uva.recipes import UVARecipe

RELEASED = ("uva-pusht", "uva-pusht-m", "uva-toolhang", "uva-libero10", "uva-umi-multitask")
"""Their names."""


def released(name: str) -> UVARecipe:
    """One of :data:`RELEASED`."""
    return cast("UVARecipe", recipe_from_toml(released_text(name), name))


def released_text(name: str) -> str:
    """The file of one of :data:`RELEASED`, to be copied and edited."""
    return (resources.files(__package__) / "released" / f"{name}.toml").read_text(encoding="utf-8")
