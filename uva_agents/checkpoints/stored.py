"""Tensors that stay in their file until they are copied into a network: name, shape and type are known, numbers are not yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
"""Element types by the name of torch's storages."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        shape: of it.
        dtype: of its numbers.
        load: reads them, checked against the file's checksum where it has one.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def reshape(self, shape: Sequence[int]) -> StoredTensor:
        """The same numbers in another shape; still not read."""
        return replace(self, shape=tuple(shape), load=lambda: self.load().reshape(tuple(shape)))

    def __repr__(self) -> str:
        return f"<tensor {str(self.dtype).removeprefix('torch.')} {self.shape}>"
