"""A policy's view of a few things on a plane: how they lie to each other, and what that makes likely."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

import torch
from torch import Tensor, nn

from uva_agents.model.baselines.mixture_prior import Guesses, bounded_spread

_NEAR = 0.3
"""Softens lengths and directions of things that are nearly in one place, in units of one step."""


class Geometry(nn.Module):
    """Positions of things -> an embedding for the noise predictor, and guesses of the chunk of steps.

    Every pair of things is described by its offset, its direction and the logarithm of its length, and every two things besides
    the effector by the turn at the first, from its direction to the second: whether the effector is behind a block is an angle
    that a few millimetres change, which a network of plain coordinates takes very long to find.

    The guesses are trained on what was demonstrated, each demonstration by the guess that is nearest to it, so that they divide
    the ways to go on between them. The noise predictor has only to find what they are off by.

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
        turns = torch.tensor(list(permutations(range(1, things), 2))).T
        self.register_buffer("turns", turns, persistent=False)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32), persistent=False)
        self.pairs: Tensor
        self.turns: Tensor
        self.scale: Tensor
        self.layers = nn.Sequential(
            *(nn.Linear(pairs.shape[1] * (3 * len(scale) + 1) + 2 * turns.shape[1], width), nn.GELU()),
            *(nn.Linear(width, width), nn.GELU()),
            *(nn.Linear(width, width), nn.GELU()),
        )
        self.embed = nn.Linear(width, self.outputs)
        if guesses:
            self.guess = nn.Linear(width, guesses * horizon * len(scale))
            self.share = nn.Linear(width, guesses)
            self.spread = nn.Parameter(torch.zeros(self.shape))

    def forward(self, points: Tensor, here: Tensor) -> tuple[Tensor, Guesses | None]:
        """Embedding (B, outputs) and guesses in steps, if there are any.

        Args:
            points: (B, 2 P) normalised positions, x and y of each thing in turn.
            here: (B, A) the measured position of the first, which replaces what was seen of it.
        """
        seen = points.unflatten(1, (-1, here.shape[1]))
        things = torch.cat([here[:, None], seen[:, 1:]], dim=1) / self.scale
        offset = things[:, self.pairs[1]] - things[:, self.pairs[0]]
        length = offset.norm(dim=-1, keepdim=True)
        shown = [offset / 4, offset / (length + _NEAR / 2), offset / (length + 5 * _NEAR), (length + _NEAR).log() - 1]
        features = self.layers(torch.cat([torch.cat(shown, dim=-1).flatten(1), self._turned(things)], dim=-1))
        if not self.shape[0]:
            return self.embed(features), None
        steps = self.guess(features).unflatten(1, self.shape)
        return self.embed(features), Guesses(steps, self.share(features).log_softmax(1), bounded_spread(self.spread))

    def _turned(self, things: Tensor) -> Tensor:
        """Cosines and sines of the turns at things, between the way there and the way on; (B, P, 2) -> (B, 2 (P - 1) (P - 2))."""
        at = things[:, self.turns[0]]
        there, on = at - things[:, :1], things[:, self.turns[1]] - at
        length = (there.norm(dim=-1) + _NEAR) * (on.norm(dim=-1) + _NEAR)
        cosine = (there * on).sum(-1) / length
        sine = (there[..., 0] * on[..., 1] - there[..., 1] * on[..., 0]) / length
        return torch.cat([cosine, sine], dim=-1)
