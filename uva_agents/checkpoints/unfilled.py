"""Networks that are about to be filled: built without drawing random numbers, or as skeletons that take no memory either."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_RANDOM = frozenset(
    "uniform_ normal_ trunc_normal_ kaiming_uniform_ kaiming_normal_ xavier_uniform_ xavier_normal_ orthogonal_".split()  # noqa: SIM905
)
_MADE = frozenset({"empty", "randn", "zeros", "ones"})
_SMALL = 4096
"""Up to so many numbers, a skeleton's tensors are real: arithmetic on the meta device loads sympy, which takes seconds."""


class Unfilled(TorchFunctionMode):
    """Modules that are built under it have the values that memory happens to have, where they would have random ones.

    Args:
        skeleton: large tensors have shapes and no memory.
    """

    def __init__(self, *, skeleton: bool = False) -> None:
        super().__init__()
        self._skeleton = skeleton

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _RANDOM:
            return args[0] if args else kwargs["tensor"]
        if name in _MADE and func is getattr(torch, name):
            return self._make(func, args, kwargs)
        if name in ("mul", "__mul__") and isinstance(args[0], Tensor) and args[0].is_meta:
            return args[0]
        return func(*args, **kwargs)

    def _make(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is torch.randn:
            func = torch.empty
            kwargs = {k: v for k, v in kwargs.items() if k != "generator"}
        shape = kwargs.get("size", args)
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        if self._skeleton and kwargs.get("device") is None and math.prod(shape) > _SMALL:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)
