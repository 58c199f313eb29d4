"""The training loop that every stage shares: accelerate, AdamW, cosine schedule, EMA, checkpoints that resume.

Every step seeds the random generators from (seed, stage, step, rank) and asks the stage for that step's batch, so a run that
was killed and resumed sees the same batches, the same noise and therefore the same curve as one that was not.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from uva_agents.errors import NotFiniteError
from uva_agents.training.ema import EMA
from uva_agents.training.recipe import StageConfig
from uva_agents.training.report import Reporter
from uva_agents.training.stage_checkpoint import read_checkpoint, restore_checkpoint, save_checkpoint


class Stage(Protocol):
    """What a stage brings to the loop."""

    name: str
    """Of its folder, and of its random stream: another name is another training."""
    module: nn.Module
    """``module(**inputs)`` returns (loss, {name: scalar tensor})."""

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """The module's arguments at a step, on the CPU; a pure function of its arguments and the seeded generators."""
        ...

    def validate(self, module: nn.Module, reporter: Reporter, step: int) -> dict[str, float]:
        """Held-out metrics of the averaged weights; may hand pictures to the reporter."""
        ...


@dataclass(frozen=True)
class LoopOptions:
    """How to run, as opposed to what to train.

    Args:
        folder: of this stage: ``checkpoint.pt``, ``metrics.jsonl``, TensorBoard events.
        key: text that identifies everything else the run depends on; a checkpoint of another key is refused.
        checkpoint_every_s: seconds between checkpoints; the most that a kill can lose.
        progress: show a progress bar.
        stop_after: stop (with a checkpoint) after this many steps in this process; for tests and short leases.
    """

    folder: Path
    key: str = ""
    seed: int = 0
    checkpoint_every_s: float = 45.0
    progress: bool = True
    stop_after: int | None = None


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


def run_stage(stage: Stage, config: StageConfig, options: LoopOptions) -> tuple[dict[str, Tensor], bool]:
    """Train a stage towards its last step, resuming from its folder.

    Returns: the averaged weights (on the CPU), and whether the last step was reached.

    Raises:
        NotFiniteError: the loss, a gradient or a weight is not finite. The checkpoint before it is kept.
        ValueError: the folder's checkpoint is damaged or belongs to another configuration.
    """
    accelerator = Accelerator(mixed_precision=_precision(), cpu=not torch.cuda.is_available())
    rank, world = accelerator.process_index, accelerator.num_processes
    module = stage.module.to(accelerator.device)
    # A stage whose parts decay at different rates says so.
    grouped = getattr(stage, "parameter_groups", None)
    groups = (
        parameter_groups(module, config.weight_decay, embeddings=config.decay_embeddings)
        if grouped is None
        else grouped(config.weight_decay)
    )
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    ema = EMA(module, power=config.ema_power, maximum=config.ema_max, delay=config.ema_delay)
    options.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = options.folder / "checkpoint.pt"
    if rank == 0:
        for partial in options.folder.glob(".checkpoint.*.partial.pt"):  # of a process that was killed while it wrote
            partial.unlink(missing_ok=True)
    signature = _signature(stage.name, config, options)
    step = restore_checkpoint(checkpoint, signature, module, optimizer, ema)
    prepared, optimizer = accelerator.prepare(module, optimizer)
    reporter = Reporter(
        options.folder, stage.name, config.steps, step, show=options.progress and rank == 0, write=rank == 0
    )
    stage_key = zlib.crc32(stage.name.encode())
    saved_at, began_at = time.monotonic(), step

    def save() -> None:
        if rank == 0:
            unwrapped = accelerator.unwrap_model(prepared)
            for name, tensor in chain(unwrapped.state_dict().items(), ema.shadow.items()):
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise NotFiniteError(
                        f"stage {stage.name!r}: the weights {name!r} are not finite after step {step - 1}; "
                        f"{_last(checkpoint)}; lower lr or look at the data"
                    )
            save_checkpoint(checkpoint, signature, step, unwrapped, optimizer, ema)

    with reporter:
        while step < config.steps:
            if options.stop_after is not None and step - began_at >= options.stop_after:
                break
            seed = int(np.random.SeedSequence([options.seed, stage_key, step, rank]).generate_state(1)[0])
            torch.manual_seed(seed)
            lr = learning_rate(config, step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            prepared.train()
            inputs = _to_device(stage.inputs(step, rank, world), accelerator.device)
            loss, scalars = prepared(**inputs)
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(prepared.parameters(), config.clip)
            value, size = float(loss.detach()), float(norm)
            # A step along a gradient that is not finite would spoil every weight, and the next checkpoint.
            if not (math.isfinite(value) and math.isfinite(size)):
                what = f"the loss is {value}" if not math.isfinite(value) else f"the gradient's norm is {size}"
                raise NotFiniteError(
                    f"stage {stage.name!r}: {what} at step {step}; {_last(checkpoint)}; lower lr or look at the data"
                )
            optimizer.step()
            ema.update(accelerator.unwrap_model(prepared), step)
            step += 1
            reporter.step(step, value, lr, size, {k: float(v.detach()) for k, v in scalars.items()})
            if step % config.validate_every == 0 or step == config.steps:
                if rank == 0:
                    reporter.validation(step, _validate(stage, accelerator.unwrap_model(prepared), ema, reporter, step))
                accelerator.wait_for_everyone()
            if time.monotonic() - saved_at > options.checkpoint_every_s:
                save()
                saved_at = time.monotonic()
        save()
    # The module may be part of the next stage's, where a left-over gradient would count towards the norm that is clipped.
    module.zero_grad(set_to_none=True)
    return {key: value.detach().cpu().clone() for key, value in ema.shadow.items()}, step >= config.steps


def finished_weights(name: str, config: StageConfig, options: LoopOptions) -> dict[str, Tensor] | None:
    """The averaged weights of the stage ``name``, if its folder's checkpoint is that of its last step.

    Raises:
        ValueError: see :func:`run_stage`.
    """
    saved = read_checkpoint(options.folder / "checkpoint.pt", _signature(name, config, options), mmap=True)
    if saved is None or saved["step"] < config.steps:
        return None
    weights: dict[str, Tensor] = saved["ema"]
    return weights


def _signature(name: str, config: StageConfig, options: LoopOptions) -> str:
    return json.dumps([name, config.signature(), options.seed, options.key], sort_keys=True)


def _last(checkpoint: Path) -> str:
    return f"{checkpoint} holds the last good weights" if checkpoint.exists() else "no checkpoint was written yet"


def _validate(stage: Stage, module: nn.Module, ema: EMA, reporter: Reporter, step: int) -> dict[str, float]:
    """Metrics with the averaged weights swapped in, and the live ones put back."""
    live = {key: value.detach().clone() for key, value in module.state_dict().items()}
    module.load_state_dict(ema.shadow)
    module.eval()
    try:
        with torch.no_grad():
            return stage.validate(module, reporter, step)
    finally:
        module.load_state_dict(live)
        module.train()


def _precision() -> str:
    """bf16 where the device is fast at it; a CPU computes it at half the speed of float32."""
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"


def _to_device(values: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {key: value.to(device) if hasattr(value, "to") else value for key, value in values.items()}
