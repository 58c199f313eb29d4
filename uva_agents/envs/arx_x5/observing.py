"""Observations of ``uva/ArxX5-v0``: which keys there are, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.envs.arx_x5.actions import LONGEST_TURN, ActionCodec
from uva_agents.envs.arx_x5.arm.interface import N_JOINTS
from uva_agents.envs.arx_x5.system.system import Snapshot
from uva_agents.envs.checks import checked_choice
from uva_agents.envs.words import Words
from uva_agents.errors import InputError

WRIST, OUTSIDE = CAMERAS = ("wrist", "outside")
"""The cameras. The first one of an environment gives ``pixels``, another one ``pixels_`` and its name."""
_JOINTS = {"joint_pos": 4.0, "joint_vel": 20.0, "joint_torque": 100.0}
"""Key -> what no measurement of an X5 exceeds: rad, rad/s, N m."""
_FARTHEST, _OPEN = 1.5, 0.15
"""Metres; a tool is at most 0.83 from the shoulder, and no gripper opens that far."""


@dataclass(frozen=True, kw_only=True)
class ObservationSettings:
    """What an observation holds besides ``agent_pos``.

    Attributes:
        image_size: (height, width) of the pictures.
        cameras: key of the pictures -> the camera that takes them.
        joint_state: ``joint_pos``, ``joint_vel`` and ``joint_torque``.
        timestamp: the moment that the observation is of.
        instruction: ``task``, what to do, in words.
        mask: bool (height, width), black where true; ``None`` for the whole picture.

    Raises:
        InputError: a mask of another size.
    """

    image_size: tuple[int, int]
    cameras: Mapping[str, str]
    joint_state: bool = False
    timestamp: bool = False
    instruction: bool = False
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and (self.mask.shape != self.image_size or self.mask.dtype != bool):
            raise InputError(
                f"image_mask must be bool {self.image_size}, the size of the pictures; got {self.mask.dtype} {self.mask.shape}"
            )


def camera_keys(cameras: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Key of the pictures -> camera, from cameras in order (``"outside,wrist"`` is that, too), or from just such a mapping.

    Raises:
        InputError: none, an unknown one, one twice, or a key that is none of pictures.
    """
    if isinstance(cameras, Mapping):
        found = dict(cameras)
    else:
        names = [name.strip() for name in cameras.split(",")] if isinstance(cameras, str) else list(cameras)
        found = {f"pixels_{name}" if i else "pixels": name for i, name in enumerate(names)}
        if len({*names}) != len(names):
            raise InputError(f"cameras={cameras!r}: no camera is there twice")
    for key, name in found.items():
        checked_choice(name, "cameras", CAMERAS)
        if not isinstance(key, str) or not key.startswith("pixels"):
            raise InputError(f"cameras={{{key!r}: {name!r}}}: keys of pictures begin with 'pixels'")
    if next(iter(found), None) != "pixels" or len({*found.values()}) != len(found):
        raise InputError(f"cameras={cameras!r}: 'pixels' comes first, and no camera is there twice")
    return found


def observation_space(settings: ObservationSettings) -> gym.spaces.Dict:
    """Of :func:`observation`."""
    farthest = np.array([*[_FARTHEST] * 3, *[LONGEST_TURN] * 3, _OPEN], np.float32)
    spaces: dict[str, gym.Space[Any]] = {"agent_pos": gym.spaces.Box(-farthest, farthest, dtype=np.float32)}
    for key in settings.cameras:
        spaces[key] = gym.spaces.Box(0, 255, (*settings.image_size, 3), np.uint8)
    if settings.joint_state:
        for key, most in _JOINTS.items():
            spaces[key] = gym.spaces.Box(-most, most, (N_JOINTS,), np.float32)
    if settings.instruction:
        spaces["task"] = Words()
    if settings.timestamp:
        spaces["timestamp"] = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    return gym.spaces.Dict(spaces)


def observation(
    snapshot: Snapshot, settings: ObservationSettings, codec: ActionCodec, space: gym.spaces.Dict, *, start_s: float
) -> dict[str, np.ndarray]:
    """What was seen, as arrays in the space; times count from ``start_s``."""
    rows = {"agent_pos": codec.agent_pos(snapshot.state)}
    if settings.joint_state:
        rows |= {key: getattr(snapshot.state, key) for key in _JOINTS}
    found = {key: _inside(row, space[key]) for key, row in rows.items()}
    found |= {key: picture(frame.image, settings.image_size) for key, frame in snapshot.frames.items()}
    if settings.mask is not None:
        for key in found.keys() & settings.cameras.keys():
            if settings.cameras[key] == WRIST:
                found[key][settings.mask] = 0
    if settings.timestamp:
        found["timestamp"] = np.array([snapshot.time_s - start_s])
    return found


def picture(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (*size, 3), a copy: scaled until it covers the size, and cut around the middle."""
    if image.shape[:2] == size:
        return np.array(image)
    from PIL import Image

    height, width = size
    scale = max(height / image.shape[0], width / image.shape[1])
    # The part of the picture that stays, so that only that is scaled.
    across, down = width / scale, height / scale
    left, top = (image.shape[1] - across) / 2, (image.shape[0] - down) / 2
    box = (left, top, left + across, top + down)
    return np.array(
        Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    )


def _inside(row: np.ndarray, space: gym.Space[Any]) -> np.ndarray:
    assert isinstance(space, gym.spaces.Box)
    return np.asarray(np.clip(row.astype(np.float32), space.low, space.high))
