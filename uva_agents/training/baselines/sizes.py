"""Recipes of the baselines for any robot: the network for two CPU cores, and the layout of its recordings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from uva_agents.model import dp_c_nano_config, two_frame_nano_config
from uva_agents.training.baselines.recipes import NANO, PAIRS, DiffusionPolicyRecipe, TwoFrameRecipe
from uva_agents.training.recipe import DataConfig, NetworkRecipe
from uva_agents.training.run import network_width


def diffusion_policy_for(data: DataConfig, widths: Mapping[str, int], *, name: str) -> DiffusionPolicyRecipe:
    """DP-C on one camera and proprioception, where the layout has it.

    Args:
        data: the layout.
        widths: canonical array -> numbers in a row, as recorded.
        name: of the weights.
    """
    key = data.proprio_key
    model = dp_c_nano_config(
        action_dim=network_width(data, "action", widths["action"]),
        proprio_dim=0 if key is None else network_width(data, key, widths[key]),
    )
    return DiffusionPolicyRecipe(
        name=name, model=model, data=_one_camera(data), stage=NANO, draws=2, crop_together=True
    )


def two_frame_for(data: DataConfig, widths: Mapping[str, int], *, name: str) -> TwoFrameRecipe:
    """UniPi's inverse dynamics on every 4th frame; arguments as of :func:`diffusion_policy_for`."""
    model = two_frame_nano_config(stride=4, action_dim=network_width(data, "action", widths["action"]))
    one = _one_camera(data)
    if not any(transform.needs for transform in data.action_transforms):
        one = dataclasses.replace(one, proprio_key=None, proprio_transforms=())
    return TwoFrameRecipe(name=name, model=model, data=one, stage=PAIRS)


def _one_camera(data: DataConfig) -> DataConfig:
    fields = {name: field for name, field in data.fields.items() if name != data.wrist_key}
    return dataclasses.replace(data, fields=fields, instructions="none")


BASELINES: Mapping[str, Callable[..., NetworkRecipe]] = {
    "diffusion-policy": diffusion_policy_for,
    "two-frame": two_frame_for,
}
"""Names that ``uva train`` takes beside network sizes."""
