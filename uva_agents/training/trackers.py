"""Experiment trackers beside TensorBoard: Weights & Biases, MLflow, Trackio, through accelerate's trackers.

A run is one run of the tracker, whatever the number of its stages and of the processes that it took: the tracker's id of it is kept
in the run folder. The tracker's step counts on from stage to stage, because Weights & Biases takes none that is below the last.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from uva_agents.errors import InputError, MachineError
from uva_agents.utils.files import read_regular_text, write_text

_LOG = logging.getLogger(__name__)

TRACKERS = {"tensorboard": "'uva-agents[train]'", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
"""Name, which is also the package's -> what pip installs. No extras of this package's for clients of services: their newest release
is the one that works, and some need others of what ``constraints.txt`` fixes."""

TrackerName: TypeAlias = str | GeneralTracker
"""One of :data:`TRACKERS`, or a tracker that is made already."""


def check_trackers(trackers: Sequence[TrackerName]) -> None:
    """That they are known and installed, before the work.

    Raises:
        InputError: no tracker is called that.
        MachineError: its package is not installed; the message says how to.
    """
    names = [tracker for tracker in trackers if isinstance(tracker, str)]
    if unknown := [name for name in names if name not in TRACKERS]:
        raise InputError(f"no tracker is called {unknown[0]!r}: {', '.join(TRACKERS)}")
    missing = [name for name in dict.fromkeys(names) if importlib.util.find_spec(name) is None]
    if missing:
        packages = " ".join(TRACKERS[name] for name in missing)
        raise MachineError(f"{' and '.join(missing)} not installed: pip install {packages}, or leave --tracker out")


@dataclass(frozen=True)
class StageTracking:
    """What a stage's reporter hands on.

    Args:
        run: whose trackers take it.
        stage: name, which the names of numbers begin with.
    """

    run: Tracking
    stage: str

    def begin(self, total: int) -> None:
        """The stage begins, or goes on; it has so many steps."""
        self.run.begin(self.stage, total)

    def log(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers, as ``STAGE/KIND/NAME``."""
        named = {_accepted(f"{self.stage}/{kind}/{name}"): value for name, value in values.items()}
        self.run.log(named, self.run.steps_before(self.stage) + step)

    def picture(self, name: str, image: np.ndarray, path: Path, step: int) -> None:
        """A picture, uint8 (H, W, 3), that is also a file at ``path``."""
        self.run.picture(_accepted(f"{self.stage}/{name}"), image, path, self.run.steps_before(self.stage) + step)


