"""Planners that refine a distribution of plans: the cross-entropy method and model-predictive path integrals."""

from __future__ import annotations

from typing import Unpack

import numpy as np

from uva_agents.agents.arguments import real, whole
from uva_agents.errors import InputError
from uva_agents.planners.planner import Planner, PlannerOptions
from uva_agents.planners.search import Search


class CEM(Planner):
    """Cross-entropy method: fit a Gaussian to the best candidates, draw from it, repeat.

    The first candidates are the proposals, so that a policy gives the first mean and deviation. The best candidates of all
    iterations so far are refitted, and the best one ever is the plan.

    Args:
        iterations: rounds of ``n_samples`` candidates.
        elites: how many are fitted, or as a fraction below 1.
        smoothing: weight of the previous mean and deviation in the new ones, in [0, 1).
        min_std: smallest deviation, as a fraction of the action space.
        options: see :class:`~uva_agents.planners.planner.Planner`.
    """

    def __init__(
        self,
        *,
        iterations: int = 5,
        elites: float = 0.1,
        smoothing: float = 0.0,
        min_std: float = 0.0,
        **options: Unpack[PlannerOptions],
    ) -> None:
        super().__init__(**options)
        iterations, smoothing = whole(iterations, "iterations"), real(smoothing, "smoothing", 0, 1, below=True)
        min_std, part = real(min_std, "min_std", 0), real(elites, "elites", 0, above=True)
        count = (
            int(np.ceil(part * self.n_samples))
            if part < 1
            else whole(int(part) if part.is_integer() else elites, "elites")
        )
        if not 2 <= count <= self.n_samples:
            raise InputError(f"elites={elites} of {self.n_samples} candidates are {count}: at least 2 are needed")
        self.iterations, self.elites, self.smoothing, self.min_std = iterations, count, smoothing, min_std

    @property
    def identity(self) -> dict[str, object]:
        """What decides its actions, as JSON values."""
        own = {n: getattr(self, n) for n in ("iterations", "elites", "smoothing", "min_std")}
        return {**super().identity, **own}

    def search(self, search: Search, warm: np.ndarray | None) -> None:
        """Refine ``iterations`` times."""
        pool, costs = _first(search, self.n_samples, warm)
        mean: np.ndarray | None = None
        std: np.ndarray | None = None
        for _ in range(self.iterations - 1):
            order = np.argsort(costs, kind="stable")[: self.elites]
            order = order[np.isfinite(costs[order])]
            if search.out_of_time or not len(order):
                return
            pool, costs = pool[order], costs[order]
            s = self.smoothing
            mean = pool.mean(0) if mean is None else s * mean + (1 - s) * pool.mean(0)
            std = pool.std(0) if std is None else s * std + (1 - s) * pool.std(0)
            drawn = _drawn(search, mean, std, self.n_samples, self.min_std)
            pool, costs = np.concatenate([pool, drawn]), np.concatenate([costs, search.score(drawn)])


class MPPI(Planner):
    """Model-predictive path integrals: candidates around a mean, which moves to their average weighted by exp(-cost).

    The first candidates are the proposals, so that a policy gives the first mean and deviation. The last mean is a candidate, and
    the best candidate ever is the plan.

    Args:
        iterations: rounds of ``n_samples`` candidates.
        temperature: of the weights, in standard deviations of the costs: small follows the best candidates only.
        min_std: smallest deviation of the candidates, as a fraction of the action space.
        options: see :class:`~uva_agents.planners.planner.Planner`.
    """

    def __init__(
        self,
        *,
        iterations: int = 5,
        temperature: float = 0.2,
        min_std: float = 0.0,
        **options: Unpack[PlannerOptions],
    ) -> None:
        super().__init__(**options)
        iterations, min_std = whole(iterations, "iterations"), real(min_std, "min_std", 0)
        temperature = real(temperature, "temperature", 0, above=True)
        self.iterations, self.temperature, self.min_std = iterations, temperature, min_std

    @property
    def identity(self) -> dict[str, object]:
        """What decides its actions, as JSON values."""
        own = {n: getattr(self, n) for n in ("iterations", "temperature", "min_std")}
        return {**super().identity, **own}

    def search(self, search: Search, warm: np.ndarray | None) -> None:
        """Move the mean ``iterations`` times."""
        pool, costs = _first(search, self.n_samples, warm)
        for i in range(self.iterations):
            reached = np.isfinite(costs)
            if search.out_of_time or not reached.any():
                return
            pool, costs = pool[reached], costs[reached]
            weights = np.exp(-(costs - costs.min()) / max(self.temperature * costs.std(), 1e-12))
            weights /= weights.sum()
            mean = np.einsum("s,sta->ta", weights, pool)
            std = np.sqrt(np.einsum("s,sta->ta", weights, (pool - mean) ** 2))
            if i == self.iterations - 1:
                search.score(_inside(search, mean[None]))
                return
            pool = _drawn(search, mean, std, self.n_samples, self.min_std)
            costs = search.score(pool)


def _first(search: Search, n: int, warm: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The proposals and their costs."""
    pool, costs = [], []
    for batch in search.proposed(n, warm):
        pool.append(batch)
        costs.append(search.score(batch))
    return np.concatenate(pool), np.concatenate(costs)


def _drawn(search: Search, mean: np.ndarray, std: np.ndarray, n: int, min_std: float) -> np.ndarray:
    """``n`` candidates around the mean, which is the first of them."""
    width = search.space.high.astype(np.float64) - search.space.low
    std = np.maximum(std, min_std * np.where(np.isfinite(width), width, 0.0))
    noise = search.rng.standard_normal((n, *mean.shape))
    noise[0] = 0
    return _inside(search, mean + std * noise)


def _inside(search: Search, plans: np.ndarray) -> np.ndarray:
    return np.clip(plans, search.space.low, search.space.high).astype(np.float32)
