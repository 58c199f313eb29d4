"""Task and mask sampling: which task each training sample is for, and which future positions it may not see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from uva_agents.model.uva.config import Task

TASKS: tuple[Task, ...] = tuple(Task)


@dataclass(frozen=True)
class Visibility:
    """What each sample of a batch shows the network, and what it is asked for. All tensors lead with (B,).

    Attributes:
        future_mask: (B, T, S) float, 1 where a future token is replaced by the mask token.
        history: (B,) bool, history frames (and proprioception, where it can be masked) are given.
        actions: (B,) bool, future actions are given.
        video_loss, action_loss: (B,) bool, what is predicted.
    """

    future_mask: Tensor
    history: Tensor
    actions: Tensor
    video_loss: Tensor
    action_loss: Tensor

    def to(self, device: torch.device | str) -> Visibility:
        """On a device."""
        return Visibility(**{k: v.to(device) for k, v in vars(self).items()})

    @classmethod
    def for_tasks(cls, tasks: list[Task], random_mask: Tensor) -> Visibility:
        """Visibility of per-sample tasks, given a random mask (B, T, S) for those that use one."""
        device = random_mask.device

        def flags(chosen: set[Task]) -> Tensor:
            return torch.tensor([task in chosen for task in tasks], device=device)

        hidden, shown = flags({Task.POLICY}), flags({Task.INVERSE})
        mask = random_mask.float()
        mask = torch.where(hidden[:, None, None], torch.ones_like(mask), mask)
        mask = torch.where(shown[:, None, None], torch.zeros_like(mask), mask)
        return cls(
            future_mask=mask,
            history=~shown,
            actions=flags({Task.FORWARD}),
            video_loss=flags({Task.VIDEO, Task.FORWARD, Task.POLICY_VIDEO}),
            action_loss=flags({Task.POLICY, Task.INVERSE, Task.POLICY_VIDEO}),
        )


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
