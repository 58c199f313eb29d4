"""More scenes from few, for policies that see positions of objects: what holds of one arrangement holds of others like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PositionAugmentation:
    """What is changed about the objects that a policy sees and the actions that belong to them.

    Attributes:
        noise: standard deviation on every position, in steps; about what the encoder is off by in frames that it was not
            trained on.
        turn: see :func:`rotated`.
        exchange: groups of objects, see :func:`exchanged`.
    """

    noise: float = 0.0
    turn: bool = False
    exchange: tuple[tuple[int, ...], ...] = ()

    def applied(self, observed: Tensor, actions: Tensor, step: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Changed observations and actions.

        Args:
            observed: (B, 1, 2 P + 2) normalised positions of P objects and the measured one of the effector.
            actions: (B, T, 2) normalised.
            step: normalised units of one step.
        """
        scale = observed.new_tensor(step)
        positions, here = observed[:, 0, :-2], observed[:, 0, -2:]
        positions = positions + (self.noise * scale * torch.randn_like(positions).unflatten(1, (-1, 2))).flatten(1)
        if self.turn:
            positions, actions = rotated(positions, here, actions, scale)
        positions = exchanged(positions, self.exchange)
        return torch.cat([positions, here], dim=-1)[:, None], actions


def rotated(positions: Tensor, here: Tensor, actions: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Every scene at an angle of its own, half of them mirrored: pushing on a level table works the same in all directions.

    Args:
        positions: (B, 2 P) normalised.
        here: (B, 2) round which it is rotated.
        actions: (B, T, 2) normalised.
        scale: (2,) normalised units of one length.

    Returns: positions and actions.
    """
    n = len(positions)
    angle = 2 * torch.pi * torch.rand(n, device=positions.device)
    across = torch.stack([angle.cos(), angle.sin()], dim=-1)
    side = torch.where(torch.rand(n, device=positions.device) < 0.5, -1.0, 1.0)
    upright = torch.stack([-angle.sin(), angle.cos()], dim=-1) * side[:, None]
    turn = torch.stack([across, upright], dim=1)

    def apply(x: Tensor) -> Tensor:
        moved: Tensor = torch.einsum("bnd,bde->bne", (x - here[:, None]) / scale, turn) * scale + here[:, None]
        return moved

    return apply(positions.unflatten(1, (-1, 2))).flatten(1), apply(actions)


def exchanged(positions: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """Things of a group in random order: what may be done with one may be done with the other.

    Args:
        positions: (B, 2 P).
        groups: indices of objects.
    """
    objects = positions.unflatten(1, (-1, 2)).clone()
    for group in groups:
        among = torch.tensor(list(group), device=positions.device)
        order = torch.rand(len(objects), len(among), device=positions.device).argsort(1)
        objects[:, among] = objects[torch.arange(len(objects), device=positions.device)[:, None], among[order]]
    mixed: Tensor = objects.flatten(1)
    return mixed
