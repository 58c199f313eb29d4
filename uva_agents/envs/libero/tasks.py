"""LIBERO's suites: which tasks there are, what they ask for, and the states that its own evaluation starts from."""

from __future__ import annotations

import importlib.util
import pickle
import re
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.envs.checks import checked_choice
from uva_agents.envs.libero.install import libero_folder
from uva_agents.errors import InputError

SUITES = ("libero_10", "libero_spatial", "libero_object", "libero_goal", "libero_90")


@dataclass(frozen=True, slots=True)
class LiberoTask:
    """One task.

    Attributes:
        suite: one of :data:`SUITES`.
        task_id: position in the suite, in LIBERO's own order.
        name: LIBERO's, which is also the name of its files: words joined by underscores, scene first where there are scenes.
    """

    suite: str
    task_id: int
    name: str

    @property
    def prompt(self) -> str:
        """The name in words, the scene included: what the released model was trained with."""
        return self.name.replace("_", " ")

    @property
    def language(self) -> str:
        """What to do, as one would say it."""
        return re.sub(r"^[A-Z_]+SCENE\d+_", "", self.name).replace("_", " ")

    @property
    def bddl_file(self) -> Path:
        """Its definition."""
        return libero_folder() / "bddl_files" / self.suite / f"{self.name}.bddl"

    @property
    def states_file(self) -> Path:
        """Its initial states."""
        return libero_folder() / "init_files" / self.suite / f"{self.name}.pruned_init"


@lru_cache(maxsize=len(SUITES))
def suite_tasks(suite: str) -> tuple[LiberoTask, ...]:
    """The tasks of a suite, in order.

    Raises:
        ValueError: there is no such suite.
        ImportError: LIBERO is not installed.
    """
    if suite not in SUITES:
        raise ValueError(f"suite={suite!r} is unknown: pass one of {', '.join(map(repr, SUITES))}")
    # The list is a file of its own, but importing it through its package would import torch.
    path = libero_folder() / "benchmark" / "libero_suite_task_map.py"
    spec = importlib.util.spec_from_file_location("_uva_libero_suites", path)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tuple(LiberoTask(suite, i, name) for i, name in enumerate(module.libero_task_map[suite]))


def find_task(suite: str, task_id: Any) -> LiberoTask:
    """A task by its number.

    Raises:
        ValueError: no such suite or task; the message says what there is.
    """
    tasks = suite_tasks(checked_choice(suite, "suite", SUITES))
    if isinstance(task_id, bool) or not isinstance(task_id, int | np.integer) or not 0 <= task_id < len(tasks):
        raise InputError(f"task_id={task_id!r}: {suite} has tasks 0 to {len(tasks) - 1}")
    return tasks[int(task_id)]


@lru_cache(maxsize=16)
def initial_states(task: LiberoTask) -> np.ndarray:
    """The states that LIBERO's evaluation starts from: float64 (n, 1 + nq + nv), time, positions, velocities; read-only.

    Raises:
        ValueError: the file is not what LIBERO ships.
    """
    path = task.states_file
    try:
        # torch wrote them, but there are no tensors in them: a zip with one pickle.
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
            with archive.open(name) as file:
                states = np.array(_ArraysOnly(file).load(), np.float64)
    except (OSError, StopIteration, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read; install rpent-libero again: {error}") from error
    states.setflags(write=False)
    return states


class _ArraysOnly(pickle.Unpickler):
    """Makes numpy arrays and nothing else: a pickle can otherwise run any code."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.zeros(0).__reduce__()[0]
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}")


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    return text.encode(encoding)
