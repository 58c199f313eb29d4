"""A stage's ``checkpoint.pt``: weights, their average, optimiser. What was renamed since an earlier version is recognised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uva_agents.training.ema import EMA
from uva_agents.training.precision import LossScaling
from uva_agents.utils.files import replacing


def save_checkpoint(
    path: Path,
    signature: str,
    step: int,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: EMA,
    selection: Mapping[str, Any] | None = None,
    scaling: Mapping[str, Any] | None = None,
) -> None:
    """Write it, completely or not at all.

    Args:
        selection: state of the stage's :class:`~uva_agents.training.selection.Selector`.
        scaling: of the loss, in fp16.

    Raises:
        MachineError: it cannot be written.
    """
    with replacing(path) as partial:
        torch.save(
            {
                "signature": signature,
                "step": step,
                "model": module.state_dict(),
                "ema": ema.shadow,
                "optimizer": optimizer.state_dict(),
                **({"selection": dict(selection)} if selection else {}),
                **({"scaling": dict(scaling)} if scaling else {}),
            },
            partial,
        )


def read_checkpoint(path: Path, signature: str, *, mmap: bool = False) -> dict[str, Any] | None:
    """What :func:`save_checkpoint` wrote; ``None`` where nothing is. With ``mmap`` tensors stay in the file until they are copied.

    Raises:
        ValueError: it is damaged, or of another stage, configuration or run.
    """
    if not path.exists():
        return None
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        found = saved["signature"]
    except Exception as error:  # torch raises several unrelated types for a damaged archive
        raise ValueError(f"{path} is damaged ({error}); remove it to start this stage again") from error
    if found != signature:
        raise ValueError(f"{path} belongs to another configuration; choose another --out, or remove it")
    return saved


def restore_checkpoint(
    path: Path,
    signature: str,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: EMA,
    scaling: LossScaling | None = None,
) -> tuple[int, dict[str, Any]]:
    """Continue from it; returns the step, 0 where nothing is, and what had been selected.

    Args:
        module: of the stage. Parts with weights may have renamed their tensors since (``renamed_tensor``); the name of a part that
            was the only one does not matter.

    Raises:
        ValueError: see :func:`read_checkpoint`.
    """
    saved = read_checkpoint(path, signature)
    if saved is None:
        return 0, {}
    names = [_todays_name(module, name) for name in saved["model"]]
    module.load_state_dict(dict(zip(names, saved["model"].values(), strict=True)))
    optimizer.load_state_dict(_in_todays_order(saved["optimizer"], names, module, optimizer))
    for name, value in saved["ema"].items():
        ema.shadow[_todays_name(module, name)].copy_(value)
    if scaling is not None:
        scaling.restore(saved.get("scaling", {}))
    return int(saved["step"]), dict(saved.get("selection", {}))


def _todays_name(module: nn.Module, name: str) -> str:
    part, dot, tensor = name.partition(".")
    if not dot:
        return name
    if not hasattr(module, part):  # the part itself was renamed; it was the only one then
        part = next(iter(module.state_dict())).partition(".")[0]
    renamed = getattr(type(getattr(module, part)), "renamed_tensor", str)
    return f"{part}.{renamed(tensor)}"


def _in_todays_order(
    state: dict[str, Any], saved: Sequence[str], module: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """An optimiser knows parameters by number, in the order of the module that it was made for.

    Args:
        state: of the optimiser that was saved.
        saved: names of that module's tensors in its order, as they are today.
        module, optimizer: today's.
    """
    place = {name: i for i, name in enumerate(saved)}
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    moved = {}
    for group, today in zip(state["param_groups"], optimizer.param_groups, strict=True):
        order = [names[id(parameter)] for parameter in today["params"]]
        number = dict(zip(sorted(order, key=place.__getitem__), group["params"], strict=True))
        for name, position in zip(order, group["params"], strict=True):
            if number[name] in state["state"]:
                moved[position] = state["state"][number[name]]
    return {**state, "state": moved}
