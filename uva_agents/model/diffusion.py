"""Diffusion processes of the heads: what is learned.

:class:`GaussianDiffusion` is the released process: 1000 squared-cosine steps, noise prediction, learned-range variance, and exact
ancestral sampling on a respaced schedule. Sampling in few steps, for any prediction type, is in
:mod:`~uva_agents.model.schedulers`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from uva_agents.model.schedulers import TRAIN_STEPS, Denoiser, Prediction, cosine_betas, hole


def respaced_timesteps(count: int, steps: int = TRAIN_STEPS) -> np.ndarray:
    """``count`` timesteps sigma evenly over 0..steps-1, both ends included, rounded; (count,) int64."""
    if not 1 <= count <= steps:
        raise ValueError(f"sampling steps must be between 1 and {steps}, got {count}")
    stride = (steps - 1) / (count - 1) if count > 1 else 1.0
    # Running sum, not i * stride: the recorded schedule rounds the accumulated value.
    position, chosen = 0.0, []
    for _ in range(count):
        chosen.append(round(position))
        position += stride
    return np.array(chosen, dtype=np.int64)


def ddim_timesteps(count: int, steps: int = TRAIN_STEPS) -> np.ndarray:
    """Every k-th timestep from 0, for the integer k that gives exactly ``count``; (count,) int64.

    Raises:
        ValueError: no integer stride gives that many.
    """
    for stride in range(1, steps):
        if len(range(0, steps, stride)) == count:
            return np.arange(0, steps, stride, dtype=np.int64)
    raise ValueError(f"no integer stride over {steps} steps gives exactly {count}")


class GaussianDiffusion:
    """Noise-predicting DDPM with learned-range variance on a subset of the training timesteps.

    Args:
        timesteps: increasing subset of 0..999; all of them by default.
    """

    def __init__(self, timesteps: np.ndarray | None = None) -> None:
        alphas_cumprod = np.cumprod(1 - cosine_betas())
        self.timestep_map = np.arange(TRAIN_STEPS) if timesteps is None else np.asarray(timesteps)
        kept = alphas_cumprod[self.timestep_map]
        previous = np.concatenate([[1.0], kept[:-1]])
        self.betas = 1 - kept / previous
        # Recomputed from the betas so that every table follows from one sequence.
        self.alphas_cumprod = np.cumprod(1 - self.betas)
        previous = np.concatenate([[1.0], self.alphas_cumprod[:-1]])
        variance = self.betas * (1 - previous) / (1 - self.alphas_cumprod)
        # The first step's posterior variance is 0; its logarithm borrows the second's.
        tail = variance[1:] if len(variance) > 1 else self.betas
        self.posterior_log_variance_clipped = np.log(np.append(tail[0], variance[1:]))
        self.log_betas = np.log(self.betas)
        self.posterior_mean_coef1 = self.betas * np.sqrt(previous) / (1 - self.alphas_cumprod)
        self.posterior_mean_coef2 = (1 - previous) * np.sqrt(1 - self.betas) / (1 - self.alphas_cumprod)
        self.sqrt_recip_alphas_cumprod = np.sqrt(1 / self.alphas_cumprod)
        self.sqrt_recipm1_alphas_cumprod = np.sqrt(1 / self.alphas_cumprod - 1)

    def _at(self, table: np.ndarray, t: Tensor, like: Tensor) -> Tensor:
        return torch.from_numpy(table).to(t.device)[t].float()[:, None].expand(like.shape)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Forward process at step index t (N,): (N, C) -> (N, C)."""
        signal = self._at(np.sqrt(self.alphas_cumprod), t, x0)
        return signal * x0 + self._at(np.sqrt(1 - self.alphas_cumprod), t, x0) * noise

    def posterior(self, x0: Tensor, xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(x_{t-1} | x_t, x_0)."""
        mean = self._at(self.posterior_mean_coef1, t, xt) * x0 + self._at(self.posterior_mean_coef2, t, xt) * xt
        return mean, self._at(self.posterior_log_variance_clipped, t, xt)

    def model_posterior(
        self, output: Tensor, xt: Tensor, t: Tensor, *, clip: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and log variance of p(x_{t-1} | x_t) from a network output (N, 2C)."""
        epsilon, fraction = output.chunk(2, dim=-1)
        low = self._at(self.posterior_log_variance_clipped, t, xt)
        high = self._at(self.log_betas, t, xt)
        blend = (fraction + 1) / 2
        recip = self._at(self.sqrt_recip_alphas_cumprod, t, xt)
        x0 = recip * xt - self._at(self.sqrt_recipm1_alphas_cumprod, t, xt) * epsilon
        if clip is not None:
            x0 = x0.clamp(-clip, clip) + hole(epsilon)
        return self.posterior(x0, xt, t)[0], blend * high + (1 - blend) * low

    def losses(self, output: Tensor, x0: Tensor, xt: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Per row: squared error of the noise, and the variance term in bits. Both (N,).

        The variance term trains the variance alone: the predicted noise enters it detached.
        """
        epsilon, fraction = output.chunk(2, dim=-1)
        mse = (epsilon - noise).square().mean(-1)
        frozen = torch.cat([epsilon.detach(), fraction], dim=-1)
        mean, log_variance = self.model_posterior(frozen, xt, t)
        true_mean, true_log_variance = self.posterior(x0, xt, t)
        kl = 0.5 * (
            -1.0
            + log_variance
            - true_log_variance
            + torch.exp(true_log_variance - log_variance)
            + (true_mean - mean).square() * torch.exp(-log_variance)
        )
        nll = -_discretised_log_likelihood(x0, mean, 0.5 * log_variance)
        bits = torch.where(t == 0, nll.mean(-1), kl.mean(-1)) / math.log(2.0)
        return mse, bits

    def sample(
        self,
        denoise: Denoiser,
        shape: tuple[int, int],
        *,
        temperature: float = 1.0,
        clip: float | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Exact ancestral sampling; (N, C). ``temperature`` scales the noise of every step."""
        x = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        for step in reversed(range(len(self.betas))):
            t = torch.full((shape[0],), step, dtype=torch.long, device=device)
            # The last step's draw is unused, yet drawn: it keeps the random stream in step with the recordings.
            noise = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
            output = denoise(x, torch.full_like(t, int(self.timestep_map[step])))
            x, log_variance = self.model_posterior(output, x, t, clip=clip)
            if step > 0:
                x = x + torch.exp(0.5 * log_variance) * noise * temperature
        return x


def _discretised_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-likelihood of x in bins of width 2/255 under a Gaussian (tanh approximation of its CDF)."""

    def cdf(v: Tensor) -> Tensor:
        return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (v + 0.044715 * v**3)))

    inverse = torch.exp(-log_scale)
    upper = cdf(inverse * (x - mean + 1 / 255))
    lower = cdf(inverse * (x - mean - 1 / 255))
    log_upper = upper.clamp(min=1e-12).log()
    log_above = (1 - lower).clamp(min=1e-12).log()
    inside = (upper - lower).clamp(min=1e-12).log()
    return torch.where(x < -0.999, log_upper, torch.where(x > 0.999, log_above, inside))


@lru_cache(maxsize=64)
def ancestral_process(steps: int) -> GaussianDiffusion:
    """Cached respaced process with ``steps`` sampling steps."""
    return GaussianDiffusion(respaced_timesteps(steps))


def training_pair(
    x0: Tensor, noise: Tensor, prediction: Prediction, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy sample, time in [0, 1000) and regression target for v- and flow-prediction; each row its own time.

    Returns: (xt (N, C), t (N,), target (N, C)).
    """
    if prediction == "flow":
        # Logit-normal times: most of the work is in the middle of the path (Esser et al. 2024, section 3.1).
        sigma = torch.sigmoid(torch.randn(len(x0), generator=generator, device=x0.device, dtype=torch.float32))
        xt = (1 - sigma[:, None]) * x0 + sigma[:, None] * noise
        return xt, sigma * TRAIN_STEPS, noise - x0
    if prediction == "v":
        t = torch.randint(0, TRAIN_STEPS, (len(x0),), generator=generator, device=x0.device)
        bar = torch.from_numpy(np.cumprod(1 - cosine_betas())).to(x0)[t][:, None]
        signal, sigma = bar.sqrt(), (1 - bar).sqrt()
        return signal * x0 + sigma * noise, t.float(), signal * noise - sigma * x0
    raise ValueError(f"training_pair covers 'v' and 'flow', not {prediction!r}; use GaussianDiffusion for epsilon")
