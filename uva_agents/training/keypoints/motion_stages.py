"""Keypoint dynamics and renderer: how keypoints move, and frames with moved keypoints. Minutes on a CPU each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from uva_agents.data import Batch, EpochOrder, LatentWindows, LinearNormalizer
from uva_agents.model.keypoints.dynamics import ChunkDynamics
from uva_agents.model.keypoints.recurrent_dynamics import RecurrentDynamics
from uva_agents.model.keypoints.renderer import KeypointRenderer
from uva_agents.training.keypoints.detector_stage import keypoint_scale
from uva_agents.training.report import Reporter
from uva_agents.training.uva.recipes import UVARecipe


class _MotionStage:
    """Windows in the order that every stage uses."""

    name: str

    def __init__(
        self, recipe: UVARecipe, name: str, module: nn.Module, train: LatentWindows, held_out: LatentWindows
    ) -> None:
        if train.frame_state is None or train.keypoints is None:
            raise ValueError(
                "keypoint dynamics and renderer need keypoints in the data: set the recipe's frame_state_keys"
            )
        config = recipe.stage(name)
        if config is None:
            raise ValueError(f"recipe {recipe.name!r} trains no keypoint networks")
        self.recipe, self.config = recipe, config
        self.module = module
        self.train, self.held_out = train, held_out

    def _batch(self, step: int, rank: int, world: int) -> Batch:
        size = self.config.batch_size
        order = EpochOrder(len(self.train), self.train.variants, size, self.recipe.seed, rank, world)
        return self.train.batch(*order.at(step), tokens=isinstance(self, RendererStage))


class DynamicsModule(nn.Module):
    """Mean absolute error of the keypoints: the last pixels of a position pull as hard as the first."""

    def __init__(self, dynamics: RecurrentDynamics | ChunkDynamics) -> None:
        super().__init__()
        self.dynamics = dynamics

    def forward(self, history: Tensor, actions: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Points (B, T, 2K) of the history, actions (B, steps, A), points (B, T, 2K) of the future -> loss, scalar."""
        return (self.dynamics(history, actions) - target).abs().mean(), {}


class DynamicsStage(_MotionStage):
    """Keypoints detected in the history and the actions in, keypoints of the future out."""

    name = "dynamics"
    batch_setting = "batch_size {} of keypoints.dynamics, in a copy of the run's recipe.json"

    def __init__(
        self,
        recipe: UVARecipe,
        dynamics: RecurrentDynamics | ChunkDynamics,
        train: LatentWindows,
        held_out: LatentWindows,
        normalizer: LinearNormalizer,
    ) -> None:
        super().__init__(recipe, "dynamics", DynamicsModule(dynamics), train, held_out)
        self.unit = torch.from_numpy(
            recipe.plane.unit_scale / keypoint_scale(recipe.data.frame_state_keys, normalizer)[0]
        )

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """As the module's; points with a detector's noise, and some histories standing still."""
        batch = self._batch(step, rank, world)
        history, target = moving_keypoints(batch)
        # Episodes begin at rest, with one frame for a history. A moving start that looks like that cannot be told from it, so
        # fewer samples than in the joint stage pretend.
        frozen = torch.rand(len(history), 1, 1) < self.recipe.network.history_dropout / 3
        history = torch.where(frozen, history[:, -1:], history)
        # A detector's error hardly changes from frame to frame: one offset per sample, and a little on top.
        offset = self.recipe.keypoint_noise * torch.randn_like(target[:, :1])
        history = history + offset + self.recipe.keypoint_noise / 8 * torch.randn_like(history)
        return {"history": history, "actions": batch.actions, "target": target + offset}

    def validate(self, module: nn.Module, reporter: Reporter, step: int) -> dict[str, float]:
        """Mean errors in the last frame, in the world's unit: of the first point, the others, and the others left as they are."""
        assert isinstance(module, DynamicsModule)
        batch = self.held_out.batch(range(len(self.held_out)), tokens=False)
        history, target = moving_keypoints(batch)
        device = next(module.parameters()).device
        moved = module.dynamics(history.to(device), batch.actions.to(device)).cpu()
        error = ((moved - target)[:, -1].view(len(moved), -1, 2) * self.unit).norm(dim=-1)
        still = ((target - history[:, -1:])[:, -1].view(len(moved), -1, 2) * self.unit).norm(dim=-1)
        unit = self.recipe.plane.unit
        return {
            f"first_{unit}": float(error[:, 0].mean()),
            f"others_{unit}": float(error[:, 1:].mean()),
            f"others_copied_{unit}": float(still[:, 1:].mean()),
        }


