"""The type that training computes in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from uva_agents.training.recipe import Precision

MOST_LEFT_OUT = 30
"""Steps in a row whose gradients overflow in fp16: each halves the scale, and after so many there is nothing left of it."""


def precision(wanted: Precision = "auto") -> str:
    """As accelerate calls it. bf16 by default, where the device is fast at it; a CPU computes it at half the speed of float32."""
    if not torch.cuda.is_available():
        return "no"
    if wanted != "auto":
        return wanted
    return "bf16" if torch.cuda.is_bf16_supported() else "no"


class LossScaling:
    """What the loss is multiplied by in fp16, whose small gradients would be 0 otherwise; other types need none.

    Args:
        scaler: accelerate's; ``None`` for other types.
    """

    def __init__(self, scaler: Any | None) -> None:
        self.scaler = scaler
        self.left_out = 0

    def leaves_out(self, loss: float, norm: float) -> bool:
        """Whether this step's gradients are beyond fp16: the optimiser then leaves it out, and the scale becomes smaller.

        Not where the loss itself is no number, nor after :data:`MOST_LEFT_OUT` such steps in a row.
        """
        overflow = self.scaler is not None and math.isfinite(loss) and not math.isfinite(norm)
        self.left_out = self.left_out + 1 if overflow else 0
        return overflow and self.left_out <= MOST_LEFT_OUT

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {} if self.scaler is None else dict(self.scaler.state_dict())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(dict(state))
