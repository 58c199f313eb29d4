"""``--dry-run``: all that a run does before its first optimiser step, for every stage, without a trace.

The data is opened and cut into windows; of each stage one real batch goes forward and back through the network, beside what the
optimiser will hold. What would take long and only feeds a later stage (encoding all frames) is done for a sample.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from accelerate import PartialState
from torch import Tensor, nn

from uva_agents.errors import InputError, MachineError
from uva_agents.training.loop import Stage, StageLoop, check_finite
from uva_agents.training.memory import check_out
from uva_agents.training.out_of_memory import naming_what_fits
from uva_agents.training.recipe import Recipe
from uva_agents.training.report import Reporter
from uva_agents.training.run import RunOptions, steps_of
from uva_agents.training.saved_recipes import identity, read_recipe
from uva_agents.training.selection import Selector
from uva_agents.training.steps import StageStep, Step, WeightsStep, check_order, monitored
from uva_agents.training.trackers import Tracking, check_trackers
from uva_agents.utils.memory import available_memory, in_words, peak_memory


@runtime_checkable
class Rehearsing(Protocol):
    """A step that can be rehearsed faster than it is made."""

    def rehearse(self) -> int:
        """Do as much as shows that it will work, and make what later steps need, in shape; bytes that it will write."""
        ...


@dataclass(frozen=True)
class StageRehearsal:
    """One stage's first step.

    Attributes:
        stage: name.
        steps, batch_size: of its optimisation.
        parameters: numbers that are trained.
        state: bytes of weights, gradients, optimiser and averaged weights.
        checkpoint: bytes of its checkpoint.
        activations: bytes that are kept from the forward pass for the backward pass.
        seconds: of one step, without the optimiser's part.
        loss: of the batch.
    """

    stage: str
    steps: int
    batch_size: int
    parameters: int
    state: int
    checkpoint: int
    activations: int
    seconds: float
    loss: float

    def __str__(self) -> str:
        hours = self.steps * self.seconds / 3600
        took = (
            f"about {hours:.1f} h"
            if hours >= 1
            else f"about {60 * hours:.0f} min"
            if 60 * hours >= 1
            else "under a minute"
        )
        return (
            f"stage {self.stage}: {self.steps:,} steps of {self.batch_size}, {self.parameters / 1e6:.2f} M parameters; loss "
            f"{self.loss:.4g}; {in_words(self.state)} of weights and optimiser, {in_words(self.activations)} for a batch; "
            f"{self.seconds:.2f} s a step, {took} on this machine"
        )


@dataclass(frozen=True)
class Rehearsal:
    """What a dry run found.

    Attributes:
        stages: in their order.
        data: bytes of memory of this process when the data was open.
        peak: bytes of memory that this process will need at most; of the device's, too, where it has memory of its own.
        device_peak: bytes of the device's memory; 0 on a CPU.
        disk: bytes that the run will write.
        checks: what else was tried.
    """

    stages: tuple[StageRehearsal, ...]
    data: int
    peak: int
    device_peak: int
    disk: int
    checks: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For people."""
        free = available_memory()
        where = "" if free is None else f", {in_words(free)} more are free"
        lines = [*map(str, self.stages), *self.checks]
        lines.append(f"memory: {in_words(self.data)} with the data open, {in_words(self.peak)} at the peak{where}")
        if self.device_peak:
            lines.append(f"memory of the GPU: {in_words(self.device_peak)} at the peak")
        return [*lines, f"disk: {in_words(self.disk)}"]


