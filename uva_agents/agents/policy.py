"""Policy: observations to actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from uva_agents.agents.arguments import seed_of, whole
from uva_agents.agents.chunks import ChunkAgent, noise_generator, noise_seed, queue_of
from uva_agents.agents.encoding import ObservationEncoder
from uva_agents.agents.memory import Memory, inputs_of, row_name
from uva_agents.agents.observations import Frames
from uva_agents.agents.smoothing import smooth_actions
from uva_agents.agents.stepper import Start
from uva_agents.agents.weights import Weights
from uva_agents.errors import InputError, MachineError
from uva_agents.model import Context, SamplerConfig, sample_actions
from uva_agents.utils.memory import available_memory, in_words

_MUCH = 1 << 28
"""Bytes below which nobody asks how much memory is free."""


class Policy(ChunkAgent):
    """Samples a chunk of actions from the newest frames, executes the first few, and samples again.

    >>> policy = Policy.from_pretrained("pusht-nano")          # doctest: +SKIP
    >>> policy.reset(seed=0)                                   # doctest: +SKIP
    >>> action = policy.act(obs)                               # doctest: +SKIP

    Args:
        weights: shared weights.
        execute: actions of a chunk executed before the next decision; the weights' own number by default (8 of 16).
        steps: denoising steps per decision.
        temperature: scale of the sampling noise.
        ancestral: the released sampler (for weights that predict noise; released: ``steps=100, temperature=0.95``) instead
            of a deterministic few-step one.
        smooth: width of a moving average over the chunk, an odd number of actions; the released robot server uses 3.
        batch_size: decisions computed together. 1 makes a vectorised run equal the single runs bit for bit, because
            matrix products of another batch size round differently; raise it where throughput matters more.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        execute: int | None = None,
        steps: int = 16,
        temperature: float = 1.0,
        ancestral: bool = False,
        smooth: int = 1,
        batch_size: int = 1,
    ) -> None:
        chunk = weights.config.action_steps
        super().__init__(weights.spec, chunk=chunk, execute=execute, batch_size=batch_size)
        if whole(smooth, "smooth") % 2 == 0:
            raise InputError(f"smooth must be odd and positive, got {smooth}")
        self.weights = weights
        self.encoder = ObservationEncoder(weights)
        self.smooth = int(smooth)
        prediction = weights.config.action_head.prediction
        if ancestral and prediction != "epsilon":
            raise InputError(f"ancestral sampling needs weights that predict noise; these predict {prediction!r}")
        if (
            isinstance(temperature, bool)
            or not isinstance(temperature, int | float | np.number)
            or not 0 <= temperature < 1e6
        ):
            raise InputError(f"temperature must be a number of 0 or more, got {temperature!r:.60}")
        steps = whole(steps, "steps")
        self.sampler = SamplerConfig(action_steps=steps, temperature=float(temperature), ancestral=bool(ancestral))

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, device: str | torch.device = "auto", **options: Any) -> Self:
        """A shipped name, a weights folder or a released ``.ckpt`` file; ``options`` go to the constructor."""
        return cls(Weights.from_pretrained(name_or_path, device=device), **options)

    @property
    def lookback(self) -> int:
        """Observations before the current one that a decision may look at."""
        return self.encoder.frames_kept - 1

    @property
    def name(self) -> str:
        """Of the weights."""
        return self.weights.name

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its actions, as JSON values: an interrupted evaluation continues only with the same."""
        return {
            "weights": self.weights.fingerprint,
            "execute": self.execute,
            "smooth": self.smooth,
            "sampler": dataclasses.asdict(self.sampler),
        }

    @property
    def device(self) -> torch.device:
        """The networks' device."""
        return self.weights.device

    def _read(self, obs: Any) -> Frames:
        return self.encoder.read(obs)

    def _observe(self, memory: Memory, frames: Frames, row: int) -> Memory:
        return self.encoder.observe(memory, frames, row)

    def _acted(self, memory: Memory) -> Memory:
        c = self.weights.config
        memory = memory.acted(c.history_steps if c.history_actions else 0)
        return self.encoder.prefetch(memory, len(queue_of(memory)) + 1)

    @torch.no_grad()
    def _decide(self, memories: list[Memory], deterministic: bool, names: Sequence[str]) -> list[Memory]:
        """Sample a chunk for each memory and queue its first ``execute`` actions."""
        inputs, memories = self.encoder.context(memories)
        keys = [(0, 0) if deterministic else (m.seed, m.decisions) for m in memories]
        chunks = self._chunks(inputs, keys, 1)
        return [
            replace(m, queue=self._actions(m, chunk, name)[: self.execute], decisions=m.decisions + 1)
            for m, chunk, name in zip(memories, chunks, names, strict=True)
        ]

    def _chunks(self, inputs: Context, keys: list[tuple[int, int]], n: int) -> torch.Tensor:
        """``n`` chunks (B * n, steps, A) per sample, normalised; noise from a key per sample, or one for all."""
        c = self.weights.config
        if self.sampler.ancestral:
            # Draws noise at every step, from a stream of its own for every key.
            parts = [inputs] if len(keys) == 1 else [_row(inputs, i) for i in range(len(keys))]
            generators = [torch.Generator(self.device).manual_seed(noise_seed(key)) for key in keys]
            return torch.cat(
                [
                    sample_actions(self.weights.net, part, sampler=self.sampler, n=n, generator=g)
                    for part, g in zip(parts, generators, strict=True)
                ]
            )
        rows = inputs.batch_size * n // len(keys)
        noise = torch.cat([_noise(key, (rows, c.action_steps, c.action_dim)) for key in keys])
        noise = noise.to(self.device) * self.sampler.temperature
        return sample_actions(self.weights.net, inputs, sampler=self.sampler, n=n, noise=noise)

    def _actions(self, memory: Memory, normalized: torch.Tensor, name: str) -> np.ndarray:
        """Environment units (..., A), relative to where this environment is where that matters."""
        if self.smooth > 1:
            normalized = smooth_actions(normalized, taps=self.smooth)
        pose = memory.proprio[-1] if memory.proprio else None
        return self.weights.environment_actions(normalized, pose, inputs=inputs_of(memory, name))

    @torch.no_grad()
    def sample(self, obs: Any, n: int = 1, *, history: Any | None = None, seed: int | None = None) -> np.ndarray:
        """Several whole chunks for the same moment, in environment units.

        Args:
            obs: one observation or a batch.
            n: chunks per observation; they share the transformer's work.
            history: earlier observations of a single environment with a leading time axis, oldest first.
            seed: of the noise; continues the policy's own stream when absent.

        Returns:
            (n, 16, A) for one observation, (B, n, 16, A) for a batch.

        Raises:
            MachineError: the memory cannot hold that many.
        """
        n = whole(n, "n")
        memories, batched = self.encoder.memories(obs, history)
        self._check_memory(len(memories), n)
        inputs, memories = self.encoder.context(memories)
        names = [row_name(i, len(memories), batched) for i in range(len(memories))]
        actions = self._sampled(inputs, memories, names, n, seed)
        return actions if batched else actions[0]

    def shares_encoding(self, start: Any) -> bool:
        """Whether a world model of the same weights prepared this, so that :meth:`sample_from` can use it."""
        # A subclass that samples differently is asked to sample.
        return isinstance(start, Start) and start.weights is self.weights and type(self).sample is Policy.sample

    @torch.no_grad()
    def sample_from(
        self, start: Start, obs: Any, n: int, *, history: Any | None = None, seed: int | None = None
    ) -> np.ndarray:
        """(n, 16, A) as :meth:`sample` gives, with ``obs`` and ``history`` encoded already: ``start`` of the world model."""
        n = whole(n, "n")
        self._check_memory(1, n)
        return np.asarray(self._sampled(start.context, [start.memory], [row_name(0, 1, batched=False)], n, seed)[0])

    def _sampled(
        self, inputs: Context, memories: Sequence[Memory], names: Sequence[str], n: int, seed: int | None
    ) -> np.ndarray:
        """(B, n, steps, A) in environment units."""
        seed = next(self._seeds) if seed is None else seed_of(seed)
        chunks = self._chunks(inputs, [(seed, 0)], n)
        chunks = chunks.view(len(memories), n, *chunks.shape[1:])
        return np.stack([self._actions(*each) for each in zip(memories, chunks, names, strict=True)])

    def _check_memory(self, rows: int, n: int) -> None:
        c = self.weights.config
        # At the least, noise, actions and one hidden layer, in single precision.
        need = 4 * rows * n * c.action_steps * (3 * c.action_dim + c.width)
        if need > _MUCH and (free := available_memory()) is not None and need > free:
            raise MachineError(
                f"n={n} samples need {in_words(need)} of memory, {in_words(free)} are free: ask for fewer"
            )


def _noise(key: tuple[int, int], shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal numbers that depend on nothing but the key."""
    return torch.randn(shape, generator=noise_generator(key), device="cpu", dtype=torch.float32)


def _row(inputs: Context, i: int) -> Context:
    return Context(**{name: None if value is None else value[i : i + 1] for name, value in vars(inputs).items()})
