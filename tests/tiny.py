"""Untrained miniature weights and data, for tests of behaviour rather than of skill."""

from pathlib import Path

import numpy as np
import torch

from uva_agents.checkpoints import Bundle, InterfaceSpec, NetBundle, save_bundle
from uva_agents.data import LinearNormalizer, write_replay_buffer
from uva_agents.model import (
    VAE,
    DiffusionPolicyConfig,
    DiffusionPolicyNet,
    EncoderConfig,
    TransformerConfig,
    TwoFrameConfig,
    TwoFrameNet,
    UNetConfig,
    UVANet,
    nano_vae_config,
    uva_nano_config,
)


def tiny_bundle(seed: int = 0, **overrides: object) -> Bundle:
    torch.manual_seed(seed)
    size = {
        "width": 32,
        "heads": 2,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "proprio_dim": 2,
        "frame_state_dim": 20,
        "num_keypoints": 10,
    }
    model, vae = UVANet(uva_nano_config(**(size | overrides))), VAE(nano_vae_config())
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.05)  # zero-initialised outputs would make every observation look alike
    limits = {k: (np.zeros(d), np.full(d, 512.0)) for k, d in (("action", 2), ("agent_pos", 2), ("keypoints", 18))}
    spec = InterfaceSpec((96, 96), (0.0, 0.0), (512.0, 512.0), proprio_key="agent_pos", env_id="uva/PushT-v0")
    return Bundle(model.eval(), vae.eval(), LinearNormalizer.from_limits(limits), spec, "tiny")


def tiny_weights(folder: Path) -> Path:
    return save_bundle(tiny_bundle(), folder, card="# tiny\nUntrained.\n")


def tiny_encoder(**overrides: object) -> EncoderConfig:
    size = {"widths": (16, 32), "blocks": (1, 1), "stem": (7, 4), "pool": False, "keypoints": 8, "features": 16}
    return EncoderConfig(**(size | {"full_coordinates": True} | overrides))


def tiny_dp_config(kind: str = "unet", **overrides: object) -> DiffusionPolicyConfig:
    denoiser = UNetConfig(stages=(16, 32), step_dim=16) if kind == "unet" else TransformerConfig(32, 2, 2, dropout=0.0)
    return DiffusionPolicyConfig(**({"encoder": tiny_encoder(), "denoiser": denoiser} | overrides))


def tiny_dp_bundle(kind: str = "unet", seed: int = 0, **overrides: object) -> NetBundle[DiffusionPolicyNet]:
    torch.manual_seed(seed)
    limits = {k: (np.zeros(2), np.full(2, 512.0)) for k in ("action", "agent_pos")}
    spec = InterfaceSpec((96, 96), (0.0, 0.0), (512.0, 512.0), proprio_key="agent_pos", env_id="uva/PushT-v0")
    net = DiffusionPolicyNet(tiny_dp_config(kind, **overrides)).eval().requires_grad_(False)
    return NetBundle(net, LinearNormalizer.from_limits(limits), spec, "tiny-dp")


def tiny_two_frame_bundle(seed: int = 0, stride: int = 1) -> NetBundle[TwoFrameNet]:
    torch.manual_seed(seed)
    spec = InterfaceSpec((96, 96), (0.0, 0.0), (512.0, 512.0), env_id="uva/PushT-v0")
    net = (
        TwoFrameNet(TwoFrameConfig(tiny_encoder(frames=2, crop=88), width=16, stride=stride))
        .eval()
        .requires_grad_(False)
    )
    normalizer = LinearNormalizer.from_limits({"action": (np.zeros(2), np.full(2, 512.0))})
    return NetBundle(net, normalizer, spec, "tiny-pair")


def tiny_dataset(path: Path, episodes: int = 6, length: int = 24) -> Path:
    """Frames with a bright square where the 'agent' is, so that there is something to learn."""
    rng = np.random.default_rng(0)
    n = episodes * length
    steps = rng.normal(0, 6, (n, 2)).cumsum(0)
    position = 256 + 150 * np.sin(steps / 60)
    img = np.full((n, 96, 96, 3), 255, np.uint8)
    for frame, (x, y) in zip(img, (position / 512 * 96).astype(int), strict=True):
        frame[max(0, y - 4) : y + 4, max(0, x - 4) : x + 4] = (60, 90, 220)
    state = np.concatenate([position, np.zeros((n, 3))], 1).astype(np.float32)
    action = np.roll(position, -1, 0).astype(np.float32)
    keypoint = np.repeat(position[:, None], 9, 1).astype(np.float32)
    write_replay_buffer(
        path, {"img": img, "state": state, "action": action, "keypoint": keypoint}, np.arange(1, episodes + 1) * length
    )
    return path


def observation(seed: int = 0, batch: int | None = None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    lead = () if batch is None else (batch,)
    return {
        "pixels": rng.integers(0, 256, (*lead, 96, 96, 3), dtype=np.uint8),
        "agent_pos": rng.uniform(0, 512, (*lead, 2)).astype(np.float32),
    }


def tiny_points_config() -> DiffusionPolicyConfig:
    """A policy on where three things are, with a mixture prior."""
    return tiny_dp_config(
        encoder=tiny_encoder(positions=3),
        obs_steps=1,
        relations=32,
        modes=2,
        max_step=(0.15, 0.15),
        horizon=8,
        action_steps=8,
    )
