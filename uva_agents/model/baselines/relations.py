"""Pairwise relations: a policy's view of a few objects on a plane, how they lie to each other, and a prior of what to do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

import torch
from torch import Tensor, nn

from uva_agents.model.baselines.mixture_prior import MixturePrior, bounded_std

_NEAR = 0.3
"""Softens lengths and directions of objects that are nearly in one place, in units of one step."""


class PairwiseRelations(nn.Module):
    """Positions of objects -> an embedding for the noise predictor, and a mixture prior of the chunk of steps.

    Every pair of objects is described by its offset, its direction and the logarithm of its length, and every two objects besides
    the effector by the bearing of the second at the first, relative to the effector's direction: whether the effector is behind a
    block is an angle that a few millimetres change, which a network of plain coordinates takes very long to find.

    The modes are trained on what was demonstrated, each demonstration by the mode that is nearest to it, so that they divide the
    ways to go on between them. The noise predictor has only to find what they are off by.

    Args:
        objects: P; the first is what the actions move.
        scale: (A,) size of one step, normalised units per dimension.
        horizon: T.
        width: of the layers.
        modes: K of the prior; 0 for none.
    """

    outputs = 128

    def __init__(self, *, objects: int, scale: Sequence[float], horizon: int, width: int, modes: int) -> None:
        super().__init__()
        self.shape = (modes, horizon, len(scale))
        pairs = torch.tensor(list(combinations(range(objects), 2))).T
        self.register_buffer("pairs", pairs, persistent=False)
        bearings = torch.tensor(list(permutations(range(1, objects), 2))).T
        self.register_buffer("bearings", bearings, persistent=False)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32), persistent=False)
        self.pairs: Tensor
        self.bearings: Tensor
        self.scale: Tensor
        self.layers = nn.Sequential(
            *(nn.Linear(pairs.shape[1] * (3 * len(scale) + 1) + 2 * bearings.shape[1], width), nn.GELU()),
            *(nn.Linear(width, width), nn.GELU()),
            *(nn.Linear(width, width), nn.GELU()),
        )
        self.embed = nn.Linear(width, self.outputs)
        if modes:
            self.modes = nn.Linear(width, modes * horizon * len(scale))
            self.log_weights = nn.Linear(width, modes)
            self.raw_std = nn.Parameter(torch.zeros(self.shape))

    def forward(self, positions: Tensor, here: Tensor) -> tuple[Tensor, MixturePrior | None]:
        """Embedding (B, outputs) and the prior in steps, if there is one.

        Args:
            positions: (B, 2 P) normalised, x and y of each object in turn.
            here: (B, A) the measured position of the first, which replaces what was seen of it.
        """
        seen = positions.unflatten(1, (-1, here.shape[1]))
        objects = torch.cat([here[:, None], seen[:, 1:]], dim=1) / self.scale
        offset = objects[:, self.pairs[1]] - objects[:, self.pairs[0]]
        length = offset.norm(dim=-1, keepdim=True)
        shown = [offset / 4, offset / (length + _NEAR / 2), offset / (length + 5 * _NEAR), (length + _NEAR).log() - 1]
        features = self.layers(torch.cat([torch.cat(shown, dim=-1).flatten(1), self._bearings(objects)], dim=-1))
        if not self.shape[0]:
            return self.embed(features), None
        modes = self.modes(features).unflatten(1, self.shape)
        log_weights = self.log_weights(features).log_softmax(1)
        return self.embed(features), MixturePrior(modes, log_weights, bounded_std(self.raw_std))

    def _bearings(self, objects: Tensor) -> Tensor:
        """Cosines and sines of the bearings at objects, from the way there to the way on: (B, P, 2) -> (B, 2 (P - 1) (P - 2))."""
        at = objects[:, self.bearings[0]]
        there, on = at - objects[:, :1], objects[:, self.bearings[1]] - at
        length = (there.norm(dim=-1) + _NEAR) * (on.norm(dim=-1) + _NEAR)
        cosine = (there * on).sum(-1) / length
        sine = (there[..., 0] * on[..., 1] - there[..., 1] * on[..., 0]) / length
        return torch.cat([cosine, sine], dim=-1)
