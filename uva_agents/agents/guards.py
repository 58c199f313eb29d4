"""What agents refuse: networks that are not as they were trained, and outputs that are not finite.

Outputs are checked where they leave, and the error says where they came from. The check is one pass over what was computed, at the
moment it goes to the CPU anyway. Which network is to blame is only looked for once something was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from uva_agents.errors import InputError, NotFiniteError
from uva_agents.utils.forks import check_process


@dataclass(frozen=True)
class Inputs:
    """What a network was given, to say in an error.

    Attributes:
        what: it is, as in "observation 3 of 8".
        arrays: by name.
        computed: what earlier networks made of it, in their order: (network, its output).
    """

    what: str = "the input"
    arrays: Mapping[str, np.ndarray | None] = field(default_factory=dict)
    computed: Sequence[tuple[str, Tensor | None]] = ()

    def __str__(self) -> str:
        ranges = [_range(name, value) for name, value in self.arrays.items() if value is not None and value.size]
        return f"{self.what} ({', '.join(ranges)})" if ranges else self.what


InputsOf = Callable[[int], Inputs] | Inputs
"""What each row of an output was computed from, or all of them."""


def all_finite(value: Tensor | np.ndarray) -> bool:
    """Whether no number is NaN or infinite."""
    if isinstance(value, np.ndarray):
        return bool(np.isfinite(value).all())
    # A sum is one pass and one number to fetch. It overflows only where single numbers are absurd: then they are looked at.
    return bool(torch.isfinite(value.sum())) or bool(torch.isfinite(value).all())


def rows_not_finite(value: Tensor | np.ndarray) -> list[int]:
    """Rows (of the first axis) that hold NaN or infinity."""
    if isinstance(value, Tensor):
        value = torch.isfinite(value).cpu().numpy()
        bad = ~value.reshape(len(value), -1).all(1)
    else:
        bad = ~np.isfinite(value).reshape(len(value), -1).all(1)
    return [int(i) for i in np.flatnonzero(bad)]


def not_finite(
    rows: Sequence[int], *, weights: str, head: str, inputs: InputsOf, modules: Mapping[str, nn.Module]
) -> NotFiniteError:
    """The error for an output whose ``rows`` are not finite.

    Args:
        rows: at least one.
        weights: name or folder.
        head: what computed it.
        inputs: of a row.
        modules: of the weights, searched for tensors that are not finite themselves.
    """
    whole = isinstance(inputs, Inputs)
    given = inputs if isinstance(inputs, Inputs) else inputs(rows[0])
    for network, output in given.computed:
        if output is not None and not all_finite(output):
            head = network
            break
    damaged = [name for name, tensor in _tensors(modules) if tensor.is_floating_point() and not all_finite(tensor)]
    if damaged:
        hold = "holds" if len(damaged) == 1 else "hold"
        cause = (
            f"{len(damaged)} of its tensors {hold} NaN or infinity ({damaged[0]!r}): load or train the weights again"
        )
    else:
        cause = (
            "its tensors are all finite: the input is far from what it was trained on, or the normaliser does not fit"
        )
    others = f" and {len(rows) - 1} more" if len(rows) > 1 and not whole else ""
    return NotFiniteError(f"weights {weights!r}: the {head} gave NaN or infinity for {given}{others}; {cause}")


def _tensors(modules: Mapping[str, nn.Module]) -> Iterable[tuple[str, Tensor]]:
    for prefix, module in modules.items():
        for name, tensor in chain(module.named_parameters(), module.named_buffers()):
            yield f"{prefix}.{name}", tensor


def _range(name: str, value: np.ndarray) -> str:
    bad = 0 if value.dtype.kind not in "fc" else int((~np.isfinite(value)).sum())
    if bad:
        return f"{name!r} with {bad} numbers that are not finite themselves"
    return f"{name!r} from {value.min():g} to {value.max():g}"


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
