"""Train the two-frame baseline: regress the action between consecutive frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from uva_agents.data import EpochOrder, FrameWindows, LinearNormalizer
from uva_agents.model import TwoFrameNet
from uva_agents.training.baselines.recipes import TwoFrameRecipe
from uva_agents.training.report import Reporter


class TwoFrameModule(nn.Module):
    """Mean absolute error: targets are in the tails of a few fast motions, which squares would make everything of."""

    def __init__(self, net: TwoFrameNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor, corner: Tensor, actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Frames uint8 (B, 2, h, w, 3), corners (B, 2) of the crops, actions (B, stride, A) normalised -> loss, scalar."""
        return (self.net(frames, corner) - actions).abs().mean(), {}


class TwoFrameStage:
    """Pairs of frames, cropped at the same place.

    Args:
        recipe: what to train.
        net: the network.
        train, held_out: windows of two frames and the actions between them.
        normalizer: back to environment units.
        check_windows: held-out pairs in a validation.
    """

    name = "two-frame"

    def __init__(
        self,
        recipe: TwoFrameRecipe,
        net: TwoFrameNet,
        train: FrameWindows,
        held_out: FrameWindows,
        normalizer: LinearNormalizer,
        *,
        check_windows: int = 1024,
    ) -> None:
        self.recipe, self.config = recipe, recipe.stage
        self.module: nn.Module = TwoFrameModule(net)
        self.net = net
        self.train, self.held_out = train, held_out
        self.normalizer = normalizer
        self.check_windows = check_windows

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """Frames uint8 (B, 2, h, w, 3), corners (B, 2) of the crops, actions (B, stride, A) normalised."""
        order = EpochOrder(len(self.train), 1, self.config.batch_size, self.recipe.seed, rank, world)
        rng = np.random.default_rng([self.recipe.seed, step, rank])
        crop = self.net.config.encoder.crop
        batch = self.train.batch(order.at(step)[0], crop=crop, rng=rng, together=True)
        assert batch.corner is not None
        return {"frames": batch.frames, "corner": batch.corner[:, 0], "actions": batch.actions}

    def validate(self, module: nn.Module, reporter: Reporter, step: int) -> dict[str, float]:
        """Distance to the true action in environment units, and what the best constant answer would get."""
        assert isinstance(module, TwoFrameModule)
        device = next(module.parameters()).device
        count = min(self.check_windows, len(self.held_out))
        batch = self.held_out.batch(np.linspace(0, len(self.held_out) - 1, count).astype(np.int64))
        answers = [module.net(part.to(device)).float().cpu() for part in batch.frames.split(128)]
        truth = self.normalizer.unnormalize("action", batch.actions)
        found = np.concatenate([self.normalizer.unnormalize("action", part).numpy() for part in answers])
        error = np.linalg.norm(found - truth.numpy(), axis=-1)
        constant = (truth - truth.flatten(0, 1).median(0).values).norm(dim=-1)
        return {
            "action_error": float(error.mean()),
            "action_error_median": float(np.median(error)),
            "constant_error": float(constant.mean()),
            "windows": float(count),
        }
