"""Writes files in the format of the released checkpoints, at a small size."""

import re
from pathlib import Path
from typing import Any

import dill
import torch
from omegaconf import OmegaConf

from uva_agents.model import VAE, HeadConfig, UVAConfig, UVANet
from uva_agents.model.vae import VAEConfig

TASKS: dict[str, dict[str, Any]] = {
    "pusht": {"action_dim": 2},
    "libero10": {"action_dim": 10, "text_dim": 32, "text_tokens": 64},
    "umi": {"action_dim": 10, "text_dim": 32, "text_tokens": 64, "proprio_dim": 16, "proprio_steps": 4, "predict_proprio_dim": 6},
    "toolhang": {"action_dim": 10, "wrist_image": True, "predict_wrist": True, "proprio_dim": 9, "predict_proprio_dim": 9},
}  # fmt: skip
IMAGES = {
    "pusht": {"image": 96},
    "libero10": {"agentview_rgb": 128},
    "umi": {"camera0_rgb": 224},
    "toolhang": {"sideview_image": 240, "robot0_eye_in_hand_image": 240},
}

_NAMES = (
    (r"^history_proj\.", "z_proj_cond."),
    (r"^future_proj\.", "z_proj."),
    (r"^wrist_future_proj\.", "z_proj_wrist."),
    (r"^action_proj\.", "action_proj_cond."),
    (r"^proprio_proj\.", "proprioception_proj_cond."),
    (r"^wrist_history_proj\.", "proprioception_image_proj_cond."),
    (r"^mix\.", "proj_cond_x_layer."),
    (r"^text_proj\.", "text_proj_cond."),
    (r"^frame_mask$", "fake_latent_x"),
    (r"^action_mask$", "fake_action_latent"),
    (r"^wrist_mask$", "fake_latent_wrist_x"),
    (r"^text_mask$", "fake_latent"),
    (r"^(decoder_|encoder_|latent_)time_pos$", r"\1temporal_pos_embed"),
    (r"^(decoder_|encoder_|latent_)space_pos$", r"\1spatial_pos_embed"),
    (r"^(decoder_|encoder_)text_pos$", r"\1text_pos_embed"),
    (r"^encoder_(temporal|spatial|text)_pos", r"\1_pos"),
    (r"^latent_(temporal|spatial)_pos_embed", r"diffusion_\1_embed"),
    (r"^input_norm\.", "z_proj_ln."),
    (r"^video_head\.", "diffloss."),
    (r"^wrist_head\.", "diffloss_wrist."),
    (r"^(action|proprio)_head\.(head|aggregate)\.", r"\1_head."),
    (r"^action_head\.", "diffactloss."),
    (r"^proprio_head\.", "diffproploss."),
)


def network_state(model: UVANet) -> dict[str, torch.Tensor]:
    """A network's tensors under the released names."""
    out = {}
    for key, value in model.state_dict().items():
        for pattern, name in _NAMES:
            key = re.sub(pattern, name, key)
        out[f"model.{key}"] = value
    return out


def vae_state(vae: VAE) -> dict[str, torch.Tensor]:
    """An autoencoder's tensors under the released names."""
    levels = len(vae.config.channel_mult)
    out = {}
    for key, value in vae.net.state_dict().items():
        key = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", key)
        key = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", key)
        key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)
        key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(r"down_blocks\.(\d+)\.attentions", r"down.\1.attn", key)
        key = key.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_norm_out", "norm_out")
        key = key.replace("conv_shortcut", "nin_shortcut").replace("group_norm", "norm").replace("to_out.0", "proj_out")
        key = re.sub(r"\.to_(q|k|v)\.", r".\1.", key)
        is_map = value.ndim == 2 and ".attn" in key
        out[f"vae_model.{key}"] = value[:, :, None, None] if is_map else value
    return out


def text_state(width: int) -> dict[str, torch.Tensor]:
    """A small CLIP model, vision tower and all."""
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 1, "num_attention_heads": 1}
    clip = CLIPModel(
        CLIPConfig(
            text_config={**sizes, "vocab_size": 100, "eos_token_id": 99, "bos_token_id": 98},
            vision_config={**sizes, "image_size": 32, "patch_size": 16},
            projection_dim=width,
        )
    )
    state = {f"text_model.{k}": v for k, v in clip.state_dict().items()}
    state["text_model.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return state


def config(task: str, heads: int) -> Any:
    """The part of the released configuration that says what the weights are for."""
    obs: dict[str, Any] = {k: {"shape": [3, s, s], "type": "rgb"} for k, s in IMAGES[task].items()}
    obs["agent_pos"] = {"shape": [2], "type": "low_dim"}
    return OmegaConf.create(
        {
            "task": {
                "name": task,
                "shape_meta": {"image_resolution": 96, "action": {"shape": [TASKS[task]["action_dim"]]}, "obs": obs},
                "latency": "${eval:'${task.name} * 2'}",
            },
            "model": {
                "policy": {
                    "shape_meta": "${task.shape_meta}",
                    "n_action_steps": 8,
                    "shift_action": task != "umi",
                    "different_history_freq": True if task == "umi" else None,
                    "autoregressive_model_params": {"model_size": "mar_small", "encoder_num_heads": heads, "patch_size": 1,
                                                    "attn_dropout": 0.1, "proj_dropout": 0.1},
                    "action_model_params": {"predict_action": True, "act_model_type": "conv_fc"},
                }
            },
        }
    )  # fmt: skip


def build(task: str) -> tuple[UVANet, VAE]:
    """The network and autoencoder that go into the file."""
    torch.manual_seed(0)
    vae = VAEConfig(channels=32, res_blocks=1)
    model = UVANet(
        UVAConfig(
            vae=vae, image_size=64, width=32, encoder_depth=1, decoder_depth=1, heads=2,
            video_head=HeadConfig(width=32, depth=1), action_head=HeadConfig(width=32, depth=1, clip=1.0), **TASKS[task],
        )
    )  # fmt: skip
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return model.eval(), VAE(vae).eval()


def state_of(task: str) -> tuple[dict[str, torch.Tensor], UVANet, VAE]:
    """All tensors of a released file, and the modules they came from."""
    model, vae = build(task)
    state = {"_dummy_variable": torch.zeros(0), **vae_state(vae), **network_state(model)}
    if task == "umi":  # released UMI files carry a layer that their network does not use
        state["model.proprioception_image_proj_cond.weight"] = torch.zeros(32, 16)
        state["model.proprioception_image_proj_cond.bias"] = torch.zeros(32)
    if model.config.text_dim:
        state |= text_state(32)
    if task == "pusht":
        for key, dim in (("action", 2), ("agent_pos", 2), ("image", 1)):
            state |= {
                f"normalizer.params_dict.{key}.{n}": torch.full((dim,), v)
                for n, v in (("scale", 1 / 256), ("offset", -1.0))
            }
            for n, v in (("min", 0.0), ("max", 512.0), ("mean", 256.0), ("std", 100.0)):
                state[f"normalizer.params_dict.{key}.input_stats.{n}"] = torch.full((dim,), v)
    return state, model, vae


def write(path: Path, task: str, state: dict[str, torch.Tensor], **states: Any) -> Path:
    """A file as the released code writes it."""
    payload = {
        "cfg": config(task, heads=2),
        "state_dicts": {"ema_model": state, **states},
        "pickles": {"global_step": dill.dumps(7), "epoch": dill.dumps(1), "_output_dir": dill.dumps("data/outputs")},
    }
    with path.open("wb") as file:
        torch.save(payload, file, pickle_module=dill)
    return path
