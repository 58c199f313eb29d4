"""Agents of the arm's benchmarks that need no weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

BLIND = ("scripted", "random")
"""Agents that see no pictures."""


class ScriptedAgent:
    """The demonstrator as an agent: it is told by the twin where everything is.

    Args:
        env: ``uva/ArxX5-v0``, wrapped or not: the one that it acts in.
    """

    name = "scripted"

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._arm: Any = env.unwrapped
        self._actions: Iterator[np.ndarray] = iter(())

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """stable-baselines3's signature, for one environment: an action (1, A)."""
        if state is None or (episode_start is not None and np.any(episode_start)):
            self._actions = self._arm.demonstration()
        action = next(self._actions, None)
        return np.asarray(self._arm.hold_action() if action is None else action)[None], True


@dataclass(frozen=True)
class RandomState:
    """A seed and a number of steps for each environment, so that episodes do not depend on those before."""

    seeds: tuple[int, ...]
    steps: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.seeds)

    def restarted(self, mask: np.ndarray, seeds: Any = None) -> RandomState:
        """See :meth:`~uva_agents.agents.base.AgentState.restarted`."""
        new = self.seeds if seeds is None else tuple(seeds)
        return RandomState(
            tuple(n if m else s for m, n, s in zip(mask, new, self.seeds, strict=True)),
            tuple(0 if m else s for m, s in zip(mask, self.steps, strict=True)),
        )


class RandomAgent:
    """Draws from the action space.

    Args:
        action_space: of the environment.
    """

    name = "random"

    def __init__(self, action_space: gym.spaces.Box) -> None:
        self.action_space = action_space

    def initial_state(self, batch_size: int = 1, *, seed: Any = None) -> RandomState:
        """See :meth:`~uva_agents.agents.base.Agent.initial_state`."""
        seeds = [0] * batch_size if seed is None else np.broadcast_to(seed, batch_size).tolist()
        return RandomState(tuple(seeds), (0,) * batch_size)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, RandomState]:
        """Actions (n, A)."""
        now: RandomState = self.initial_state() if state is None else state
        low, high = self.action_space.low, self.action_space.high
        rows = [
            np.random.default_rng([seed, step]).uniform(low, high)
            for seed, step in zip(now.seeds, now.steps, strict=True)
        ]
        return np.array(rows, np.float32), RandomState(now.seeds, tuple(step + 1 for step in now.steps))


def blind_agent(name: str, env: gym.Env[Any, Any]) -> ScriptedAgent | RandomAgent:
    """One of :data:`BLIND`, for that environment."""
    if name == "scripted":
        return ScriptedAgent(env)
    assert isinstance(env.action_space, gym.spaces.Box)
    return RandomAgent(env.action_space)
