"""Transformer noise predictor of Diffusion Policy (DP-T)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from uva_agents.model.baselines.unet1d import StepEmbedding


class DiffusionTransformer(nn.Module):
    """Action tokens attend to themselves (causally) and to the diffusion step and the observations up to their own time.

    Args:
        action_dim: A.
        features: F, numbers per observation.
        horizon: actions.
        obs_steps: observations, the last of which is now.
        first_action: time of the first action relative to now; decides which observations an action may see.
        width, depth, heads: of the decoder; its feed-forward layers are 4 times as wide.
        dropout: in the decoder.
        embedding_dropout: of the tokens that enter it.
    """

    def __init__(
        self,
        *,
        action_dim: int,
        features: int,
        horizon: int,
        obs_steps: int,
        first_action: int = 0,
        width: int = 256,
        depth: int = 8,
        heads: int = 4,
        dropout: float = 0.3,
        embedding_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.action_in = nn.Linear(action_dim, width)
        self.action_pos = nn.Parameter(torch.zeros(1, horizon, width))
        self.step = StepEmbedding(width)
        self.observation_in = nn.Linear(features, width)
        self.memory_pos = nn.Parameter(torch.zeros(1, 1 + obs_steps, width))
        self.memory = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(embedding_dropout)
        layer = nn.TransformerDecoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, depth)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, action_dim)
        action_time = torch.arange(horizon)[:, None] + first_action
        seen_time = torch.arange(obs_steps)[None] - (obs_steps - 1)
        hidden = torch.cat([torch.zeros(horizon, 1, dtype=torch.bool), seen_time > action_time], dim=1)
        self.register_buffer("hidden", hidden, persistent=False)
        self.register_buffer("future", torch.ones(horizon, horizon).triu(1).bool(), persistent=False)
        self.apply(_initialise)
        for position in (self.action_pos, self.memory_pos):
            nn.init.normal_(position, std=0.02)

    def forward(self, x: Tensor, t: Tensor, observed: Tensor) -> Tensor:
        """Noise (B, T, A) from noisy actions (B, T, A), steps (B,) and observation features (B, To, F), oldest first."""
        if x.shape[1] != self.action_pos.shape[1]:
            raise ValueError(f"this transformer takes {self.action_pos.shape[1]} actions, got {x.shape[1]}")
        step = self.step(t).to(observed.dtype)[:, None]
        memory = torch.cat([step, self.observation_in(observed)], dim=1) + self.memory_pos
        memory = self.memory(self.drop(memory))
        y = self.drop(self.action_in(x) + self.action_pos)
        y = self.decoder(y, memory, tgt_mask=self.future, memory_mask=self.hidden)
        return cast(Tensor, self.out(self.norm(y)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
        nn.init.zeros_(module.in_proj_bias)
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
