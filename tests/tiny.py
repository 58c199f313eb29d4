"""Untrained miniature weights and data, for tests of behaviour rather than of skill."""

from pathlib import Path

import numpy as np
import torch

from uva_agents.checkpoints import Bundle, InterfaceSpec, save_bundle
from uva_agents.data import LinearNormalizer, write_replay_buffer
from uva_agents.model import UVA, VAE, nano_vae_config, uva_nano_config


def tiny_bundle(seed: int = 0, **overrides: object) -> Bundle:
    torch.manual_seed(seed)
    size = {
        "width": 32,
        "heads": 2,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "proprio_dim": 2,
        "readout_dim": 20,
        "frame_points": 10,
    }
    model, vae = UVA(uva_nano_config(**(size | overrides))), VAE(nano_vae_config())
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.05)  # zero-initialised outputs would make every observation look alike
    limits = {k: (np.zeros(d), np.full(d, 512.0)) for k, d in (("action", 2), ("agent_pos", 2), ("keypoints", 18))}
    spec = InterfaceSpec((96, 96), (0.0, 0.0), (512.0, 512.0), proprio_key="agent_pos", env_id="uva/PushT-v0")
    return Bundle(model.eval(), vae.eval(), LinearNormalizer.from_limits(limits), spec, "tiny")


def tiny_weights(folder: Path) -> Path:
    return save_bundle(tiny_bundle(), folder, card="# tiny\nUntrained.\n")


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
