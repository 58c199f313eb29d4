"""How far the twin is from an ideal arm: delays, noise, and what gets lost. All of it repeats with the seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from uva_agents.errors import InputError


@dataclass(frozen=True, slots=True)
class TwinRealism:
    """Zero everywhere is an arm with perfect sensors and no delays; gains, torque limits and masses are real in any case.

    Attributes:
        action_latency_s: from the time of a command to when the motors take it up. That they then lag
            behind, as motors do, comes on top.
        observation_latency_s: age of a measurement when it can be read.
        camera_latency_s: from the moment that a picture shows to when it can be read.
        camera_fps: pictures per second.
        dropped_frames: share of pictures that never arrive, in [0, 1).
        dropped_states: share of control cycles whose measurement never arrives, in [0, 1).
        joint_pos_noise: standard deviation, rad.
        joint_vel_noise: rad/s.
        joint_torque_noise: N m.
        gripper_pos_noise: m.
        pixel_noise: standard deviation of each colour value, of 255.
        seed: of everything random here.

    Raises:
        InputError: a number outside its range; the message names it.
    """

    action_latency_s: float = 0.0
    observation_latency_s: float = 0.0
    camera_latency_s: float = 0.0
    camera_fps: float = 60.0
    dropped_frames: float = 0.0
    dropped_states: float = 0.0
    joint_pos_noise: float = 0.0
    joint_vel_noise: float = 0.0
    joint_torque_noise: float = 0.0
    gripper_pos_noise: float = 0.0
    pixel_noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "seed":
                if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                    raise InputError(f"seed must be a whole number of at least 0, not {value!r}")
                continue
            if isinstance(value, bool) or not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise InputError(f"{field.name} must be a number of at least 0, not {value!r}")
        for name in ("dropped_frames", "dropped_states"):
            if getattr(self, name) >= 1:
                raise InputError(f"{name} is a share, below 1, not {getattr(self, name)}")
        if not 1 <= self.camera_fps <= 500:
            raise InputError(
                f"camera_fps must be in [1, 500], not {self.camera_fps}: the simulation has 500 steps a second"
            )
        for name in ("action_latency_s", "observation_latency_s", "camera_latency_s"):
            if getattr(self, name) > 2:
                raise InputError(f"{name} is in seconds, at most 2, not {getattr(self, name)}")


IDEAL = TwinRealism()
REALISTIC = TwinRealism(
    action_latency_s=0.04,
    observation_latency_s=0.005,
    camera_latency_s=0.125,
    camera_fps=60.0,
    dropped_frames=0.01,
    dropped_states=0.001,
    joint_pos_noise=0.0004,
    joint_vel_noise=0.02,
    joint_torque_noise=0.05,
    gripper_pos_noise=0.0002,
    pixel_noise=2.0,
)
"""Latencies as UMI's deployment assumes them for this arm and its camera; noise guessed from the motors' resolution."""
