"""A recipe for any robot: a network size, and the layout of its recordings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uva_agents.checkpoints.schema import closest
from uva_agents.checkpoints.text import TABLE_DIM
from uva_agents.errors import InputError
from uva_agents.model import UVAConfig
from uva_agents.model.uva.builders import CONFIGS
from uva_agents.training.instructions import GIVEN
from uva_agents.training.recipe import DataConfig
from uva_agents.training.run import network_width
from uva_agents.training.uva.recipes import (
    GPU_NETWORK,
    NANO_AUTOENCODER,
    NANO_NETWORK,
    Augmentation,
    AutoencoderTraining,
    UVARecipe,
)

SIZES = tuple(CONFIGS)
"""Names of network sizes, the smallest first."""
CLIP_DIM = 512


@dataclass(frozen=True)
class OptionalInputs:
    """What of the data a network takes and predicts beyond the paper's default.

    Attributes:
        history_actions: the actions that led here are an input.
        predict_wrist: future frames of the second camera are predicted, too.
        predict_proprio: so are the next steps' proprioception: so many of each row's last numbers, 0 for none.
        varied_history: in training, draw which past frames a history consists of, for data and robots of other rates.
    """

    history_actions: bool = False
    predict_wrist: bool = False
    predict_proprio: int = 0
    varied_history: bool = False


def recipe_for(
    size: str,
    data: DataConfig,
    widths: Mapping[str, int],
    *,
    name: str | None = None,
    inputs: OptionalInputs | None = None,
) -> UVARecipe:
    """The recipe of a network size on data of any layout.

    Args:
        size: one of :data:`SIZES`. ``nano`` trains its own autoencoder, the others need the released one's weights.
        data: the layout.
        widths: canonical array -> numbers in a row, as recorded.
        name: of the weights.
        inputs: what else is an input, or predicted.

    Raises:
        InputError: there is no such size; the layout has no action.
    """
    if size not in CONFIGS:
        close = closest(size, SIZES, n=2) or list(SIZES)
        raise InputError(f"no network size is called {size!r}; did you mean {' or '.join(close)}?")
    inputs = inputs or OptionalInputs()
    model = CONFIGS[size](**_sizes(size, data, widths, inputs))
    build = _small if model.vae.kind == "nano" else _released
    recipe = build(name or f"uva-{size}", model, data)
    network = dataclasses.replace(recipe.network, varied_history=inputs.varied_history)
    return dataclasses.replace(recipe, network=network)


def _sizes(size: str, data: DataConfig, widths: Mapping[str, int], inputs: OptionalInputs) -> dict[str, Any]:
    values: dict[str, Any] = {"action_dim": network_width(data, "action", widths["action"])}
    if data.proprio_key is not None:
        values |= {
            "proprio_dim": network_width(data, data.proprio_key, widths[data.proprio_key]),
            "proprio_steps": UVAConfig().n_frames,
            "proprio_maskable": True,
        }
    if data.has_wrist:
        values |= {"wrist_image": True, "wrist_maskable": True, "predict_wrist": inputs.predict_wrist}
    if data.instructions != "none":
        dims = {"table": TABLE_DIM, "clip": CLIP_DIM, "given": widths.get(GIVEN, 0)}
        values["text_dim"] = dims[data.instructions]
        if size == "nano":
            values["text_tokens"] = 2  # beside 36 tokens of frames, not 1024
    if inputs.history_actions:
        values["history_actions"] = True
    if inputs.predict_proprio:
        values["predict_proprio_dim"] = inputs.predict_proprio
    return values


def _small(name: str, model: UVAConfig, data: DataConfig) -> UVARecipe:
    """On two CPU cores: the autoencoder, for longer than on PushT's plain pictures, then the network on its latents."""
    return UVARecipe(
        name=name,
        model=model,
        data=data,
        augmentation=Augmentation(variants=4, max_shift=4, mirror=False),
        autoencoder=AutoencoderTraining(dataclasses.replace(NANO_AUTOENCODER, steps=2500)),
        network=dataclasses.replace(NANO_NETWORK, wrist_dropout=0.1),
    )


def _released(name: str, model: UVAConfig, data: DataConfig) -> UVARecipe:
    """On GPUs, with the released autoencoder: optimisation as released, on latents that are computed once."""
    return UVARecipe(
        name=name,
        model=model,
        data=data,
        augmentation=Augmentation(variants=4, mirror=False),
        network=dataclasses.replace(GPU_NETWORK, wrist_dropout=0.1),
    )
