"""A network from tensors in a file. Its skeleton, which takes no memory, is compared with what is there before it is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from uva_agents.checkpoints.schema import closest, shown
from uva_agents.checkpoints.stored import StoredTensor
from uva_agents.checkpoints.unfilled import Unfilled
from uva_agents.errors import MachineError, UVAError, WeightsError

M = TypeVar("M", bound=nn.Module)
Progress = Callable[[str, int, int], None]
"""Called with (part, tensors done, tensors in all)."""

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_WHOLE = (torch.int64, torch.int32)


def filled(
    make: Callable[[], M],
    tensors: Mapping[str, StoredTensor],
    *,
    where: str,
    what: str = "network",
    names: Mapping[str, str] | None = None,
    verify: Callable[[], None] | None = None,
    progress: Progress | None = None,
) -> M:
    """The module that ``make`` builds, every tensor taken from the file, in float32.

    Args:
        make: called twice, first for a skeleton. Random numbers are not drawn.
        tensors: by our names.
        where: file, for messages.
        what: it is.
        names: the file's own names of the tensors, by ours.
        verify: called when names and shapes are right, before numbers are read.
        progress: told of every tensor.

    Raises:
        WeightsError: tensors are missing, unknown (with the closest names), of another shape or type, or not finite.
        MachineError: there is no memory for it.
    """
    try:
        with Unfilled(skeleton=True):
            skeleton = make()
    except UVAError:
        raise
    except (ValueError, RuntimeError, ArithmeticError, IndexError, TypeError, AssertionError) as error:
        # Layers refuse sizes in their own ways: a width that is no multiple of its groups, say.
        raise WeightsError(f"{where}: no {what} has the sizes of this configuration ({str(error)[:200]})") from error
    tensors, known = _current(skeleton, tensors) if names is None else (tensors, names)
    check(skeleton, tensors, where=where, what=what, names=known)
    if verify is not None:
        verify()
    try:
        with Unfilled():
            module = make()
    except (MemoryError, RuntimeError) as error:
        raise MachineError(f"{where}: there is no memory for its {what} ({str(error)[:200]})") from error
    _fill(module, tensors, where=where, what=what, names=known, progress=progress)
    return module


def refilled(module: nn.Module, tensors: Mapping[str, StoredTensor], *, where: str, what: str = "network") -> None:
    """Fill a module that is there already; see :func:`filled`.

    Raises:
        WeightsError: see :func:`filled`; the module is then as it was, unless numbers are damaged.
    """
    tensors, names = _current(module, tensors)
    check(module, tensors, where=where, what=what, names=names)
    _fill(module, tensors, where=where, what=what, names=names)


def _current(
    module: nn.Module, tensors: Mapping[str, StoredTensor]
) -> tuple[Mapping[str, StoredTensor], dict[str, str]]:
    """Tensors by today's names, for a network that had others once, and their names in the file by those."""
    renamed = getattr(type(module), "renamed_tensor", str)
    return {renamed(name): tensor for name, tensor in tensors.items()}, {renamed(name): name for name in tensors}


@torch.no_grad()
def _fill(
    module: nn.Module,
    tensors: Mapping[str, StoredTensor],
    *,
    where: str,
    what: str,
    names: Mapping[str, str],
    progress: Progress | None = None,
) -> None:
    own = module.state_dict()
    for i, (name, tensor) in enumerate(tensors.items()):
        numbers = finite(tensor.load(), names[name], where)
        if numbers.shape != own[name].shape:  # a file that names a tensor twice; a copy would spread it
            raise WeightsError(
                f"{where}: {names[name]!r} is {tuple(numbers.shape)}, not {tensor.shape} as its header says"
            )
        own[name].copy_(numbers)
        if progress is not None:
            progress(what, i + 1, len(tensors))


def check(
    skeleton: nn.Module, tensors: Mapping[str, StoredTensor], *, where: str, what: str, names: Mapping[str, str]
) -> None:
    """That every tensor of a module has its counterpart in the file, by name, shape and kind of numbers.

    Raises:
        WeightsError: otherwise.
    """
    own = skeleton.state_dict()
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unknown:
        raise WeightsError(f"{where}: {_mismatch(missing, unknown, names, tensors, own, what)}")
    for name, tensor in tensors.items():
        wanted = own[name]
        if tensor.shape != tuple(wanted.shape):
            raise WeightsError(
                f"{where}: {names[name]!r} is {tensor.shape}, a {what} of this configuration has {tuple(wanted.shape)}"
            )
        allowed = _FLOATS if wanted.is_floating_point() else (*_WHOLE, wanted.dtype)
        if tensor.dtype not in allowed:
            kinds = " or ".join(str(d).removeprefix("torch.") for d in allowed)
            raise WeightsError(
                f"{where}: {names[name]!r} has numbers of type {str(tensor.dtype).removeprefix('torch.')}, not {kinds}"
            )


def finite(tensor: Tensor, name: str, where: str) -> Tensor:
    """The tensor in single precision, if all its numbers are finite.

    Raises:
        WeightsError: otherwise.
    """
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.float()
    # A sum shows NaN and infinity at the speed of memory; only one that overflows has to be looked at again.
    if not math.isfinite(float(tensor.sum())):
        count = int((~torch.isfinite(tensor)).sum())
        if count:
            raise WeightsError(f"{where}: {count:,} of the {tensor.numel():,} numbers of {name!r} are NaN or infinite")
    return tensor


def _mismatch(
    missing: list[str],
    unknown: list[str],
    names: Mapping[str, str],
    given: Mapping[str, StoredTensor],
    own: Mapping[str, Tensor],
    what: str,
) -> str:
    lines = []
    if unknown:
        close = closest(unknown[0], missing or own, cutoff=0.3)
        lines.append(
            f"{len(unknown)} unknown tensors, for example {shown(names[unknown[0]])} (the {what} here has {close})"
        )
    if missing:
        close = [names[k] for k in closest(missing[0], unknown or given, cutoff=0.3) if k in names]
        lines.append(f"{len(missing)} missing tensors, for example our {missing[0]!r} (closest in the file: {close})")
    return "; ".join(lines)
