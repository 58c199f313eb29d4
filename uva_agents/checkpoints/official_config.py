"""What network and interface a released file describes: sizes from its tensors, the rest from its configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.model import HeadConfig, UVAConfig
from uva_agents.model.config import Aggregator
from uva_agents.model.vae import VAEConfig

HEADS = {"mar_tiny": 6, "mar_small": 6, "mar_base": 12, "mar_large": 16, "mar_huge": 16}
"""Attention heads of the named sizes: the one number that tensor shapes do not tell."""

_AGGREGATORS = {
    "interpolate.weight": "conv_fc",
    "conv_transpose3d.weight": "conv_ori",
    "conv.2.weight": "conv2",
    "fc.2.weight": "fc2",
}


def network_config(
    tensors: Mapping[str, Tensor], vae: Mapping[str, Tensor], config: Mapping[str, Any], *, heads: int | None = None
) -> UVAConfig:
    """Network of a released file.

    Args:
        tensors: of the network, without the ``model.`` prefix.
        vae: of the autoencoder, without the ``vae_model.`` prefix.
        config: the file's configuration, plain.
        heads: attention heads, for a network that is none of the named sizes.

    Raises:
        ValueError: a tensor that every network has is missing, or the number of heads cannot be told.
    """
    for needed in ("z_proj_cond.weight", "spatial_pos_embed", "temporal_pos_embed", "proj_cond_x_layer.weight"):
        if needed not in tensors:
            raise ValueError(f"no tensor 'model.{needed}' in the file: it is not a UVA checkpoint")
    policy = lookup(config, "model.policy") or {}
    sizes = policy.get("autoregressive_model_params") or {}
    width, token_dim = tensors["z_proj_cond.weight"].shape
    patch = int(sizes.get("patch_size") or 1)
    grid = round(tensors["spatial_pos_embed"].shape[1] ** 0.5)
    frames = tensors["temporal_pos_embed"].shape[1]
    proprio = "proprioception_proj_cond.weight" in tensors
    predict_wrist = "z_proj_wrist.weight" in tensors
    history_actions = "history_action_proj_cond.weight" in tensors
    groups = tensors["proj_cond_x_layer.weight"].shape[1] // width
    wrist = groups - 3 - history_actions - proprio - predict_wrist
    if wrist not in (0, 1):
        raise ValueError(f"cannot tell which {groups} inputs the network mixes (model.proj_cond_x_layer.weight)")
    text = "text_proj_cond.weight" in tensors
    encoder_depth, decoder_depth = _depth(tensors, "encoder_blocks"), _depth(tensors, "decoder_blocks")
    return UVAConfig(
        vae=vae_config(vae) if vae else VAEConfig(z_channels=token_dim // patch**2),
        image_size=16 * grid * patch,
        patch_size=patch,
        width=width,
        encoder_depth=encoder_depth,
        decoder_depth=decoder_depth,
        heads=heads or _heads(sizes, width, encoder_depth + decoder_depth),
        mlp_ratio=tensors["encoder_blocks.0.mlp.fc1.weight"].shape[0] / width,
        attention_dropout=float(sizes.get("attn_dropout", 0.1)),
        dropout=float(sizes.get("proj_dropout", 0.1)),
        n_frames=frames,
        action_dim=tensors["action_proj_cond.weight"].shape[1],
        video_head=_head(tensors, "diffloss"),
        action_head=_head(tensors, "diffactloss", clip=1.0),
        aggregator=_aggregator(tensors),
        text_dim=tensors["text_proj_cond.weight"].shape[1] if text else 0,
        text_tokens=tensors["text_pos_embed"].shape[1] if text else 64,
        proprio_dim=tensors["proprioception_proj_cond.weight"].shape[1] if proprio else 0,
        proprio_steps=frames if policy.get("different_history_freq") else 16,
        history_actions=history_actions,
        wrist_image=bool(wrist),
        predict_wrist=predict_wrist,
        predict_proprio_dim=_width(tensors, "diffproploss.net.input_proj.weight"),
        predict_actions="diffactloss.net.input_proj.weight" in tensors,
    )


def vae_config(tensors: Mapping[str, Tensor]) -> VAEConfig:
    """Autoencoder of a released file (tensors without the ``vae_model.`` prefix)."""
    channels = tensors["encoder.conv_in.weight"].shape[0]
    levels = 1 + max(int(m[1]) for k in tensors if (m := re.match(r"encoder\.down\.(\d+)\.", k)))
    widths = [tensors[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)]
    blocks = 1 + max(int(m[1]) for k in tensors if (m := re.match(r"encoder\.down\.0\.block\.(\d+)\.", k)))
    return VAEConfig(
        channels=channels,
        channel_mult=tuple(w // channels for w in widths),
        res_blocks=blocks,
        z_channels=tensors["post_quant_conv.weight"].shape[0],
    )


def interface(config: Mapping[str, Any], network: UVAConfig, limits: tuple[Any, Any] | None) -> InterfaceSpec:
    """Interface of a released file.

    Args:
        config: the file's configuration, plain.
        limits: smallest and largest action in its training data, or ``None``.
    """
    task = str(lookup(config, "task.name") or "")
    family = next((name for name in ("pusht", "libero", "tool", "umi") if name in task.lower()), "other")
    obs = lookup(config, "task.shape_meta.obs") or {}
    shapes = {
        key: (int(item["shape"][-2]), int(item["shape"][-1]))
        for key, item in obs.items()
        if isinstance(item, Mapping) and item.get("type") == "rgb"
    }
    wrist = next((s for k, s in shapes.items() if _is_wrist(k)), None)
    main = next((s for k, s in shapes.items() if not _is_wrist(k)), None)
    if main is None:
        side = int(lookup(config, "task.shape_meta.image_resolution") or network.image_size)
        main = (side, side)
    pose = {"libero": "absolute", "tool": "absolute", "umi": "relative"}.get(family)
    if pose is not None and network.action_dim != 10:
        pose = None
    if family == "pusht":
        low, high = (0.0,) * network.action_dim, (512.0,) * network.action_dim
    elif pose is None and limits is not None:
        low, high = tuple(map(float, limits[0])), tuple(map(float, limits[1]))
    else:
        size = network.action_dim if pose is None else 7
        low, high = (-float("inf"),) * size, (float("inf"),) * size
    return InterfaceSpec(
        image_shape=main,
        wrist_shape=(wrist or main) if network.wrist_image else None,
        action_low=low,
        action_high=high,
        action_pose=cast(Any, pose),
        proprio_key="agent_pos" if network.proprio_dim or pose == "relative" else None,
        proprio_pose=network.proprio_dim == 16 or pose == "relative",
        control_hz={"umi": 20.0, "libero": 20.0, "tool": 20.0}.get(family, 10.0),
        execute=int(lookup(config, "model.policy.n_action_steps") or 8),
        action_offset=0 if lookup(config, "model.policy.shift_action") in (None, True) else 1,
        env_id={"pusht": "uva/PushT-v0", "libero": "uva/Libero10-v0", "tool": "uva/ToolHang-v0"}.get(family),
    )


def lookup(config: Mapping[str, Any], path: str) -> Any:
    """Value at a dotted path of nested dicts, or ``None``."""
    node: Any = config
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def _is_wrist(key: str) -> bool:
    return "wrist" in key or "eye_in_hand" in key


def _depth(tensors: Mapping[str, Tensor], name: str) -> int:
    found = [int(m[1]) for k in tensors if (m := re.match(rf"{re.escape(name)}\.(\d+)\.", k))]
    return 1 + max(found, default=-1)


def _width(tensors: Mapping[str, Tensor], key: str) -> int:
    return tensors[key].shape[1] if key in tensors else 0


def _heads(sizes: Mapping[str, Any], width: int, depth: int) -> int:
    for key in ("num_heads", "encoder_num_heads"):
        if sizes.get(key):
            return int(sizes[key])
    named = str(sizes.get("model_size") or "")
    shapes = {
        "mar_tiny": (768, 6),
        "mar_small": (768, 12),
        "mar_base": (768, 24),
        "mar_large": (1024, 32),
        "mar_huge": (1280, 40),
    }
    for name, shape in shapes.items():
        if shape == (width, depth):
            return HEADS[name]
    raise ValueError(
        f"cannot tell the number of attention heads of a network {width} wide and {depth} deep (model_size {named!r} is "
        f"{shapes.get(named, 'unknown')}): pass heads="
    )


def _head(tensors: Mapping[str, Tensor], name: str, clip: float | None = None) -> HeadConfig:
    key = f"{name}.net.input_proj.weight"
    if key not in tensors:
        return HeadConfig(clip=clip)
    return HeadConfig(width=tensors[key].shape[0], depth=_depth(tensors, f"{name}.net.res_blocks"), clip=clip)


def _aggregator(tensors: Mapping[str, Tensor]) -> Aggregator:
    if "diffactloss.net.input_proj.weight" not in tensors:
        return "conv_fc"
    for key, name in _AGGREGATORS.items():
        if f"diffactloss.{key}" in tensors:
            return cast(Aggregator, name)
    raise ValueError("the file's action head has an aggregator that is none of the released ones")
