"""Proposals for any bounded action space, where there is no policy to ask."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.errors import InputError


class GaussianProposals:
    """Actions around a mean, clipped to the action space.

    Args:
        action_space: of one action, (A,).
        horizon: actions per candidate.
        mean, std: broadcast to (horizon, A); by default the middle of the action space and a quarter of its width.
        correlation: between successive actions, 0 (independent) to below 1 (nearly constant).

    Raises:
        ValueError: no bounds and no mean and std; arguments out of range.
    """

    def __init__(
        self,
        action_space: gym.spaces.Box,
        *,
        horizon: int = 16,
        mean: Any | None = None,
        std: Any | None = None,
        correlation: float = 0.0,
    ) -> None:
        _check_space(action_space, horizon)
        if not 0 <= correlation < 1:
            raise InputError(f"correlation must be in [0, 1), got {correlation}")
        bounded = np.isfinite(action_space.low).all() and np.isfinite(action_space.high).all()
        if not bounded and (mean is None or std is None):
            raise InputError(
                f"{action_space} has no bounds to derive mean and std from: give both, GaussianProposals(space, mean=..., std=...)"
            )
        low, high = action_space.low.astype(np.float64), action_space.high.astype(np.float64)
        shape = (horizon, *action_space.shape)
        self.action_space = action_space
        self.horizon = horizon
        self.mean = np.broadcast_to(low / 2 + high / 2 if mean is None else np.asarray(mean, np.float64), shape)
        self.std = np.broadcast_to(high / 4 - low / 4 if std is None else np.asarray(std, np.float64), shape)
        self.correlation = correlation
        self._seeds = itertools.count()
        if not (np.isfinite(self.std).all() and (self.std >= 0).all() and np.isfinite(self.mean).all()):
            raise InputError("mean and std must be finite, and std not negative")

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the samples, as JSON values."""
        return {
            "proposals": type(self).__name__,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "correlation": self.correlation,
        }

    def sample(self, obs: Any, n: int, *, seed: int | None = None) -> np.ndarray:
        """(n, horizon, A) float32; ``obs`` plays no part. ``seed``: the next of an own sequence when absent."""
        rng = np.random.default_rng(next(self._seeds) if seed is None else seed)
        noise = rng.standard_normal((n, *self.mean.shape))
        rho = self.correlation
        for t in range(1, self.horizon if rho else 0):
            noise[:, t] = rho * noise[:, t - 1] + np.sqrt(1 - rho**2) * noise[:, t]
        actions = self.mean + self.std * noise
        clipped: np.ndarray = np.clip(actions, self.action_space.low, self.action_space.high).astype(np.float32)
        return clipped


class UniformProposals:
    """Independent uniform actions.

    Args:
        action_space: of one action, (A,), bounded.
        horizon: actions per candidate.
        hold: control steps for which each drawn action is repeated.
    """

    def __init__(self, action_space: gym.spaces.Box, *, horizon: int = 16, hold: int = 1) -> None:
        _check_space(action_space, horizon)
        if not (np.isfinite(action_space.low).all() and np.isfinite(action_space.high).all()):
            raise InputError(f"{action_space} has no bounds: use GaussianProposals with mean= and std=")
        if not 1 <= hold <= horizon:
            raise InputError(f"hold must be between 1 and the horizon {horizon}, got {hold}")
        self.action_space, self.horizon, self.hold = action_space, horizon, hold
        self._seeds = itertools.count()

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the samples, as JSON values."""
        return {"proposals": type(self).__name__, "horizon": self.horizon, "hold": self.hold}

    def sample(self, obs: Any, n: int, *, seed: int | None = None) -> np.ndarray:
        """(n, horizon, A) float32; ``obs`` plays no part. ``seed``: the next of an own sequence when absent."""
        rng = np.random.default_rng(next(self._seeds) if seed is None else seed)
        low, high = np.asarray(self.action_space.low, float), np.asarray(self.action_space.high, float)
        draws = rng.uniform(low, high, (n, -(-self.horizon // self.hold), *self.action_space.shape))
        return draws.repeat(self.hold, axis=1)[:, : self.horizon].astype(np.float32)


def _check_space(space: gym.spaces.Box, horizon: int) -> None:
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise InputError(f"planning needs a Box of shape (A,) as action space, got {space}")
    if horizon < 1:
        raise InputError(f"horizon must be at least 1, got {horizon}")
