"""Exponential moving average of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EMA:
    """Shadow copy of a module's parameters and buffers.

    The decay warms up: ``min(maximum, 1 - (1 + updates) ** -power)``.
    """

    def __init__(self, module: nn.Module, *, power: float, maximum: float) -> None:
        self.power, self.maximum = power, maximum
        self.shadow: dict[str, Tensor] = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def decay(self, updates: int) -> float:
        """Decay of the update after ``updates`` earlier ones."""
        return min(self.maximum, 1 - (1 + updates) ** -self.power) if updates > 0 else 0.0

    @torch.no_grad()
    def update(self, module: nn.Module, updates: int) -> None:
        """Move the shadow towards the module."""
        state = module.state_dict()
        keys = [k for k in self.shadow if self.shadow[k].is_floating_point()]
        torch._foreach_lerp_([self.shadow[k] for k in keys], [state[k] for k in keys], 1 - self.decay(updates))
        for key in self.shadow.keys() - set(keys):
            self.shadow[key].copy_(state[key])
