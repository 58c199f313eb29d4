"""The contract every agent keeps, and the error a wrong checkpoint name gets.

An agent maps observations to environment actions. What it remembers between calls (frame history, queue of actions still
to execute, random stream) is a *value*, :class:`AgentState`, that goes in and comes out; nothing is hidden in the agent.
A vectorised run therefore equals the single runs, whatever the environment's autoreset mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import gymnasium as gym
import numpy as np

Observation = Mapping[str, Any]


@runtime_checkable
class AgentState(Protocol):
    """One row per environment. Immutable: every method returns a new value."""

    def __len__(self) -> int: ...

    def restarted(self, mask: np.ndarray, seeds: Sequence[int] | None = None) -> Self:
        """Rows where ``mask`` is true begin a new episode.

        Args:
            mask: (n,) bool.
            seeds: (n,) seeds of the new episodes' random streams; ``None`` continues from each row's own seed. Entries of
                rows that are not restarted are ignored.
        """
        ...


@runtime_checkable
class Agent(Protocol):
    """Anything that :func:`uva_agents.evaluate` can run and that keeps its memory in an :class:`AgentState`."""

    @property
    def action_space(self) -> gym.spaces.Box:
        """Of one environment action."""
        ...

    def initial_state(self, batch_size: int = 1, *, seed: int | Sequence[int] | None = None) -> AgentState:
        """State before the first observation; ``seed`` is one seed, or one per environment."""
        ...

    def reset(self, *, seed: int | None = None) -> None:
        """Forget the episode that :meth:`act` has been following."""
        ...

    def act(self, obs: Observation) -> np.ndarray:
        """One environment action, in environment units, inside ``action_space``."""
        ...

    def predict(
        self,
        observation: Observation,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """stable-baselines3's signature: actions for one observation or a batch, and the next state."""
        ...
