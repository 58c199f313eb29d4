"""The type that training computes in."""

from __future__ import annotations

import torch


def precision() -> str:
    """bf16 where the device is fast at it, as accelerate calls it; a CPU computes it at half the speed of float32."""
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