def rehearse(recipe: Recipe, options: RunOptions) -> Rehearsal:
    """Try a run.

    Raises:
        UVAError: what :func:`~uva_agents.training.run.train` would raise before its first step, and further on where the rehearsal
            gets there; the disk is too small.
    """
    check_trackers(options.trackers)
    check_out(options.out)
    PartialState(cpu=not torch.cuda.is_available())
    with tempfile.TemporaryDirectory(prefix="uva-dry-run-") as folder:
        scratch = dataclasses.replace(options, out=Path(folder), progress=False)
        (scratch.out / "frames").mkdir()  # as if begun: the disk is looked at below, where the run will write
        steps = steps_of(recipe, scratch)
        check_order(steps)
        data = peak_memory()
        # Nobody's trackers are started: only stages that run start them.
        tracking = Tracking((), scratch.out, options.project, {})
        steps = monitored(steps, tracking, options.selection)
        _check_folder(recipe, options.out, [step.stage for step in steps if isinstance(step, StageStep)])
        stages: list[StageRehearsal] = []
        checks: list[str] = []
        disk = 0
        for step in steps:
            if isinstance(step, StageStep):
                stages.append(_rehearse_stage(step, checks))
                disk += stages[-1].checkpoint
            elif isinstance(step, WeightsStep):
                checks.append(f"weights: {options.out / step.name}")
            else:
                disk += _rehearse(step)
        disk += max((stage.checkpoint for stage in stages), default=0)  # a new one is written beside the old one
        found = Rehearsal(
            tuple(stages),
            data,
            # On a CPU the optimiser's share was reserved and not touched.
            peak_memory() + (0 if torch.cuda.is_available() else max((s.parameters * 8 for s in stages), default=0)),
            torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
            disk,
            tuple(checks),
        )
    _check_disk(options.out, disk)
    return found


def _check_folder(recipe: Recipe, out: Path, stages: Sequence[str]) -> None:
    """That the run folder does not hold another run."""
    begun = [path for path in (out / stage / "checkpoint.pt" for stage in stages) if path.exists()]
    if begun and (out / "recipe.json").exists() and identity(read_recipe(out)) != identity(recipe):
        raise InputError(f"{begun[0]} belongs to another configuration; choose another --out, or remove it")


def _rehearse(step: Step) -> int:
    if isinstance(step, Rehearsing):
        return step.rehearse()
    step.run()
    return 0


def _rehearse_stage(step: StageStep, checks: list[str]) -> StageRehearsal:
    """Forward and backward pass of its first batch; the selection's own checks where it has one."""
    stage = step.build()
    loop = StageLoop(stage, step.config, step.options)
    loss, norm = naming_what_fits(stage, loop.passes_alone, loop.passes_alone)
    check_finite(stage.name, 0, loss, norm, "nothing was trained")
    kept = _Kept(loop.module)
    began = time.perf_counter()
    with kept:
        loop.passes_alone()
    seconds = time.perf_counter() - began
    trained = sum(p.numel() for p in loop.module.parameters() if p.requires_grad)
    size = sum(value.numel() * value.element_size() for value in loop.module.state_dict().values())
    found = StageRehearsal(
        stage.name,
        step.config.steps,
        step.config.batch_size,
        trained,
        state=2 * size + 12 * trained,  # weights and their averages; gradients and two moments
        checkpoint=2 * size + 8 * trained,
        activations=kept.size,
        seconds=seconds,
        loss=loss,
    )
    if step.selection is not None and step.export is not None:
        checks.append(_check_selection(step, stage, loop))
    step.finish_trained()
    return found


def _check_selection(step: StageStep, stage: Stage, loop: StageLoop) -> str:
    assert step.selection is not None and step.export is not None

    def measured() -> dict[str, float]:
        with torch.no_grad(), Reporter(step.out, stage.name, 1, 0, show=False, write=True) as reporter:
            return stage.validate(loop.module, reporter, 0)

    Selector(step.selection, step.export, step.out / "weights-best").check(measured)
    return f"best weights: by the {step.selection.criterion}"


class _Kept:
    """Bytes that autograd keeps of a forward pass, those of the parameters themselves left out."""

    def __init__(self, module: nn.Module) -> None:
        self.size = 0
        self._seen = {p.untyped_storage().data_ptr() for p in module.parameters()}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.size += storage.nbytes()
        return tensor

    def __enter__(self) -> None:
        self._hooks.__enter__()

    def __exit__(self, *details: object) -> None:
        self._hooks.__exit__(*details)


def _check_disk(out: Path, need: int) -> None:
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if need > free:
        raise MachineError(f"{out}: the run writes {in_words(need)}, and {in_words(free)} are free there")
