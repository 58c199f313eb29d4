"""A policy's view of a few things on a plane: how they lie to each other, and what that makes likely."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import cast

import torch
from torch import Tensor, nn

_NEAR = 0.3
"""Softens lengths and directions of things that are nearly in one place, in units of one step."""


class Geometry(nn.Module):
    """Positions of things -> an embedding for the noise predictor, and guesses of the chunk of steps.

    Every pair of things is described by its offset, its direction and the logarithm of its length: whether the effector is
    behind a block is a direction that a few millimetres change, which a network of plain coordinates takes very long to find.

    The guesses are trained beside the noise predictor on what was demonstrated, each demonstration by the guess that is
    nearest to it, so that they divide the ways to go on between them (multiple choice learning). The noise predictor sees
    them as further channels beside the noisy steps, and so has only to find which one the noise hides, and by how much it
    is off.

    Args:
        things: P; the first is what the actions move.
        scale: (A,) size of one step, normalised units per dimension.
        horizon: T.
        width: of the layers.
        guesses: K; 0 for none.
    """

    outputs = 128

    def __init__(self, *, things: int, scale: Sequence[float], horizon: int, width: int, guesses: int) -> None:
        super().__init__()
        self.shape = (guesses, horizon, len(scale))
        pairs = torch.tensor(list(combinations(range(things), 2))).T
        self.register_buffer("pairs", pairs, persistent=False)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32), persistent=False)
        self.pairs: Tensor
        self.scale: Tensor
        self.layers = nn.Sequential(
            *(nn.Linear(pairs.shape[1] * (3 * len(scale) + 1), width), nn.GELU()),
            *(nn.Linear(width, width), nn.GELU()),
            *(nn.Linear(width, width), nn.GELU()),
        )
        self.embed = nn.Linear(width, self.outputs)
        self.guess = nn.Linear(width, guesses * horizon * len(scale)) if guesses else None

    def forward(self, points: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding (B, outputs) and guesses (B, K, T, A) in steps.

        Args:
            points: (B, 2 P) normalised positions, x and y of each thing in turn.
            here: (B, A) the measured position of the first, which replaces what was seen of it.
        """
        seen = points.unflatten(1, (-1, here.shape[1]))
        things = torch.cat([here[:, None], seen[:, 1:]], dim=1) / self.scale
        offset = things[:, self.pairs[1]] - things[:, self.pairs[0]]
        length = offset.norm(dim=-1, keepdim=True)
        shown = [offset / 4, offset / (length + _NEAR / 2), offset / (length + 5 * _NEAR), (length + _NEAR).log() - 1]
        features = self.layers(torch.cat(shown, dim=-1).flatten(1))
        if self.guess is None:
            return self.embed(features), features.new_zeros(len(features), *self.shape)
        return self.embed(features), cast(Tensor, self.guess(features)).unflatten(1, self.shape)


def guess_loss(guesses: Tensor, steps: Tensor) -> Tensor:
    """Mean distance along the way, in steps, between the demonstrated chunk and the nearest guess.

    A little of the others' distance keeps every guess in play.

    Args:
        guesses: (B, K, T, A).
        steps: (B, T, A).
    """
    distance = (guesses - steps[:, None]).cumsum(2).abs().mean((2, 3))
    return distance.min(1).values.mean() + 0.02 * distance.mean()
