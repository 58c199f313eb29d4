"""Sampling in few steps: Euler on a straight path, DDIM (Song et al. 2021) and DDPM (Ho et al. 2020).

What ``diffusers.FlowMatchEulerDiscreteScheduler``, ``DDIMScheduler`` and ``DDPMScheduler`` compute with the settings used here, bit
for bit (a test compares them), without their seconds of imports before the first decision. Tables are float32 on the CPU, whatever
torch's default is; their entries are scalars, which every device takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

Prediction = Literal["epsilon", "v", "flow"]
"""What a denoiser predicts."""
TRAIN_STEPS = 1000
Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(noisy (N, C), time (N,) in [0, 1000)) -> network output (N, C) or (N, 2C)."""


def cosine_betas(steps: int = TRAIN_STEPS) -> np.ndarray:
    """Squared-cosine schedule, each beta at most 0.999; (steps,) float64."""

    def alpha_bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return np.array([min(1 - alpha_bar((i + 1) / steps) / alpha_bar(i / steps), 0.999) for i in range(steps)])


class Scheduler(Protocol):
    """A way from noise to a sample in a fixed number of network calls."""

    timesteps: Tensor
    """(K,) times in [0, train steps) at which the network is asked, falling."""

    def step(self, output: Tensor, i: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The sample after the network's ``output`` for ``x`` at ``timesteps[i]``; all of one shape."""
        ...


def hole(value: Tensor) -> Tensor:
    """0 where a value is finite, NaN where it is not: added where a bound would make a number of infinity."""
    return 0.0 * value


def bounded(clean: Tensor) -> Tensor:
    """Within [-1, 1]; infinity becomes NaN instead of a bound."""
    return clean.clamp(-1.0, 1.0) + hole(clean)


class FlowEuler:
    """Euler steps along the straight path from noise (sigma 1) to data (0); the network predicts noise minus data.

    Args:
        steps: network calls.
        train_steps: of the time scale.
    """

    def __init__(self, steps: int, train_steps: int) -> None:
        sigmas = torch.from_numpy(np.linspace(1.0, 1.0 / steps, steps).astype(np.float32))
        self.timesteps = sigmas * train_steps
        self._changes = torch.cat([sigmas, sigmas.new_zeros(1)]).diff()

    def step(self, output: Tensor, i: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """See :class:`Scheduler`; draws nothing."""
        return (x.to(torch.float32) + self._changes[i] * output).to(output.dtype)


class _OnTrainingSchedule:
    """What DDIM and DDPM share: how much signal is left at each training step.

    Args:
        betas: (train_steps,) of the training schedule.
    """

    def __init__(self, betas: np.ndarray) -> None:
        self.alphas_cumprod = torch.cumprod(1.0 - torch.from_numpy(betas).to(torch.float32), dim=0)
        self._one = self.alphas_cumprod.new_ones(())

    def _signal(self, t: int) -> Tensor:
        return self.alphas_cumprod[t] if t >= 0 else self._one


class DDIM(_OnTrainingSchedule):
    """Deterministic given the first noise (eta 0).

    Args:
        betas: (train_steps,).
        steps: network calls.
        prediction: of the network: ``"epsilon"``, the noise, or ``"v"``.
        spacing: training steps that are visited: every k-th from 0 (``"leading"``) or back from the last (``"trailing"``).
        clip: whether the clean sample is bound to [-1, 1] at every step.
    """

    def __init__(
        self,
        betas: np.ndarray,
        steps: int,
        *,
        prediction: Literal["epsilon", "v"] = "epsilon",
        spacing: Literal["leading", "trailing"] = "leading",
        clip: bool = False,
    ) -> None:
        super().__init__(betas)
        train_steps = len(betas)
        if spacing == "leading":
            times = np.arange(steps)[::-1] * (train_steps // steps)
        else:
            times = np.round(np.arange(train_steps, 0, -train_steps / steps)) - 1
        self.timesteps = torch.from_numpy(times.astype(np.int64))
        self._stride = train_steps // steps
        self._prediction, self._clip = prediction, clip

    def step(self, output: Tensor, i: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """See :class:`Scheduler`; draws nothing."""
        t = int(self.timesteps[i])
        signal, next_signal = self._signal(t), self._signal(t - self._stride)
        noise_level = 1 - signal
        if self._prediction == "epsilon":
            clean = (x - noise_level**0.5 * output) / signal**0.5
            noise = output
        else:
            clean = signal**0.5 * x - noise_level**0.5 * output
            noise = signal**0.5 * output + noise_level**0.5 * x
        if self._clip:
            clean = bounded(clean)
        return next_signal**0.5 * clean + (1 - next_signal) ** 0.5 * noise


class DDPM(_OnTrainingSchedule):
    """Ancestral: every step but the last draws noise of the smallest variance; the clean sample is bound to [-1, 1].

    Args:
        betas: (train_steps,).
        steps: network calls, which predict noise.
    """

    def __init__(self, betas: np.ndarray, steps: int) -> None:
        super().__init__(betas)
        times = np.arange(steps)[::-1] * (len(betas) // steps)
        self.timesteps = torch.from_numpy(times.astype(np.int64))

    def step(self, output: Tensor, i: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """See :class:`Scheduler`; noise is drawn where the generator is, so that every device gets the same."""
        t = int(self.timesteps[i])
        signal = self._signal(t)
        next_signal = self._signal(int(self.timesteps[i + 1]) if i + 1 < len(self.timesteps) else -1)
        noise_level, next_noise = 1 - signal, 1 - next_signal
        alpha = signal / next_signal
        beta = 1 - alpha
        clean = bounded((x - noise_level**0.5 * output) / signal**0.5)
        mean = (next_signal**0.5 * beta) / noise_level * clean + alpha**0.5 * next_noise / noise_level * x
        if t == 0:
            return mean
        variance = (next_noise / noise_level * beta).clamp(min=1e-20)
        source = output.device if generator is None else generator.device
        drawn = torch.randn(output.shape, generator=generator, device=source, dtype=output.dtype).to(output.device)
        return mean + variance**0.5 * drawn


@lru_cache(maxsize=64)
def few_step_scheduler(prediction: Prediction, steps: int) -> FlowEuler | DDIM:
    """The steps for a prediction type.

    Flow: Euler steps on a linear path. v and epsilon: DDIM on the training schedule from its last step; the last step of
    the squared-cosine schedule has almost no signal left, which is why epsilon needs a bound on the clean sample there.

    Raises:
        ValueError: a number of steps that the training schedule does not have.
    """
    if not 1 <= steps <= TRAIN_STEPS:
        raise ValueError(f"sampling steps must be at least 1 and at most {TRAIN_STEPS}, got {steps}")
    with torch.inference_mode(False):  # what is kept must be of use outside of it too
        if prediction == "flow":
            return FlowEuler(steps, TRAIN_STEPS)
        return DDIM(cosine_betas(), steps, prediction=prediction, spacing="trailing")


def sample_few_steps(
    denoise: Denoiser,
    noise: Tensor,
    *,
    prediction: Prediction,
    steps: int,
    clip: float | None = None,
) -> Tensor:
    """Deterministic few-step sampling from ``noise`` (N, C); returns (N, C).

    Args:
        denoise: the network, returning at least C channels (a learned variance behind them is ignored).
        noise: where to start; the result is a function of it.
        prediction: what the network predicts.
        steps: network calls.
        clip: bound on every intermediate clean sample. Required for ``"epsilon"``: dividing its error by the vanishing
            signal of the last timestep makes samples explode otherwise.

    Raises:
        ValueError: epsilon prediction without ``clip``.
    """
    if prediction == "epsilon" and clip is None:
        raise ValueError(
            "few-step sampling of an epsilon prediction needs clip= (a bound on the clean sample): "
            "without it samples explode at the zero-signal end of the cosine schedule"
        )
    scheduler = few_step_scheduler(prediction, steps)
    x: Tensor = noise
    channels = noise.shape[-1]
    for i, timestep in enumerate(scheduler.timesteps):
        t = timestep.to(x.device).expand(len(x))
        output = denoise(x, t)[..., :channels]
        if clip is not None:
            output = _bound(output, x, timestep, scheduler, prediction, clip) + hole(output)
        x = scheduler.step(output, i, x)
    return x


def _bound(
    output: Tensor, x: Tensor, timestep: Tensor, scheduler: FlowEuler | DDIM, prediction: Prediction, clip: float
) -> Tensor:
    """The network output that corresponds to the clean sample clamped to [-clip, clip]."""
    if isinstance(scheduler, FlowEuler):
        sigma: Tensor = timestep / TRAIN_STEPS
        return (x - (x - sigma * output).clamp(-clip, clip)) / sigma
    signal: Tensor = scheduler.alphas_cumprod[int(timestep)].to(x).sqrt()
    sigma = (1 - signal**2).sqrt()
    if prediction == "v":
        x0 = (signal * x - sigma * output).clamp(-clip, clip)
        return (signal * x - x0) / sigma
    x0 = ((x - sigma * output) / signal).clamp(-clip, clip)
    return (x - signal * x0) / sigma
