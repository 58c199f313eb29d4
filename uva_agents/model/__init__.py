"""Tensors in, tensors out: autoencoder, transformer, masking, diffusion heads, samplers.

Nothing here knows an environment, a file or a numpy observation.
"""

from uva_agents.model.baselines.builders import (
    dp_c,
    dp_c_config,
    dp_c_nano,
    dp_c_nano_config,
    dp_c_positions_config,
    dp_t,
    dp_t_config,
    two_frame_nano,
    two_frame_nano_config,
)
from uva_agents.model.baselines.net import (
    ActionSampler,
    DiffusionPolicyConfig,
    DiffusionPolicyNet,
    TransformerConfig,
    UNetConfig,
    sample_chunks,
)
from uva_agents.model.baselines.two_frame import TwoFrameConfig, TwoFrameNet
from uva_agents.model.cpu.inference import optimize_for_inference
from uva_agents.model.uva.builders import (
    CONFIGS,
    uva_base,
    uva_base_config,
    uva_huge,
    uva_huge_config,
    uva_large,
    uva_large_config,
    uva_nano,
    uva_nano_config,
    uva_small,
    uva_small_config,
    uva_tiny,
    uva_tiny_config,
)
from uva_agents.model.uva.config import HeadConfig, Task, UVAConfig
from uva_agents.model.uva.inputs import Context, Visibility, patchify, unpatchify
from uva_agents.model.uva.losses import Draws, Jitter, Losses, joint_loss
from uva_agents.model.uva.masking import draw_mask, draw_tasks
from uva_agents.model.uva.net import UVANet
from uva_agents.model.uva.sampling import SamplerConfig, VideoSample, frame_sampler, sample_actions, sample_video
from uva_agents.model.vae import VAE, VAEConfig, nano_vae_config
from uva_agents.model.vision.encoder import EncoderConfig

__all__ = [
    "CONFIGS",
    "VAE",
    "ActionSampler",
    "Context",
    "DiffusionPolicyConfig",
    "DiffusionPolicyNet",
    "Draws",
    "EncoderConfig",
    "HeadConfig",
    "Jitter",
    "Losses",
    "SamplerConfig",
    "Task",
    "TransformerConfig",
    "TwoFrameConfig",
    "TwoFrameNet",
    "UNetConfig",
    "UVAConfig",
    "UVANet",
    "VAEConfig",
    "VideoSample",
    "Visibility",
    "dp_c",
    "dp_c_config",
    "dp_c_nano",
    "dp_c_nano_config",
    "dp_c_positions_config",
    "dp_t",
    "dp_t_config",
    "draw_mask",
    "draw_tasks",
    "frame_sampler",
    "joint_loss",
    "nano_vae_config",
    "optimize_for_inference",
    "patchify",
    "sample_actions",
    "sample_chunks",
    "sample_video",
    "two_frame_nano",
    "two_frame_nano_config",
    "unpatchify",
    "uva_base",
    "uva_base_config",
    "uva_huge",
    "uva_huge_config",
    "uva_large",
    "uva_large_config",
    "uva_nano",
    "uva_nano_config",
    "uva_small",
    "uva_small_config",
    "uva_tiny",
    "uva_tiny_config",
]
