"""What weights say of their own training: the recipe that is saved with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uva_agents.checkpoints.folder import is_checkpoint_file, read_config, resolve


def saved_recipe(name_or_path: str | Path) -> Mapping[str, Any] | None:
    """Plain values of the recipe, as it was when they were trained; ``None`` where they do not say.

    Raises:
        FileNotFoundError: unknown name.
        WeightsError: the folder is damaged.
    """
    if is_checkpoint_file(name_or_path):
        return None
    found = read_config(resolve(name_or_path)).get("recipe")
    return found if isinstance(found, Mapping) else None


def action_names(name_or_path: str | Path, size: int) -> tuple[str, ...]:
    """What each of the ``size`` numbers of an action is called; ``action_0``, ``action_1`` ... where the weights do not say."""
    usual = tuple(f"action_{i}" for i in range(size))
    recipe = saved_recipe(name_or_path)
    data = recipe.get("data") if recipe is not None else None
    names = data.get("names") if isinstance(data, Mapping) else None
    found = names.get("action") if isinstance(names, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(name, str) and name.strip() for name in found):
        return usual
    return tuple(found) if len(set(found)) == len(found) == size else usual
