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
from uva_agents.training.report import Reporter
from uva_agents.training.uva.action_regressor import ActionFrames, ActionRegressor
from uva_agents.training.uva.recipes import Augmentation, UVARecipe
from uva_agents.utils.images import to_frames, to_images


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of image batches in [-1, 1], dB, per image: (N,)."""
    return 10 * torch.log10(4.0 / (a - b).square().flatten(1).mean(1).clamp(min=1e-10))


def draw_moves(augmentation: Augmentation, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random augmentation per frame: mirrored (n,) bool, and shift (n, 2) in whole pixels, zero for three in ten."""
    mirrored = rng.random(count) < (0.5 if augmentation.mirror else 0.0)
    shift = rng.integers(-augmentation.max_shift, augmentation.max_shift + 1, (count, 2))
    shift[rng.random(count) < 0.3] = 0
    return mirrored, shift


def move_frames(frames: np.ndarray, mirrored: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Frames (N, H, W, 3), each mirrored or not and shifted by its own amount."""
    moved = np.empty_like(frames)
    for i, frame in enumerate(frames):
        flipped = frame[::-1, ::-1].transpose(1, 0, 2) if mirrored[i] else frame
        moved[i] = shift_frames(flipped[None], int(shift[i, 0]), int(shift[i, 1]))[0]
    return moved


_MOST_WEIGHT = 20.0


class VAEModule(nn.Module):
    """Summed squared error plus weighted KL divergence.

    Args:
        vae: what is trained.
        kl_weight, focus, action_weight: see :class:`~uva_agents.training.uva.recipes.AutoencoderTraining`.
        regressor: of actions, where they have a weight.
    """

    def __init__(
        self,
        vae: VAE,
        kl_weight: float,
        focus: float = 0.0,
        *,
        regressor: ActionRegressor | None = None,
        action_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.vae, self.regressor = vae, regressor
        self.kl_weight, self.focus, self.action_weight = kl_weight, focus, action_weight

    def forward(
        self,
        images: Tensor,
        known: Tensor | None = None,
        actions: Tensor | None = None,
        has_actions: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Images (B, 3, H, W) in [-1, 1] -> loss and its parts by name, scalars.

        With a regressor, images are those of B / K windows from each of K cameras, one camera after the other; the rest is as in
        :class:`~uva_agents.training.uva.action_regressor.FramesOfWindows`.
        """
        posterior = self.vae.posterior(images)
        drawn = posterior.sample()
        rebuilt = self.vae.decode(drawn * self.vae.config.scale)
        squares = (rebuilt - images).square()
        error = squares.flatten(1).sum(1).mean()
        kl = posterior.kl().mean()
        weighted = self._focussed(squares.sum(1)) if self.focus else error
        total, parts = weighted + self.kl_weight * kl, {"error": error, "kl": kl}
        if self.regressor is not None:
            assert known is not None and actions is not None and has_actions is not None
            latents = drawn.flatten(1).unflatten(0, (-1, len(known)))
            parts["action"] = self.regressor.error(latents, known, actions, has_actions)
            total = total + self.action_weight * parts["action"]
        return total, parts

    def _focussed(self, errors: Tensor) -> Tensor:
        """Errors (B, H, W) of pixels -> a scalar of the size of an image's summed error."""
        found = errors.detach()
        weights = 1 + self.focus * (found / found.mean().clamp(min=1e-12)).clamp(max=_MOST_WEIGHT)
        return (weights * errors).flatten(1).sum(1).mean() / weights.mean()


class VAEStage:
    """Reconstruct frames of the training episodes, half of them mirrored, most of them shifted."""

    name = "vae"
    batch_setting = "batch_size {} of autoencoder.stage, in a copy of the run's recipe.json"

    def __init__(
        self,
        recipe: UVARecipe,
        vae: VAE,
        train: Episodes,
        held_out: Episodes,
        windows: tuple[ActionFrames, ActionFrames] | None = None,
    ) -> None:
        if recipe.autoencoder is None:
            raise ValueError(f"recipe {recipe.name!r} does not train its autoencoder")
        self.recipe, self.config, self.windows = recipe, recipe.autoencoder.stage, windows
        regressor, c = None, recipe.model
        if windows is not None:
            regressor = ActionRegressor(
                c.tokens_per_frame * c.token_dim,
                cameras=len(windows[0].cameras[0]),
                known=windows[0].known,
                steps=c.action_steps,
                action_dim=c.action_dim,
            )
        module = VAEModule(
            vae,
            recipe.autoencoder.kl_weight,
            recipe.autoencoder.focus,
            regressor=regressor,
            action_weight=recipe.autoencoder.action_weight,
        )
        self.module: nn.Module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.frames = train.arrays["pixels"]
        self.held_out = held_out.arrays["pixels"][:: max(1, held_out.steps // 64)][:64]

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """Images (B, 3, H, W) in [-1, 1], shifted at random and perhaps mirrored; with actions to read, those of windows."""
        recipe, size = self.recipe, self.config.batch_size
        rng = np.random.default_rng([recipe.seed, step, rank])
        more = {}
        if self.windows is None:
            order = EpochOrder(len(self.frames), 1, size, recipe.seed, rank, world)
            frames = self.frames[order.at(step)[0]]
        else:
            cameras = len(self.windows[0].cameras[0])
            drawn = self.windows[0].draw(step, max(1, size // cameras), seed=recipe.seed, rank=rank, world=world)
            frames = drawn.frames.reshape(-1, *drawn.frames.shape[2:])
            more = {"known": drawn.known, "actions": drawn.actions, "has_actions": drawn.has_actions}
        moved = move_frames(frames, *draw_moves(recipe.augmentation, len(frames), rng))
        return {"images": to_images(moved).contiguous(memory_format=torch.channels_last), **more}

    def validate(self, module: nn.Module, reporter: Reporter, step: int) -> dict[str, float]:
        """PSNR in dB and the latents' standard deviation on held-out frames; a picture of eight."""
        assert isinstance(module, VAEModule)
        vae = module.vae
        images = to_images(self.held_out).to(next(vae.parameters()).device)
        rebuilt = vae.decode(vae.encode(images))
        pair = np.concatenate([to_frames(images[:8]), to_frames(rebuilt[:8])], axis=1)
        reporter.picture("reconstruction", np.concatenate(list(pair), axis=1), step)
        latents = vae.posterior(images).mean
        metrics = {"psnr_db": float(psnr(rebuilt.clamp(-1, 1), images).mean()), "latent_std": float(latents.std())}
        if module.regressor is not None:
            metrics["action_error"] = self._action_error(module)
        return metrics

    def _action_error(self, module: VAEModule) -> float:
        """Root of the mean squared error of actions that are read off held-out frames, half of each number's range being 1."""
        assert self.windows is not None and module.regressor is not None
        held_out = self.windows[1]
        found = held_out.take(np.linspace(0, len(held_out.windows) - 1, 256).astype(np.int64))
        device = next(module.parameters()).device
        images = [to_images(frames).to(device) for frames in found.frames]
        latents = torch.stack([module.vae.posterior(one).mean.flatten(1) for one in images])
        numbers = (found.known, found.actions, found.has_actions)
        return float(module.regressor.error(latents, *(one.to(device) for one in numbers)).sqrt())
