"""Diffusion Policy (Chi et al. 2023, arXiv 2303.04137): chunks of actions by denoising, conditioned on the last observations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from uva_agents.model.baselines.mixture_prior import MixturePrior, winner_takes_all_loss
from uva_agents.model.baselines.old_names import first_name, renamed, renamed_tensors
from uva_agents.model.baselines.relations import PairwiseRelations
from uva_agents.model.baselines.transformer import DiffusionTransformer
from uva_agents.model.baselines.unet1d import ConditionalUNet1D
from uva_agents.model.defaults import in_float32
from uva_agents.model.schedulers import DDIM, DDPM, cosine_betas
from uva_agents.model.vision.encoder import EncoderConfig, ImageEncoder


@dataclass(frozen=True)
class UNetConfig:
    """DP-C's noise predictor; see :class:`~uva_agents.model.baselines.unet1d.ConditionalUNet1D`."""

    stages: tuple[int, ...] = (512, 1024, 2048)
    kernel: int = 5
    groups: int = 8
    step_dim: int = 128

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))  # JSON has no tuples


@dataclass(frozen=True)
class TransformerConfig:
    """DP-T's noise predictor; see :class:`~uva_agents.model.baselines.transformer.DiffusionTransformer`."""

    width: int = 256
    depth: int = 8
    heads: int = 4
    dropout: float = 0.3
    embedding_dropout: float = 0.0


