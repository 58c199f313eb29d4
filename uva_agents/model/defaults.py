"""Networks are float32, whatever ``torch.set_default_dtype`` says: their weights are, and results must not depend on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
S = TypeVar("S")


def in_float32(init: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """A constructor whose parameters and buffers are float32."""

    @wraps(init)
    def wrapped(self: S, *args: P.args, **kwargs: P.kwargs) -> None:
        before = torch.get_default_dtype()
        if before == torch.float32:  # which is what other threads may rely on: nothing is set where nothing has to be
            return init(self, *args, **kwargs)
        torch.set_default_dtype(torch.float32)
        try:
            return init(self, *args, **kwargs)
        finally:
            torch.set_default_dtype(before)

    return wrapped
