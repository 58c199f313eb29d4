"""Out of memory while training: which batch size fits, found on the step that did not."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from uva_agents.errors import MachineError

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory is lacking: a GPU's, or the machine's, for which torch has no class of its own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "CUDA out of memory" in text)


def naming_what_fits(stage: Any, attempt: Callable[[], T], retry: Callable[[], object]) -> T:
    """What ``attempt`` returns.

    Args:
        stage: where it has an attribute ``config`` with a ``batch_size``, smaller ones are tried; its ``batch_setting`` says how
            that is set (default ``--batch-size N``).
        attempt: part of a step.
        retry: forward and backward pass of the same step, without any effect.

    Raises:
        MachineError: the memory is not enough; with the largest batch size, among halves of the stage's, that is.
    """
    try:
        return attempt()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
    # Out of the handler: the error's traceback holds the tensors of the pass that failed.
    config = getattr(stage, "config", None)
    if config is None:
        raise MachineError(f"stage {stage.name!r}: the memory is not enough ({reason}): take a smaller batch")
    setting = getattr(stage, "batch_setting", "--batch-size {}")
    size = int(config.batch_size) // 2
    try:
        while size >= 1:
            _free()
            stage.config = dataclasses.replace(config, batch_size=size)
            if _fits(retry):
                raise MachineError(
                    f"stage {stage.name!r}: the memory is not enough for batches of {config.batch_size} ({reason}); "
                    f"{size} fit: {setting.format(size)}"
                )
            size //= 2
    finally:
        stage.config = config
    raise MachineError(
        f"stage {stage.name!r}: the memory is not enough for a batch of one ({reason}): take a smaller network or frames, or a "
        "larger machine"
    )


def optimizer_memory(module: nn.Module, optimizer: Any) -> list[torch.Tensor]:
    """What AdamW will hold from its first step on, where it has not taken any: a pass that fits beside this is one that lasts."""
    if optimizer.state:
        return []
    return [torch.zeros_like(p) for p in module.parameters() if p.requires_grad for _ in range(2)]


def _fits(retry: Callable[[], object]) -> bool:
    try:
        retry()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
