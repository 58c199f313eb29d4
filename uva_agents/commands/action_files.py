"""Actions that a user brings in a file: .npy, .npz or .csv. What is not plainly actions is refused, with the reason."""

from __future__ import annotations

import csv
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from uva_agents.errors import DataError
from uva_agents.utils.files import read_regular_text

_LARGEST_CSV = 256 << 20
_COLUMN = re.compile(r"action[_.]?(\d{1,6})")


def read_actions(path: Path, size: int, steps: int, names: Sequence[str] = ()) -> np.ndarray:
    """(S, steps, A) from a file.

    Args:
        names: of the numbers, which columns of a table may have.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is damaged, or does not hold enough actions of that size.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--actions takes policy, random, recorded or a file, and there is no file {path}")
    values = _table(path, size, names) if path.suffix.lower() == ".csv" else _array(path)
    if values.dtype.kind not in "iuf":
        raise DataError(f"{path} holds {_kind(values.dtype)}, and actions are real numbers")
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[2] != size or values.shape[1] < steps or not len(values):
        raise DataError(
            f"{path} must hold at least {steps} actions of {size} numbers, (T, A) or (S, T, A); got {values.shape}"
        )
    with np.errstate(over="ignore"):
        actions = np.asarray(values[:, :steps], np.float32)
    if not np.isfinite(actions).all():
        raise DataError(f"{path} has NaN or infinity, or numbers beyond single precision, among its actions")
    return actions


def _array(path: Path) -> np.ndarray:
    try:
        if path.suffix.lower() != ".npz":
            # Mapped: a header that announces more than the file has takes no memory.
            loaded = np.load(path, mmap_mode="r", allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            raise DataError(f"{path} is an archive of arrays: call it .npz")
        with np.load(path, allow_pickle=False) as arrays:
            if not hasattr(arrays, "files"):
                raise DataError(f"{path} is no archive of arrays: call it .npy")
            if "actions" not in arrays.files:
                raise DataError(f"{path} has arrays {arrays.files}, none is called 'actions'")
            values: np.ndarray = arrays["actions"]
            return values
    except DataError:
        raise
    except (OSError, EOFError, BadZipFile, ValueError, SyntaxError, TypeError, MemoryError, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "allow_pickle" in reason or "Python objects" in reason:
            reason = "it holds Python objects or is no array at all"
        raise DataError(f"{path} cannot be read as an array: {reason}") from error


def _table(path: Path, size: int, known: Sequence[str] = ()) -> np.ndarray:
    """(T, A) of the columns action_0, action_1 ... in the order of their numbers, or of those with known names."""
    text = read_regular_text(path, limit=_LARGEST_CSV).removeprefix("\ufeff")
    try:
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    if not rows:
        raise DataError(f"{path} is empty")
    names = [name.strip() for name in rows[0]]
    wanted = f"action_0 to action_{size - 1}" if size > 1 else "action_0"
    for sign, called in ((";", "semicolons"), ("\t", "tabs")):
        if any(sign in name for name in names) and not any(_COLUMN.fullmatch(name) for name in names):
            raise DataError(f"{path} has {called} between its columns: commas are read, and points in numbers")
    if all(_is_number(name) for name in names):
        raise DataError(f"{path} has no header: its first line must name the columns, those of actions {wanted}")
    if known and all(names.count(name) == 1 for name in known):
        names = [f"action_{known.index(name)}" if name in known else name for name in names]
    numbered = {i: int(found[1]) for i, name in enumerate(names) if (found := _COLUMN.fullmatch(name))}
    if not numbered:
        raise DataError(f"{path} has columns {', '.join(names)[:200]}: call those of actions {wanted}")
    first = min(numbered.values())
    if sorted(numbered.values()) != list(range(first, first + size)) or first > 1:
        found_names = ", ".join(names[i] for i in numbered)[:200]
        raise DataError(f"{path} has columns of actions {found_names}: {wanted} are needed, each once")
    columns = sorted(numbered, key=lambda i: numbered[i])
    values = np.empty((len(rows) - 1, size))
    for t, row in enumerate(rows[1:]):
        if len(row) != len(names):
            raise DataError(f"{path} has {len(row)} values in row {t + 1}, and {len(names)} columns")
        for k, i in enumerate(columns):
            if not _is_number(row[i]):
                raise DataError(f"{path} has {row[i][:40]!r} in row {t + 1}, column {names[i]}: not a number")
            values[t, k] = float(row[i])
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # Python would read 1_0 as 10


def _kind(dtype: np.dtype) -> str:
    return {"c": "complex numbers", "b": "truth values", "U": "text", "S": "text"}.get(dtype.kind, str(dtype))
