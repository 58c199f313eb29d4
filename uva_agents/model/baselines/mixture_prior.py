"""A prior of action chunks: a mixture of Gaussians with observed modes, and what it makes of a noisy chunk."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST_STD = 0.02
"""In steps: what is demonstrated is never exactly a mode."""


@dataclass(frozen=True)
class MixturePrior:
    """A mixture of K Gaussians over the action chunks of each of B observations.

    Attributes:
        modes: (B, K, T, A) means of the components.
        log_weights: (B, K) logarithms of their probabilities.
        std: (K, T, A) standard deviation of demonstrations around each mode.
    """

    modes: Tensor
    log_weights: Tensor
    std: Tensor

    def repeated(self, n: int) -> MixturePrior:
        """Each observation ``n`` times."""
        return MixturePrior(self.modes.repeat_interleave(n, 0), self.log_weights.repeat_interleave(n, 0), self.std)

    def clean(self, noisy: Tensor, signal: Tensor) -> Tensor:
        """Expected clean chunk (B, T, A) given a noisy one, if chunks were distributed as the prior.

        Every mode counts as much as the noisy chunk is likely to stem from it: a mixture of Gaussians stays one under noise, so
        this is exact, however much noise there is.

        Args:
            noisy: (B, T, A), the root of ``signal`` times the clean chunk, and the root of the rest times standard normal noise.
            signal: (B, 1, 1) cumulative alphas.
        """
        signal = signal[:, None]
        root, prior_variance = signal.sqrt(), self.std.square()
        variance = signal * prior_variance + (1 - signal)
        off = noisy[:, None] - root * self.modes
        log_likelihood = -0.5 * (off.square() / variance + variance.log()).sum((2, 3))
        weight = torch.softmax(self.log_weights + log_likelihood, dim=1)[:, :, None, None]
        return (weight * (self.modes + root * prior_variance / variance * off)).sum(1)


def winner_takes_all_loss(prior: MixturePrior, steps: Tensor) -> Tensor:
    """Mean distance along the way, in steps, between the demonstrated chunk and the nearest mode; and the likelihood of that mode
    and of how far it is off.

    What comes first counts most, because a policy looks again before it comes to the rest. A little of the other modes' distance
    keeps all of them in use (multiple choice learning, Guzman-Rivera et al. 2012).

    Args:
        prior: for B observations.
        steps: (B, T, A) demonstrated.
    """
    weight = 1 / (1 + torch.arange(steps.shape[1], device=steps.device, dtype=steps.dtype) / 4)
    along = (prior.modes - steps[:, None]).cumsum(2).abs().mean(3)
    distance = (along * (weight / weight.sum())).sum(2)
    least, nearest = distance.min(1)
    which = torch.nn.functional.nll_loss(prior.log_weights, nearest)
    rows = torch.arange(len(steps), device=steps.device)
    off = (prior.modes[rows, nearest] - steps).detach() / prior.std[nearest]
    how_far = (0.5 * off.square() + prior.std[nearest].log()).mean()
    return least.mean() + 0.02 * distance.mean() + 0.1 * (which + how_far)


def bounded_std(raw: Tensor) -> Tensor:
    """Standard deviations from parameters of any value, 0.2 steps from zero. They learn eight times as fast as others."""
    return _LEAST_STD + 0.18 * (8 * raw).exp()
