"""Checks of what callers give to environments: reset options, seeds, actions, sizes of pictures, flags.

All errors are :class:`~uva_agents.errors.InputError`: they name the environment, what was given, and what it takes.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uva_agents.errors import InputError

FOREIGN = ("lerobot_",)
"""Prefixes of reset options that other libraries pass to every environment for their own use: these are ignored."""
LEAST, MOST = 8, 4096
"""Pixels, of a picture's sides."""


class WrongTypeError(InputError, TypeError):
    """An argument of a wrong type."""


def checked_options(options: Any, known: Sequence[str], env_id: str) -> dict[str, Any]:
    """The options of a ``reset`` that are this environment's.

    Raises:
        InputError: no mapping; or an option that is neither known nor foreign, with the close one.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise WrongTypeError(f"reset(options={options!r}): {env_id} takes a dict of options; it {_knows(known)}")
    for name in options:
        if name not in known and not str(name).startswith(FOREIGN):
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise InputError(f"unknown reset option {name!r}: {env_id} {_knows(known)}{hint}")
    return {name: value for name, value in options.items() if name in known}


def checked_seed(seed: Any, name: str) -> int | None:
    """``seed`` as a plain int.

    Raises:
        InputError: neither a whole number in [0, 2**32) nor None.
    """
    if seed is None:
        return None
    number = _whole(seed)
    if number is None:
        raise WrongTypeError(f"seed={seed!r}: a seed is a whole number from 0 to 2**32 - 1, or None")
    if not 0 <= number < 2**32:
        raise InputError(f"seed={seed} is out of range: {name} seeds go from 0 to 2**32 - 1")
    return number


def checked_render_mode(mode: Any) -> str | None:
    """``mode``, if it is offered.

    Raises:
        InputError: it is not.
    """
    if mode is None or (isinstance(mode, str) and mode == "rgb_array"):
        return mode
    raise InputError(
        f'render_mode={mode!r} is not offered: pass "rgb_array" (or None) and show or save what render() returns'
    )


def checked_choice(value: Any, name: str, known: Sequence[str]) -> str:
    """``value``, if it is one of ``known``.

    Raises:
        InputError: it is not; the message has the close one.
    """
    if isinstance(value, str) and value in known:
        return value
    close = difflib.get_close_matches(str(value), known, n=1) if isinstance(value, str) else []
    hint = f"; did you mean {close[0]!r}?" if close else ""
    names = " or ".join(map(repr, known)) if len(known) < 3 else f"one of {', '.join(map(repr, known))}"
    raise InputError(f"{name}={value!r} is unknown: pass {names}{hint}")


def checked_flag(value: Any, name: str) -> bool:
    """``value``, if it is True or False.

    Raises:
        InputError: anything else; ``"no"`` would count as True.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise WrongTypeError(f"{name}={value!r}: pass True or False")


def checked_count(value: Any, name: str, least: int = 0) -> int:
    """``value`` as a plain int.

    Raises:
        InputError: no whole number, or less than ``least``.
    """
    number = _whole(value)
    if number is None or number < least:
        raise InputError(f"{name}={value!r}: pass a whole number, {least} or more")
    return number


def checked_side(size: Any, name: str = "render_size", *, most: int = MOST) -> int:
    """Side of a picture in pixels.

    Raises:
        InputError: no whole number, or outside [8, ``most``].
    """
    number = _whole(size)
    if number is None or not LEAST <= number <= most:
        raise InputError(f"{name}={size!r}: pass a side of at least {LEAST} pixels and at most {most}")
    return number


def checked_size(size: Any, name: str = "image_size", *, most: int = MOST) -> tuple[int, int]:
    """(height, width) of a picture, from that or from the side of a square.

    Raises:
        InputError: not one or two whole numbers, or outside [8, ``most``].
    """
    sides = list(size) if isinstance(size, tuple | list) else [size, size]
    numbers = [_whole(side) for side in sides]
    if len(numbers) == 2:
        height, width = numbers
        if height is not None and width is not None and min(height, width) >= LEAST and max(height, width) <= most:
            return height, width
    raise InputError(f"{name}={size!r}: pass a side, or (height, width), of at least {LEAST} pixels and at most {most}")


def as_numbers(action: Any, name: str) -> np.ndarray:
    """An action as float64, of any shape, finite or not.

    Raises:
        InputError: it is made of something else: None, text, a dict, lists of unequal lengths, bools.
    """
    if isinstance(action, np.ma.MaskedArray):
        raise WrongTypeError(
            f"{name} takes an action as an array of numbers, got a masked array: fill it, with filled()"
        )
    try:
        value = np.asarray(action)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WrongTypeError(f"{name} takes an action as an array of numbers; this is none: {error}") from error
    if value.dtype.kind not in "fiu":
        what = repr(action) if isinstance(action, str | bytes | bool | None) else f"a {type(action).__name__}"
        kind = "" if value.dtype == object else f" of {value.dtype}"
        raise WrongTypeError(f"{name} takes an action as an array of numbers, got {what}{kind}")
    return value.astype(np.float64)


def finite_action(action: Any, name: str, shape: tuple[int, ...], what: str, hint: str = "") -> np.ndarray:
    """One action as float64 of ``shape``.

    Args:
        name: of the environment.
        what: it takes, for example "action of shape (2,), a target (x, y) in pixels".
        hint: for an action of another shape.

    Raises:
        InputError: no numbers, another shape, NaN or infinity.
    """
    value = as_numbers(action, name)
    if value.shape != shape:
        if not hint and value.ndim > 1:
            hint = "; a chunk of actions is executed one step at a time"
        raise InputError(f"{name} takes one {what}, got {value.shape}{hint}")
    if not np.isfinite(value).all():
        raise InputError(f"action {value.tolist()} contains NaN or infinity: check the policy that produced it")
    return value


def _whole(value: Any) -> int | None:
    """As a plain int; None for what is no whole number, True and False included."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return int(operator.index(value))
    except TypeError:
        return None


def _knows(known: Sequence[str]) -> str:
    if not known:
        return "has none"
    names = [repr(name) for name in known]
    return f"knows {names[0]} only" if len(names) == 1 else f"knows {', '.join(names[:-1])} and {names[-1]} only"
