"""What weights expect from the outside: observation keys, image size, action bounds, timing. Saved beside the tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from uva_agents.data.windows import WindowSpec


@dataclass(frozen=True)
class InterfaceSpec:
    """The declarative map between environment and network.

    Args:
        image_shape: (H, W) of the environment's ``pixels``.
        action_low, action_high: bounds of an environment action, environment units.
        proprio_key: observation key given as proprioception, or ``None``.
        proprio_pose: it is (x, y, z, rotation vector, gripper width), absolute, and the network gets it relative to now and to
            the episode's start (UMI).
        wrist_shape: (H, W) of ``pixels_wrist``, or ``None`` without a wrist camera.
        action_pose: the network's actions are position, rot6d and gripper; the environment's are (x, y, z, rotation vector,
            gripper). ``"absolute"``, or ``"relative"`` to the pose at the decision; ``None`` for plain actions.
        control_hz: control rate.
        execute: actions of a chunk that are executed before the next decision.
        action_offset: see :class:`~uva_agents.data.WindowSpec`.
        point_keys: arrays of the data that the network's points are, in this order; their normaliser gives the units.
        env_id: environment that the weights were trained for.
    """

    image_shape: tuple[int, int]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    proprio_key: str | None = None
    proprio_pose: bool = False
    wrist_shape: tuple[int, int] | None = None
    action_pose: Literal["absolute", "relative"] | None = None
    control_hz: float = 10.0
    execute: int = 8
    action_offset: int = 0
    point_keys: tuple[str, ...] = ()
    env_id: str | None = None

    def proprio_size(self, network_size: int) -> int:
        """Numbers per row that an environment gives, where the network takes ``network_size``."""
        return 7 if self.proprio_pose else network_size

    @property
    def action_space(self) -> gym.spaces.Box:
        """Of one environment action."""
        return gym.spaces.Box(np.array(self.action_low, np.float32), np.array(self.action_high, np.float32))

    def window(self, n_frames: int, stride: int, action_steps: int) -> WindowSpec:
        """The training window that goes with these weights."""
        return WindowSpec(n_frames, stride, action_steps, self.action_offset)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InterfaceSpec:
        """Inverse of :meth:`to_dict`."""
        values = dict(values)
        for key in ("image_shape", "action_low", "action_high", "wrist_shape", "point_keys"):
            if values.get(key) is not None:
                values[key] = tuple(values[key])
        return cls(**values)
