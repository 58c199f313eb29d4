"""Whether a recipe's network fits the numbers in the data, before anything is trained."""

from __future__ import annotations

from uva_agents.data import Episodes
from uva_agents.training.memory import Holds
from uva_agents.training.run import transforms_of
from uva_agents.training.uva.recipes import UVARecipe


def check_fits(recipe: UVARecipe, episodes: Episodes, text_dim: int) -> None:
    """That sizes agree.

    Args:
        episodes: the dataset that is held out from.
        text_dim: numbers in a vector of an instruction, 0 without.

    Raises:
        ValueError: naming the key and both sizes.
    """
    c, data = recipe.model, recipe.data
    sizes = [("action", ["action"], "action_dim", c.action_dim)]
    if data.proprio_key and c.proprio_dim:
        sizes.append((data.proprio_key, [data.proprio_key], "proprio_dim", c.proprio_dim))
    if c.frame_state_dim:
        keys = list(data.frame_state_keys)
        sizes.append((" + ".join(keys), keys, "frame_state_dim", c.frame_state_dim))
    for name, keys, what, wanted in sizes:
        found = sum(episodes.arrays[key].shape[-1] for key in keys)
        for transform in transforms_of(data, name):
            found = transform.network_size(found)
        if found != wanted:
            raise ValueError(
                f"{episodes.source} has {found} numbers in {name!r}, and recipe {recipe.name!r} has "
                f"{what}={wanted}: choose a recipe for this robot, or other columns"
            )
    if text_dim != c.text_dim:
        raise ValueError(
            f"instructions are vectors of {text_dim} numbers, and recipe {recipe.name!r} has text_dim={c.text_dim}"
        )
    if c.wrist_image != data.has_wrist:
        raise ValueError(
            f"recipe {recipe.name!r} has {'a' if c.wrist_image else 'no'} second camera, and its data "
            f"{'one' if data.has_wrist else 'none'} ({data.wrist_key})"
        )


def held_by(recipe: UVARecipe) -> Holds:
    """How the run keeps its data. Latents are those of the recipe's frames: an autoencoder's factor less, a few channels."""
    c, data, variants = recipe.model, recipe.data, recipe.augmentation.variants
    # Numbers that are relative to a window's 'now' are kept as they are, in double precision, with the poses they refer to.
    numbers = 1 + variants * (4 if data.action_transforms or data.proprio_transforms else 1)
    copies = 0 if recipe.network.clips is not None else variants * (2 if c.standardize else 1)
    return Holds(c.image_size, variants=numbers, tokens=2 * c.tokens_per_frame * c.token_dim * copies)
