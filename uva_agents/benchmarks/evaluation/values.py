"""What an environment reports, taken for what it is: "1" is no reward, "no" is no true, what is masked is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from uva_agents.agents.observations import is_masked
from uva_agents.errors import InputError


def number(value: Any, what: str) -> float:
    """A real number, from one or from an array or tensor of one; NaN and infinity are for the caller to judge.

    Args:
        what: it is, as in "the reward".

    Raises:
        InputError: something else.
    """
    found = _single(value)
    if found is None or found.dtype.kind not in "biuf":
        raise InputError(f"it gave {_short(value)} as {what}, which is no real number")
    return float(found)


def flag(value: Any, what: str) -> bool:
    """True or false, also as the number 1 or 0.

    Raises:
        InputError: something else; text and NaN would count as true, and None as false.
    """
    found = _single(value)
    if found is None or found.dtype.kind not in "biuf" or float(found) not in (0.0, 1.0):
        raise InputError(f"it gave {_short(value)} as {what}, which is neither true nor false")
    return bool(found)


def require_known(observation: Any, what: str = "the observation") -> None:
    """Refuse masked values, whose numbers mean nothing.

    Raises:
        InputError: naming the key.
    """
    if isinstance(observation, Mapping):
        for key, value in observation.items():
            require_known(value, f"observation[{key!r}]")
    elif is_masked(observation):
        raise InputError(f"it gave masked values as {what}")


def _single(value: Any) -> np.ndarray | None:
    """An array () of what is one thing."""
    if is_masked(value):
        return None
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except Exception:  # whatever an object that is no array does when it is asked to be one
        return None
    return array.reshape(()) if array.size == 1 else None


def _short(value: Any) -> str:
    return f"{value!r:.60}"
