"""Conventions of robots as pairs of transforms between environment and network, listed in the interface saved with weights.

A convention (absolute or relative poses, the form of rotations, what a gripper's number means, changes instead of goals) is one
frozen dataclass, registered under its ``kind``, which is what files store. Those of this package are in
:mod:`uva_agents.data.conventions`; a new one is a new class, and nothing else that reads or writes weights changes. numpy only.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from uva_agents.errors import InputError, MachineError
from uva_agents.utils.plugins import plugins

GROUP = "uva_agents.conventions"
"""Entry points of other packages: kind -> class."""


@dataclass(frozen=True)
class ReferencePoses:
    """What a transform may refer to: rows of proprioception, in the environment's form and units.

    Attributes:
        now: (P,) at the decision; (..., P) where every action has its own.
        start: (P,) at the start of the episode.
    """

    now: np.ndarray | None = None
    start: np.ndarray | None = None

    def need_now(self) -> np.ndarray:
        """``now``.

        Raises:
            InputError: it is not there.
        """
        if self.now is None:
            raise InputError("these weights act relative to the current pose: give it")
        return np.asarray(self.now, np.float64)

    def need_start(self) -> np.ndarray:
        """``start``.

        Raises:
            InputError: it is not there.
        """
        if self.start is None:
            raise InputError("these weights see poses relative to the episode's start: give it")
        return np.asarray(self.start, np.float64)


@dataclass(frozen=True)
class Transform(ABC):
    """One convention: numbers as the environment has them, and as the network has them.

    Attributes:
        kind: under which it is stored.
        needs: which of the :class:`ReferencePoses` it reads.
        averages: a mean of several rows of the environment's numbers is a sensible row; rotations have no plain mean.
        per_row: a row means the same whichever decision it belongs to, given the pose at its own time as ``now``.
    """

    kind: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    averages: ClassVar[bool] = False
    per_row: ClassVar[bool] = True

    @abstractmethod
    def to_network(self, values: np.ndarray, references: ReferencePoses) -> np.ndarray:
        """(..., E) -> (..., N).

        Raises:
            InputError: another number of columns, or a reference is missing.
        """

    @abstractmethod
    def to_environment(self, values: np.ndarray, references: ReferencePoses) -> np.ndarray:
        """(..., N) -> (..., E): the inverse."""

    @abstractmethod
    def network_size(self, environment_size: int) -> int:
        """N for E."""

    @abstractmethod
    def environment_size(self, network_size: int) -> int:
        """E for N."""

    def origin(self) -> np.ndarray | None:
        """(P,) proprioception of a tool at the origin, for conventions that are relative to where it is; ``None`` for others."""
        return None

    def pose_after(self, action: np.ndarray) -> np.ndarray:
        """(P,) proprioception once an environment's action (E,) is carried out, for those conventions.

        Raises:
            InputError: actions do not say where the tool will be.
        """
        raise InputError(f"{self.kind} do not say where the tool will be")

    def neutral(self) -> np.ndarray | None:
        """(E,) a row of the environment's side that means something, for conventions to which zeros mean nothing."""
        return None

    def environment_limits(self) -> dict[int, tuple[float, float]]:
        """Columns of the environment's side whose limits are known, whatever data say; none as a rule."""
        return {}

    def network_limits(self) -> dict[int, tuple[float, float]]:
        """The same of the network's side."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; :func:`transform_from_dict` is the inverse."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


TRANSFORMS: dict[str, type[Transform]] = {}
"""Kind -> class, of all that are registered."""


def register(cls: type[Transform]) -> type[Transform]:
    """Class decorator: files may name this convention from now on.

    Raises:
        ValueError: another class has this kind.
    """
    if TRANSFORMS.get(cls.kind, cls) is not cls:
        raise ValueError(f"the convention {cls.kind!r} is registered already, as {TRANSFORMS[cls.kind].__qualname__}")
    TRANSFORMS[cls.kind] = cls
    return cls


def load_named(stored: Any) -> None:
    """Register the conventions that a file names and that other installed packages have, entry points of :data:`GROUP`.

    Args:
        stored: a list of what :meth:`Transform.to_dict` gives; anything else is left to whoever reads it.

    Raises:
        MachineError: the package that has one is broken; it names it.
    """
    kinds = {one.get("kind") for one in stored if isinstance(one, Mapping)} if isinstance(stored, list) else set()
    for kind in {kind for kind in kinds if isinstance(kind, str)} - set(TRANSFORMS):
        load = plugins(GROUP, own=TRANSFORMS, expected=type).get(kind)
        if load is None:
            continue
        added = load()
        if not issubclass(added, Transform) or getattr(added, "kind", None) != kind:
            raise MachineError(f"the entry point {kind!r} ({GROUP}) is {added.__qualname__}, no Transform of that kind")
        register(added)


def transform_from_dict(values: Mapping[str, Any]) -> Transform:
    """Inverse of :meth:`Transform.to_dict`.

    Raises:
        ValueError: no convention of this kind is registered.
    """
    kind = values.get("kind")
    if kind not in TRANSFORMS:
        raise ValueError(f"no convention is called {kind!r}: known are {', '.join(sorted(TRANSFORMS))}")
    return TRANSFORMS[kind](
        **{name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name != "kind"}
    )


def to_network(transforms: Sequence[Transform], values: np.ndarray, references: ReferencePoses) -> np.ndarray:
    """Through all of them, the environment's side first. References stay as the environment has them."""
    for transform in transforms:
        values = transform.to_network(values, references)
    return values


def to_environment(transforms: Sequence[Transform], values: np.ndarray, references: ReferencePoses) -> np.ndarray:
    """Inverse of :func:`to_network`."""
    for transform in reversed(transforms):
        values = transform.to_environment(values, references)
    return values
