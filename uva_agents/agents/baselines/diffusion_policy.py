"""DiffusionPolicy: observations to actions, by denoising whole chunks (DP-C and DP-T)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from uva_agents.agents.arguments import integer, seed_of, whole
from uva_agents.agents.chunks import ChunkAgent, noise_generator
from uva_agents.agents.guards import Inputs, all_finite, check_networks, not_finite, rows_not_finite
from uva_agents.agents.memory import Memory, inputs_of, remember, row_name
from uva_agents.agents.observations import Frames, read_observation
from uva_agents.checkpoints.networks import NetBundle, load_diffusion_policy
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.data.latents import weights_fingerprint
from uva_agents.data.transforms import ReferencePoses, to_environment, to_network
from uva_agents.errors import InputError
from uva_agents.model import ActionSampler, DiffusionPolicyNet, sample_chunks
from uva_agents.utils.forks import keep_forks_safe
from uva_agents.utils.images import resize_frames


class DiffusionPolicy(ChunkAgent):
    """Diffusion Policy (Chi et al. 2023): an agent like :class:`~uva_agents.agents.policy.Policy`, and a source of proposals.

    >>> policy = DiffusionPolicy.from_pretrained("dp-c-block-push")      # doctest: +SKIP
    >>> policy.reset(seed=0)                                             # doctest: +SKIP
    >>> action = policy.act(obs)                                         # doctest: +SKIP
    >>> chunks = policy.sample(obs, n=100)                               # doctest: +SKIP

    Args:
        bundle: network, normaliser and interface.
        execute: actions of a chunk executed before the next decision; the weights' own number by default (8 of 16).
        sampler: ``"ddim"``, deterministic given the first noise, or ``"ddpm"``, the published one.
        steps: calls of the noise predictor per decision; by default 16 (DDIM), or as many as in training (DDPM: 100).
        batch_size: decisions computed together; 1 makes a vectorised run equal the single runs bit for bit.
    """

    def __init__(
        self,
        bundle: NetBundle[DiffusionPolicyNet],
        *,
        execute: int | None = None,
        sampler: Literal["ddim", "ddpm"] = "ddim",
        steps: int | None = None,
        batch_size: int = 1,
    ) -> None:
        c = bundle.model.config
        super().__init__(bundle.spec, chunk=c.action_steps, execute=execute, batch_size=batch_size)
        self.bundle = bundle
        keep_forks_safe()
        if steps is None:
            steps = c.train_steps if sampler == "ddpm" else min(16, c.train_steps)
        self.sampler = ActionSampler(sampler, integer(steps, "steps"))
        self.sampler.scheduler(c.train_steps)  # refuses what does not exist now rather than at the first decision

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, device: str | torch.device = "auto", **options: Any) -> Self:
        """A shipped name or a weights folder; ``options`` go to the constructor.

        Raises:
            FileNotFoundError: unknown name; the message lists close matches.
            ValueError: damaged or foreign files; weights of another kind, with the class that takes them.
        """
        return cls(load_diffusion_policy(name_or_path, device=device), **options)

    @property
    def lookback(self) -> int:
        """Observations before the current one that a decision may look at."""
        return self.bundle.model.config.obs_steps - 1

    @property
    def name(self) -> str:
        """Of the weights."""
        return self.bundle.name

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all tensors."""
        return weights_fingerprint(self.bundle.model)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its actions, as JSON values: an interrupted evaluation continues only with the same."""
        return {
            "weights": self.fingerprint,
            "execute": self.execute,
            "sampler": dataclasses.asdict(self.sampler),
        }

    @property
    def device(self) -> torch.device:
        """The network's device."""
        return self.bundle.device

    @torch.no_grad()
    def sample(self, obs: Any, n: int = 1, *, history: Any | None = None, seed: int | None = None) -> np.ndarray:
        """Several whole chunks for the same moment, in environment units; each from noise of its own.

        Args:
            obs: one observation or a batch.
            n: chunks per observation. The observation is encoded once, and all chunks are denoised as one batch.
            history: earlier observations of a single environment with a leading time axis, oldest first.
            seed: of the noise; continues the policy's own stream when absent.

        Returns:
            (n, 16, A) for one observation, (B, n, 16, A) for a batch; row 0 of a chunk is the action to take now.
        """
        n = whole(n, "n")
        memories, batched = remember(self._read, self._observe, obs, history)
        seed = next(self._seeds) if seed is None else seed_of(seed)
        names = [row_name(i, len(memories), batched) for i in range(len(memories))]
        chunks = self._chunks(memories, [(seed, 0)], n, names)
        chunks = chunks.reshape(len(memories), n, *chunks.shape[1:])
        return chunks if batched else chunks[0]

    # -- what ChunkAgent asks for ------------------------------------------------------------------------------------

    def _read(self, obs: Any) -> Frames:
        return read_observation(obs, self.spec, self.bundle.model.config.proprio_dim)

    def _observe(self, memory: Memory, frames: Frames, row: int) -> Memory:
        proprio = None if frames.proprio is None else frames.proprio[row]
        return memory.observed(frames.pixels[row], proprio, self.bundle.model.config.obs_steps)

    @torch.no_grad()
    def _decide(self, memories: list[Memory], deterministic: bool, names: Sequence[str]) -> list[Memory]:
        keys = [(0, 0) if deterministic else (m.seed, m.decisions) for m in memories]
        chunks = self._chunks(memories, keys, 1, names)
        return [
            replace(m, queue=chunk[: self.execute], decisions=m.decisions + 1)
            for m, chunk in zip(memories, chunks, strict=True)
        ]

    def _chunks(
        self, memories: Sequence[Memory], keys: Sequence[tuple[int, int]], n: int, names: Sequence[str]
    ) -> np.ndarray:
        """(B * n, action_steps, A) in environment units; noise from a key per memory, or one for all."""
        observed = self.observed(memories)
        normalized = sample_chunks(
            self.bundle.model,
            observed,
            n=n,
            sampler=self.sampler,
            generators=[noise_generator(key) for key in keys],
        )
        actions = self.bundle.normalizer.unnormalize("action", normalized).float().cpu().numpy()
        if (transforms := self.spec.action_transforms) and all_finite(actions):
            now = [m.proprio[-1] if m.proprio else None for m in memories]
            actions = np.stack(
                [
                    to_environment(transforms, chunk, ReferencePoses(now=now[row // n]))
                    for row, chunk in enumerate(actions)
                ]
            ).astype(np.float32)
        if not all_finite(actions):

            def inputs(row: int) -> Inputs:
                given = inputs_of(memories[row // n], names[row // n])
                return replace(given, computed=[("image encoder", observed[row // n])])

            raise not_finite(
                rows_not_finite(actions),
                weights=self.name,
                head="action head (noise predictor)",
                inputs=inputs,
                modules={"model": self.bundle.model},
            )
        space = self.action_space
        return np.clip(actions, space.low, space.high).astype(np.float32)

    def observed(self, memories: Sequence[Memory]) -> Tensor:
        """Features (B, To, F) of the newest observations; before the second one, the first stands for what preceded it."""
        check_networks(self.name, {"model": self.bundle.model}, self.device)
        c, spec = self.bundle.model.config, self.spec
        offsets = np.arange(1 - c.obs_steps, 1)
        index = [np.maximum(len(m.frames) - 1 + offsets, 0) for m in memories]
        frames = np.stack([m.frames[j] for m, row in zip(memories, index, strict=True) for j in row])
        frames = resize_frames(frames, c.encoder.image_size)
        pixels = torch.from_numpy(frames).to(self.device).unflatten(0, (len(memories), c.obs_steps))
        proprio = None
        if c.proprio_dim and spec.proprio_key is not None:
            rows = np.stack([_proprio(m, row, spec) for m, row in zip(memories, index, strict=True)])
            local = self.bundle.normalizer.normalize(spec.proprio_key, torch.from_numpy(rows))
            if not all_finite(local):
                raise InputError(
                    f"{spec.proprio_key!r} (from {rows.min():g} to {rows.max():g}) is not finite once normalised: give "
                    "values in environment units"
                )
            proprio = local.to(self.device)
        return self.bundle.model.observe(pixels, proprio)


def _proprio(memory: Memory, index: np.ndarray, spec: InterfaceSpec) -> np.ndarray:
    """float32 (To, P) as the network has it."""
    rows = np.stack([memory.proprio[j] for j in index])
    converted = to_network(spec.proprio_transforms, rows, ReferencePoses(now=rows[-1], start=memory.start))
    return np.asarray(converted, np.float32)
