"""Task and mask sampling for training, and the order in which sampling reveals positions."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from uva_agents.model.uva.config import Task

TASKS: tuple[Task, ...] = tuple(Task)


def draw_tasks(n: int, weights: Mapping[Task, float], generator: torch.Generator | None = None) -> list[Task]:
    """One task per sample, with probabilities proportional to ``weights``.

    Raises:
        ValueError: no positive weight, or a negative one.
    """
    values = torch.tensor([float(weights.get(task, 0.0)) for task in TASKS], device="cpu", dtype=torch.float32)
    if values.min() < 0 or values.sum() <= 0:
        raise ValueError(f"task weights must be non-negative and not all zero, got {dict(weights)}")
    return [TASKS[i] for i in torch.multinomial(values, n, replacement=True, generator=generator).tolist()]


def draw_mask(
    n: int,
    *,
    frames: int,
    tokens: int,
    minimum: float = 0.7,
    std: float = 0.25,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random masks (n, frames, tokens), 1 = masked; every frame of a sample hides the same positions.

    The masked share follows a Gaussian of mean 1 and ``std`` truncated to [minimum, 1] (paper section IV-B, after MAR).
    """
    # Inverse CDF of the truncated normal, on the half below its mean.
    low = 0.5 * (1 + math.erf((minimum - 1) / std / math.sqrt(2)))
    u = low + (0.5 - low) * torch.rand(n, generator=generator, device="cpu", dtype=torch.float32)
    ratio = 1 + std * math.sqrt(2) * torch.erfinv(2 * u - 1)
    masked = torch.ceil(ratio.clamp(minimum, 1.0) * tokens)
    order = torch.rand(n, tokens, generator=generator, device="cpu", dtype=torch.float32).argsort(1).argsort(1)
    return (order < masked[:, None]).float()[:, None, :].expand(n, frames, tokens).contiguous()


def reveal_counts(iterations: int, tokens: int) -> list[int]:
    """Tokens still masked after each of ``iterations`` steps of the cosine schedule; the last entry is 0.

    At least one token stays masked until the last step, and at least one is revealed at each.
    """
    if not iterations >= 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    left, counts = tokens, []
    for i in range(iterations):
        target = math.floor(tokens * math.cos(math.pi / 2 * (i + 1) / iterations))
        left = 0 if i + 1 == iterations else max(1, min(left - 1, target))
        counts.append(left)
    return counts
