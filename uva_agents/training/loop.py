"""The training loop that every stage shares: accelerate, AdamW, cosine schedule, EMA, checkpoints that resume.

Every step seeds the random generators from (seed, stage, step, rank) and asks the stage for that step's batch, so a run that
was killed and resumed sees the same batches, the same noise and therefore the same curve as one that was not.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from uva_agents.errors import NotFiniteError
from uva_agents.training.ema import EMA
from uva_agents.training.optimisation import learning_rate, parameter_groups
from uva_agents.training.out_of_memory import naming_what_fits, optimizer_memory
from uva_agents.training.precision import LossScaling, precision
from uva_agents.training.recipe import StageConfig
from uva_agents.training.report import Reporter
from uva_agents.training.selection import Export, Selection, Selector, rollouts_left, stopped_by
from uva_agents.training.stage_checkpoint import read_checkpoint, restore_checkpoint, save_checkpoint
from uva_agents.training.trackers import StageTracking


class Stage(Protocol):
    """What a stage brings to the loop."""

    name: str
    """Of its folder, and of its random stream: another name is another training."""
    module: nn.Module
    """``module(**inputs)`` returns (loss, {name: scalar tensor}).

    A stage may also have ``config``, whose ``batch_size`` its inputs go by: when memory is short, the size that fits is found.
    """

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
        tracking: trackers beside ``metrics.jsonl`` and TensorBoard.
        selection: which weights are kept in ``weights-best`` beside the folder, and when training ends early.
        export: writes weights, for ``selection``.
    """

    folder: Path
    key: str = ""
    seed: int = 0
    checkpoint_every_s: float = 45.0
    progress: bool = True
    stop_after: int | None = None
    tracking: StageTracking | None = None
    selection: Selection | None = None
    export: Export | None = None


def run_stage(stage: Stage, config: StageConfig, options: LoopOptions) -> tuple[dict[str, Tensor], bool]:
    """Train a stage towards its last step, resuming from its folder.

    Returns: the averaged weights (on the CPU), and whether training is over: the last step was reached, or it was stopped early.

    Raises:
        NotFiniteError: the loss, a gradient or a weight is not finite. The checkpoint before it is kept.
        ValueError: the folder's checkpoint is damaged or belongs to another configuration.
        MachineError: the memory is not enough; with the batch size that fits.
    """
    return StageLoop(stage, config, options).run()


