"""The schedule of the learning rate, and which parameters weight decay is for."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from uva_agents.training.recipe import StageConfig


def learning_rate(config: StageConfig, step: int) -> float:
    """Linear warm-up from 0, then cosine down to ``lr * final_lr`` at the last step (diffusers' "cosine" with ``final_lr=0``)."""
    if step < config.warmup:
        return config.lr * step / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * (config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def parameter_groups(module: nn.Module, weight_decay: float, *, embeddings: bool = False) -> list[dict[str, Any]]:
    """Weight decay on matrices, none on vectors (biases, norms) and, unless asked for, on embeddings."""
    kept = () if embeddings else ("_pos", "_mask")
    decay = [p for n, p in module.named_parameters() if p.requires_grad and p.ndim > 1 and not n.endswith(kept)]
    chosen = {id(p) for p in decay}
    rest = [p for p in module.parameters() if p.requires_grad and id(p) not in chosen]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
