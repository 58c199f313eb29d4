"""Memory that inference keeps between calls, a set for every thread."""

from __future__ import annotations

import threading

import torch
from torch import Tensor


class Scratch(threading.local):
    """Buffers by name, on the CPU. What is in one is valid until the thread takes the same name again.

    Large fresh memory comes from the system page by page, cleared, and goes back when it is freed; a network that runs again and
    again pays for that every time.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of this shape with whatever was left in it; it may grow the buffer, and never shrinks it."""
        size = torch.Size(shape).numel()
        buffer = self._buffers.get((name, dtype))
        if buffer is None or buffer.numel() < size:
            with torch.inference_mode(False):  # made inside inference mode, it could not be written to outside
                buffer = self._buffers[name, dtype] = torch.empty(size, dtype=dtype, device="cpu")
        return buffer[:size].view(shape)
