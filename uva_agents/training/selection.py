"""Which weights are kept as the best, and when training ends before its last step: by rollouts, or by a held-out metric.

All that is decided is in the stage's checkpoint, and nothing else is asked: a run that was killed decides the same again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import logging
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from uva_agents.errors import InputError
from uva_agents.utils.files import replacing_folder

_LOG = logging.getLogger(__name__)

_HIGHER = ("success", "score", "psnr", "_db", "coverage", "return", "reward", "accuracy", "ssim")
_LOWER = ("loss", "error", "mse", "mae", "kl", "distance", "lpips", "fvd")

Export = Callable[[Path, Mapping[str, Any]], object]
"""Writes the network as it is at the moment as a weights folder, with further entries for its ``config.json``."""


class Evaluator(Protocol):
    """Rollouts in an environment. Training knows no environments: whoever starts it brings one."""

    @property
    def name(self) -> str:
        """Environment, protocol, episodes and seeds: scores under another name are not compared."""
        ...

    def check(self, weights: Path) -> Collection[str]:
        """That such weights act in the environment, in a few steps; the names of the metrics.

        Raises:
            UVAError: they do not.
        """
        ...

    def evaluate(self, weights: Path, step: int) -> Mapping[str, float]:
        """Metrics, ``success_rate`` and ``score`` in [0, 1] among them. A call that was killed may go on where it was."""
        ...


@dataclass(frozen=True)
class Rollouts:
    """Rollouts during training.

    Args:
        evaluator: runs them.
        every: optimiser steps, a tenth of the stage's by default; also after the last one.
    """

    evaluator: Evaluator
    every: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise InputError(f"rollouts every {self.every} steps: at least 1")


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when a metric has not improved for a while.

    Args:
        metric: of the held-out metrics (``val/NAME``), or of the rollouts (``rollouts/NAME``).
        patience: measurements in a row without improvement.
        higher: whether higher is better.
    """

    metric: str
    patience: int
    higher: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """``METRIC:PATIENCE``, or ``METRIC:PATIENCE:min`` or ``:max`` where the name does not say what is better.

        Raises:
            InputError: it is none.
        """
        name, *rest = text.split(":")
        if not name or not 1 <= len(rest) <= 2 or not rest[0].isdigit() or int(rest[0]) < 1:
            raise InputError(
                f"{text!r}: METRIC:PATIENCE, for example policy_error:5 (measurements without improvement)"
            )
        if len(rest) == 2:
            if rest[1] not in ("min", "max"):
                raise InputError(f"{text!r} ends in {rest[1]!r}: min or max, what is better")
            return cls(name, int(rest[0]), rest[1] == "max")
        higher, lower = (any(word in name.lower() for word in words) for words in (_HIGHER, _LOWER))
        if higher == lower:
            raise InputError(f"{text!r} does not say whether less or more is better: {text}:min or {text}:max")
        return cls(name, int(rest[0]), higher)


