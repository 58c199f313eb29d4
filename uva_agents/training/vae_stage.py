"""Stage 1: the autoencoder, from augmented frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uva_agents.data import Episodes
from uva_agents.data.augment import shift_frames
from uva_agents.data.dataset import EpochOrder
from uva_agents.model import VAE
from uva_agents.training.config import Recipe
from uva_agents.training.report import Reporter


def to_images(frames: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) -> float (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def to_frames(images: Tensor) -> np.ndarray:
    """Inverse of :func:`to_images`, clamped."""
    frames = images.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return frames.permute(0, 2, 3, 1).cpu().numpy()


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of image batches in [-1, 1], dB, per image: (N,)."""
    return 10 * torch.log10(4.0 / (a - b).square().flatten(1).mean(1).clamp(min=1e-10))


class VAEModule(nn.Module):
    """Summed squared error plus weighted KL divergence."""

    def __init__(self, vae: VAE, kl_weight: float) -> None:
        super().__init__()
        self.vae = vae
        self.kl_weight = kl_weight

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        posterior = self.vae.posterior(images)
        rebuilt = self.vae.decode(posterior.sample() * self.vae.config.scale)
        error = (rebuilt - images).square().flatten(1).sum(1).mean()
        kl = posterior.kl().mean()
        return error + self.kl_weight * kl, {"error": error, "kl": kl}


class VAEStage:
    """Reconstruct frames of the training episodes, half of them mirrored, most of them shifted."""

    name = "vae"

    def __init__(self, recipe: Recipe, vae: VAE, train: Episodes, held_out: Episodes) -> None:
        self.recipe = recipe
        self.module: nn.Module = VAEModule(vae, recipe.kl_weight).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.frames = train.arrays["pixels"]
        self.held_out = held_out.arrays["pixels"][:: max(1, held_out.steps // 64)][:64]

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        recipe = self.recipe
        order = EpochOrder(len(self.frames), 1, recipe.vae.batch_size, recipe.seed, rank, world)
        rng = np.random.default_rng([recipe.seed, step, rank])
        frames = self.frames[order.at(step)[0]]
        moved = np.empty_like(frames)
        for i, frame in enumerate(frames):
            if recipe.mirror and rng.random() < 0.5:
                frame = frame[::-1, ::-1].transpose(1, 0, 2)
            dx, dy = rng.integers(-recipe.max_shift, recipe.max_shift + 1, 2) if rng.random() < 0.7 else (0, 0)
            moved[i] = shift_frames(frame[None], int(dx), int(dy))[0]
        return {"images": to_images(moved).contiguous(memory_format=torch.channels_last)}

    def validate(self, module: nn.Module, reporter: Reporter, step: int) -> dict[str, float]:
        assert isinstance(module, VAEModule)
        vae = module.vae
        images = to_images(self.held_out).to(next(vae.parameters()).device)
        rebuilt = vae.decode(vae.encode(images))
        pair = np.concatenate([to_frames(images[:8]), to_frames(rebuilt[:8])], axis=1)
        reporter.picture("reconstruction", np.concatenate(list(pair), axis=1), step)
        return {"psnr_db": float(psnr(rebuilt.clamp(-1, 1), images).mean()), "latent_std": float(vae.encode(images).std())}
