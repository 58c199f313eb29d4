"""Several datasets with weights, as one: drawn in an order that is a pure function of (seed, step)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from uva_agents.data.dataset import Batch, LatentWindows

BLOCK = 4096
"""Windows drawn together: within each block every dataset has its share exactly, rounded to one window."""


@dataclass(frozen=True)
class MixtureOrder:
    """Which window and variant each step of training sees. A resumed run repeats it, see :class:`~uva_agents.data.EpochOrder`.

    Each dataset is gone through in an order of its own, every window once before any comes again.

    Args:
        windows: number of windows of each dataset.
        weights: share of each in what is drawn, up to a common factor; 0 leaves a dataset out.
        batch_size: per process.
        variants: number of variants of each.
        seed: of the order.
        rank, world: this process, and how many share each step.

    Raises:
        ValueError: lengths differ; a negative weight, or none above 0; a weight so small that it would never be drawn; a dataset
            without windows that has a weight.
    """

    windows: tuple[int, ...]
    weights: tuple[float, ...]
    batch_size: int
    variants: tuple[int, ...] | None = None
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        for name, value in (("weights", self.weights), ("variants", self.variants or self.windows)):
            if len(value) != len(self.windows):
                raise ValueError(f"{len(value)} {name} for {len(self.windows)} datasets")
        weights = np.asarray(self.weights, np.float64)
        if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
            raise ValueError(f"weights must be 0 or more, one of them above 0, got {self.weights}")
        for number, (count, quota) in enumerate(zip(self.windows, self.quotas, strict=True)):
            if self.weights[number] and not quota:
                raise ValueError(
                    f"dataset {number} has weight {self.weights[number]:g}, less than one window in {BLOCK}: raise it or use 0"
                )
            if quota and not count:
                raise ValueError(f"dataset {number} has weight {self.weights[number]:g} and no windows")

    @property
    def quotas(self) -> tuple[int, ...]:
        """Windows of each dataset in a block; together :data:`BLOCK`."""
        share = np.asarray(self.weights, np.float64)
        exact = share / share.sum() * BLOCK
        quota = np.floor(exact).astype(int)
        quota[np.argsort(quota - exact, kind="stable")[: BLOCK - quota.sum()]] += 1
        return tuple(int(q) for q in quota)

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Windows and variants (batch_size,) of a global step. Windows are numbered through all datasets."""
        begin = (step * self.world + self.rank) * self.batch_size
        draws = np.arange(begin, begin + self.batch_size)
        windows, variant = np.empty(len(draws), np.int64), np.empty(len(draws), np.int64)
        offsets = np.concatenate([[0], np.cumsum(self.windows)])
        for block in np.unique(draws // BLOCK):
            here = draws // BLOCK == block
            dataset, nth = _block(self.seed, int(block), self.quotas)
            slots = draws[here] % BLOCK
            found, count = dataset[slots], nth[slots]
            for number in np.unique(found):
                of_dataset = found == number
                chosen, varied = self._nth(int(number), count[of_dataset])
                places = np.flatnonzero(here)[of_dataset]
                windows[places], variant[places] = chosen + offsets[number], varied
        return windows, variant

    def _nth(self, dataset: int, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Window and variant of the n-th draws (k,) of a dataset."""
        size = self.windows[dataset]
        variants = 1 if self.variants is None else self.variants[dataset]
        windows, variant = np.empty(len(draws), np.int64), np.empty(len(draws), np.int64)
        for epoch in np.unique(draws // size):
            here = draws // size == epoch
            order, varied = _epoch(self.seed, dataset, int(epoch), size, variants)
            windows[here] = order[draws[here] % size]
            variant[here] = varied[windows[here]]
        return windows, variant


@lru_cache(maxsize=4)
def _block(seed: int, block: int, quotas: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Dataset of each of a block's draws, and how many draws of that dataset came before it since the beginning."""
    labels = np.repeat(np.arange(len(quotas)), quotas)
    labels = np.random.default_rng([seed, 0, block]).permutation(labels)
    nth = np.empty(BLOCK, np.int64)
    for dataset, quota in enumerate(quotas):
        nth[labels == dataset] = block * quota + np.arange(quota)
    return labels, nth


@lru_cache(maxsize=32)
def _epoch(seed: int, dataset: int, epoch: int, windows: int, variants: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 1, dataset, epoch])
    return rng.permutation(windows), rng.integers(0, variants, windows)


class MixtureWindows:
    """Windows of several datasets behind the interface of :class:`~uva_agents.data.LatentWindows`.

    Samples of a dataset without actions have zeros there and say so in ``Batch.has_actions``: they train the video task only.
    Missing proprioception is NaN, which the network reads as unknown, and so are missing targets of the state head.

    Args:
        parts: windows with the same tokens, window and number of actions.
        weights: see :class:`MixtureOrder`.

    Raises:
        ValueError: the parts do not fit together, with what differs.
    """

    def __init__(self, parts: Sequence[LatentWindows], weights: Sequence[float]) -> None:
        if not parts or len(parts) != len(weights):
            raise ValueError(f"{len(weights)} weights for {len(parts)} datasets")
        self.parts, self.weights = tuple(parts), tuple(float(w) for w in weights)
        self.spec = parts[0].spec
        self.variants = max(part.variants for part in parts)
        for what, values in (
            ("window", [part.spec for part in parts]),
            ("tokens (S, C)", [tuple(part.tokens.shape[1:]) for part in parts]),
            ("number of actions", [part.action_dim for part in parts]),
            ("frame state", [part.frame_state.shape[-1] for part in parts if part.frame_state is not None]),
            ("keypoints", [None if part.keypoints is None else part.keypoints.shape[-1] for part in parts]),
            ("history actions", [part.history_actions for part in parts]),
        ):
            if any(value != values[0] for value in values[1:]):
                raise ValueError(f"the datasets of a mixture must agree in {what}, got {', '.join(map(str, values))}")
        widths = {part.proprio.size for part in parts if part.proprio is not None}
        if len(widths) > 1:
            raise ValueError(f"the datasets of a mixture must agree in proprioception, got {sorted(widths)} numbers")
        texts = {part.text.shape[-1] for part in parts if part.text is not None}
        if len(texts) > 1:
            raise ValueError(
                f"the datasets of a mixture must agree in vectors of instructions, got {sorted(texts)} numbers"
            )
        self._offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def order(self, batch_size: int, *, seed: int = 0, rank: int = 0, world: int = 1) -> MixtureOrder:
        """What training sees, step by step."""
        sizes, variants = tuple(map(len, self.parts)), tuple(part.variants for part in self.parts)
        return MixtureOrder(sizes, self.weights, batch_size, variants, seed, rank, world)

    def batch(
        self,
        windows: np.ndarray | Sequence[int],
        variant: np.ndarray | int = 0,
        *,
        tokens: bool = True,
        history: np.ndarray | None = None,
        start_noise: np.ndarray | None = None,
    ) -> Batch:
        """See :meth:`LatentWindows.batch`; windows are numbered through all datasets."""
        windows = np.asarray(windows)
        variant = np.broadcast_to(np.asarray(variant), windows.shape)
        dataset = np.searchsorted(self._offsets, windows, side="right") - 1
        order, found = [], []
        for number in np.unique(dataset):
            here = np.flatnonzero(dataset == number)
            part = self.parts[number]
            own = part.batch(
                windows[here] - self._offsets[number],
                variant[here],
                tokens=tokens,
                history=history if history is None or history.ndim == 1 else history[here],
                start_noise=None if start_noise is None else start_noise[here],
            )
            if own.has_actions is None:
                own = dataclasses.replace(own, has_actions=torch.ones(len(here), dtype=torch.bool))
            order.append(here)
            found.append(own)
        back = torch.from_numpy(np.argsort(np.concatenate(order)))

        def join(name: str) -> Tensor | None:
            values = [getattr(batch, name) for batch in found]
            given = next((value for value in values if value is not None), None)
            if given is None:
                return None
            # What a dataset does not have is unknown, which is NaN to the network and to every loss.
            filled = [
                torch.full((len(here), *given.shape[1:]), float("nan")) if value is None else value
                for value, here in zip(values, order, strict=True)
            ]
            joined = torch.cat(filled)
            return joined[back] if len(joined) == len(windows) else joined  # frames have no rows without tokens

        return Batch(**{field.name: join(field.name) for field in dataclasses.fields(Batch)})  # type: ignore[arg-type]
