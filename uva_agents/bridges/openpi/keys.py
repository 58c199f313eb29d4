"""What the parts of an observation are called on the wire, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

WIRE_NAMES: Mapping[str, tuple[str, ...]] = {
    "pixels": ("pixels", "observation/image", "observation/exterior_image_1_left", "images/cam_high", "image"),
    "pixels_wrist": ("pixels_wrist", "observation/wrist_image", "observation/wrist_image_left", "wrist_image"),
    "agent_pos": (
        "agent_pos",
        "observation/state",
        "observation/joint_position+observation/gripper_position",
        "state",
    ),
    "task": ("task", "prompt"),
}
"""Our names, and what clients may call them: ours, and those of openpi's LIBERO, DROID and ALOHA examples."""

OPENPI_NAMES: Mapping[str, str] = {
    "observation/image": "pixels",
    "observation/wrist_image": "pixels_wrist",
    "observation/state": "agent_pos",
    "prompt": "task",
}
"""What openpi's servers for LIBERO call them: name on the wire -> ours."""


@dataclass(frozen=True)
class KeyMap:
    """From a client's observation to ours.

    Attributes:
        names: our name -> names on the wire. The first that the message has is taken; ``a/b`` also finds ``{"a": {"b": ...}}``,
            and ``a+b`` puts vectors end to end. What no name claims is passed on as it is.
    """

    names: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: WIRE_NAMES)

    def with_names(self, more: Mapping[str, str]) -> KeyMap:
        """These names (ours -> on the wire) are looked for first."""
        names = dict(self.names)
        for ours, theirs in more.items():
            names[ours] = (theirs, *names.get(ours, ()))
        return KeyMap(names)

    def observation(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Our observation: images (H, W, 3) whatever the order of their axes, text as str.

        Raises:
            ValueError: naming an entry that has the wrong form.
        """
        rest, obs = dict(message), {}
        for ours, choices in self.names.items():
            for choice in choices:
                parts = [_find(message, name) for name in choice.split("+")]
                if all(part is not None for part in parts):
                    obs[ours] = _tidy(ours, parts)
                    for name in choice.split("+"):
                        rest.pop(name.split("/")[0] if name not in rest else name, None)
                    break
        return {**rest, **obs}


def _find(message: Mapping[str, Any], name: str) -> Any:
    if name in message:
        return message[name]
    head, slash, tail = name.partition("/")
    inner = message.get(head)
    return _find(inner, tail) if slash and isinstance(inner, Mapping) else None


def _tidy(name: str, parts: list[Any]) -> Any:
    value = parts[0]
    if len(parts) > 1:
        if any(np.ndim(part) > 1 for part in parts):
            raise ValueError(
                f"{name!r} is put together from vectors, and these have {[np.ndim(p) for p in parts]} axes"
            )
        value = np.concatenate([np.atleast_1d(part) for part in parts])
    if name == "task":
        if isinstance(value, np.ndarray | list) and np.size(value) == 1:
            value = np.asarray(value).reshape(-1)[0]
        value = value.decode() if isinstance(value, bytes) else value
        if not isinstance(value, str):
            raise ValueError(f"{name!r} must be text, got {type(value).__name__}")
        return str(value)
    if not isinstance(value, np.ndarray | np.generic | list | float | int):
        raise ValueError(f"{name!r} must be an array, got {type(value).__name__}")
    array = np.asarray(value)
    if name.startswith("pixels") and array.ndim >= 3 and array.shape[-3] == 3 and array.shape[-1] != 3:
        return np.ascontiguousarray(np.moveaxis(array, -3, -1))
    return array
