"""Tensors and fields of weights that were saved under earlier names."""

from __future__ import annotations

from typing import Any

_TENSORS = (
    ("point_reader.", "guide.detector."),
    ("point_dynamics.", "guide.dynamics."),
    ("point_writer.", "guide.renderer."),
    ("history_point_proj.", "guide.history_proj."),
    ("future_point_proj.", "guide.future_proj."),
    ("sketch_proj.", "guide.prior_proj."),
    ("readout_squeeze.", "state_head.squeeze."),
    ("readout.", "state_head.net."),
)


def renamed(tensor: str) -> str:
    """Today's name of a tensor of the network."""
    for old, new in _TENSORS:
        if tensor.startswith(old):
            return new + tensor.removeprefix(old)
    return tensor


def renamed_tensors(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Hook of ``load_state_dict``: a state saved under earlier names gets today's, in place."""
    for name in [key for key in state if key.startswith(prefix)]:
        new = prefix + renamed(name.removeprefix(prefix))
        if new != name:
            state[new] = state.pop(name)
