"""Names of tensors in the released code, and ours."""

from __future__ import annotations

import re

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
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key
