"""Numbers that callers give: integers are integers, and an error names the argument."""

from __future__ import annotations

import operator
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
