"""Before Diffusion Policy's denoiser: the mixture prior it starts from, which learns many times as many windows a second."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uva_agents.model import DiffusionPolicyNet
from uva_agents.model.baselines.mixture_prior import winner_takes_all_loss
from uva_agents.training.baselines.diffusion_stage import KeypointDiffusionStage, observe_positions
from uva_agents.training.baselines.position_augmentation import PositionAugmentation
from uva_agents.training.optimisation import parameter_groups
from uva_agents.training.recipe import StageConfig
from uva_agents.training.report import Reporter


class MixturePriorModule(nn.Module):
    """Winner-takes-all loss of the mixture prior."""

    def __init__(self, net: DiffusionPolicyNet, augmentation: PositionAugmentation | None) -> None:
        super().__init__()
        self.net, self.augmentation = net, augmentation

    def forward(self, keypoints: Tensor, proprio: Tensor, actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Keypoints (B, To, 2 P), proprioception (B, To, P) and actions (B, T, A), normalised -> loss, scalar."""
        observed = observe_positions(self.net, keypoints, proprio)
        if self.augmentation is not None:
            observed, actions = self.augmentation.applied(observed, actions, self.net.config.max_step)
        loss = _loss(self.net, observed, actions)
        if torch.distributed.is_initialized():  # DDP waits for every gradient
            loss = loss + sum((p.sum() * 0.0 for p in self.net.parameters() if p.requires_grad), loss.new_zeros(()))
        return loss, {}


class MixturePriorStage(KeypointDiffusionStage):
    """Trains :class:`~uva_agents.model.baselines.relations.PairwiseRelations` alone, on the windows of the stage after it.

    Args:
        policy: that stage.
        config: of this one.
    """

    name = "guesses"
    batch_setting = "batch_size {} of mixture_prior, in a copy of the run's recipe.json"
    """Its first name: folders and random streams of runs begun before keep it."""

    def __init__(self, policy: KeypointDiffusionStage, config: StageConfig) -> None:
        recipe = dataclasses.replace(policy.recipe, stage=config)
        super().__init__(
            recipe, policy.net, policy.train, policy.held_out, policy.normalizer, positions=policy.keypoints
        )
        self.recorded = policy.recorded
        self.module = MixturePriorModule(policy.net, recipe.augmentation)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """The pairwise relations'."""
        assert self.net.relations is not None
        return parameter_groups(self.net.relations, weight_decay)

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """Those of the stage after it, without diffusion steps and noise."""
        inputs = super().inputs(step, rank, world)
        return {name: inputs[name] for name in ("keypoints", "proprio", "actions")}

    def validate(self, module: nn.Module, reporter: Reporter, step: int) -> dict[str, float]:
        """The loss in held-out windows."""
        assert isinstance(module, MixturePriorModule)
        windows = np.linspace(0, len(self.held_out) - 1, min(1024, len(self.held_out))).astype(np.int64)
        observed, actions = self._held_out(module.net, windows)
        return {"mixture_prior": float(_loss(module.net, observed, actions.to(observed.device)))}


def _loss(net: DiffusionPolicyNet, observed: Tensor, actions: Tensor) -> Tensor:
    prior = net.prepare(observed).prior
    assert prior is not None
    return winner_takes_all_loss(prior, net.to_steps(actions, observed))