@dataclass(frozen=True)
class DiffusionPolicyConfig:
    """Everything that determines the tensors of a :class:`DiffusionPolicyNet`.

    Args:
        encoder: of one camera frame.
        denoiser: the noise predictor: a U-Net (DP-C) or a transformer (DP-T).
        action_dim: numbers per action.
        proprio_dim: numbers measured beside each frame, 0 without.
        obs_steps: newest observations that are looked at, one control step apart.
        horizon: actions that are denoised together.
        first_action: time of the first of them, relative to the newest observation. Published: ``1 - obs_steps``, so that the
            first ones lie in the past and are never executed. Here 0 by default (as the authors' later UMI policy has it): 16
            denoised actions are then 16 actions from now, the same 16 that the world model looks ahead, with no work thrown away.
        action_steps: actions from now that a sample consists of.
        train_steps: diffusion steps.
        relations: width of a small network on how objects lie to each other, between an encoder of ``positions`` (the first of
            them the effector's) and a U-Net; 0 for none, as published. See
            :class:`~uva_agents.model.baselines.relations.PairwiseRelations`.
        modes: of the mixture prior of the chunk that it gives; the U-Net then predicts what the noise it implies is off by.
        max_step: per dimension the largest distance from one action to the next, normalised units. Chunks are then denoised as
            steps: from where proprioception is now to the first action, and so on, all of one size, where absolute positions differ
            by little of their range. Empty for absolute ones, as published. Needs proprioception of what actions command,
            normalised alike.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    denoiser: UNetConfig | TransformerConfig = field(default_factory=UNetConfig)
    action_dim: int = 2
    proprio_dim: int = 2
    obs_steps: int = 2
    horizon: int = 16
    first_action: int = 0
    action_steps: int = 16
    train_steps: int = 100
    relations: int = 0
    modes: int = 4
    max_step: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_step", tuple(self.max_step))  # JSON has no tuples
        if self.relations:
            if not isinstance(self.denoiser, UNetConfig):
                raise ValueError("relations= goes in front of a U-Net; the transformer looks at observations itself")
            if not (self.encoder.positions > 1 and self.max_step and self.action_dim == 2 and self.obs_steps == 1):
                raise ValueError("relations= needs encoder positions, max_step, actions in the plane, and obs_steps=1")
        if self.max_step:
            if not (len(self.max_step) == self.action_dim == self.proprio_dim and min(self.max_step) > 0):
                raise ValueError(
                    f"max_step={self.max_step}: one positive distance for each of {self.action_dim} actions, and as many numbers "
                    f"of proprioception (proprio_dim={self.proprio_dim})"
                )
            if self.first_action:
                raise ValueError("max_step= counts from now: first_action must be 0")
        if not 1 - self.obs_steps <= self.first_action <= 0:
            raise ValueError(
                f"first_action must be between {1 - self.obs_steps} (the oldest observation) and 0 (now), got {self.first_action}"
            )
        if not 1 <= self.action_steps <= self.horizon + self.first_action:
            raise ValueError(
                f"a horizon of {self.horizon} that begins at {self.first_action} has {self.horizon + self.first_action} actions "
                f"from now on, action_steps asks for {self.action_steps}"
            )
        if isinstance(self.denoiser, UNetConfig) and self.horizon % (factor := 2 ** (len(self.denoiser.stages) - 1)):
            raise ValueError(f"horizon {self.horizon} must be a multiple of {factor} for a U-Net of these stages")

    @property
    def features(self) -> int:
        """Numbers per observation that the noise predictor is given."""
        return self.encoder.outputs + self.proprio_dim

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, ready for JSON."""
        kind = "unet" if isinstance(self.denoiser, UNetConfig) else "transformer"
        values = dataclasses.asdict(self)
        return {**values, "denoiser": {"kind": kind, **values["denoiser"]}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DiffusionPolicyConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: unknown or ill-typed fields.
        """
        try:
            denoiser = dict(values["denoiser"])
            kinds: dict[str, type[UNetConfig] | type[TransformerConfig]] = {
                "unet": UNetConfig,
                "transformer": TransformerConfig,
            }
            made = kinds[denoiser.pop("kind")](**denoiser)
            return cls(**{**values, "encoder": EncoderConfig(**values["encoder"]), "denoiser": made})
        except (TypeError, KeyError) as error:
            raise ValueError(f"bad DiffusionPolicyConfig ({error}): the file was written by another version") from error


@dataclass(frozen=True)
class Prepared:
    """What stays the same over the diffusion steps: features (B, To, F), and the mixture prior where there is one."""

    observed: Tensor
    prior: MixturePrior | None

    def repeated(self, n: int) -> Prepared:
        """Each observation ``n`` times."""
        prior = None if self.prior is None else self.prior.repeated(n)
        return Prepared(self.observed.repeat_interleave(n, 0), prior)


class DiffusionPolicyNet(nn.Module):
    """Observation encoder and noise predictor."""

    renamed_tensor, first_tensor_name = staticmethod(renamed), staticmethod(first_name)

    @in_float32
    def __init__(self, config: DiffusionPolicyConfig) -> None:
        super().__init__()
        self.config = c = config
        self.encoder = ImageEncoder(c.encoder)
        self.denoiser: ConditionalUNet1D | DiffusionTransformer
        numbers = c.obs_steps * c.features
        self.relations: PairwiseRelations | None = None
        if c.relations:
            self.relations = PairwiseRelations(
                objects=c.encoder.positions,
                scale=c.max_step,
                horizon=c.horizon,
                width=c.relations,
                modes=c.modes,
            )
        if isinstance(c.denoiser, UNetConfig):
            self.denoiser = ConditionalUNet1D(
                action_dim=c.action_dim,
                condition=PairwiseRelations.outputs if c.relations else numbers,
                beside=c.action_dim if c.relations and c.modes else 0,
                **dataclasses.asdict(c.denoiser),
            )
            if self.relations is not None and c.modes:
                # Before it has learned anything, the policy samples from the prior.
                nn.init.zeros_(self.denoiser.out.weight)
                nn.init.zeros_(self.denoiser.out.bias)
        else:
            self.denoiser = DiffusionTransformer(
                action_dim=c.action_dim,
                features=c.features,
                horizon=c.horizon,
                obs_steps=c.obs_steps,
                first_action=c.first_action,
                **dataclasses.asdict(c.denoiser),
            )
        alphas = torch.from_numpy(np.cumprod(1 - cosine_betas(c.train_steps))).float()
        self.register_buffer("alphas_cumprod", alphas, persistent=False)
        self.alphas_cumprod: Tensor
        self.register_load_state_dict_pre_hook(renamed_tensors)  # type: ignore[no-untyped-call]

    def observe(self, frames: Tensor, proprio: Tensor | None, corner: Tensor | None = None) -> Tensor:
        """Observation features (B, To, F).

        Args:
            frames: uint8 (B, To, H, W, 3), oldest first; whole images or crops.
            proprio: (B, To, P) normalised.
            corner: (B, To, 2) of crops, see :class:`~uva_agents.model.vision.encoder.ImageEncoder`.
        """
        features = self.encoder(frames.flatten(0, 1), None if corner is None else corner.flatten(0, 1))
        return self.with_proprio(features.view(*frames.shape[:2], -1), proprio)

    def with_proprio(self, features: Tensor, proprio: Tensor | None) -> Tensor:
        """Observations (B, To, F) from what the encoder gives (B, To, outputs) and proprioception (B, To, P) normalised."""
        if not self.config.proprio_dim:
            return features
        if proprio is None:
            raise ValueError(f"this policy needs proprioception (B, {features.shape[1]}, {self.config.proprio_dim})")
        return torch.cat([features, proprio.to(features.dtype)], dim=-1)

    def prepare(self, observed: Tensor) -> Prepared:
        """What the noise predictor is given at every diffusion step, from observations (B, To, F)."""
        if self.relations is None:
            return Prepared(observed, None)
        embedding, prior = self.relations(observed[:, -1, : -self.config.proprio_dim], self._here(observed)[:, 0])
        return Prepared(embedding[:, None], prior)

    def predict_noise(self, x: Tensor, t: Tensor, given: Prepared) -> Tensor:
        """Noise (B, T, A) in noisy actions (B, T, A) at diffusion steps (B,)."""
        if given.prior is None:
            return cast(Tensor, self.denoiser(x, t, given.observed))
        # The prior is trained by what was demonstrated, not by what would help to find the noise.
        signal = self.alphas_cumprod[t][:, None, None]
        with torch.no_grad():
            clean = given.prior.clean(x, signal)
        implied = (x - signal.sqrt() * clean) / (1 - signal).sqrt()
        return implied + cast(Tensor, self.denoiser(torch.cat([x, clean], dim=-1), t, given.observed))

    def to_steps(self, actions: Tensor, observed: Tensor) -> Tensor:
        """What is denoised for chunks (B, T, A) normalised: themselves, or the steps that lead along them."""
        if not self.config.max_step:
            return actions
        return torch.cat([self._here(observed), actions], dim=1).diff(dim=1) / actions.new_tensor(self.config.max_step)

    def from_steps(self, chunks: Tensor, observed: Tensor) -> Tensor:
        """The inverse of :meth:`to_steps`."""
        if not self.config.max_step:
            return chunks
        return (chunks * chunks.new_tensor(self.config.max_step)).cumsum(1) + self._here(observed)

    def _here(self, observed: Tensor) -> Tensor:
        return observed[:, -1:, -self.config.proprio_dim :]

    def losses(self, observed: Tensor, actions: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared error of the predicted noise, and the loss of the mixture prior (0 without one); scalars.

        Args:
            observed: (B, To, F).
            actions: (B, T, A) normalised to [-1, 1].
            t: (B * K,) diffusion steps in [0, train_steps): K draws for every observation, which is encoded once.
            noise: (B * K, T, A) standard normal.
        """
        draws = len(t) // len(actions)
        steps, given = self.to_steps(actions, observed), self.prepare(observed)
        prior_loss = steps.new_zeros(()) if given.prior is None else winner_takes_all_loss(given.prior, steps)
        if draws > 1:
            steps, given = steps.repeat_interleave(draws, 0), given.repeated(draws)
        signal = self.alphas_cumprod[t][:, None, None]
        noisy = signal.sqrt() * steps + (1 - signal).sqrt() * noise
        return (self.predict_noise(noisy, t, given).float() - noise).square().mean(), prior_loss


@dataclass(frozen=True)
class ActionSampler:
    """How chunks are denoised.

    Args:
        kind: ``"ddpm"`` draws noise at every step; ``"ddim"`` is deterministic given the first noise and needs few steps.
        steps: calls of the noise predictor.
    """

    kind: Literal["ddim", "ddpm"] = "ddim"
    steps: int = 16

    def scheduler(self, train_steps: int) -> DDIM | DDPM:
        """The steps: squared-cosine, noise prediction, clean sample clipped to [-1, 1].

        Raises:
            ValueError: unknown kind, or a number of steps that the training schedule does not have.
        """
        if not 1 <= self.steps <= train_steps:
            raise ValueError(f"steps must be between 1 and the {train_steps} of training, got {self.steps}")
        if self.kind == "ddim":
            return DDIM(cosine_betas(train_steps), self.steps, clip=True)
        if self.kind == "ddpm":
            return DDPM(cosine_betas(train_steps), self.steps)
        raise ValueError(f"sampler must be 'ddim' or 'ddpm', got {self.kind!r}")


def sample_chunks(
    net: DiffusionPolicyNet,
    observed: Tensor,
    *,
    n: int,
    sampler: ActionSampler,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """``n`` action chunks for each observation, all in one batch; (B * n, action_steps, A) normalised, from now on.

    Args:
        observed: (B, To, F); B a multiple of the number of generators.
        generators: random streams on the CPU, so that every device gets the same noise. One for each equal part of the batch:
            what a part draws does not depend on the others.
    """
    c = net.config
    given = net.prepare(observed).repeated(n)
    observed = observed.repeat_interleave(n, 0)
    scheduler = sampler.scheduler(c.train_steps)
    per_generator = len(observed) // len(generators)
    shape = (per_generator, c.horizon, c.action_dim)
    parts = [torch.randn(shape, generator=g, device="cpu", dtype=torch.float32).to(observed) for g in generators]
    for i, timestep in enumerate(scheduler.timesteps):
        x = torch.cat(parts)
        predicted = net.predict_noise(x, timestep.to(x.device).expand(len(x)), given)
        # Every part takes its own step, because the step itself may draw noise.
        parts = [
            scheduler.step(output.to(x.dtype), i, part, generator)
            for output, part, generator in zip(predicted.split(per_generator), parts, generators, strict=True)
        ]
    chunks = net.from_steps(torch.cat(parts), observed)
    return chunks[:, -c.first_action :][:, : c.action_steps]
