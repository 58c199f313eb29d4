"""Moving averages over the steps of a chunk of actions."""

from __future__ import annotations

import torch


def smooth_actions(actions: torch.Tensor, *, taps: int = 3) -> torch.Tensor:
    """Moving average of (..., K, A) over the K steps, the ends repeated. The released robot server does it to every number.

    Rotations as rot6d come out a little short; making a matrix of them puts them back on the sphere.
    """
    steps = actions.shape[-2]
    on = actions.device
    rows = torch.arange(steps, device=on)[:, None] + torch.arange(taps, device=on) - taps // 2
    return actions[..., rows.clamp(0, steps - 1), :].mean(dim=-2)
