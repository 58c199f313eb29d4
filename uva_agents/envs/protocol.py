"""What an environment offers beyond ``gymnasium.Env``, so that agents act in it and planners try things out in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Restorable(Protocol):
    """Can be put back to a moment: a simulator that planners try candidates in."""

    def get_state(self) -> Any:
        """The moment, picklable: what comes next depends on nothing else, but for the actions."""
        ...

    def set_state(self, state: Any) -> Any:
        """Back to a moment that :meth:`get_state` gave, here or in another environment made with the same arguments.

        Raises:
            ValueError: a state of another environment, or a damaged one.
        """
        ...


@runtime_checkable
class Skippable(Restorable, Protocol):
    """Can go on without drawing: planners draw only the frames that an objective looks at."""

    def advance(self, action: np.ndarray) -> Any:
        """A step that draws nothing."""
        ...

    def get_obs(self) -> Mapping[str, Any]:
        """The observation of now, as ``reset`` and ``step`` give it."""
        ...
