"""How actions move keypoints: a whole chunk at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uva_agents.model.keypoints.mlp import mlp


class ChunkDynamics(nn.Module):
    """Where the keypoints will be, from where they were and what is done.

    Predicts displacements, so that what does not move costs nothing to predict.

    Args:
        keypoints: how many keypoints.
        frames: history frames, and future ones.
        steps, action_dim: of the action chunk.
        width: of the hidden layers.
    """

    def __init__(self, *, keypoints: int, frames: int, steps: int, action_dim: int, width: int = 768) -> None:
        super().__init__()
        self.net = mlp(2 * keypoints * frames + steps * action_dim, width, 2 * keypoints * frames)

    def forward(self, history: Tensor, actions: Tensor) -> Tensor:
        """Keypoints (B, T, 2K) of history frames, normalised actions (B, steps, A) -> keypoints (B, T, 2K) of future ones."""
        moved: Tensor = self.net(torch.cat([history.flatten(1), actions.flatten(1)], dim=1))
        # Displacements are a fraction of the world: the network's outputs are of the order of 1.
        return history[:, -1:] + 0.25 * moved.view_as(history)