@dataclass(frozen=True)
class Selection:
    """What a run is to select by. The best weights are those of the highest success rate in rollouts (then score), or without
    rollouts those of the best value of the metric that training stops by.

    Args:
        rollouts: in an environment.
        early_stopping: ends training.
    """

    rollouts: Rollouts | None = None
    early_stopping: EarlyStopping | None = None

    def in_stage(self, steps: int) -> Self:
        """With what depends on the stage's number of steps."""
        if self.rollouts is None or self.rollouts.every is not None:
            return self
        return dataclasses.replace(self, rollouts=Rollouts(self.rollouts.evaluator, max(1, steps // 10)))

    @property
    def criterion(self) -> str:
        """What the best weights are the best by."""
        if self.rollouts is not None:
            return f"success rate in {self.rollouts.evaluator.name}"
        assert self.early_stopping is not None
        return f"{'highest' if self.early_stopping.higher else 'lowest'} {self.early_stopping.metric}"

    @property
    def stopping_rule(self) -> str:
        """What a checkpoint says that training was stopped by."""
        rule = self.early_stopping
        return "" if rule is None else f"{rule.metric}:{rule.patience}:{'max' if rule.higher else 'min'}"


@dataclass
class Selector:
    """Follows the measurements of one stage.

    Args:
        selection: what to select by.
        export: writes weights.
        folder: of the best weights, replaced at one stroke.
        state: what an earlier process had decided, plain values; see :attr:`state`.

    Attributes:
        state: of the best weights ``criterion``, ``best`` (highest first) and ``best_step``; of early stopping ``rule``,
            ``value`` and ``step`` of the last improvement, ``waited``, ``stopped``; ``rolled_out``, the step of the last rollouts.
    """

    selection: Selection
    export: Export
    folder: Path
    state: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.state.get("criterion") not in (None, self.selection.criterion):
            _LOG.warning(
                "the best weights were chosen by the %s, and are from now on by the %s",
                self.state["criterion"],
                self.selection.criterion,
            )
            self._forget("criterion", "best", "best_step", "rolled_out")
        if self.state.get("rule") not in (None, self.selection.stopping_rule):
            self._forget("rule", "value", "step", "waited", "stopped")
        self.state["criterion"] = self.selection.criterion
        self.state["rule"] = self.selection.stopping_rule

    @property
    def stopped(self) -> bool:
        """Whether the metric has not improved for long enough."""
        return bool(self.state.get("stopped"))

    def due(self, step: int, last: bool) -> bool:
        """Whether rollouts are to be made at ``step`` and have not been yet."""
        rollouts = self.selection.rollouts
        at = rollouts is not None and step > 0 and (last or step % (rollouts.every or 1) == 0)
        return at and self.state.get("rolled_out", 0) < step

    def check(self, validate: Callable[[], Collection[str]] | None) -> None:
        """Before the first step: that the weights act in the environment, and that there is the metric to stop by.

        Args:
            validate: measures on held-out data and gives the metrics' names; asked if the rollouts have no such metric. ``None``
                where that was done by an earlier process.

        Raises:
            InputError: there is no such metric.
            UVAError: see :meth:`Evaluator.check`.
        """
        for left in self.folder.parent.glob(f".{self.folder.name}.*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        names: list[str] = []
        if (rollouts := self.selection.rollouts) is not None:
            with self._scratch() as weights:
                self.export(weights, {})
                names += [f"rollouts/{name}" for name in rollouts.evaluator.check(weights)]
        rule = self.selection.early_stopping
        if rule is None or _is_one_of(rule.metric, names) or validate is None:
            return
        names += [f"val/{name}" for name in validate()]
        if not _is_one_of(rule.metric, names):
            close = difflib.get_close_matches(rule.metric, [*names, *(n.partition("/")[2] for n in names)], n=2)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
            raise InputError(f"no metric is called {rule.metric!r}: {hint}")

    def roll_out(self, step: int) -> Mapping[str, float]:
        """Rollouts of the weights as they are now; the best are kept."""
        rollouts = self.selection.rollouts
        assert rollouts is not None
        with self._scratch() as weights:
            self.export(weights, {})
            metrics = rollouts.evaluator.evaluate(weights, step)
        self.state["rolled_out"] = step
        if "success_rate" in metrics:
            self._consider([metrics["success_rate"], metrics.get("score", 0.0)], step, metrics)
        self._wait("rollouts", step, metrics)
        return metrics

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Held-out metrics of the weights as they are now."""
        rule = self.selection.early_stopping
        value = None if rule is None else _value(rule.metric, "val", metrics)
        if rule is not None and value is not None and self.selection.rollouts is None:
            self._consider([value if rule.higher else -value], step, metrics)
        self._wait("val", step, metrics)

    def _consider(self, rank: list[float], step: int, metrics: Mapping[str, float]) -> None:
        """Keep the weights if they rank higher than any before; of equals the first stay."""
        best = self.state.get("best")
        if best is not None and rank <= list(best):
            return
        facts = {"selected": {"step": step, "by": self.selection.criterion, "metrics": dict(metrics)}}
        with replacing_folder(self.folder) as partial:
            self.export(partial, facts)
        self.state.update(best=rank, best_step=step)

    def _wait(self, kind: str, step: int, metrics: Mapping[str, float]) -> None:
        rule = self.selection.early_stopping
        value = None if rule is None else _value(rule.metric, kind, metrics)
        if rule is None or value is None or step == 0:
            return
        before = self.state.get("value")
        if before is None or (value > before if rule.higher else value < before):
            self.state.update(value=value, step=step, waited=0)
        else:
            self.state["waited"] += 1
            self.state["stopped"] = self.state["waited"] >= rule.patience

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder for weights that are looked at once."""
        with tempfile.TemporaryDirectory(prefix=f".{self.folder.name}.", dir=self.folder.parent) as folder:
            yield Path(folder)

    def _forget(self, *names: str) -> None:
        for name in names:
            self.state.pop(name, None)


def stopped_by(state: Mapping[str, Any], selection: Selection | None) -> bool:
    """Whether a checkpoint's state says that training was stopped, by the rule that is still asked for."""
    return selection is not None and bool(state.get("stopped")) and state.get("rule") == selection.stopping_rule


def rollouts_left(state: Mapping[str, Any], step: int, selection: Selection) -> bool:
    """Whether the rollouts after a checkpoint's last step are still to be made."""
    rollouts = selection.rollouts
    return rollouts is not None and (state.get("criterion") != selection.criterion or state.get("rolled_out", 0) < step)


def _is_one_of(metric: str, names: Collection[str]) -> bool:
    return any(metric in (name, name.partition("/")[2]) for name in names)


def _value(metric: str, kind: str, metrics: Mapping[str, float]) -> float | None:
    """The metric in measurements of a kind, ``None`` if it is not one of them."""
    if metric in metrics:
        return float(metrics[metric])
    prefix, _, name = metric.partition("/")
    return float(metrics[name]) if prefix == kind and name in metrics else None
