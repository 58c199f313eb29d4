"""Optional abilities of an environment beyond ``gymnasium.Env`` that planning in it makes use of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Restorable(Protocol):
    """A simulator whose state can be saved and restored: planners try candidates in it."""

    def get_state(self) -> Any:
        """The state, picklable: the future depends on it and on the actions alone."""
        ...

    def set_state(self, state: Any) -> Any:
        """To a state that :meth:`get_state` gave, here or in another environment made with the same arguments.

        Raises:
            ValueError: a state of another environment, or a damaged one.
        """
        ...


@runtime_checkable
class Skippable(Restorable, Protocol):
    """A simulator that can step without drawing: planners draw only the frames that an objective requires."""

    def advance(self, action: np.ndarray) -> Any:
        """A step that draws nothing."""
        ...

    def get_obs(self) -> Mapping[str, Any]:
        """The observation of now, as ``reset`` and ``step`` give it."""
        ...
