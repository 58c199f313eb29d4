"""What goes into the network: frames as tokens, and everything a sample conditions on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


def patchify(latents: Tensor, patch_size: int) -> Tensor:
    """VAE latents (..., C, h, w) -> tokens (..., S, C * p^2), rows first."""
    *lead, c, h, w = latents.shape
    p = patch_size
    x = latents.reshape(*lead, c, h // p, p, w // p, p)
    n = len(lead)
    x = x.permute(*range(n), n + 1, n + 3, n, n + 2, n + 4)
    return x.reshape(*lead, (h // p) * (w // p), c * p * p)


def unpatchify(tokens: Tensor, patch_size: int) -> Tensor:
    """Inverse of :func:`patchify` for square maps."""
    *lead, s, cpp = tokens.shape
    p, g = patch_size, round(s**0.5)
    n = len(lead)
    x = tokens.reshape(*lead, g, g, cpp // p**2, p, p)
    x = x.permute(*range(n), n + 2, n, n + 3, n + 1, n + 4)
    return x.reshape(*lead, cpp // p**2, g * p, g * p)


@dataclass(frozen=True)
class Context:
    """Everything a sample conditions on. ``None`` means absent: the mask token stands in, where the network has one.

    Attributes:
        history: (B, T, S, C) frame tokens of the past, the last one being now.
        future: (B, T, S, C) frame tokens of the future; ignored where masked.
        actions: (B, action_steps, A), normalised.
        proprio: (B, proprio_steps, P), normalised. Rows with NaN are missing (networks with ``proprio_maskable``).
        text: (B, text_dim).
        history_actions: (B, history_steps, A), normalised; NaN where unknown.
        wrist_history, wrist_future: (B, T, S, C).
        history_points, future_points: (B, T, 2 * frame_points) points read from the frames, in [-1, 1].
    """

    history: Tensor | None = None
    future: Tensor | None = None
    actions: Tensor | None = None
    proprio: Tensor | None = None
    text: Tensor | None = None
    history_actions: Tensor | None = None
    wrist_history: Tensor | None = None
    wrist_future: Tensor | None = None
    history_points: Tensor | None = None
    future_points: Tensor | None = None

    @property
    def batch_size(self) -> int:
        for value in (self.history, self.future, self.proprio, self.actions, self.text):
            if value is not None:
                return len(value)
        raise ValueError("empty Context: give at least history or future frames")

    def to(self, device: torch.device | str) -> Context:
        """On a device."""
        return replace(self, **{k: v.to(device) for k, v in vars(self).items() if v is not None})
