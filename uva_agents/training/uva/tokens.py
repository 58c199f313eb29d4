"""Latents as the network sees them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from uva_agents.data import LatentStore
from uva_agents.data.rows import RowArray, standardized, token_statistics
from uva_agents.data.shards import ShardedArray


def standardized_tokens(
    statistics: tuple[Tensor, Tensor], store: LatentStore, tokens: Sequence[RowArray], *, keep: bool = False
) -> Sequence[RowArray]:
    """Tokens as the network sees them; their statistics, over every variant, go into its buffers.

    Most of an image is background, the same in every frame: unless it is subtracted, it drowns the rest.
    """
    if not keep:
        found = token_statistics(tokens)
        statistics[0].copy_(torch.from_numpy(found[0]))
        statistics[1].copy_(torch.from_numpy(np.maximum(found[1], 0.05)))
    mean, std = (value.numpy() for value in statistics)
    return [_as_seen(store, rows, mean, std) for rows in tokens]


def _as_seen(store: LatentStore, rows: RowArray, mean: np.ndarray, std: np.ndarray) -> RowArray:
    if isinstance(rows, ShardedArray):
        return store.standardized(rows, mean, std)
    # In a dry run one row stands for all of them.
    return np.broadcast_to(standardized(np.asarray(rows[:1]), mean, std), rows.shape)
