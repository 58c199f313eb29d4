"""Policy: observations to actions."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch

from uva_agents.agents.context import context, frames_kept, look_ahead, memories_from, observe, read
from uva_agents.agents.core import UVA
from uva_agents.agents.memory import Memory, PolicyState
from uva_agents.agents.pose_actions import smooth_actions
from uva_agents.model import Context, SamplerConfig, sample_actions


class Policy:
    """Samples a chunk of actions from the newest frames, executes the first few, and samples again.

    >>> policy = Policy.from_pretrained("pusht-nano")          # doctest: +SKIP
    >>> policy.reset(seed=0)                                   # doctest: +SKIP
    >>> action = policy.act(obs)                               # doctest: +SKIP

    Args:
        uva: shared weights.
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
        uva: UVA,
        *,
        execute: int | None = None,
        steps: int = 16,
        temperature: float = 1.0,
        ancestral: bool = False,
        smooth: int = 1,
        batch_size: int = 1,
    ) -> None:
        chunk = uva.bundle.model.config.action_steps
        execute = uva.bundle.spec.execute if execute is None else execute
        if not 1 <= execute <= chunk:
            raise ValueError(f"execute must be between 1 and the chunk length {chunk}, got {execute}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if smooth < 1 or smooth % 2 == 0:
            raise ValueError(f"smooth must be odd and positive, got {smooth}")
        self.uva = uva
        self.execute = execute
        self.smooth = smooth
        prediction = uva.bundle.model.config.action_head.prediction
        if ancestral and prediction != "epsilon":
            raise ValueError(f"ancestral sampling needs weights that predict noise; these predict {prediction!r}")
        self.sampler = SamplerConfig(action_steps=steps, temperature=temperature, ancestral=ancestral)
        self.batch_size = batch_size
        self._seeds = itertools.count()
        self._state: PolicyState | None = None

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, device: str | torch.device = "auto", **options: Any) -> Self:
        """A shipped name, a weights folder or a released ``.ckpt`` file; ``options`` go to the constructor."""
        return cls(UVA.from_pretrained(name_or_path, device=device), **options)

    @property
    def action_space(self) -> gym.spaces.Box:
        """Of one environment action."""
        return self.uva.bundle.spec.action_space

    @property
    def lookback(self) -> int:
        """Observations before the current one that a decision may look at."""
        return frames_kept(self.uva) - 1

    @property
    def name(self) -> str:
        """Of the weights."""
        return self.uva.bundle.name

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its actions, as JSON values: an interrupted evaluation continues only with the same."""
        return {
            "weights": self.uva.fingerprint,
            "execute": self.execute,
            "smooth": self.smooth,
            "sampler": dataclasses.asdict(self.sampler),
        }

    @property
    def device(self) -> torch.device:
        return self.uva.device

    def check_env(self, env: gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]) -> None:
        """Refuse an environment whose action space is not the one these weights were trained for.

        Raises:
            ValueError: naming both spaces.
        """
        space = getattr(env, "single_action_space", env.action_space)
        mine = self.action_space
        if not (
            isinstance(space, gym.spaces.Box)
            and space.shape == mine.shape
            and np.allclose(space.low, mine.low)
            and np.allclose(space.high, mine.high)
        ):
            raise ValueError(f"these weights act in {mine}, the environment wants {space}: use weights trained for it")

    # -- state -------------------------------------------------------------------------------------------------------

    def initial_state(self, batch_size: int = 1, *, seed: int | Sequence[int] | None = None) -> PolicyState:
        """State before the first observation; one seed per environment, or consecutive ones from a single seed."""
        if seed is None:
            seeds = [next(self._seeds) for _ in range(batch_size)]
        elif isinstance(seed, Sequence):
            seeds = [int(s) for s in seed]
        else:
            seeds = [int(seed) + i for i in range(batch_size)]
        if len(seeds) != batch_size:
            raise ValueError(f"{len(seeds)} seeds for {batch_size} environments")
        return PolicyState(tuple(Memory(s) for s in seeds))

    def reset(self, *, seed: int | None = None) -> None:
        """Begin a new episode in :meth:`act`: frame history and queued actions are dropped."""
        if seed is not None:
            self._seeds = itertools.count(seed)
        self._state = None

    # -- acting ------------------------------------------------------------------------------------------------------

    def act(self, obs: Any) -> np.ndarray:
        """The next action for one observation (A,) or a batch (B, A), following one episode since :meth:`reset`."""
        action, self._state = self.predict(obs, self._state)
        return action

    def predict(
        self,
        observation: Any,
        state: PolicyState | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, PolicyState]:
        """stable-baselines3's ``predict``.

        Args:
            observation: one observation or a batch; see the observation contract in the README.
            state: what the previous call returned; ``None`` starts an episode.
            episode_start: (n,) bool, environments whose observation is the first of an episode.
            deterministic: use the same start noise at every decision, so that the action is a function of the history.

        Returns:
            Actions (A,) or (n, A) in environment units inside ``action_space``, and the next state.

        Raises:
            TypeError, KeyError, ValueError: naming what is wrong with the observation or the state.
        """
        frames = read(self.uva, observation)
        if state is None:
            state = self.initial_state(len(frames))
        if not isinstance(state, PolicyState) or len(state) != len(frames):
            found = f"{len(state)} environments" if isinstance(state, PolicyState) else type(state).__name__
            raise ValueError(f"state is for {found}, the observation has {len(frames)}; pass what predict returned")
        if episode_start is not None:
            state = state.restarted(np.asarray(episode_start))
        rows = [observe(self.uva, row, frames, i) for i, row in enumerate(state.rows)]
        hungry = [i for i, row in enumerate(rows) if row.queue is None or len(row.queue) == 0]
        for begin in range(0, len(hungry), self.batch_size):
            some = hungry[begin : begin + self.batch_size]
            for i, row in zip(some, self._decide([rows[i] for i in some], deterministic), strict=True):
                rows[i] = row
        actions = np.stack([_queue(row)[0] for row in rows])
        c = self.uva.bundle.model.config
        rows = [row.acted(c.history_steps if c.history_actions else 0) for row in rows]
        rows = [look_ahead(self.uva, row, len(_queue(row)) + 1) for row in rows]
        return (actions if frames.batched else actions[0]), PolicyState(tuple(rows))

    @torch.no_grad()
    def _decide(self, memories: list[Memory], deterministic: bool) -> list[Memory]:
        """Sample a chunk for each memory and queue its first ``execute`` actions."""
        inputs, memories = context(self.uva, memories)
        keys = [(0, 0) if deterministic else (m.seed, m.decisions) for m in memories]
        chunks = self._chunks(inputs, keys, 1)
        return [
            replace(m, queue=self._actions(m, chunk)[: self.execute], decisions=m.decisions + 1)
            for m, chunk in zip(memories, chunks, strict=True)
        ]

    def _chunks(self, inputs: Context, keys: list[tuple[int, int]], n: int) -> torch.Tensor:
        """``n`` chunks (B * n, steps, A) per sample, normalised; noise from a key per sample, or one for all."""
        c = self.uva.bundle.model.config
        if self.sampler.ancestral:
            # Draws noise at every step, from a stream of its own for every key.
            parts = [inputs] if len(keys) == 1 else [_row(inputs, i) for i in range(len(keys))]
            generators = [torch.Generator(self.device).manual_seed(noise_seed(key)) for key in keys]
            return torch.cat(
                [
                    sample_actions(self.uva.bundle.model, part, sampler=self.sampler, n=n, generator=g)
                    for part, g in zip(parts, generators, strict=True)
                ]
            )
        rows = inputs.batch_size * n // len(keys)
        noise = torch.cat([_noise(key, (rows, c.action_steps, c.action_dim)) for key in keys])
        noise = noise.to(self.device) * self.sampler.temperature
        return sample_actions(self.uva.bundle.model, inputs, sampler=self.sampler, n=n, noise=noise)

    def _actions(self, memory: Memory, normalized: torch.Tensor) -> np.ndarray:
        """Environment units (..., A), relative to where this environment is where that matters."""
        if self.smooth > 1:
            normalized = smooth_actions(normalized, taps=self.smooth)
        return self.uva.environment_actions(normalized, memory.proprio[-1] if memory.proprio else None)

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
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        memories, batched = memories_from(self.uva, obs, history)
        inputs, _ = context(self.uva, memories)
        seed = next(self._seeds) if seed is None else seed
        chunks = self._chunks(inputs, [(seed, 0)], n)
        chunks = chunks.view(len(memories), n, *chunks.shape[1:])
        actions = np.stack([self._actions(m, chunk) for m, chunk in zip(memories, chunks, strict=True)])
        return actions if batched else actions[0]


def _queue(memory: Memory) -> np.ndarray:
    assert memory.queue is not None
    return memory.queue


def noise_seed(key: tuple[int, int]) -> int:
    """Seed of a decision's noise, from an episode's seed and the number of the decision."""
    return int(np.random.SeedSequence([abs(key[0]), key[1]]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _noise(key: tuple[int, int], shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal numbers that depend on nothing but the key; made on the CPU, so that every device gets the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(noise_seed(key)))


def _row(inputs: Context, i: int) -> Context:
    return Context(**{name: None if value is None else value[i : i + 1] for name, value in vars(inputs).items()})