class StageLoop:
    """A stage on its device, with its optimiser and averaged weights.

    Args:
        stage: what is trained.
        config: its optimisation.
        options: how to run.

    Attributes:
        step: optimiser steps that were taken.
        selector: of the best weights, where the options ask for it.
    """

    def __init__(self, stage: Stage, config: StageConfig, options: LoopOptions) -> None:
        self.stage, self.config, self.options = stage, config, options
        self.accelerator = Accelerator(mixed_precision=precision(config.precision), cpu=not torch.cuda.is_available())
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.module = stage.module.to(self.accelerator.device)
        # A stage whose parts decay at different rates says so.
        grouped = getattr(stage, "parameter_groups", None)
        own = functools.partial(parameter_groups, self.module, embeddings=config.decay_embeddings)
        groups = (own if grouped is None else grouped)(config.weight_decay)
        self.optimizer: Any = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
        self.ema = EMA(self.module, power=config.ema_power, maximum=config.ema_max, delay=config.ema_delay)
        self.scaling = LossScaling(self.accelerator.scaler)
        self.checkpoint = options.folder / "checkpoint.pt"
        self.step = 0
        self.selector: Selector | None = None
        self._selected: dict[str, Any] = {}
        self._stage_key = zlib.crc32(stage.name.encode())
        self._saved_at = time.monotonic()

    def run(self) -> tuple[dict[str, Tensor], bool]:
        """See :func:`run_stage`."""
        self._restore()
        options, config, began_at = self.options, self.config, self.step
        with self._reporter() as self.reporter:
            if self.selector is not None:
                self._measure(self._check_selection)
                self._roll_out_if_due()  # those that an earlier process did not get to the end of
            while not self._over:
                if options.stop_after is not None and self.step - began_at >= options.stop_after:
                    break
                self._optimise()
                if self.step % config.validate_every == 0 or self.step == config.steps:
                    self._measure(self._validate)
                self._roll_out_if_due()
                if time.monotonic() - self._saved_at > options.checkpoint_every_s:
                    self._save()
            self._save()
        # The module may be part of the next stage's, where a left-over gradient would count towards the norm that is clipped.
        self.module.zero_grad(set_to_none=True)
        return {key: value.detach().cpu().clone() for key, value in self.ema.shadow.items()}, self._over

    @property
    def _over(self) -> bool:
        return self.step >= self.config.steps or (self.selector is not None and self.selector.stopped)

    # -- optimisation ------------------------------------------------------------------------------------------------

    def _optimise(self) -> None:
        """One step."""
        lr = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.prepared.train()
        loss, scalars = naming_what_fits(self.stage, self._passes, self.passes_alone)
        norm = float(self.accelerator.clip_grad_norm_(self.prepared.parameters(), self.config.clip))
        # A step along a gradient that is not finite would spoil every weight, and the next checkpoint.
        if not self.scaling.leaves_out(loss, norm):
            check_finite(self.stage.name, self.step, loss, norm, self._last())
        naming_what_fits(self.stage, self.optimizer.step, self.passes_alone)
        self.ema.update(self._unwrapped, self.step)
        self.step += 1
        self.reporter.step(self.step, loss, lr, norm, scalars)

    def _inputs(self) -> dict[str, Any]:
        """The step's, after seeding the generators that it and the module draw from."""
        key = [self.options.seed, self._stage_key, self.step, self.rank]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        return _to_device(self.stage.inputs(self.step, self.rank, self.world), self.accelerator.device)

    def _passes(self) -> tuple[float, dict[str, float]]:
        """Forward and backward."""
        loss, scalars = self.prepared(**self._inputs())
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        return float(loss.detach()), {name: float(scalar.detach()) for name, scalar in scalars.items()}

    def passes_alone(self) -> tuple[float, float]:
        """Loss and gradient's norm of the same, in this process, beside what the optimiser will hold, and without any effect."""
        held = optimizer_memory(self.module, self.optimizer)
        try:
            with self.accelerator.autocast():
                loss, _ = self.module(**self._inputs())
            loss.backward()
            return float(loss.detach()), float(nn.utils.clip_grad_norm_(self.module.parameters(), math.inf))
        finally:
            self.module.zero_grad(set_to_none=True)
            held.clear()

    # -- measurements ------------------------------------------------------------------------------------------------

    def _measure(self, what: Callable[[nn.Module], None]) -> None:
        """With the averaged weights, in the first process; the others wait, and learn what was decided."""
        if self.rank == 0:
            with _averaged(self._unwrapped, self.ema):
                what(self._unwrapped)
        if self.selector is not None and self.world > 1:
            self.selector.state = broadcast_object_list([self.selector.state])[0]
        self.accelerator.wait_for_everyone()

    def _check_selection(self, module: nn.Module) -> None:
        assert self.selector is not None

        def measured() -> dict[str, float]:
            metrics = self.stage.validate(module, self.reporter, 0)
            self.reporter.validation(0, metrics)
            return metrics

        self.selector.check(measured if self.step == 0 else None)

    def _validate(self, module: nn.Module) -> None:
        metrics = self.stage.validate(module, self.reporter, self.step)
        self.reporter.validation(self.step, metrics)
        if self.selector is not None:
            self.selector.validated(self.step, metrics)

    def _roll_out(self, module: nn.Module) -> None:
        assert self.selector is not None
        metrics = self.selector.roll_out(self.step)
        self.reporter.validation(self.step, dict(metrics), kind="rollouts")

    @property
    def _rollouts_due(self) -> bool:
        return self.selector is not None and self.selector.due(self.step, last=self._over)

    def _roll_out_if_due(self) -> None:
        if not self._rollouts_due:
            return
        self._save()  # they take long: if they are killed, they are made again from here
        self._measure(self._roll_out)
        self._save()

    # -- what is kept ------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        options = self.options
        options.folder.mkdir(parents=True, exist_ok=True)
        if self.rank == 0:
            for partial in options.folder.glob(
                ".checkpoint.*.partial.pt"
            ):  # of a process that was killed while it wrote
                partial.unlink(missing_ok=True)
        signature = _signature(self.stage.name, self.config, options)
        self.step, self._selected = restore_checkpoint(
            self.checkpoint, signature, self.module, self.optimizer, self.ema, self.scaling
        )
        self.prepared, self.optimizer = self.accelerator.prepare(self.module, self.optimizer)
        if options.selection is not None and options.export is not None:
            best = options.folder.parent / "weights-best"
            self.selector = Selector(options.selection, options.export, best, self._selected)

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self.rank != 0:
            return
        for name, tensor in chain(self._unwrapped.state_dict().items(), self.ema.shadow.items()):
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise NotFiniteError(
                    f"stage {self.stage.name!r}: the weights {name!r} are not finite after step {self.step - 1}; "
                    f"{self._last()}; lower lr or look at the data"
                )
        signature = _signature(self.stage.name, self.config, self.options)
        chosen = self._selected if self.selector is None else self.selector.state
        scale = self.scaling.state()
        save_checkpoint(self.checkpoint, signature, self.step, self._unwrapped, self.optimizer, self.ema, chosen, scale)

    @property
    def _unwrapped(self) -> nn.Module:
        module: nn.Module = self.accelerator.unwrap_model(self.prepared)
        return module

    def _reporter(self) -> Reporter:
        first, options = self.rank == 0, self.options
        return Reporter(
            options.folder,
            self.stage.name,
            self.config.steps,
            self.step,
            show=options.progress and first,
            write=first,
            tracking=options.tracking,
            again=("rollouts",) if self._rollouts_due else (),
        )

    def _last(self) -> str:
        there = self.checkpoint.exists()
        return f"{self.checkpoint} holds the last good weights" if there else "no checkpoint was written yet"


