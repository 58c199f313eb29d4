"""Linear normalisation to [-1, 1], stored beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uva_agents.errors import NotFiniteError


@dataclass(frozen=True)
class LinearNormalizer:
    """``normalised = value * scale + offset``, per key and per dimension."""

    scale: Mapping[str, np.ndarray]
    offset: Mapping[str, np.ndarray]

    @classmethod
    def fit(cls, arrays: Mapping[str, np.ndarray], *, minimum_range: float = 1e-4) -> LinearNormalizer:
        """Maps each dimension's smallest and largest value to -1 and 1; a constant dimension is centred."""
        return cls.from_limits(
            {key: (v.reshape(-1, v.shape[-1]).min(0), v.reshape(-1, v.shape[-1]).max(0)) for key, v in arrays.items()},
            minimum_range=minimum_range,
        )

    @classmethod
    def from_limits(
        cls, limits: Mapping[str, tuple[np.ndarray, np.ndarray]], *, minimum_range: float = 1e-4
    ) -> LinearNormalizer:
        """From (low, high) per key, each (D,)."""
        scale, offset = {}, {}
        for key, (low, high) in limits.items():
            low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
            span = high - low
            constant = span < minimum_range
            scale[key] = np.where(constant, 1.0, 2.0 / np.where(constant, 1.0, span))
            offset[key] = np.where(constant, -(low + high) / 2, -1.0 - low * scale[key])
        return cls(scale, offset)

    def normalize(self, key: str, value: Tensor) -> Tensor:
        """(..., D) in the data's units -> (..., D) in [-1, 1].

        Raises:
            NotFiniteError: a scale of 0 would make all values the same.
        """
        scale, offset = self._parameters(key, value)
        if not np.all(self.scale[key]):
            raise NotFiniteError(f"the normaliser's scale of {key!r} is 0 somewhere: {self.scale[key]}")
        return value * scale + offset

    def unnormalize(self, key: str, value: Tensor) -> Tensor:
        """Inverse of :meth:`normalize`.

        Raises:
            NotFiniteError: an infinite scale would make all values the same.
        """
        scale, offset = self._parameters(key, value)
        if np.isinf(self.scale[key]).any():
            raise NotFiniteError(f"the normaliser's scale of {key!r} is infinite somewhere: {self.scale[key]}")
        return (value - offset) / scale

    def _parameters(self, key: str, like: Tensor) -> tuple[Tensor, Tensor]:
        if key not in self.scale:
            raise KeyError(f"normaliser knows {sorted(self.scale)}, not {key!r}")
        scale = torch.as_tensor(self.scale[key], dtype=like.dtype, device=like.device)
        return scale, torch.as_tensor(self.offset[key], dtype=like.dtype, device=like.device)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, ready for JSON."""
        return {k: {"scale": self.scale[k].tolist(), "offset": self.offset[k].tolist()} for k in self.scale}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LinearNormalizer:
        """Inverse of :meth:`to_dict`."""
        return cls(
            {k: np.asarray(v["scale"], np.float64) for k, v in values.items()},
            {k: np.asarray(v["offset"], np.float64) for k, v in values.items()},
        )
