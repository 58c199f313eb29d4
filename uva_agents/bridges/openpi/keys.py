"""What the parts of an observation are called on the wire, as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from uva_agents.errors import InputError

WIRE_NAMES: Mapping[str, tuple[str, ...]] = {
    "pixels": (
        "pixels",
        "observation/image",
        "observation/exterior_image_1_left",
        "images/cam_high",
        "image",
        "observation.image",
        "observation.images.main",
        "observation.images.pixels",
        "observation.images.image",
    ),
    "pixels_wrist": (
        "pixels_wrist",
        "observation/wrist_image",
        "observation/wrist_image_left",
        "wrist_image",
        "observation.images.wrist",
        "observation.images.pixels_wrist",
        "observation.images.wrist_image",
        "observation.images.image2",
    ),
    "agent_pos": (
        "agent_pos",
        "observation/state",
        "observation/joint_position+observation/gripper_position",
        "state",
        "observation.state",
    ),
    "task": ("task", "prompt"),
}
"""Our names, and what clients may call them: ours, those of openpi's LIBERO, DROID and ALOHA examples, and LeRobot's."""

OPENPI_NAMES: Mapping[str, str] = {
    "observation/image": "pixels",
    "observation/wrist_image": "pixels_wrist",
    "observation/state": "agent_pos",
    "prompt": "task",
}
"""What openpi's servers for LIBERO call them: name on the wire -> ours."""

_LONGEST_TASK = 4096
_LEROBOT, _LEROBOT_CAMERAS = "observation.", "observation.images."


@dataclass(frozen=True)
class KeyMap:
    """From a client's observation to ours.

    Under LeRobot's names (``observation.image``, ``observation.images.X``, ``observation.state``) values are taken as LeRobot's
    policies get them: a leading axis of one is left out, and float images are in [0, 1]. A camera of any other name than those
    in ``names`` is ``pixels`` if it is the only one that is none of a wrist.

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
            ValueError: naming an entry that has the wrong form, or cameras of which one has to be chosen.
        """
        rest, obs = dict(message), {}
        for ours, choices in self.names.items():
            for choice in choices:
                names = choice.split("+")
                parts = [_find(message, name) for name in names]
                if all(part is not None for part in parts):
                    obs[ours] = _tidy(ours, parts, lerobot=all(name.startswith(_LEROBOT) for name in names))
                    for name in names:
                        rest.pop(name.split("/")[0] if name not in rest else name, None)
                    break
        if "pixels" not in obs and (camera := _only_camera(rest)) is not None:
            obs["pixels"] = _tidy("pixels", [rest.pop(camera)], lerobot=True)
        return {**rest, **obs}

    def advice(self, ours: str) -> str:
        """Which names are understood for a part, for a client that used another."""
        known = ", ".join(self.names.get(ours, (ours,)))
        return f"this server knows {ours!r} as {known}; uva serve --key {ours}=NAME adds a name"


def _only_camera(message: Iterable[str]) -> str | None:
    """The one LeRobot camera in ``message`` that can be meant by ``pixels``, if there is one.

    Raises:
        InputError: there are several.
    """
    cameras = [key for key in message if isinstance(key, str) and key.startswith(_LEROBOT_CAMERAS)]
    cameras = [key for key in cameras if "wrist" not in key]
    if len(cameras) > 1:
        raise InputError(
            f"the request shows {len(cameras)} cameras ({', '.join(sorted(cameras))}): say which one is 'pixels', "
            f"for example uva serve --key pixels={min(cameras)}"
        )
    return cameras[0] if cameras else None


def _find(message: Mapping[str, Any], name: str) -> Any:
    if name in message:
        return message[name]
    head, slash, tail = name.partition("/")
    inner = message.get(head)
    return _find(inner, tail) if slash and isinstance(inner, Mapping) else None


def _tidy(name: str, parts: list[Any], *, lerobot: bool) -> Any:
    value = parts[0]
    if len(parts) > 1:
        if any(np.ndim(part) > 1 for part in parts):
            raise InputError(
                f"{name!r} is put together from vectors, and these have {[np.ndim(p) for p in parts]} axes"
            )
        value = np.concatenate([np.atleast_1d(_array(name, part)) for part in parts])
    if name == "task":
        return _text(value)
    array = _array(name, value)
    image = name.startswith("pixels")
    if lerobot and array.shape[:1] == (1,) and array.ndim == (4 if image else 2):
        array = array[0]
    if image and array.ndim >= 3 and array.shape[-3] == 3 and array.shape[-1] != 3:
        array = np.ascontiguousarray(np.moveaxis(array, -3, -1))
    return _bytes(name, array) if image and lerobot and array.dtype.kind == "f" else array


def _array(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray | np.generic | list | float | int):
        raise InputError(f"{name!r} must be an array, got {type(value).__name__}")
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name!r} must be an array of numbers, got one of {array.dtype}")
    return array


def _bytes(name: str, image: np.ndarray) -> np.ndarray:
    """A float image in [0, 1], as LeRobot sends them, in the 256 steps that it was made of."""
    if not image.size or not (image.min() >= 0 and image.max() <= 1):  # NaN is neither
        found = f"from {image.min():g} to {image.max():g}" if image.size else "none"
        raise InputError(f"{name!r} under LeRobot's names must be floats in [0, 1] or uint8, got values {found}")
    pixels: np.ndarray = np.rint(255 * image.astype(np.float32)).astype(np.uint8)
    return pixels


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray | list) and np.size(value) == 1:
        value = np.asarray(value).reshape(-1)[0]
    value = value.decode() if isinstance(value, bytes) else value
    if not isinstance(value, str):
        raise InputError(f"'task' must be text, got {type(value).__name__}")
    if len(value) > _LONGEST_TASK:
        raise InputError(f"'task' has {len(value):,} letters; at most {_LONGEST_TASK:,} are read")
    return str(value)
