"""Proposals that need no policy: random walks from where the end effector is, and mixtures of two proposals."""

from __future__ import annotations

from typing import Any

import numpy as np

from uva_agents.agents.observations import keys_of, to_floats
from uva_agents.errors import InputError, MissingKeyError
from uva_agents.planners.abilities import action_space_of, identity_of, label_of, proposals_lookback, sample_options
from uva_agents.planners.protocols import Proposals, SharesEncoding


class RandomWalk:
    """Random walks from where the end effector is: a new direction and speed every few steps.

    Args:
        action_space: positions, (A,).
        horizon: actions per candidate.
        hold: steps between changes of direction.
        stride: greatest change per step, in units of an action; by default 1/32 of the action space's width.
        key: of the observation, the position (A,) that they start from.
    """

    lookback = 0

    def __init__(
        self,
        action_space: Any,
        *,
        horizon: int = 16,
        hold: int = 4,
        stride: float | None = None,
        key: str = "agent_pos",
    ) -> None:
        if stride is None:
            stride = float(np.min(action_space.high.astype(np.float64) - action_space.low)) / 32
            if not np.isfinite(stride):
                raise InputError(f"{action_space} has no bounds to derive a stride from: give stride=")
        if not 1 <= hold <= horizon or not stride > 0:
            raise InputError(
                f"hold must be between 1 and the horizon {horizon} and stride positive, got {hold}, {stride}"
            )
        self.action_space, self.horizon, self.hold, self.stride, self.key = action_space, horizon, hold, stride, key

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the samples, as JSON values."""
        return {"proposals": "RandomWalk", "horizon": self.horizon, "hold": self.hold, "stride": self.stride}

    def sample(self, obs: Any, n: int, *, seed: int | None = None) -> np.ndarray:
        """(n, horizon, A) float32, inside the action space.

        Raises:
            KeyError, InputError: the observation has no finite position.
        """
        rng = np.random.default_rng(seed)
        if self.key not in obs:
            raise MissingKeyError(f"the observation has no {self.key!r} to start from; its keys are {keys_of(obs)}")
        position = to_floats(obs[self.key], repr(self.key)).astype(np.float64)
        if position.shape != self.action_space.shape or not np.isfinite(position).all():
            raise InputError(
                f"{self.key!r} must be {self.action_space.shape} finite numbers to start from, got {position}"
            )
        legs = -(-self.horizon // self.hold)
        steps = rng.uniform(-self.stride, self.stride, (n, legs, len(position))).repeat(self.hold, axis=1)
        actions = position + steps[:, : self.horizon].cumsum(axis=1)
        return np.asarray(np.clip(actions, self.action_space.low, self.action_space.high), np.float32)


class MixedProposals:
    """Candidates of two proposals, half of each.

    Args:
        first, second: anything with ``sample(obs, n)``, with the same number of actions per candidate.
    """

    def __init__(self, first: Proposals, second: Proposals) -> None:
        self.first, self.second = first, second
        self.action_space = action_space_of(first)
        self.lookback = max(proposals_lookback(first), proposals_lookback(second))

    @property
    def name(self) -> str:
        """Of both."""
        return f"{label_of(self.first)} + {label_of(self.second)}"

    @property
    def identity(self) -> list[Any]:
        """Of both, as JSON values."""
        return [identity_of(self.first), identity_of(self.second)]

    def sample(self, obs: Any, n: int, *, history: Any = None, seed: int | None = None) -> np.ndarray:
        """(n, T, A); an odd one more of the first."""
        return self._mixed(None, obs, n, history, seed)

    def shares_encoding(self, start: Any) -> bool:
        """Whether one of them does."""
        return any(_shares(part, start) for part in (self.first, self.second))

    def sample_from(self, start: Any, obs: Any, n: int, *, history: Any = None, seed: int | None = None) -> np.ndarray:
        """(n, T, A) as :meth:`sample` gives; those that share the encoding of the dynamics start from it."""
        return self._mixed(start, obs, n, history, seed)

    def _mixed(self, start: Any, obs: Any, n: int, history: Any, seed: int | None) -> np.ndarray:
        samples = []
        for part, count in ((self.first, n - n // 2), (self.second, n // 2)):
            if not count:
                continue
            options = {"history": history, "seed": seed}
            given = {k: v for k, v in options.items() if k in sample_options(part)}
            if isinstance(part, SharesEncoding) and _shares(part, start):
                samples.append(part.sample_from(start, obs, count, **given))
            else:
                samples.append(part.sample(obs, count, **given))
        return np.concatenate(samples)


def _shares(part: Proposals, start: Any) -> bool:
    return start is not None and isinstance(part, SharesEncoding) and part.shares_encoding(start)
