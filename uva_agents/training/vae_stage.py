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
from uva_agents.model.points import PointReader
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
    """Summed squared error, weighted KL divergence and, where the data has points, their absolute error."""

    def __init__(self, vae: VAE, kl_weight: float, reader: PointReader | None, reader_weight: float) -> None:
        super().__init__()
        self.vae = vae
        self.kl_weight = kl_weight
        self.reader = reader
        self.reader_weight = reader_weight

    def forward(self, images: Tensor, points: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        posterior = self.vae.posterior(images)
        z = posterior.sample()
        rebuilt = self.vae.decode(z * self.vae.config.scale)
        error = (rebuilt - images).square().flatten(1).sum(1).mean()
        kl = posterior.kl().mean()
        loss, parts = error + self.kl_weight * kl, {"error": error, "kl": kl}
        if self.reader is not None and points is not None:
            # From the noisy sample: positions must stand out of the noise, not hide in the last digits.
            parts["points"] = (self.reader(z) - points).abs().mean()
            loss = loss + self.reader_weight * parts["points"]
        return loss, parts


class VAEStage:
    """Reconstruct frames of the training episodes, half of them mirrored, most of them shifted."""

    name = "vae"

    def __init__(self, recipe: Recipe, vae: VAE, train: Episodes, held_out: Episodes) -> None:
        self.recipe = recipe
        reader = None
        self.points: np.ndarray | None = None
        if recipe.readout_keys and recipe.points_weight:
            self.points = self._points(train)
            reader = PointReader(vae.config.z_channels, self.points.shape[1], recipe.model.latent_size)
        module = VAEModule(vae, recipe.kl_weight, reader, recipe.points_weight)
        self.module: nn.Module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.frames = train.arrays["pixels"]
        some = slice(None, None, max(1, held_out.steps // 64))
        self.held_out = held_out.arrays["pixels"][some][:64]
        self.held_out_points = self._points(held_out)[some][:64] if reader is not None else None

    def _points(self, episodes: Episodes) -> np.ndarray:
        """(N, K, 2) world coordinates of all read-out points."""
        joined = np.concatenate([episodes.arrays[key] for key in self.recipe.readout_keys], axis=1)
        return joined.reshape(len(joined), -1, 2)

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        recipe = self.recipe
        order = EpochOrder(len(self.frames), 1, recipe.vae.batch_size, recipe.seed, rank, world)
        rng = np.random.default_rng([recipe.seed, step, rank])
        chosen = order.at(step)[0]
        frames = self.frames[chosen]
        mirrored = rng.random(len(frames)) < (0.5 if recipe.mirror else 0.0)
        shift = rng.integers(-recipe.max_shift, recipe.max_shift + 1, (len(frames), 2))
        shift[rng.random(len(frames)) < 0.3] = 0
        moved = np.empty_like(frames)
        for i, frame in enumerate(frames):
            flipped = frame[::-1, ::-1].transpose(1, 0, 2) if mirrored[i] else frame
            moved[i] = shift_frames(flipped[None], int(shift[i, 0]), int(shift[i, 1]))[0]
        inputs: dict[str, Any] = {"images": to_images(moved).contiguous(memory_format=torch.channels_last)}
        if self.points is not None:
            size = recipe.world_size
            points = self.points[chosen]
            points = np.where(mirrored[:, None, None], size - points[..., ::-1], points)
            points = points + shift[:, None] * (size / frames.shape[1])
            inputs["points"] = torch.from_numpy((2 * points / size - 1).astype(np.float32))
        return inputs

    def validate(self, module: nn.Module, reporter: Reporter, step: int) -> dict[str, float]:
        assert isinstance(module, VAEModule)
        vae = module.vae
        images = to_images(self.held_out).to(next(vae.parameters()).device)
        rebuilt = vae.decode(vae.encode(images))
        pair = np.concatenate([to_frames(images[:8]), to_frames(rebuilt[:8])], axis=1)
        reporter.picture("reconstruction", np.concatenate(list(pair), axis=1), step)
        latents = vae.posterior(images).mean
        metrics = {
            "psnr_db": float(psnr(rebuilt.clamp(-1, 1), images).mean()),
            "latent_std": float(latents.std()),
        }
        if module.reader is not None and self.held_out_points is not None:
            read = (module.reader(latents).cpu().numpy() + 1) / 2 * self.recipe.world_size
            metrics["points_px"] = float(np.linalg.norm(read - self.held_out_points, axis=-1).mean())
        return metrics
