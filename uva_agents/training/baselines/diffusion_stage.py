"""Train Diffusion Policy: predict the noise in chunks of demonstrated actions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uva_agents.data import EpochOrder, FrameWindows, LinearNormalizer
from uva_agents.model import ActionSampler, DiffusionPolicyNet, sample_chunks
from uva_agents.training.baselines.position_augmentation import PositionAugmentation
from uva_agents.training.baselines.recipes import DiffusionPolicyRecipe
from uva_agents.training.optimisation import parameter_groups
from uva_agents.training.report import Reporter


class DiffusionModule(nn.Module):
    """The objective as a module, so that DDP sees one forward."""

    def __init__(self, net: DiffusionPolicyNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, frames: Tensor, corner: Tensor | None, proprio: Tensor | None, actions: Tensor, t: Tensor, noise: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the noise predicted from frames uint8 (B, To, h, w, 3); see ``DiffusionPolicyNet.losses``."""
        loss, _ = self.net.losses(self.net.observe(frames, proprio, corner), actions, t, noise)
        return loss, {}


class KeypointDiffusionModule(nn.Module):
    """The same from what was computed before: keypoints, or positions of objects.

    Args:
        net: the network.
        augmentation: of the positions of objects; ``None`` for encoders without ``points``.
    """

    def __init__(self, net: DiffusionPolicyNet, augmentation: PositionAugmentation | None = None) -> None:
        super().__init__()
        self.net, self.augmentation = net, augmentation

    def forward(
        self, keypoints: Tensor, proprio: Tensor | None, actions: Tensor, t: Tensor, noise: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The same from keypoints (B, To, 2 P), with the mixture prior's loss where the network has one; scalars."""
        observed = observe_positions(self.net, keypoints, proprio)
        if self.augmentation is not None:
            observed, actions = self.augmentation.applied(observed, actions, self.net.config.max_step)
        denoising, prior_loss = self.net.losses(observed, actions, t, noise)
        if self.net.relations is None:
            return denoising, {}
        return denoising + prior_loss, {"noise": denoising, "mixture_prior": prior_loss}


def observe_positions(net: DiffusionPolicyNet, keypoints: Tensor, proprio: Tensor | None) -> Tensor:
    """Observations (B, To, F) from positions (B, To, 2 P), or from keypoints for an encoder that goes on from there."""
    return net.with_proprio(keypoints if net.config.encoder.positions else net.encoder.describe(keypoints), proprio)


class DiffusionStage:
    """Random crops, and a diffusion step and noise of its own for every draw.

    Args:
        recipe: what to train.
        net: the network.
        train, held_out: windows.
        normalizer: back to environment units.
        check_windows, check_samples: held-out windows, and samples for each of them, in a validation.
    """

    name = "policy"

    def __init__(
        self,
        recipe: DiffusionPolicyRecipe,
        net: DiffusionPolicyNet,
        train: FrameWindows,
        held_out: FrameWindows,
        normalizer: LinearNormalizer,
        *,
        check_windows: int = 128,
        check_samples: int = 4,
    ) -> None:
        self.recipe, self.config = recipe, recipe.stage
        self.module: nn.Module = DiffusionModule(net)
        self.net = net
        self.train, self.held_out = train, held_out
        self.normalizer = normalizer
        self.check_windows, self.check_samples = check_windows, check_samples

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """The encoder may decay at another rate."""
        encoder = self.recipe.encoder_weight_decay
        groups = [
            *parameter_groups(self.net.encoder, weight_decay if encoder is None else encoder),
            *parameter_groups(self.net.denoiser, weight_decay),
        ]
        return groups if self.net.relations is None else groups + parameter_groups(self.net.relations, weight_decay)

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """Crops uint8 (B, To, h, w, 3), proprioception, actions (B, T, A), and a diffusion step and noise for every draw."""
        size, c = self.config.batch_size, self.net.config
        windows = EpochOrder(len(self.train), 1, size, self.recipe.seed, rank, world).at(step)[0]
        rng = np.random.default_rng([self.recipe.seed, step, rank])
        batch = self.train.batch(windows, crop=c.encoder.crop, rng=rng, together=self.recipe.crop_together)
        return {
            "frames": batch.frames,
            "corner": batch.corner,
            "proprio": batch.proprio,
            "actions": batch.actions,
            **self._noise(size),
        }

    def _noise(self, size: int) -> dict[str, Tensor]:
        """A diffusion step and noise for every draw of ``size`` windows."""
        c, draws = self.net.config, size * self.recipe.draws
        return {
            "t": torch.randint(0, c.train_steps, (draws,)),
            "noise": torch.randn(draws, c.horizon, c.action_dim),
        }

    def validate(self, module: nn.Module, reporter: Reporter, step: int) -> dict[str, float]:
        """Samples against what the demonstrator did, in environment units, and the loss on fixed noise.

        ``action_error`` is the mean distance of a sample's actions, ``action_error8`` of the first 8, ``best_error`` of the
        nearest of the samples, ``spread`` the distance between samples for the same window: where demonstrators differ, a
        good policy has a large spread and a small best error.
        """
        assert isinstance(module, DiffusionModule | KeypointDiffusionModule)
        net = module.net
        c, device = net.config, next(net.parameters()).device
        count = min(self.check_windows, len(self.held_out))
        observed, actions = self._held_out(net, np.linspace(0, len(self.held_out) - 1, count).astype(np.int64))
        generator = torch.Generator().manual_seed(0)
        t = torch.linspace(0, c.train_steps - 1, count).long()[torch.randperm(count, generator=generator)]
        noise = torch.randn(count, c.horizon, c.action_dim, generator=generator)
        loss, prior_loss = net.losses(observed, actions.to(device), t.to(device), noise.to(device))
        steps = min(16, c.train_steps)
        chunks = sample_chunks(
            net, observed, n=self.check_samples, sampler=ActionSampler(steps=steps), generators=[generator]
        )
        chunks = self.normalizer.unnormalize("action", chunks.float().cpu()).view(count, -1, *chunks.shape[1:])
        truth = actions[:, -c.first_action :][:, : c.action_steps]
        error = (chunks - self.normalizer.unnormalize("action", truth)[:, None]).norm(dim=-1)
        metrics = {
            "loss": float(loss),
            "action_error": float(error.mean()),
            "action_error8": float(error[..., :8].mean()),
            "best_error": float(error.mean(-1).min(1).values.mean()),
            "windows": float(count),
            "samples": float(self.check_samples),
        }
        if net.relations is not None:
            metrics["mixture_prior"] = float(prior_loss)
        if self.check_samples > 1:
            metrics["spread"] = float((chunks[:, 1:] - chunks[:, :1]).norm(dim=-1).mean())
        return metrics

    def _held_out(self, net: DiffusionPolicyNet, windows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Observations on the network's device, and actions."""
        batch, device = self.held_out.batch(windows), next(net.parameters()).device
        proprio = None if batch.proprio is None else batch.proprio.to(device)
        return net.observe(batch.frames.to(device), proprio), batch.actions


class KeypointDiffusionStage(DiffusionStage):
    """Diffusion Policy behind convolutions that are kept as they are: every frame goes through them once, before training.

    Several times as many windows a second as with the convolutions in the loop, for a policy that sees what the encoder was
    trained to see.

    Args:
        positions: (N, 2 P) normalised positions that were recorded of what an encoder of ``points`` finds. No frame is looked
            at then, and the data need none; what the encoder is off by is left to the recipe's augmentation.
    """

    def __init__(
        self,
        recipe: DiffusionPolicyRecipe,
        net: DiffusionPolicyNet,
        train: FrameWindows,
        held_out: FrameWindows,
        normalizer: LinearNormalizer,
        *,
        positions: Tensor | None = None,
    ) -> None:
        super().__init__(recipe, net, train, held_out, normalizer)
        self.module = KeypointDiffusionModule(net, recipe.augmentation)
        # An encoder that gives positions has learned what it gives; features are the policy's own.
        kept = (net.encoder,) if net.config.encoder.positions else (net.encoder.trunk, net.encoder.keypoints)
        for part in kept:
            part.requires_grad_(False)
        self.recorded = positions is not None
        self.keypoints = self._locate(train.pixels) if positions is None else positions

    @torch.no_grad()
    def _locate(self, pixels: np.ndarray | None) -> Tensor:
        if pixels is None:
            raise ValueError("without recorded positions the windows need frames")
        encoder, device = self.net.encoder, next(self.net.parameters()).device
        see = encoder if encoder.config.positions else encoder.locate
        parts = [torch.from_numpy(pixels[i : i + 256]).to(device) for i in range(0, len(pixels), 256)]
        return torch.cat([see(part).cpu() for part in parts])

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """Points (B, To, 2 P) instead of frames, the rest as :meth:`DiffusionStage.inputs`."""
        size = self.config.batch_size
        windows = EpochOrder(len(self.train), 1, size, self.recipe.seed, rank, world).at(step)[0]
        return {**self._seen(self.train, windows), **self._noise(size)}

    def _seen(self, source: FrameWindows, windows: np.ndarray) -> dict[str, Any]:
        rows = torch.from_numpy(source.index.steps(windows, source.frame_offsets))
        return {
            "keypoints": self.keypoints[rows],
            "proprio": source.proprio(windows),
            "actions": source.actions(windows),
        }

    def _held_out(self, net: DiffusionPolicyNet, windows: np.ndarray) -> tuple[Tensor, Tensor]:
        if not self.recorded:
            return super()._held_out(net, windows)
        seen, device = self._seen(self.held_out, windows), next(net.parameters()).device
        proprio = None if seen["proprio"] is None else seen["proprio"].to(device)
        return observe_positions(net, seen["keypoints"].to(device), proprio), seen["actions"]
