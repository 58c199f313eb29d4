"""The plain network that keypoints are detected and moved with."""

from __future__ import annotations

from torch import nn


def mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Three hidden layers with GELU."""
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Linear(width, outputs),
    )
