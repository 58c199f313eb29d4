"""Task and mask sampling for training: which task each sample is for, and which future positions it may not see."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from uva_agents.model.uva.config import Task

TASKS: tuple[Task, ...] = tuple(Task)


def draw_tasks(
    n: int, weights: Mapping[Task, float], generator: torch.Generator | None = None, *, together: bool = False
) -> list[Task]:
    """One task per sample, with probabilities proportional to ``weights``.

    Args:
        together: one for all samples, as in the released code.

    Raises:
        ValueError: no positive weight, or a negative one.
    """
    values = torch.tensor([float(weights.get(task, 0.0)) for task in TASKS], device="cpu", dtype=torch.float32)
    if values.min() < 0 or values.sum() <= 0:
        raise ValueError(f"task weights must be non-negative and not all zero, got {dict(weights)}")
    draws = torch.multinomial(values, 1 if together else n, replacement=True, generator=generator).tolist()
    return [TASKS[i] for i in (draws * n if together else draws)]


def draw_mask(
    n: int,
    *,
    frames: int,
    tokens: int,
    minimum: float = 0.7,
    std: float = 0.25,
    generator: torch.Generator | None = None,
    together: bool = False,
) -> Tensor:
    """Random masks (n, frames, tokens), 1 = masked; every frame of a sample hides the same positions.

    The masked share follows a Gaussian of mean 1 and ``std`` truncated to [minimum, 1] (paper section IV-B, after MAR).

    Args:
        together: all samples hide the same number of positions, as in the released code; which ones is each sample's own.
    """
    # Inverse CDF of the truncated normal, on the half below its mean.
    low = 0.5 * (1 + math.erf((minimum - 1) / std / math.sqrt(2)))
    u = low + (0.5 - low) * torch.rand(1 if together else n, generator=generator, device="cpu", dtype=torch.float32)
    ratio = 1 + std * math.sqrt(2) * torch.erfinv(2 * u - 1)
    masked = torch.ceil(ratio.clamp(minimum, 1.0) * tokens)
    order = torch.rand(n, tokens, generator=generator, device="cpu", dtype=torch.float32).argsort(1).argsort(1)
    return (order < masked[:, None]).float()[:, None, :].expand(n, frames, tokens).contiguous()
