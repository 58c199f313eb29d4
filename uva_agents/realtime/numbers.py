"""What an agent answers, as numbers: anything that numpy would only make numbers of is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from uva_agents.agents.observations import to_numpy
from uva_agents.errors import InputError

_KINDS = {"b": "truth values", "c": "complex numbers", "U": "text", "S": "text", "M": "dates", "m": "durations"}


def as_numbers(value: Any, name: str) -> np.ndarray:
    """float64 array of integers or floats: of an array, a torch tensor, or nested lists of either.

    Args:
        name: of what gave the value, for messages.

    Raises:
        InputError: it is nothing, masked, complex, text, or something else that is no array of numbers.
    """
    if value is None:
        raise InputError(f"{name} gave None, not an array of numbers")
    if _masked(value):
        raise InputError(f"{name} gave a masked array, whose masked entries are no numbers; fill them first")
    array = to_numpy(value, f"what {name} gave")
    if array.dtype.kind not in "iuf":
        what = _KINDS.get(array.dtype.kind, f"{type(value).__name__} of {array.dtype}")
        raise InputError(f"{name} gave {what}, not an array of integers or floats")
    return array.astype(np.float64)


def _masked(value: Any) -> bool:
    """Whether a masked array is in there: numpy drops the masks of those in a list."""
    if isinstance(value, list | tuple):
        return any(_masked(part) for part in value)
    return isinstance(value, np.ma.MaskedArray)
