"""Exponential moving average of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EMA:
    """Shadow copy of a module's parameters and buffers.

    The decay warms up: ``min(maximum, 1 - (1 + updates - delay) ** -power)``, and is 0 up to ``delay`` updates. The released code
    (after diffusers' ``EMAModel``) has a delay of 1: its first two updates copy the weights.
    """

    def __init__(self, module: nn.Module, *, power: float, maximum: float, delay: int = 0) -> None:
        self.power, self.maximum, self.delay = power, maximum, delay
        self.shadow: dict[str, Tensor] = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def decay(self, updates: int) -> float:
        """Decay of the update after ``updates`` earlier ones."""
        counted = updates - self.delay
        return min(self.maximum, 1 - (1 + counted) ** -self.power) if counted > 0 else 0.0

    @torch.no_grad()
    def update(self, module: nn.Module, updates: int) -> None:
        """Move the shadow towards the module."""
        state = module.state_dict()
        keys = [k for k in self.shadow if self.shadow[k].is_floating_point()]
        torch._foreach_lerp_([self.shadow[k] for k in keys], [state[k] for k in keys], 1 - self.decay(updates))
        for key in self.shadow.keys() - set(keys):
            self.shadow[key].copy_(state[key])
