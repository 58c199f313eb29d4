"""The baselines' recipes by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from uva_agents.training.baselines.recipes import (
    DiffusionPolicyRecipe,
    TwoFrameRecipe,
    dp_c,
    dp_c_block_push,
    dp_c_nano,
    dp_t,
    two_frame_block_push,
    two_frame_block_push_dense,
    two_frame_block_push_pooled,
    two_frame_pusht,
    two_frame_pusht_dense,
    two_frame_pusht_pooled,
)
from uva_agents.training.baselines.sizes import diffusion_policy_for, two_frame_for
from uva_agents.training.uva.named_recipes import named

_ARX_WIDTHS = {"action": 10, "agent_pos": 7}


def dp_umi_arx_x5() -> DiffusionPolicyRecipe:
    """DP-C in UMI's form on the demonstrations of ``arx-x5-nano``: the wrist camera, no history, actions relative to the tool.

    One network for both tasks, which it tells apart by what it sees.
    """
    recipe = diffusion_policy_for(named("arx-x5-nano").data, _ARX_WIDTHS, name="dp-umi-arx-x5")
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, obs_steps=1))


def two_frame_arx_x5() -> TwoFrameRecipe:
    """UniPi's inverse dynamics on the wrist camera's frames that ``arx-x5-nano`` sees: every 4th."""
    return two_frame_for(named("arx-x5-nano").data, _ARX_WIDTHS, name="two-frame-arx-x5")


DIFFUSION_POLICY_RECIPES: dict[str, Callable[[], DiffusionPolicyRecipe]] = {
    "dp-c": dp_c,
    "dp-t": dp_t,
    "dp-c-nano": dp_c_nano,
    "dp-c-block-push": dp_c_block_push,
    "dp-umi-arx-x5": dp_umi_arx_x5,
}
TWO_FRAME_RECIPES: dict[str, Callable[[], TwoFrameRecipe]] = {
    "two-frame-pusht": two_frame_pusht,
    "two-frame-pusht-dense": two_frame_pusht_dense,
    "two-frame-pusht-pooled": two_frame_pusht_pooled,
    "two-frame-block-push": two_frame_block_push,
    "two-frame-block-push-dense": two_frame_block_push_dense,
    "two-frame-block-push-pooled": two_frame_block_push_pooled,
    "two-frame-arx-x5": two_frame_arx_x5,
}
