"""The lifecycle that all environments share: made, reset, stepped, closed, copied.

Every method of a closed environment raises :class:`ClosedError`. A copy is made with the same arguments and put into the same
state, random generators included, so that it continues as the original does. It costs what making an environment costs; to try
actions in an environment and go back, ``get_state`` and ``set_state`` are cheaper.
"""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded

from uva_agents.envs.checks import WrongTypeError
from uva_agents.errors import InputError

_KEPT = ("spec", "metadata", "render_mode", "action_space", "observation_space", "_np_random", "_np_random_seed")
"""gymnasium's own, spaces with their generators among them."""


class NotResetError(InputError, ResetNeeded, RuntimeError):
    """A method that needs an episode was called before the first reset."""


class ClosedError(InputError, ClosedEnvironmentError, RuntimeError):
    """A method was called after ``close()``."""


class Lifecycle:
    """A mixin, before ``gymnasium.Env`` among the bases of an environment that defines ``_running()`` and ``_free()``.

    An unknown argument of the constructor is a :class:`WrongTypeError` (a ``TypeError``) that names the closest known one.
    """

    _env_id: ClassVar[str]
    _carried: ClassVar[tuple[str, ...]] = ()
    """Attributes that a copy gets, besides gymnasium's own and the state: plain values."""
    _closed = False
    _made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remembers the arguments, for copies."""
        known = _arguments(cls)  # type: ignore[arg-type]  # classes are hashable
        if known is not None:
            for name in kwargs:
                if name not in known:
                    close = difflib.get_close_matches(name, known, n=1)
                    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
                    raise WrongTypeError(f"{cls.__name__} got an unexpected keyword argument {name!r}; {hint}")
        made: Any = super().__new__(cls)
        made._made_with = tuple(map(_snapshot, args)), {name: _snapshot(value) for name, value in kwargs.items()}
        return made  # type: ignore[no-any-return]

    def close(self) -> None:
        """Free all resources; the environment cannot be used afterwards. Calling again does nothing."""
        if not self._closed:
            self._closed = True
            self._free()

    def _running(self) -> bool:
        """Whether an episode has begun."""
        raise NotImplementedError

    def _free(self) -> None:
        """Free all resources; called once, also if the constructor failed."""

    def _require_open(self, what: str) -> None:
        if self._closed:
            raise ClosedError(f"{what} after close(): this {self._env_id} is closed for good; make another one")

    def _require_reset(self, what: str) -> None:
        self._require_open(what)
        if not self._running():
            raise NotResetError(f"{what} before reset(): call env.reset() first")

    # -- copies ------------------------------------------------------------------------------------------------------

    def _require_copyable(self) -> None:
        """Raises an InputError where there can be no copy."""

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy.deepcopy, inside gymnasium's wrappers, too."""
        self._require_copyable()
        args, kwargs = self._made_with
        here: Any = self
        kept = {name: getattr(here, name) for name in _KEPT if name in here.__dict__}
        kept |= {name: getattr(here, name) for name in self._carried}
        now = here.get_state() if not self._closed and self._running() else None
        return _made, (type(self), args, kwargs), {"kept": kept, "now": now, "closed": self._closed}

    def __copy__(self) -> Self:
        """There are no shallow copies: two environments with one generator would change each other's episodes."""
        return copy.deepcopy(self)

    def __setstate__(self, memory: Mapping[str, Any]) -> None:
        """Into the state of the original."""
        here: Any = self
        for name, value in memory["kept"].items():
            setattr(here, name, value)
        if memory["now"] is not None:
            here.set_state(memory["now"])
            for name in self._carried:  # set_state() may have set them, too
                if name in memory["kept"]:
                    setattr(here, name, memory["kept"][name])
        if memory["closed"]:
            self.close()


def _made(kind: type[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return kind(*args, **kwargs)


def _snapshot(value: Any) -> Any:
    """Containers as they are now: what the caller does to them later is not what the environment was made with."""
    return copy.deepcopy(value) if isinstance(value, list | dict | set | np.ndarray) else value


@functools.cache
def _arguments(kind: type[Any]) -> tuple[str, ...] | None:
    """Names of a constructor's arguments; None where it takes any."""
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return None
    return tuple(p.name for p in parameters)
