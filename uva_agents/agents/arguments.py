"""Numbers that callers give: integers are integers, and an error names the argument."""

from __future__ import annotations

import math
import operator
import sys
from typing import Any

import numpy as np

from uva_agents.errors import InputError


def whole(value: Any, name: str, least: int = 1) -> int:
    """An integer of at least ``least``; numpy's are integers too.

    Raises:
        InputError: something else.
    """
    number = integer(value, name)
    if number < least:
        raise InputError(f"{name} must be at least {least}, got {number}")
    return number


def real(
    value: Any, name: str, least: float = -math.inf, most: float = math.inf, *, above: bool = False, below: bool = False
) -> float:
    """A finite number from ``least`` to ``most``; ``above`` and ``below`` leave these out themselves.

    Raises:
        InputError: something else.
    """
    good = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not good or not abs(value) <= sys.float_info.max:
        raise InputError(f"{name} must be a finite number, got {value!r:.60}")
    if value < least or value > most or (above and value == least) or (below and value == most):
        low = "" if least == -math.inf else f" {'above' if above else 'at least'} {least:g}"
        high = "" if most == math.inf else f" {'below' if below else 'at most'} {most:g}"
        raise InputError(f"{name} must be{' and'.join(part for part in (low, high) if part)}, got {value!r}")
    return float(value)


def flag(value: Any, name: str) -> bool:
    """True or False.

    Raises:
        InputError: something else; ``"no"`` would count as true.
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be True or False, got {value!r:.60}")
    return bool(value)


def seed_of(value: Any, name: str = "seed") -> int:
    """An integer that torch takes as a seed.

    Raises:
        InputError: something else.
    """
    number = integer(value, name)
    if not -(1 << 63) <= number < 1 << 64:
        raise InputError(f"{name} must fit into 64 bits, got {number}")
    return number


def integer(value: Any, name: str) -> int:
    """An integer.

    Raises:
        InputError: something else.
    """
    try:
        if isinstance(value, bool | np.bool_ | np.ndarray):
            raise TypeError("no number")
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} must be an integer, got {value!r:.60}") from error
