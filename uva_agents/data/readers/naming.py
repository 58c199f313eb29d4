"""Names of stored arrays and of the numbers in them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from uva_agents.data.fields import Field


def short_name(key: str) -> str:
    """The last part of a stored key, in letters, digits and underscores."""
    last = re.split(r"[/.](?=[^/.]*$)", key)[-1]
    return re.sub(r"\W+", "_", last)


def is_key(name: str, key: str) -> bool:
    """Whether ``name`` means a stored key: all of it, or what follows a slash in it."""
    return key == name or key.endswith(f"/{name}")


def means(name: str, key: str) -> bool:
    """Whether ``--skip`` of this name leaves a stored key out."""
    return is_key(name, key) or name in (short_name(key), f"pixels_{short_name(key)}", f"data/{key}")


def names_of_numbers(
    arrays: Mapping[str, np.ndarray], origins: Mapping[str, Field], stored: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Of arrays all of whose numbers have one."""
    found = {}
    for name, value in arrays.items():
        origin = origins.get(name)
        if origin is None or name.startswith("pixels") or not all(key in stored for key in origin.keys):
            continue
        names = np.array([one for key in origin.keys for one in stored[key]], dtype=object)
        if origin.columns is not None:
            names = names[list(origin.columns) if isinstance(origin.columns, tuple) else origin.columns]
        if value.shape[1:] == names.shape:
            found[name] = tuple(str(one) for one in names)
    return found
