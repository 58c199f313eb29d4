"""Saved states that identify themselves: environment, task, version, and a checksum of their values.

A state is a frozen dataclass; its last field, ``stamp``, is made by :func:`stamp` when it is saved and compared by :func:`check`
before any of it is used. A simulator that is handed bytes which are not its own may end the process, so nothing goes there before.
"""

from __future__ import annotations

import enum
import functools
import importlib.metadata
import operator
import struct
import zlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from uva_agents.envs.checks import WrongTypeError
from uva_agents.errors import InputError

VERSION = 1
"""Of the format of states."""
MOST = 1e9
"""No number in a state is larger, unless a field has a bound of its own."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a state is of.

    Attributes:
        environment: id, for example ``"uva/PushT-v0"``.
        task: what the episode asks for, where an environment has several tasks; else "".
        simulator: name and version of what simulates.
        version: of the format.
        checksum: of all this and of the values in the state.
    """

    environment: str
    task: str
    simulator: str
    version: int
    checksum: int


@functools.cache
def simulator(*distributions: str) -> str:
    """Names and versions of what simulates, for a stamp."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in distributions)


def stamp(environment: str, task: str, made_by: str, values: Iterable[Any]) -> Stamp:
    """For a state that holds ``values``, in the order of its fields."""
    return Stamp(environment, task, made_by, VERSION, _checksum((environment, task, made_by, VERSION), values))


def check(
    state: Any,
    kind: type[Any],
    *,
    environment: str,
    made_by: str,
    tasks: Collection[str] = ("",),
    fix: str = "",
    validate: Callable[[Any], None] | None = None,
    pack: Callable[[Any], Any] = lambda value: value,
) -> None:
    """That ``state`` is one of this environment's, whole and unchanged. Nothing is done with it before.

    Args:
        kind: the class of the environment's states.
        environment: id.
        tasks: those that the environment can go to.
        made_by: its simulator.
        fix: what to do about a state of another task.
        validate: checks its values, and raises an InputError, or whatever comes of values of other types.
        pack: what was done with each value before :func:`stamp`.

    Raises:
        InputError: it is not; the message says what differs.
    """
    if type(state) is not kind:
        if isinstance(getattr(state, "stamp", None), Stamp):
            raise InputError(_elsewhere(state.stamp.environment, environment))
        raise WrongTypeError(
            f"set_state() takes what get_state() returned, a {kind.__name__}, not {type(state).__name__}"
        )
    mark = getattr(state, "stamp", None)
    if not isinstance(mark, Stamp):
        raise InputError(
            f"this {kind.__name__} has no stamp: it was put together by hand, or saved by an earlier version of uva-agents. "
            "Go to that moment again with reset() and the same actions, and save it anew with get_state()"
        )
    if mark.environment != environment:
        raise InputError(_elsewhere(mark.environment, environment))
    if mark.version != VERSION or mark.simulator != made_by:
        raise InputError(
            f"this state is of another version (format {mark.version}, {mark.simulator}), and here is format {VERSION}, {made_by}: "
            "install that version, or go to that moment again with reset() and the same actions"
        )
    if mark.task not in tasks:
        here = " or ".join(repr(task) for task in tasks)
        raise InputError(f"this state is of the task {mark.task!r}, and this environment has {here}{fix}")
    try:
        values = [getattr(state, field.name) for field in fields(kind) if field.name != "stamp"]
        if validate is not None:
            validate(state)
        found = _checksum((mark.environment, mark.task, mark.simulator, mark.version), map(pack, values))
    except InputError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, struct.error, AttributeError, RecursionError) as error:
        raise InputError(_damaged(environment, f"it holds what no state does: {error}")) from error
    if found != mark.checksum:
        raise InputError(_damaged(environment, "its checksum is another"))


def numbers(value: Any, what: str, *, size: int | None = None, low: float = -MOST, high: float = MOST) -> None:
    """That ``value`` is ``size`` numbers within [``low``, ``high``].

    A checksum says that nothing changed since a state was saved, not that it was good then.

    Args:
        value: an array, a tuple, a number, or the bytes of float64.
        what: it is, for the message.

    Raises:
        InputError: it is not.
    """
    found = np.frombuffer(value) if isinstance(value, bytes) else np.asarray(value, np.float64)
    if size is not None and found.size != size:
        raise InputError(f"this state holds {found.size} numbers as its {what}, where there are {size}")
    if not ((found >= low) & (found <= high)).all():
        wrong = found[~((found >= low) & (found <= high))].flat[0]
        raise InputError(f"this state has {wrong:g} in its {what}, where numbers are from {low:g} to {high:g}")


def _elsewhere(theirs: str, ours: str) -> str:
    return f"this state is of {theirs}, and this environment is {ours}: go to it in an environment made with gym.make({theirs!r})"


def _damaged(environment: str, why: str) -> str:
    return (
        f"this state of {environment} is not as get_state() returned it ({why}): it was changed or damaged. Save it "
        "again, and keep it whole (pickle it, do not edit it)"
    )


def _checksum(head: tuple[Any, ...], values: Iterable[Any]) -> int:
    parts: list[bytes] = []
    for value in (*head, *values):
        _append(parts, value)
    return zlib.crc32(b"".join(parts))


def _append(parts: list[bytes], value: Any) -> None:
    """Bytes that differ wherever two values differ, whatever they were copied through.

    A dataclass that was renamed says in ``saved_as`` by which name checksums of saved states know it.
    """
    kind = type(value)
    if kind is np.ndarray:
        if value.dtype == object:
            raise TypeError("an array of objects")
        parts += (_head(value.dtype.char, value.shape), value.tobytes())
    elif kind is float:
        parts.append(struct.pack("<d", value))
    elif isinstance(value, np.generic):
        _append(parts, value.item())
    elif kind is bytes:
        parts += (b"b%d:" % len(value), value)
    elif kind is tuple:
        parts.append(b"(%d:" % len(value))
        if value and all(type(part) is float for part in value):
            parts.append(struct.pack(f"<{len(value)}d", *value))
            return
        if value and all(
            type(part) is tuple and len(part) == 2 and type(part[0]) is type(part[1]) is float for part in value
        ):
            parts.append(struct.pack(f"<{2 * len(value)}d", *(number for pair in value for number in pair)))
            return
        for part in value:
            _append(parts, part)
    elif value is None or kind in (bool, int, str):
        parts.append(f"{kind.__name__[0]}{value!r};".encode())
    elif kind is dict:
        parts.append(b"{%d:" % len(value))
        for key, part in value.items():
            _append(parts, key)
            _append(parts, part)
    elif hasattr(kind, "__dataclass_fields__"):
        parts.append(getattr(kind, "saved_as", kind.__name__).encode())
        for part in _parts(kind)(value):  # type: ignore[arg-type]  # classes are hashable
            _append(parts, part)
    elif isinstance(value, enum.Enum):
        parts.append(f"{kind.__name__}.{value.name};".encode())
    else:
        raise TypeError(f"a {kind.__name__}")


@functools.lru_cache(maxsize=256)
def _head(dtype: str, shape: tuple[int, ...]) -> bytes:
    return f"a{dtype}{shape}:".encode()


@functools.cache
def _parts(kind: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Values of a dataclass's fields; an attrgetter of one name would return no tuple, so it is given two."""
    names = list(kind.__dataclass_fields__)
    return operator.attrgetter(*names, names[0])
