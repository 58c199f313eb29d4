"""Diffusion heads: per-token video, and actions from an aggregated joint latent."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uva_agents.model.diffusion import GaussianDiffusion, ancestral_process, training_pair
from uva_agents.model.layers import AdaLNMLP
from uva_agents.model.schedulers import Denoiser, few_step_scheduler, sample_few_steps
from uva_agents.model.uva.config import Aggregator, HeadConfig

_TRAINING_PROCESS = GaussianDiffusion()
_FEW_ROWS = 64
"""Up to this many rows a step is bound by reading weights; beyond, preparing all steps would only take memory."""


class DiffusionHead(nn.Module):
    """Denoises vectors of ``channels`` numbers, each given a condition of ``cond_channels``.

    Args:
        channels: size of one denoised vector.
        cond_channels: size of its condition.
        config: width, depth and what the network predicts.
    """

    def __init__(self, *, channels: int, cond_channels: int, config: HeadConfig) -> None:
        super().__init__()
        self.channels = channels
        self.config = config
        learned_variance = config.prediction == "epsilon"
        self.net = AdaLNMLP(
            in_channels=channels,
            out_channels=2 * channels if learned_variance else channels,
            cond_channels=cond_channels,
            width=config.width,
            depth=config.depth,
        )

    def row_losses(
        self, target: Tensor, condition: Tensor, *, t: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """Loss of each row, averaged over ``config.draws`` noise draws unless ``t`` and ``noise`` are given.

        Args:
            target: (N, channels) clean vectors.
            condition: (N, cond_channels).
            t: (N,) integer timesteps; drawn when absent.
            noise: (N, channels); drawn when absent.

        Returns: (N,).
        """
        rows = len(target)
        if t is None and self.config.draws > 1:
            target = target.repeat_interleave(self.config.draws, 0)
            condition = condition.repeat_interleave(self.config.draws, 0)
        noise = torch.randn_like(target) if noise is None else noise
        if self.config.prediction == "epsilon":
            t = torch.randint(0, 1000, (len(target),), device=target.device) if t is None else t
            xt = _TRAINING_PROCESS.add_noise(target, noise, t)
            mse, bits = _TRAINING_PROCESS.losses(self.net(xt, t, condition), target, xt, noise, t)
            losses = mse + bits
        else:
            xt, time, goal = training_pair(target, noise, self.config.prediction)
            losses = (self.net(xt, time, condition) - goal).square().mean(-1)
        return losses.view(rows, -1).mean(1)

    def sample(
        self,
        condition: Tensor,
        *,
        steps: int,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        ancestral: bool = False,
    ) -> Tensor:
        """Vectors for the conditions (N, cond_channels); (N, channels).

        Args:
            steps: network calls.
            noise: start of the deterministic sampler; drawn from ``generator`` when absent.
            temperature: scales the start noise, or the noise of every ancestral step.
            ancestral: the released sampler (epsilon prediction only).
        """
        shape = (len(condition), self.channels)
        if ancestral:
            if self.config.prediction != "epsilon":
                raise ValueError(
                    f"ancestral sampling needs an epsilon prediction, this head predicts {self.config.prediction!r}"
                )
            process = ancestral_process(steps)
            return process.sample(
                self._denoiser(torch.from_numpy(process.timestep_map[::-1].copy()), condition),
                shape,
                temperature=temperature,
                clip=self.config.clip,
                generator=generator,
                device=condition.device,
            )
        if noise is None:
            noise = torch.randn(shape, generator=generator, device=condition.device, dtype=torch.float32) * temperature
        clip = self.config.clip
        if clip is None and self.config.prediction == "epsilon":
            clip = 4.0  # latents have unit scale, so four standard deviations cut nothing that was ever seen
        prediction = self.config.prediction
        denoise = self._denoiser(few_step_scheduler(prediction, steps).timesteps, condition)
        return sample_few_steps(denoise, noise, prediction=prediction, steps=steps, clip=clip)

    def _denoiser(self, timesteps: Tensor, condition: Tensor) -> Denoiser:
        """The network as a function of sample and time, to be called once for each of ``timesteps``, in their order."""
        if len(condition) > _FEW_ROWS:
            return lambda x, t: self.net(x, t, condition)
        prepared = iter(self.net.modulations(timesteps.to(condition.device), condition))
        return lambda x, _: self.net.denoise(x, next(prepared))


class ConvFCAggregator(nn.Module):
    """Released default: 3x3 convolution and 4x4 pooling per frame, a linear map from frames to actions."""

    per_action = True

    def __init__(self, *, dim: int, grid: int, frames: int, actions: int) -> None:
        super().__init__()
        self.grid, self.frames = grid, frames
        self.conv = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d((4, 4)))
        self.fc = nn.Sequential(nn.Linear(dim * 16, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.interpolate = nn.Linear(frames, actions)
        self.refine = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, z: Tensor) -> Tensor:
        """Joint latent (B, frames * grid^2, D) -> conditions (B, actions, D)."""
        b, _, d = z.shape
        maps = z.view(b * self.frames, self.grid, self.grid, d).permute(0, 3, 1, 2)
        per_frame = self.fc(self.conv(maps).flatten(1)).view(b, self.frames, d)
        return cast(Tensor, self.refine(self.interpolate(per_frame.transpose(1, 2)).transpose(1, 2)))


class ConvTransposeAggregator(nn.Module):
    """Released ``conv_ori``: transposed convolution in time, average over space."""

    per_action = True

    def __init__(self, *, dim: int, grid: int, frames: int, actions: int) -> None:
        super().__init__()
        stride = actions // frames
        self.grid, self.frames = grid, frames
        self.conv_transpose = nn.ConvTranspose3d(dim, dim, (stride, 1, 1), stride=(stride, 1, 1))

    def forward(self, z: Tensor) -> Tensor:
        """(B, frames * grid^2, D) -> (B, actions, D)."""
        b, _, d = z.shape
        volume = z.view(b, self.frames, self.grid, self.grid, d).permute(0, 4, 1, 2, 3)
        return cast(Tensor, self.conv_transpose(volume).mean((-2, -1)).transpose(1, 2))


class TokenConvAggregator(nn.Module):
    """Released ``conv2``: tokens are the channels of convolutions along the width."""

    per_action = True

    def __init__(self, *, dim: int, grid: int, frames: int, actions: int) -> None:
        super().__init__()
        tokens, hidden = frames * grid**2, frames * grid**2 // 4
        self.conv = nn.Sequential(
            nn.Conv1d(tokens, hidden, 7, padding=3), nn.ReLU(), nn.Conv1d(hidden, actions, 7, padding=3)
        )

    def forward(self, z: Tensor) -> Tensor:
        """(B, frames * grid^2, D) -> (B, actions, D)."""
        return cast(Tensor, self.conv(z))


class TokenLinearAggregator(nn.Module):
    """Released ``fc2``: linear maps from tokens to actions, the same for every channel."""

    per_action = True

    def __init__(self, *, dim: int, grid: int, frames: int, actions: int) -> None:
        super().__init__()
        tokens, hidden = frames * grid**2, frames * grid**2 // 4
        self.fc = nn.Sequential(nn.Linear(tokens, hidden), nn.ReLU(), nn.Linear(hidden, actions))

    def forward(self, z: Tensor) -> Tensor:
        """(B, frames * grid^2, D) -> (B, actions, D)."""
        return cast(Tensor, self.fc(z.transpose(1, 2)).transpose(1, 2))


class FlattenAggregator(nn.Module):
    """One condition for a whole chunk: every token squeezed and concatenated, so that positions stay explicit."""

    per_action = False

    def __init__(self, *, dim: int, tokens: int, squeeze: int, extra: int, out: int, dropout: float) -> None:
        super().__init__()
        self.squeeze = nn.Linear(dim, squeeze)
        self.mix = nn.Sequential(
            nn.Linear(tokens * squeeze + extra, out), nn.SiLU(), nn.Dropout(dropout), nn.Linear(out, out)
        )

    def forward(self, z: Tensor, extra: Tensor | None = None) -> Tensor:
        """Joint latent (B, N, D), optional state (B, extra) -> (B, out)."""
        flat = F.silu(self.squeeze(z)).flatten(1)
        return cast(Tensor, self.mix(flat if extra is None else torch.cat([flat, extra], dim=-1)))


class ActionHead(nn.Module):
    """Aggregator and diffusion head of an action-like sequence (actions, or future proprioception).

    Parameter names follow the released head, where aggregator and network sit side by side.

    Args:
        dim: width of the joint latent.
        grid, frames: its layout.
        steps: length of the sequence.
        channels: numbers per step.
        aggregator: see :class:`~uva_agents.model.uva.config.UVAConfig`.
        config: the diffusion head.
        extra: size of the state appended to the condition (``"flatten"`` only).
        dropout: in the flatten aggregator.
    """

    def __init__(
        self,
        *,
        dim: int,
        grid: int,
        frames: int,
        steps: int,
        channels: int,
        aggregator: Aggregator,
        config: HeadConfig,
        extra: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.steps, self.channels = steps, channels
        self.aggregate: nn.Module
        if aggregator == "flatten":
            tokens = frames * grid**2
            out = config.width
            self.aggregate = FlattenAggregator(
                dim=dim, tokens=tokens, squeeze=32, extra=extra, out=out, dropout=dropout
            )
            head = DiffusionHead(channels=steps * channels, cond_channels=out, config=config)
        else:
            if extra:
                raise ValueError(f"aggregator {aggregator!r} takes no state: use 'flatten' or frame_state_dim=0")
            self.aggregate = _released_aggregator(aggregator, dim=dim, grid=grid, frames=frames, actions=steps)
            head = DiffusionHead(channels=channels, cond_channels=dim, config=config)
        self.head = head

    @property
    def chunked(self) -> bool:
        """Whether a sequence is denoised as one vector (or each step by itself, given the condition)."""
        return not self.aggregate.per_action

    def condition(self, z: Tensor, extra: Tensor | None = None) -> Tensor:
        """Joint latent (B, N, D) -> (B, cond) chunk-wise, or (B * steps, D) with rows sample-major."""
        if self.chunked:
            return cast(Tensor, self.aggregate(z, extra))
        return cast(Tensor, self.aggregate(z)).flatten(0, 1)

    def row_losses(
        self, target: Tensor, condition: Tensor, *, t: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """target (B, steps, channels) -> losses (B,) chunk-wise or (B * steps,)."""
        flat = target.flatten(1) if self.chunked else target.flatten(0, 1)
        return self.head.row_losses(flat, condition, t=t, noise=noise)

    def sample(
        self,
        condition: Tensor,
        *,
        steps: int,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        ancestral: bool = False,
    ) -> Tensor:
        """Sequences (B, steps, channels), normalised units; arguments as :meth:`DiffusionHead.sample`.

        ``noise`` may be (B, steps, channels).
        """
        rows = None if noise is None else noise.reshape(len(condition), -1)
        out = self.head.sample(
            condition, steps=steps, noise=rows, generator=generator, temperature=temperature, ancestral=ancestral
        )
        return out.view(-1, self.steps, self.channels)


_RELEASED: dict[str, Callable[..., nn.Module]] = {
    "conv_fc": ConvFCAggregator,
    "conv_ori": ConvTransposeAggregator,
    "conv2": TokenConvAggregator,
    "fc2": TokenLinearAggregator,
}


def _released_aggregator(kind: Aggregator, *, dim: int, grid: int, frames: int, actions: int) -> nn.Module:
    if kind not in _RELEASED:
        raise ValueError(f"unknown aggregator {kind!r}: use 'flatten' or one of {sorted(_RELEASED)}")
    return _RELEASED[kind](dim=dim, grid=grid, frames=frames, actions=actions)


class StateHead(nn.Module):
    """Low-dimensional state of history and future frames, predicted from the joint latent by an auxiliary head.

    Args:
        dim, tokens, frames: layout of the joint latent.
        out: numbers per frame.
    """

    def __init__(self, *, dim: int, tokens: int, frames: int, out: int) -> None:
        super().__init__()
        self.frames, self.out = frames, out
        self.squeeze = nn.Linear(dim, 48)
        self.net = nn.Sequential(nn.Linear(48 * tokens, 256), nn.GELU(), nn.Linear(256, 2 * out))

    def forward(self, z: Tensor) -> Tensor:
        """Joint latent (B, T * S, D) -> (B, 2, T, out), history first."""
        frames = F.gelu(self.squeeze(z).view(len(z), self.frames, -1))
        state: Tensor = self.net(frames)
        return state.view(len(z), self.frames, 2, self.out).transpose(1, 2)
