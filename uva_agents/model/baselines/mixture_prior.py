"""Guesses of a chunk of actions: a mixture of Gaussians, and what it makes of a noisy chunk."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST_SPREAD = 0.02
"""In steps: what is demonstrated is never exactly what was guessed."""


@dataclass(frozen=True)
class Guesses:
    """K ways to go on for each of B observations.

    Attributes:
        steps: (B, K, T, A).
        log_share: (B, K) logarithm of how often each is what is demonstrated.
        spread: (K, T, A) standard deviation of what is demonstrated round each.
    """

    steps: Tensor
    log_share: Tensor
    spread: Tensor

    def repeated(self, n: int) -> Guesses:
        """Each observation ``n`` times."""
        return Guesses(self.steps.repeat_interleave(n, 0), self.log_share.repeat_interleave(n, 0), self.spread)

    def clean(self, noisy: Tensor, signal: Tensor) -> Tensor:
        """Expected clean chunk (B, T, A), if chunks were distributed as the guesses say.

        Every guess pulls as much as the noisy chunk is likely to stem from it: a mixture of Gaussians stays one under noise, so
        this is exact, however much noise there is.

        Args:
            noisy: (B, T, A), the root of ``signal`` times the clean chunk, and the root of the rest times standard normal noise.
            signal: (B, 1, 1) cumulative alphas.
        """
        signal = signal[:, None]
        root, spread = signal.sqrt(), self.spread.square()
        variance = signal * spread + (1 - signal)
        off = noisy[:, None] - root * self.steps
        log_likelihood = -0.5 * (off.square() / variance + variance.log()).sum((2, 3))
        weight = torch.softmax(self.log_share + log_likelihood, dim=1)[:, :, None, None]
        return (weight * (self.steps + root * spread / variance * off)).sum(1)


def guess_loss(guesses: Guesses, steps: Tensor) -> Tensor:
    """Mean distance along the way, in steps, between the demonstrated chunk and the nearest guess; and how well the shares and
    spreads tell which one that is, and by how much it is off.

    What comes first counts most, because a policy looks again before it comes to the rest. A little of the others' distance
    keeps every guess in play (multiple choice learning).

    Args:
        guesses: for B observations.
        steps: (B, T, A) demonstrated.
    """
    weight = 1 / (1 + torch.arange(steps.shape[1], device=steps.device, dtype=steps.dtype) / 4)
    along = (guesses.steps - steps[:, None]).cumsum(2).abs().mean(3)
    distance = (along * (weight / weight.sum())).sum(2)
    least, nearest = distance.min(1)
    share = torch.nn.functional.nll_loss(guesses.log_share, nearest)
    rows = torch.arange(len(steps), device=steps.device)
    off = (guesses.steps[rows, nearest] - steps).detach() / guesses.spread[nearest]
    spread = (0.5 * off.square() + guesses.spread[nearest].log()).mean()
    return least.mean() + 0.02 * distance.mean() + 0.1 * (share + spread)


def bounded_spread(raw: Tensor) -> Tensor:
    """Spreads from parameters that may have any value, 0.2 steps from zero. They learn eight times as fast as others."""
    return _LEAST_SPREAD + 0.18 * (8 * raw).exp()
