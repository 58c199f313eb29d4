"""Tables in parquet files, read with their checksums; whatever is wrong with one is said with its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.data.contained import contained
from uva_agents.data.readers.dataset import MissingExtraError
from uva_agents.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


def arrow() -> tuple[Any, Any]:
    """pyarrow and its parquet module.

    Raises:
        MissingExtraError: not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("LeRobot datasets need pyarrow: pip install 'uva-agents[data]'") from error
    return pa, pq


def columns_of(folder: Path, name: str | Path) -> tuple[int, tuple[str, ...]]:
    """Number of rows and names of the columns of ``folder / name``.

    Raises:
        DataError, MissingExtraError: see :func:`read_table`.
    """
    found: tuple[int, tuple[str, ...]] = _with(
        folder, name, lambda file: (int(file.metadata.num_rows), tuple(file.schema_arrow.names))
    )
    return found


def read_table(
    folder: Path, name: str | Path, *, columns: Sequence[str] | None = None, optional: Sequence[str] = ()
) -> pa.Table:
    """Rows of ``folder / name``.

    Args:
        columns: which; all by default.
        optional: more columns, if they are there.

    Raises:
        DataError: it is missing, damaged, outside the folder, no regular file, or lacks a column.
        MissingExtraError: pyarrow is not installed.
    """

    def read(file: Any) -> Any:
        there = set(file.schema_arrow.names)
        absent = [column for column in columns or () if column not in there]
        if absent:
            raise DataError(f"{folder / name} lacks the columns {', '.join(absent)}")
        chosen = None if columns is None else [*columns, *(column for column in optional if column in there)]
        return file.read(columns=chosen)

    return _with(folder, name, read)


def _with(folder: Path, name: str | Path, act: Any) -> Any:
    pa, pq = arrow()
    try:
        path = contained(folder, name)
        # Each file alone: through the dataset interface, folder names would become columns.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return act(file)
    except FileNotFoundError as error:
        raise DataError(f"{folder / name} is missing: copy the dataset again") from error
    except (DataError, MissingExtraError):
        raise
    # Arrow raises many types for damage: its own, OSError, UnicodeDecodeError, MemoryError for sizes that no file has.
    except (OSError, ValueError, MemoryError, KeyError, IndexError, OverflowError, pa.ArrowException) as error:
        raise DataError(f"{folder / name} is damaged or cut short: {_short(error)}; copy it again") from error


def rectangular(column: Any, shape: Sequence[int] | None, source: str) -> np.ndarray:
    """A column of numbers, or of (nested) lists of numbers of one length, as an array (N, ...).

    Args:
        shape: of each row, if it is known; single numbers may be stored as they are.

    Raises:
        DataError: text, nulls, rows of different lengths or of other ones than ``shape``.
    """
    pa, pc = arrow()[0], _compute()
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    rows = len(flat)
    found: list[int] = []
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    while any(is_list(flat.type) for is_list in lists):
        _no_null(flat, source)
        inner = flat.flatten()
        lengths = pc.list_value_length(flat)
        if len(lengths) and pc.min(lengths).as_py() != pc.max(lengths).as_py():
            usual = lengths[0].as_py()
            other = int(np.flatnonzero(lengths.to_numpy(zero_copy_only=False) != usual)[0])
            raise DataError(
                f"{source} has rows of different lengths: the first has {usual} numbers, row {_row(other, found)} "
                f"{lengths[other].as_py()}"
            )
        found.append(lengths[0].as_py() if len(lengths) else 0)
        flat = inner
    _no_null(flat, source, per_row=int(np.prod(found, dtype=np.int64)))
    if not (pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type) or pa.types.is_boolean(flat.type)):
        raise DataError(f"{source} holds {flat.type}, not numbers")
    if shape is not None and rows and list(shape) != found and not (found == [] and int(np.prod(shape)) == 1):
        raise DataError(f"{source} has rows of shape {tuple(found)}, meta/info.json says {tuple(shape)}")
    values: np.ndarray = np.asarray(flat.to_numpy(zero_copy_only=False))
    return values.reshape(rows, *found)


def _row(number: int, outer: list[int]) -> int:
    return number // max(int(np.prod(outer, dtype=np.int64)), 1)


def _no_null(flat: Any, source: str, per_row: int = 1) -> None:
    if flat.null_count:
        where = int(np.flatnonzero(np.asarray(flat.is_null().to_numpy(zero_copy_only=False)))[0])
        raise DataError(f"{source} has no value in {flat.null_count} places, first in row {where // max(per_row, 1)}")


def _compute() -> Any:
    import pyarrow.compute as pc

    return pc


def _short(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
