"""Names of tensors in the released code, and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor

from uva_agents.checkpoints.stored import StoredTensor
from uva_agents.errors import WeightsError

T = TypeVar("T", Tensor, StoredTensor)

_RENAMES: tuple[tuple[str, str], ...] = (
    (r"^z_proj_cond\.", "history_proj."),
    (r"^z_proj\.", "future_proj."),
    (r"^z_proj_wrist\.", "wrist_future_proj."),
    (r"^action_proj_cond\.", "action_proj."),
    (r"^history_action_proj_cond\.", "history_action_proj."),
    (r"^proprioception_proj_cond\.", "proprio_proj."),
    (r"^proprioception_image_proj_cond\.", "wrist_history_proj."),
    (r"^proj_cond_x_layer\.", "mix."),
    (r"^text_proj_cond\.", "text_proj."),
    (r"^fake_latent_x$", "frame_mask"),
    (r"^fake_action_latent$", "action_mask"),
    (r"^fake_latent_wrist_x$", "wrist_mask"),
    (r"^fake_latent_history_action$", "history_action_mask"),
    (r"^fake_latent$", "text_mask"),
    (r"^decoder_(temporal|spatial|text)_pos_embed$", r"decoder_\1_pos"),
    (r"^(temporal|spatial|text)_pos_embed$", r"encoder_\1_pos"),
    (r"^diffusion_(temporal|spatial)_embed$", r"latent_\1_pos"),
    (r"_temporal_pos$", "_time_pos"),
    (r"_spatial_pos$", "_space_pos"),
    (r"^z_proj_ln\.", "input_norm."),
    (r"^diffloss\.", "video_head."),
    (r"^diffloss_wrist\.", "wrist_head."),
    (r"^diffactloss\.net\.", "action_head.head.net."),
    (r"^diffactloss\.", "action_head.aggregate."),
    (r"^diffproploss\.net\.", "proprio_head.head.net."),
    (r"^diffproploss\.", "proprio_head.aggregate."),
    (r"\.conv_transpose3d\.", ".conv_transpose."),
)


def rename(key: str) -> str:
    """Our name of a released tensor (given without the ``model.`` prefix)."""
    return _substituted(key, _RENAMES)


def _substituted(key: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        key = re.sub(pattern, replacement, key)
    return key


_VAE_RENAMES: tuple[tuple[str, str], ...] = (
    (r"^encoder\.down\.(\d+)\.block\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2."),
    (r"^encoder\.down\.(\d+)\.attn\.(\d+)\.", r"encoder.down_blocks.\1.attentions.\2."),
    (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"^decoder\.up\.(\d+)\.block\.(\d+)\.", r"decoder.up_blocks.\1.resnets.\2."),
    (r"^decoder\.up\.(\d+)\.attn\.(\d+)\.", r"decoder.up_blocks.\1.attentions.\2."),
    (r"^decoder\.up\.(\d+)\.upsample\.", r"decoder.up_blocks.\1.upsamplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out."),
    (r"(\.attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(\.attentions\.\d+)\.(q|k|v)\.", r"\1.to_\2."),
    (r"(\.attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
)


def rename_vae(tensors: Mapping[str, T], where: str = "these tensors") -> dict[str, T]:
    """Our autoencoder's tensors from those of a released one (given without the ``vae_model.`` prefix), in the same order.

    The decoder's levels count from the other end here, and attention's 1x1 convolutions are linear layers.

    Raises:
        WeightsError: two of them are the same tensor.
    """
    levels = 1 + max((int(m[1]) for k in tensors if (m := re.match(r"decoder\.up\.(\d{1,4})\.", k))), default=0)
    out: dict[str, T] = {}
    for theirs, tensor in tensors.items():
        key = re.sub(r"^decoder\.up\.(\d{1,4})\.", lambda m: f"decoder.up.{levels - 1 - int(m[1])}.", theirs)
        key = f"net.{_substituted(key, _VAE_RENAMES)}"
        if ".attentions." in key and len(tensor.shape) == 4 and tuple(tensor.shape[2:]) == (1, 1):
            tensor = tensor.reshape(tensor.shape[:2])
        if key in out:
            raise WeightsError(
                f"{where}: two tensors of the autoencoder are the same, one of them 'vae_model.{theirs}'"
            )
        out[key] = tensor
    return out
