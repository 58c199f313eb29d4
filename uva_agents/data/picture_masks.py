"""Parts of pictures that training blacks out, by name: what one robot's camera shows and another's does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from uva_agents.data.lazy import as_lazy
from uva_agents.data.umi import black_mirrors
from uva_agents.errors import InputError

PICTURE_MASKS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType({"umi-mirrors": black_mirrors})
"""Name -> what blackens uint8 frames (N, H, W, 3), in a copy. ``umi-mirrors``: the two mirrors of UMI's gripper."""

_ROWS = 256


def blacked_out(frames: np.ndarray, name: str) -> np.ndarray:
    """The frames with what ``name`` says black; those on disk stay there, and are changed as they are read.

    Raises:
        InputError: there is no mask of that name.
    """
    if name not in PICTURE_MASKS:
        raise InputError(f"no part of pictures is called {name!r}: known are {', '.join(PICTURE_MASKS)}")
    change = PICTURE_MASKS[name]
    lazy = as_lazy(frames)
    if lazy is not None:
        return lazy.changed(change, name).as_array()
    out = np.empty_like(frames)
    for begin in range(0, len(frames), _ROWS):
        out[begin : begin + _ROWS] = change(frames[begin : begin + _ROWS])
    return out