def finished_weights(name: str, config: StageConfig, options: LoopOptions) -> dict[str, Tensor] | None:
    """The averaged weights of the stage ``name``, if its folder's checkpoint is that of its last step, or of an early end.

    Raises:
        ValueError: see :func:`run_stage`.
    """
    saved = read_checkpoint(options.folder / "checkpoint.pt", _signature(name, config, options), mmap=True)
    if saved is None:
        return None
    selected, selection = saved.get("selection", {}), options.selection
    if saved["step"] < config.steps and not stopped_by(selected, selection):
        return None
    if selection is not None and rollouts_left(selected, saved["step"], selection):
        return None
    weights: dict[str, Tensor] = saved["ema"]
    return weights


def check_finite(stage: str, step: int, loss: float, norm: float, last: str) -> None:
    """Refuse a loss, or a gradient's norm, that is no number.

    Raises:
        NotFiniteError: it is none.
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        raise NotFiniteError(f"stage {stage!r}: {what} at step {step}; {last}; lower lr or look at the data")


def _signature(name: str, config: StageConfig, options: LoopOptions) -> str:
    return json.dumps([name, config.signature(), options.seed, options.key], sort_keys=True)


@contextlib.contextmanager
def _averaged(module: nn.Module, ema: EMA) -> Iterator[None]:
    """The averaged weights swapped in, without gradients, and the live ones put back."""
    live = {key: value.detach().clone() for key, value in module.state_dict().items()}
    module.load_state_dict(ema.shadow)
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.load_state_dict(live)
        module.train()


def _to_device(values: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {key: value.to(device) if hasattr(value, "to") else value for key, value in values.items()}