class RendererModule(nn.Module):
    """Squared error of latents, in units of their variance."""

    def __init__(self, renderer: KeypointRenderer, variance: float) -> None:
        super().__init__()
        self.renderer = renderer
        self.variance = variance

    def forward(
        self, now: Tensor, keypoints: Tensor, moved: Tensor, target: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens (B, S, C) and keypoints (B, 2K) now, both of a future frame -> loss, scalar."""
        return (self.renderer(now, keypoints, moved) - target).square().mean() / self.variance, {}


class RendererStage(_MotionStage):
    """The current frame, its keypoints and where they move in; one of the future frames out.

    Args:
        mean, std: (S, C) that the windows' tokens were standardised with.
    """

    name = "writer"
    batch_setting = "batch_size {} of keypoints.renderer, in a copy of the run's recipe.json"

    def __init__(
        self,
        recipe: UVARecipe,
        renderer: KeypointRenderer,
        train: LatentWindows,
        held_out: LatentWindows,
        *,
        mean: Tensor,
        std: Tensor,
    ) -> None:
        module = RendererModule(renderer, float(std.square().mean()))
        super().__init__(recipe, "writer", module, train, held_out)
        self.mean, self.std = mean.detach().cpu(), std.detach().cpu()

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """As the module's; the future frame is drawn at random, and keypoints have a detector's noise."""
        batch = self._batch(step, rank, world)
        history, target = moving_keypoints(batch)
        n, t = target.shape[:2]
        frame = torch.randint(t, (n,))
        keypoints, moved = history[:, -1], target[torch.arange(n), frame]
        # Where keypoints are is detected with an error that hardly matters; how far they move has to be drawn exactly.
        offset = self.recipe.keypoint_noise * torch.randn_like(keypoints)
        moved = moved + offset + self.recipe.keypoint_noise / 4 * torch.randn_like(keypoints)
        return {
            "now": self._latent(batch.history[:, -1]),
            "keypoints": keypoints + offset,
            "moved": moved,
            "target": self._latent(batch.future[torch.arange(n), frame]),
        }

    def validate(self, module: nn.Module, reporter: Reporter, step: int) -> dict[str, float]:
        """Mean squared error of the last frame's tokens over their variance: drawn, and copied from now."""
        assert isinstance(module, RendererModule)
        device = next(module.parameters()).device
        batch = self.held_out.batch(range(0, len(self.held_out), 2))
        now, last = self._latent(batch.history[:, -1]), self._latent(batch.future[:, -1])
        history, target = moving_keypoints(batch)
        drawn = module.renderer(now.to(device), history[:, -1].to(device), target[:, -1].to(device)).cpu()
        return {
            "token_mse": float((drawn - last).square().mean()) / module.variance,
            "copied_mse": float((now - last).square().mean()) / module.variance,
        }

    def _latent(self, tokens: Tensor) -> Tensor:
        return tokens * self.std + self.mean


def moving_keypoints(batch: Batch) -> tuple[Tensor, Tensor]:
    """Keypoints detected in the history (B, T, 2K), and where they truly move from there (B, T, 2K)."""
    assert batch.frame_state is not None and batch.history_keypoints is not None
    moved = batch.frame_state[:, 1] - batch.frame_state[:, 0, -1:]
    return batch.history_keypoints, batch.history_keypoints[:, -1:] + moved