@dataclass
class Tracking:
    """The trackers of a run. Only the first process has any; one that fails later is given up, and the run goes on.

    Args:
        trackers: as ``RunOptions`` has them; TensorBoard is the reporter's own.
        out: run folder, where ``trackers.json`` keeps what the trackers call this run.
        project: what they file it under.
        config: the recipe, as plain values.
    """

    trackers: Sequence[TrackerName]
    out: Path
    project: str
    config: Mapping[str, Any]
    _started: list[GeneralTracker] = field(default_factory=list, init=False)
    _begun: bool = field(default=False, init=False)
    _known: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Start them, where this run was before if it was. Once: further calls do nothing.

        Raises:
            MachineError: one cannot be started.
        """
        if self._begun:
            return
        self._begun = True
        others = [tracker for tracker in self.trackers if tracker != "tensorboard"]
        if not others or not PartialState().is_main_process:
            return
        self._known = _read(self._path)
        for tracker in others:
            name = tracker if isinstance(tracker, str) else tracker.name
            ids: dict[str, str] = self._known.get(name) or self._first_ids(name)
            self._keep(name, ids)  # before it starts: a run that is killed meanwhile finds it again
            try:
                started = self._start(tracker, name, ids)
            except Exception as error:  # of whatever kind the tracker's library has
                raise MachineError(
                    f"the tracker {name} cannot be started: {type(error).__name__}: {error}; leave out --tracker {name} to go "
                    "on without"
                ) from error
            self._keep(name, _ids_given(name, started, ids))
            self._started.append(started)

    def __exit__(self, *_: object) -> None:
        for tracker in list(self._started):
            self._try(tracker, tracker.finish)
        self._started.clear()

    def stage(self, name: str) -> StageTracking:
        """For the reporter of a stage."""
        return StageTracking(self, name)

    def begin(self, stage: str, total: int) -> None:
        """A stage of so many steps begins, or goes on."""
        if self._started:
            self._keep("stages", {**self._known.get("stages", {}), stage: total})

    def steps_before(self, stage: str) -> int:
        """Steps of the stages before this one."""
        stages = self._known.get("stages", {})
        names = list(stages)
        return sum(stages[name] for name in names[: names.index(stage)]) if stage in stages else 0

    @property
    def _path(self) -> Path:
        return self.out / "trackers.json"

    def _keep(self, name: str, values: dict[str, Any]) -> None:
        self._known[name] = values
        write_text(self._path, json.dumps(self._known, indent=1))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers at a step of the run."""
        for tracker in list(self._started):
            self._try(tracker, lambda t=tracker: t.log(dict(values), step=step))  # type: ignore[misc]

    def picture(self, name: str, image: np.ndarray, path: Path, step: int) -> None:
        """A picture, to those that take some."""
        for tracker in list(self._started):
            if hasattr(tracker, "log_images"):
                self._try(tracker, lambda t=tracker: t.log_images({name: [image]}, step=step))  # type: ignore[misc]
            elif hasattr(tracker, "log_artifact"):
                folder = f"{name.rpartition('/')[0]}/step-{step}"
                self._try(tracker, lambda t=tracker, f=folder: t.log_artifact(str(path), artifact_path=f))  # type: ignore[misc]

    def _first_ids(self, name: str) -> dict[str, str]:
        own = uuid.uuid4().hex[:12]
        # MLflow's server gives its own; Trackio's runs go by their name.
        return {} if name == "mlflow" else {"id": own} if name == "wandb" else {"name": f"{self.out.name}-{own[:6]}"}

    def _start(self, tracker: TrackerName, name: str, ids: dict[str, str]) -> GeneralTracker:
        options: dict[str, Any] = dict(ids)
        if name == "wandb":
            options.update(name=self.out.name, resume="allow", dir=str(self.out))
        elif name == "mlflow":
            options.update(run_name=self.out.name)
        elif name == "trackio":
            options.update(resume="allow")
        # Not through an Accelerator: the first one of a process settles the precision, which is the stages' affair.
        started: GeneralTracker = (
            LOGGER_TYPE_TO_CLASS[tracker](self.project, **options) if isinstance(tracker, str) else tracker
        )
        if hasattr(started, "start"):  # with an older accelerate they start when they are made
            started.start()
        started.store_init_configuration(flat(self.config))
        return started

    def _try(self, tracker: GeneralTracker, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:
            _LOG.warning(
                "the tracker %s fails (%s: %s) and is given up: metrics.jsonl has the rest",
                tracker.name,
                type(error).__name__,
                error,
            )
            self._started.remove(tracker)


def _accepted(name: str) -> str:
    """A name as every tracker takes it: datasets and tasks are called anything, and MLflow takes no commas."""
    return re.sub(r"[^A-Za-z0-9_\-. :/]", "_", name)


def _ids_given(name: str, started: GeneralTracker, ids: dict[str, str]) -> dict[str, str]:
    return {"run_id": str(started.tracker.info.run_id)} if name == "mlflow" else ids


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        values = json.loads(read_regular_text(path))
    except FileNotFoundError:
        return {}
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise InputError(f"{path} is damaged: remove it, and the trackers begin new runs")
    return values


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested plain values under dotted names, each a number, a text or a bool, as trackers take them."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            out.update(flat(value, f"{name}."))
        elif isinstance(value, bool | int | float | str):
            out[name] = value
        else:
            out[name] = json.dumps(value)
    return out
