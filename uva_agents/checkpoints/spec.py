"""What weights expect from the outside: observation keys, image size, action bounds, timing. Saved beside the tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.checkpoints.schema import shown
from uva_agents.data.conventions import AbsolutePoses, RelativePoses, RelativeProprio
from uva_agents.data.transforms import Transform, load_named, transform_from_dict
from uva_agents.data.windows import WindowSpec
from uva_agents.utils.images import Resize


@dataclass(frozen=True)
class InterfaceSpec:
    """The declarative map between environment and network.

    Args:
        image_shape: (H, W) of the environment's ``pixels``.
        action_low, action_high: bounds of an environment action, environment units.
        proprio_key: observation key given as proprioception, or ``None``.
        proprio_transforms: from rows of proprioception, as the environment has them, to what is normalised for the network,
            one after the other; none where the network takes them as they are.
        resize: how frames of another size than UVA's network takes are brought to that, see
            :data:`~uva_agents.utils.images.Resize`. The baselines' networks are shown antialiased ones, whatever it says.
        wrist_shape: (H, W) of the second camera, as a rule on the wrist; ``None`` without one.
        wrist_key: observation key of the second camera.
        cameras: what the cameras are called where they stand, the main one first; empty where the data did not say. An environment
            with several gives each its place by that.
        action_transforms: the same for actions; the way back goes through them in reverse.
        control_hz: control rate.
        execute: actions of a chunk that are executed before the next decision.
        action_offset: see :class:`~uva_agents.data.WindowSpec`.
        keypoint_keys: arrays of the data that the network's keypoints are, in this order; their normaliser gives the units.
        env_id: environment that the weights were trained for.
    """

    image_shape: tuple[int, int]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    proprio_key: str | None = None
    proprio_transforms: tuple[Transform, ...] = ()
    resize: Resize = "antialiased"
    wrist_shape: tuple[int, int] | None = None
    wrist_key: str = "pixels_wrist"
    cameras: tuple[str, ...] = ()
    action_transforms: tuple[Transform, ...] = ()
    control_hz: float = 10.0
    execute: int = 8
    action_offset: int = 0
    keypoint_keys: tuple[str, ...] = ()
    env_id: str | None = None

    def proprio_size(self, network_size: int) -> int:
        """Numbers per row of proprioception that an environment gives, where the network takes ``network_size``; 0 for none."""
        if self.proprio_key is None or not (network_size or self.proprio_transforms or self.needs_pose):
            return 0
        if not network_size and not self.proprio_transforms:  # read for the actions alone, and a pose as they are
            return len(self.action_low)
        for transform in reversed(self.proprio_transforms):
            network_size = transform.environment_size(network_size)
        return network_size

    def action_size(self, network_size: int) -> int:
        """Numbers of an environment's action, where the network's has ``network_size``.

        Raises:
            ValueError: the transforms take another number.
        """
        size = network_size
        for transform in reversed(self.action_transforms):
            size = transform.environment_size(size)
        back = size
        for transform in self.action_transforms:
            back = transform.network_size(back)
        if back != network_size:
            kinds = ", ".join(transform.kind for transform in self.action_transforms)
            raise ValueError(f"{kinds}, which takes {back} numbers, not {network_size}")
        return size

    @property
    def needs_pose(self) -> bool:
        """Actions can be turned into the environment's only with the proprioception at the decision."""
        return any("now" in transform.needs for transform in self.action_transforms)

    @property
    def relative(self) -> Transform | None:
        """The convention that makes actions relative to where the tool is at the decision, where there is one."""
        return next((one for one in self.action_transforms if one.origin() is not None), None)

    @property
    def actions_average(self) -> bool:
        """A mean of several of the environment's actions is a sensible one; of poses it is not."""
        return all(transform.averages for transform in self.action_transforms)

    @cached_property
    def action_space(self) -> gym.spaces.Box:
        """Of one environment action."""
        return gym.spaces.Box(np.array(self.action_low, np.float32), np.array(self.action_high, np.float32))

    def window(self, n_frames: int, stride: int, action_steps: int) -> WindowSpec:
        """The training window that goes with these weights."""
        return WindowSpec(n_frames, stride, action_steps, self.action_offset)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **values,
            **{name: [transform.to_dict() for transform in values[name]] for name in TRANSFORM_FIELDS},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InterfaceSpec:
        """Inverse of :meth:`to_dict`; also of what earlier versions wrote.

        Raises:
            ValueError: a convention that is not registered.
        """
        values = dict(current_fields(values))
        for key in ("image_shape", "action_low", "action_high", "wrist_shape", "keypoint_keys", "cameras"):
            if values.get(key) is not None:
                values[key] = tuple(values[key])
        for key in TRANSFORM_FIELDS:
            load_named(values.get(key))
            values[key] = tuple(transform_from_dict(one) for one in values.get(key, ()))
        return cls(**values)


TRANSFORM_FIELDS = ("action_transforms", "proprio_transforms")

_EARLIER: Mapping[str, tuple[str, Mapping[Any, tuple[Transform, ...]]]] = MappingProxyType(
    {
        "action_pose": (
            "action_transforms",
            {None: (), "absolute": (AbsolutePoses(),), "relative": (RelativePoses(),)},
        ),
        "proprio_pose": ("proprio_transforms", {False: (), True: (RelativeProprio(),)}),
    }
)
"""Fields of earlier versions: what each is now, and what its values mean."""


def current_fields(values: Any) -> Any:
    """Stored values of an interface with today's fields in place of earlier ones; anything else as it is.

    Raises:
        ValueError: an earlier field has a value that it never had, or stands beside the one that replaced it.
    """
    if not isinstance(values, Mapping):
        return values
    if "point_keys" in values and "keypoint_keys" not in values:
        values = {"keypoint_keys" if name == "point_keys" else name: value for name, value in values.items()}
    if not any(name in values for name in _EARLIER):
        return values
    current = {name: value for name, value in values.items() if name not in _EARLIER}
    current.setdefault("resize", "bilinear")  # what versions with these fields did
    for earlier, (name, meanings) in _EARLIER.items():
        if earlier not in values:
            continue
        value = values[earlier]
        found = [
            meaning for known, meaning in meanings.items() if value is known or (value == known and type(value) is str)
        ]
        if not found:
            allowed = ", ".join(repr(known) for known in meanings if known is not None)
            raise ValueError(f"{earlier} is {shown(value)}, not one of {allowed}")
        if name in current:
            raise ValueError(f"{earlier} and {name} say the same: leave {earlier} out")
        current[name] = [transform.to_dict() for transform in found[0]]
    return current
