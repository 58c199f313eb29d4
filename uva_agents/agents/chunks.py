"""What agents that sample chunks of actions share: execute the first few, then look and sample again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from uva_agents.agents.arguments import whole
from uva_agents.agents.memory import Memory, PolicyState, row_name
from uva_agents.agents.observations import Frames
from uva_agents.agents.stateful import StatefulAgent
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.errors import InputError


class ChunkAgent(StatefulAgent[PolicyState]):
    """An :class:`~uva_agents.agents.base.Agent` whose subclass says how to read, remember and decide.

    Args:
        spec: of the weights.
        chunk: actions per sample.
        execute: actions of a chunk executed before the next decision; the weights' own number by default.
        batch_size: decisions computed together. 1 makes a vectorised run equal the single runs bit for bit, because
            matrix products of another batch size round differently; raise it where throughput matters more.
    """

    state_type = PolicyState

    def __init__(self, spec: InterfaceSpec, *, chunk: int, execute: int | None, batch_size: int) -> None:
        execute = spec.execute if execute is None else whole(execute, "execute")
        if not 1 <= execute <= chunk:
            raise InputError(f"execute must be between 1 and the chunk length {chunk}, got {execute}")
        super().__init__()
        self.spec = spec
        self.chunk = chunk
        self.execute = execute
        self.batch_size = whole(batch_size, "batch_size")

    @property
    def action_space(self) -> gym.spaces.Box:
        """Of one environment action."""
        return self.spec.action_space

    def check_env(self, env: gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]) -> None:
        """Refuse an environment whose action space is not the one these weights were trained for.

        Raises:
            ValueError: naming both spaces.
        """
        space = getattr(env, "single_action_space", env.action_space)
        own = self.action_space
        if not (
            isinstance(space, gym.spaces.Box)
            and space.shape == own.shape
            and np.allclose(space.low, own.low)
            and np.allclose(space.high, own.high)
        ):
            raise InputError(f"these weights act in {own}, the environment wants {space}: use weights trained for it")

    def predict(
        self,
        observation: Any,
        state: PolicyState | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, PolicyState]:
        """stable-baselines3's ``predict``.

        Args:
            observation: one observation or a batch; what it holds: docs/tutorials/act.md.
            state: what the previous call returned; ``None`` starts an episode.
            episode_start: (n,) bool, environments whose observation is the first of an episode.
            deterministic: use the same start noise at every decision, so that the action is a function of the history.

        Returns:
            Actions (A,) or (n, A) in environment units inside ``action_space``, and the next state.

        Raises:
            TypeError, KeyError, InputError: naming what is wrong with the observation or the state.
            NotFiniteError: the network gave NaN or infinity; it names the observation.
        """
        if not isinstance(deterministic, bool | np.bool_):  # "no" would count as true
            raise InputError(f"deterministic must be True or False, got {deterministic!r:.60}")
        frames = self._read(observation)
        state = self._current(state, len(frames), episode_start)
        rows = [self._observe(row, frames, i) for i, row in enumerate(state.rows)]
        needs_replan = [i for i, row in enumerate(rows) if row.queue is None or len(row.queue) == 0]
        for begin in range(0, len(needs_replan), self.batch_size):
            indices = needs_replan[begin : begin + self.batch_size]
            names = [row_name(i, len(rows), frames.batched) for i in indices]
            for i, row in zip(indices, self._decide([rows[i] for i in indices], deterministic, names), strict=True):
                rows[i] = row
        actions = np.stack([queue_of(row)[0] for row in rows])
        rows = [self._acted(row) for row in rows]
        return (actions if frames.batched else actions[0]), PolicyState(tuple(rows))

    def _read(self, obs: Any) -> Frames:
        """Checked observations."""
        raise NotImplementedError

    def _observe(self, memory: Memory, frames: Frames, row: int) -> Memory:
        """Memory with one environment's newest observation."""
        raise NotImplementedError

    def _decide(self, memories: list[Memory], deterministic: bool, names: Sequence[str]) -> list[Memory]:
        """Memories with the first ``execute`` actions of a new chunk queued, and one more decision counted.

        Args:
            names: of their observations, for errors.
        """
        raise NotImplementedError

    def _acted(self, memory: Memory) -> Memory:
        """Memory after the queue's first action was handed out."""
        return memory.acted(0)


def queue_of(memory: Memory) -> np.ndarray:
    """(k, A) actions still to execute."""
    assert memory.queue is not None
    return memory.queue


def noise_seed(key: tuple[int, int]) -> int:
    """Seed of a decision's noise, from an episode's seed and the number of the decision."""
    return int(np.random.SeedSequence([abs(key[0]), key[1]]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def noise_generator(key: tuple[int, int]) -> torch.Generator:
    """On the CPU, so that every device gets the same numbers."""
    return torch.Generator().manual_seed(noise_seed(key))
