"""Where canonical arrays come from."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from uva_agents.errors import DataError, InputError

_EXACT = 2**24
"""Whole numbers up to here are exact in float32."""
_LOST, _LOST_STEP = 0.01, 0.1
"""Shares of a column's reach, and of its usual step, that rounding may take."""
_NOISE = 1e-12
"""Of a number: what it moves by while it stands still."""
_HARMLESS = 1e-7
"""What rounding may always take, in metres, radians or seconds: the jitter of a simulated body at rest is less."""
_LARGE = 256.0
"""Numbers from here on lose more than 1e-5 in float32: their single steps are looked at, too."""


@dataclass(frozen=True)
class Field:
    """Where a canonical array comes from.

    Attributes:
        key: of the stored array; several are joined along their last axis.
        columns: some of the last axis.
        flatten: make (N, ...) two-dimensional.
    """

    key: str | tuple[str, ...]
    columns: slice | tuple[int, ...] | None = None
    flatten: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the stored arrays."""
        return (self.key,) if isinstance(self.key, str) else self.key

    @property
    def whole(self) -> bool:
        """Whether it is one stored array as it is, but for its shape."""
        return len(self.keys) == 1 and self.columns is None

    def take(self, read: Callable[[str], np.ndarray]) -> np.ndarray:
        """The array (N, ...) from what ``read(key)`` gives, in its own type.

        Raises:
            InputError: columns that are not there.
        """
        parts = [read(key) for key in self.keys]
        value = parts[0]
        if len(parts) > 1:
            value = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=-1)
        if self.columns is not None:
            self._check_columns(value.shape)
            value = value[..., list(self.columns) if isinstance(self.columns, tuple) else self.columns]
        if self.flatten:
            value = value.reshape(len(value), math.prod(value.shape[1:]))
        return value

    def _check_columns(self, shape: tuple[int, ...]) -> None:
        """A slice that reaches beyond is cut by numpy, down to nothing, without a word."""
        width = shape[-1] if len(shape) > 1 else 0
        if isinstance(self.columns, slice):
            ends = [end for end in (self.columns.start, self.columns.stop) if end is not None]
            good = all(-width <= end <= width for end in ends) and len(range(*self.columns.indices(width))) > 0
        else:
            good = bool(self.columns) and all(-width <= column < width for column in self.columns or ())
        if not good:
            raise InputError(f"columns {self.columns} are not all there: {' + '.join(self.keys)} has {width} a row")


def as_field(value: Any, name: str = "the field") -> Field:
    """A field, also from plain values: a stored key, several of them, or what :func:`field_to_dict` gives.

    Raises:
        InputError: it is none of these; the message has ``name``.
    """
    if isinstance(value, Field):
        return value
    if isinstance(value, str):
        return Field(value)
    if isinstance(value, list | tuple) and value and all(isinstance(key, str) for key in value):
        return Field(tuple(value))
    if isinstance(value, Mapping) and "key" in value and set(value) <= {"key", "columns", "flatten"}:
        key, columns = value["key"], value.get("columns")
        if isinstance(columns, Mapping) and set(columns) <= {"start", "stop"}:
            columns = slice(columns.get("start"), columns.get("stop"))
        elif isinstance(columns, list | tuple):
            columns = tuple(int(column) for column in columns)
        if columns is None or isinstance(columns, slice | tuple):
            return Field(key if isinstance(key, str) else tuple(key), columns, bool(value.get("flatten")))
    raise InputError(f"{name} is taken from a stored key, or several, not {value!r:.80}")


def field_to_dict(field: Field) -> dict[str, Any]:
    """Plain values, ready for JSON."""
    columns: Any = list(field.columns) if isinstance(field.columns, tuple) else field.columns
    if isinstance(columns, slice):
        columns = {"start": columns.start, "stop": columns.stop}
    key = field.key if isinstance(field.key, str) else list(field.key)
    return {"key": key, "columns": columns, "flatten": field.flatten}


def require_key(key: str, known: Iterable[str], *, name: str, source: str, under: str = "") -> None:
    """Check that ``key`` exists.

    Args:
        name: the canonical array that wants it.
        under: prefix of keys, for the message.

    Raises:
        ValueError: it does not; with the close matches.
    """
    known = sorted(known)
    if key in known:
        return
    close = difflib.get_close_matches(key, known, n=1) or known
    raise ValueError(f"{source} has no {under}{key} (wanted as {name!r}); found {', '.join(close) or 'nothing'}")


def as_float32(value: np.ndarray, name: str) -> np.ndarray:
    """Numbers as float32; NaN and infinity stay, and what is beyond float32 becomes infinity, which is refused by row later.

    Raises:
        DataError: a whole number so large that float32 would give another; floats whose steps float32 would lose, as those of
            seconds since 1970.
    """
    value = np.asarray(value)
    if value.dtype.kind in "iu" and value.dtype.itemsize > 2 and value.size:
        low, high = int(value.min()), int(value.max())
        if max(-low, high) > _EXACT:
            raise DataError(
                f"{name} has whole numbers up to {max(-low, high)}, and float32 is exact up to {_EXACT} only: "
                "scale them, or leave the array out"
            )
    with np.errstate(over="ignore", under="ignore"):
        narrow = value.astype(np.float32)
    if value.dtype.kind == "f" and value.dtype.itemsize > 4 and len(value) > 1:
        _check_steps(value.reshape(len(value), -1), narrow.reshape(len(value), -1), name)
    return narrow


def _check_steps(value: np.ndarray, narrow: np.ndarray, name: str) -> None:
    """That a column (N, D) still moves as it did after it was rounded: a small change of a large number may be gone.

    What hardly moves beside its own noise, as a simulated body at rest does, is no loss.

    Raises:
        DataError: one does not.
    """
    for column in range(value.shape[1]):
        exact, rounded = value[:, column], narrow[:, column]
        good = np.isfinite(exact) & np.isfinite(rounded)
        exact, rounded = exact[good], rounded[good]
        if not len(exact):
            continue
        lost = float(np.abs(exact - rounded).max())
        most = float(np.abs(exact).max())
        reach = float(exact.max() - exact.min())
        if lost <= _HARMLESS or reach <= _NOISE * most:
            continue
        gone = lost > _LOST * reach
        if gone or most > _LARGE:
            steps = np.abs(np.diff(exact))
            step = float(np.median(steps[steps > 0]))
            gone = gone or lost > _LOST_STEP * step
        if gone:
            where = f" in column {column}" if value.shape[1] > 1 else ""
            raise DataError(
                f"{name} has numbers up to {most:.6g}{where} that change by {step:.2g}, and float32 rounds them "
                f"by up to {lost:.2g}: subtract an offset (for times, that of the first step), or leave the array out"
            )
