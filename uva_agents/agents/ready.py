"""Networks that can be trusted to compute what was trained: not in training mode, not cast, nothing divided by infinity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from uva_agents.errors import InputError, NotFiniteError
from uva_agents.utils.forks import check_process


def check_networks(weights: str, networks: Mapping[str, nn.Module], device: torch.device) -> None:
    """Refuse at once what would compute something else, hang, or fail without a name. A few microseconds.

    Args:
        weights: name or folder.
        networks: by their place in the bundle.
        device: that is about to compute.

    Raises:
        InputError: one is in training mode, or has been cast.
        MachineError: see :func:`~uva_agents.utils.forks.check_process`.
    """
    check_process(device)
    for name, network in networks.items():
        if network.training:
            raise InputError(
                f"weights {weights!r}: bundle.{name} is in training mode, which changes what it computes (dropout): call "
                f"bundle.{name}.eval() before agents use it, and .train() before training goes on"
            )
        first = next(network.parameters(), None)
        if first is not None and first.dtype != torch.float32:
            raise InputError(
                f"weights {weights!r}: bundle.{name} has been cast to {first.dtype}, and agents compute in float32: call "
                f"bundle.{name}.float(), and torch.autocast where less precision is wanted"
            )


class Divisor:
    """Checks a tensor that others are divided by; on an accelerator only after it was changed, because somebody waits for that."""

    def __init__(self) -> None:
        self._known: tuple[int, int] | None = None

    def check(self, weights: str, name: str, value: Tensor) -> None:
        """Refuse infinity, which would make everything 0, and what is not above 0.

        Raises:
            NotFiniteError: naming weights and tensor.
        """
        now = (id(value), 0 if value.is_inference() else value._version)
        if value.device.type != "cpu" and now == self._known:
            return
        if bool((torch.isinf(value) | (value <= 0)).any()):
            raise NotFiniteError(
                f"weights {weights!r}: {name!r} has infinity, or numbers that are not above 0, and latents are divided by it: "
                "load or train the weights again"
            )
        self._known = now
