"""Options of the arm are looked at before anything is made of them: a message names the option and what belongs there."""

from __future__ import annotations

import math
import numbers
import os
from typing import Any, TypeVar

import numpy as np

from uva_agents.errors import InputError

T = TypeVar("T")


def number(name: str, value: Any, *, infinite: bool = False) -> float:
    """A real number; neither NaN, text nor a truth value, and infinite only where that means something.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        hint = f"; leave the quotes away: {name}={value}" if isinstance(value, str) and _reads_as_number(value) else ""
        raise InputError(f"{name}={short(value)} must be a number, not {type(value).__name__}{hint}")
    try:
        real = float(value)
    except OverflowError:
        real = math.inf
    if math.isnan(real):
        raise InputError(f"{name}={real} must be a number")
    if math.isinf(real) and not infinite:
        raise InputError(f"{name}={real} must be finite")
    return real


def flag(name: str, value: Any) -> bool:
    """True or False.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name}={short(value)} must be True or False")
    return bool(value)


def instance(name: str, value: Any, kind: type[T], example: str) -> T:
    """A value of a class.

    Raises:
        InputError: it is of another.
    """
    if isinstance(value, kind):
        return value
    hint = f"{kind.__name__}(**{name})" if isinstance(value, dict) else f"for example {example}"
    raise InputError(f"{name}={short(value)} must be a {kind.__name__}, not {type(value).__name__}: pass {hint}")


def path(name: str, value: Any) -> None:
    """The path of a file.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{name}={short(value)} must be the path of a file, not {type(value).__name__}")


def methods(name: str, value: Any, needed: tuple[str, ...], what: str) -> None:
    """An object that can do something.

    Raises:
        InputError: it lacks a method.
    """
    missing = [method for method in needed if not callable(getattr(value, method, None))]
    if missing:
        raise InputError(f"{name}={short(value)} is no {what}: it has no {missing[0]}()")


def short(value: Any) -> str:
    """For a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _reads_as_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
