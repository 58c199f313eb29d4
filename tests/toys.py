"""A small environment and a small agent with which an evaluation can be checked to the last bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

WALK = "uvatest/Walk-v0"


class Walk(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """A point on a line. Episodes take 3 to 9 steps, depending on the seed; coverage is the fraction of a lap.

    Args:
        breaks: seeds whose episode raises at its second step.
        broken_resets: seeds that cannot be reset to.
        exits: seeds whose episode ends the process at its second step.
        killed: seeds whose episode gets the process killed at its second step, as the system does when memory is short.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 5}
    observation_space = gym.spaces.Dict({"agent_pos": gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)})
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(
        self,
        render_mode: str | None = None,
        breaks: Sequence[int] = (),
        broken_resets: Sequence[int] = (),
        exits: Sequence[int] = (),
        killed: Sequence[int] = (),
    ) -> None:
        self.render_mode = render_mode
        self._killed = killed
        self._breaks, self._broken_resets, self._exits = breaks, broken_resets, exits

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        assert seed is not None, "an evaluation gives every episode its seed"
        if seed in self._broken_resets:
            raise OSError("the camera is unplugged")
        self._seed, self._steps, self._length = seed, 0, 3 + seed % 7
        self._x = float(self.np_random.uniform(0, 0.3))
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        if self._steps == 2 and self._seed in self._breaks:
            raise ZeroDivisionError("the simulator blew up")
        if self._steps == 2 and self._seed in self._exits:
            os._exit(3)
        if self._steps == 2 and self._seed in self._killed:
            os.kill(os.getpid(), signal.SIGKILL)
        self._x += 0.2 * float(action[0])
        return self._observation(), self._x, self._steps == self._length, False, self._info()

    def render(self) -> Any:
        return np.full((32, 48, 3), int(np.clip(self._x, 0, 1) * 255), np.uint8)

    def _observation(self) -> dict[str, np.ndarray]:
        return {"agent_pos": np.array([self._x], np.float32)}

    def _info(self) -> dict[str, Any]:
        coverage = float(np.clip(self._x, 0, 1))
        return {"coverage": coverage, "is_success": coverage > 0.5}


def register() -> None:
    """Make ``WALK`` known; twice does no harm."""
    if WALK not in gym.registry:
        gym.register(WALK, entry_point=Walk)


@dataclass(frozen=True)
class NoisyState:
    """Per row: the seed of its random stream, what it has drawn so far, and the sum of what it has seen."""

    seeds: tuple[int, ...]
    draws: tuple[int, ...]
    memory: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def decisions(self) -> np.ndarray:
        return np.array(self.draws) // 2  # as if every second action came from a queue

    def restarted(self, mask: np.ndarray, seeds: Sequence[int] | None = None) -> NoisyState:
        assert seeds is not None
        rows = range(len(self))
        return NoisyState(
            tuple(seeds[i] if mask[i] else self.seeds[i] for i in rows),
            tuple(0 if mask[i] else self.draws[i] for i in rows),
            tuple(0.0 if mask[i] else self.memory[i] for i in rows),
        )


class NoisyAgent:
    """Adds noise from the row's stream to something it remembers: both go wrong if rows or episodes get mixed up."""

    action_space = Walk.action_space
    stop_after: int | None = None

    def __init__(self) -> None:
        self.calls = 0

    def initial_state(self, batch_size: int = 1, *, seed: Any = None) -> NoisyState:
        return NoisyState(tuple(seed), (0,) * batch_size, (0.0,) * batch_size)

    def predict(
        self, observation: Any, state: NoisyState, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, NoisyState]:
        self.calls += 1
        if self.stop_after is not None and self.calls > self.stop_after:
            raise KeyboardInterrupt
        seen = observation["agent_pos"][:, 0].astype(float)
        memory = np.array(state.memory) + seen
        noise = [np.random.default_rng([s, n]).normal() for s, n in zip(state.seeds, state.draws, strict=True)]
        actions = np.tanh(0.1 * memory + (0.0 if deterministic else np.array(noise)))[:, None]
        state = replace(state, draws=tuple(n + 1 for n in state.draws), memory=tuple(memory))
        return actions.astype(np.float32), state


def noisy_agent() -> NoisyAgent:
    """For ``tests.toys:noisy_agent`` on a command line."""
    register()
    return NoisyAgent()
