"""Stage 3, for networks with a sketch: draw frame tokens from points."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from uva_agents.data import EpochOrder, LatentWindows
from uva_agents.model.points import PointWriter
from uva_agents.training.config import Recipe
from uva_agents.training.report import Reporter


class WriterModule(nn.Module):
    """Mean squared error of standardised tokens."""

    def __init__(self, writer: PointWriter) -> None:
        super().__init__()
        self.writer = writer

    def forward(self, points: Tensor, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return (self.writer(points) - tokens).square().mean(), {}


class WriterStage:
    """Every frame of every variant: its points in, its tokens out."""

    name = "writer"

    def __init__(self, recipe: Recipe, writer: PointWriter, train: LatentWindows, held_out: LatentWindows) -> None:
        if train.readout is None or held_out.readout is None:
            raise ValueError("a sketch needs points in the data: set the recipe's readout_keys")
        self.recipe = recipe
        self.module: nn.Module = WriterModule(writer)
        self.train, self.held_out = train, held_out

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        n, size = self.train.rows_per_variant, self.recipe.writer.batch_size
        order = EpochOrder(len(self.train), self.train.variants, size, self.recipe.seed, rank, world)
        windows, variant = order.at(step)
        rows = torch.from_numpy(self.train.index.now[windows] + variant * n)
        assert self.train.readout is not None
        points = self.train.readout[rows]
        # In use it gets predicted points: a little noise keeps it from trusting the last digit.
        points = points + self.recipe.point_noise / 2 * torch.randn_like(points)
        return {"points": points, "tokens": self.train.tokens[rows].float()}

    def validate(self, module: nn.Module, reporter: Reporter, step: int) -> dict[str, float]:
        assert isinstance(module, WriterModule) and self.held_out.readout is not None
        rows = torch.from_numpy(self.held_out.index.now[::4])
        device = next(module.parameters()).device
        drawn = module.writer(self.held_out.readout[rows].to(device)).cpu()
        return {"token_mse": float((drawn - self.held_out.tokens[rows].float()).square().mean())}
