"""A run as a list of named steps: what is finished is skipped, what was begun goes on, what each makes is whole or not there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import PartialState
from torch import nn

from uva_agents.errors import InputError
from uva_agents.training.card_facts import CardFacts
from uva_agents.training.loop import LoopOptions, Stage, finished_weights, run_stage
from uva_agents.training.model_card import write_card
from uva_agents.training.recipe import StageConfig
from uva_agents.training.selection import Export, Selection
from uva_agents.training.trackers import StageTracking, Tracking


class Step(Protocol):
    """One step of a run."""

    @property
    def name(self) -> str:
        """What the run calls it."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """What earlier steps must have made."""
        ...

    @property
    def makes(self) -> str:
        """What later steps may need: ``autoencoder``, ``latents``, ``keypoints``, ``network``, ``weights``."""
        ...

    def done(self) -> bool:
        """Whether what it makes is on disk, whole.

        Raises:
            ValueError: what is there is damaged, or belongs to another run.
        """
        ...

    def begun(self) -> bool:
        """Whether something of it is on disk."""
        ...

    def load(self) -> None:
        """Take what it makes from disk; called instead of :meth:`run` when it is done."""
        ...

    def run(self) -> bool:
        """Make it, going on where an earlier process stopped; false when it was cut short (``stop_after``)."""
        ...


@dataclass(frozen=True)
class MemoryStep:
    """What is computed anew in every process, in seconds, and kept in memory.

    Args:
        compute: it.
        stand_in: what takes its place in a dry run, if it takes long.
    """

    name: str
    makes: str
    compute: Callable[[], object]
    needs: tuple[str, ...] = ()
    stand_in: Callable[[], object] | None = None

    def done(self) -> bool:
        """Never: there is nothing on disk."""
        return False

    def begun(self) -> bool:
        """Never."""
        return False

    def load(self) -> None:
        """Nothing."""

    def run(self) -> bool:
        """Compute it."""
        self.compute()
        return True

    def rehearse(self) -> int:
        """Compute it, or what stands for it; nothing is written."""
        (self.stand_in or self.compute)()
        return 0


@dataclass(frozen=True)
class StageStep:
    """Training of one part of a network, to the averaged weights in its folder's ``checkpoint.pt``.

    Args:
        stage: name of the :class:`~uva_agents.training.loop.Stage`, and of its folder.
        config: optimisation.
        out: run folder.
        key: what identifies the run, called when earlier steps are done; see :class:`~uva_agents.training.loop.LoopOptions`.
        target: the part that is trained, a submodule of the stage's module.
        build: the stage with its data. Not called when it is finished.
        finish: what is to be done with the trained part before it is used.
        seed, progress, stop_after, tracking, selection, export: see :class:`~uva_agents.training.loop.LoopOptions`.
        part: name of that submodule, where others are trained beside it that nothing is kept of; empty if it is the only one.
    """

    name: str
    makes: str
    stage: str
    config: StageConfig
    out: Path
    key: Callable[[], str]
    target: Callable[[], nn.Module]
    build: Callable[[], Stage]
    needs: tuple[str, ...] = ()
    finish: Callable[[], object] | None = None
    seed: int = 0
    progress: bool = True
    stop_after: int | None = None
    tracking: StageTracking | None = None
    selection: Selection | None = None
    export: Export | None = None
    part: str = ""

    @property
    def options(self) -> LoopOptions:
        """Of the training loop."""
        return LoopOptions(
            self.out / self.stage,
            key=self.key(),
            seed=self.seed,
            progress=self.progress,
            stop_after=self.stop_after,
            tracking=self.tracking,
            selection=self.selection,
            export=self.export,
        )

    def done(self) -> bool:
        """Whether its last step was reached."""
        return finished_weights(self.stage, self.config, self.options) is not None

    def begun(self) -> bool:
        """Whether there is a checkpoint."""
        return (self.out / self.stage / "checkpoint.pt").exists()

    def load(self) -> None:
        """Put the averaged weights into the trained part."""
        weights = finished_weights(self.stage, self.config, self.options)
        assert weights is not None
        # A stage's module has parts with weights, under names of their own.
        split = [(name.partition("."), value) for name, value in weights.items()]
        target = self.target().to(_device())
        target.load_state_dict({name: value for (part, _, name), value in split if self.part in ("", part)})
        self.finish_trained()

    def run(self) -> bool:
        """Train it towards its last step."""
        if self.tracking is not None:
            self.tracking.run.start()
        stage = self.build()
        averaged, finished = run_stage(stage, self.config, self.options)
        stage.module.load_state_dict(averaged)
        if finished:
            self.finish_trained()
        return finished

    def finish_trained(self) -> None:
        """What is to be done with the trained part."""
        if self.finish is not None:
            self.finish()


@dataclass(frozen=True)
class WeightsStep:
    """The weights folder, of a run's network as it is when the step is taken; also of any moment before, for whoever asks.

    Args:
        out: run folder.
        write: writes the weights; called in the first process.
        facts: what the model card says; without, none is written.
        stages: of the run, name -> optimisation, in their order.
    """

    out: Path
    write: Export
    needs: tuple[str, ...] = ("network",)
    facts: Callable[[], CardFacts] | None = None
    stages: Mapping[str, StageConfig] = field(default_factory=dict)
    name: str = "weights"
    makes: str = "weights"

    def done(self) -> bool:
        """Never: it takes a moment, and what is there may be of another network."""
        return False

    def begun(self) -> bool:
        """Never."""
        return False

    def load(self) -> None:
        """Nothing."""

    def run(self) -> bool:
        """Write it."""
        if PartialState().is_main_process:
            self.export(self.out / "weights", {})
        return True

    def export(self, folder: Path, extra: Mapping[str, Any]) -> None:
        """Write the network as it is, and a card, to any folder; ``extra``: further entries of ``config.json``."""
        self.write(folder, extra)
        if self.facts is not None:
            write_card(folder, self.facts(), self.out, self.stages, extra)


def monitored(steps: Sequence[Step], tracking: Tracking, selection: Selection | None) -> list[Step]:
    """The steps with trackers for every stage, and with a selection of weights in the last one, which trains the network.

    Raises:
        InputError: weights are to be selected, and these steps write none (a :class:`WeightsStep` does) or train nothing.
    """
    places = [i for i, step in enumerate(steps) if isinstance(step, StageStep)]
    stages = {step.stage: step.config for step in steps if isinstance(step, StageStep)}
    weights = next((step for step in steps if isinstance(step, WeightsStep)), None)
    weights = None if weights is None else dataclasses.replace(weights, stages=stages)
    if selection is not None and (weights is None or not places):
        raise InputError(
            "rollouts and early stopping need steps that train (StageStep) and write weights (WeightsStep)"
        )
    out: list[Step] = []
    for i, step in enumerate(steps):
        if isinstance(step, StageStep):
            step = dataclasses.replace(step, tracking=tracking.stage(step.stage))
            if selection is not None and weights is not None and i == places[-1]:
                chosen = selection.in_stage(step.config.steps)
                step = dataclasses.replace(step, selection=chosen, export=weights.export)
        elif isinstance(step, WeightsStep) and weights is not None:
            step = weights
        out.append(step)
    return out


def run_steps(steps: Sequence[Step], *, show: bool) -> bool:
    """Take the steps in order; false when one was cut short.

    Args:
        show: print which are skipped and which go on.

    Raises:
        ValueError: a step needs what none before it makes; or see :meth:`Step.done`.
    """
    check_order(steps)
    state = PartialState(cpu=not torch.cuda.is_available())
    for step in steps:
        state.wait_for_everyone()
        if step.done():
            how, proceed = "finished before, skipped", True
            _say(f"{step.name}: {how}", show=show and state.is_main_process)
            step.load()
        else:
            how = "goes on" if step.begun() else "starts"
            _say(f"{step.name}: {how}", show=show and state.is_main_process)
            proceed = step.run()
        if not proceed:
            return False
    return True


def check_order(steps: Sequence[Step]) -> None:
    """That every step comes after those that make what it needs.

    Raises:
        ValueError: one does not.
    """
    made: set[str] = set()
    for step in steps:
        if lacking := [name for name in step.needs if name not in made]:
            raise ValueError(f"the step {step.name!r} needs {' and '.join(lacking)}, which no step before it makes")
        made.add(step.makes)


def _say(line: str, *, show: bool) -> None:
    if show:
        print(line, flush=True)


def _device() -> torch.device:
    device: torch.device = PartialState().device
    return device
