"""How an array is cut into shards."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SMALLEST_SHARD, LARGEST_SHARD = 16 << 20, 256 << 20
"""Bytes. Of a small array there are many shards all the same, for several processes to write."""
_ALIGNED = 64
"""Rows per shard are a multiple: batches of an encoder are the same whether a whole array or a shard is encoded."""


@dataclass(frozen=True)
class ShardPlan:
    """How an array is cut up.

    Args:
        rows: N.
        shape: of a row.
        dtype: numpy's name of it.
        rows_per_shard: of all but the last.
    """

    rows: int
    shape: tuple[int, ...]
    dtype: str
    rows_per_shard: int

    @classmethod
    def of(
        cls,
        rows: int,
        shape: tuple[int, ...],
        dtype: str,
        *,
        smallest: int = SMALLEST_SHARD,
        largest: int = LARGEST_SHARD,
    ) -> ShardPlan:
        """Shards between ``smallest`` and ``largest`` bytes."""
        row = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        size = min(max(rows * row // 64, smallest), largest)
        return cls(rows, tuple(shape), dtype, max(1, size // row // _ALIGNED) * _ALIGNED)

    @property
    def row_bytes(self) -> int:
        """Of a row."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def count(self) -> int:
        """How many shards."""
        return -(-self.rows // self.rows_per_shard)

    def bounds(self, number: int) -> tuple[int, int]:
        """First row of a shard, and one past its last."""
        begin = number * self.rows_per_shard
        return begin, min(begin + self.rows_per_shard, self.rows)

    def to_json(self) -> str:
        """What :func:`read_plan` reads."""
        values = {
            "rows": self.rows,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "rows_per_shard": self.rows_per_shard,
        }
        return json.dumps(values)


def read_plan(path: Path) -> ShardPlan | None:
    """From a file, or ``None`` if it is not there, or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        plan = ShardPlan(
            int(values["rows"]), tuple(values["shape"]), str(values["dtype"]), int(values["rows_per_shard"])
        )
        np.dtype(plan.dtype)
        return plan if plan.rows > 0 and plan.rows_per_shard > 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
