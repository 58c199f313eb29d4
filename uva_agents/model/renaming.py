"""Saved tensors under earlier names: one table per network, for files and for ``load_state_dict``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Renaming:
    """Names of tensors by how they begin.

    Args:
        prefixes: earlier beginning -> today's; the first that fits counts.
    """

    prefixes: Mapping[str, str]

    def name(self, tensor: str) -> str:
        """Today's name of a tensor."""
        for old, new in self.prefixes.items():
            if tensor.startswith(old):
                return new + tensor.removeprefix(old)
        return tensor

    def first(self, tensor: str) -> str:
        """The earliest name of a tensor, by which fingerprints know it."""
        for old, new in self.prefixes.items():
            if tensor.startswith(new):
                return old + tensor.removeprefix(new)
        return tensor

    def state(self, module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
        """Hook of ``load_state_dict``: a state saved under earlier names gets today's, in place."""
        for name in [key for key in state if key.startswith(prefix)]:
            new = prefix + self.name(name.removeprefix(prefix))
            if new != name:
                state[new] = state.pop(name)
