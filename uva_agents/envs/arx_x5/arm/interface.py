"""What the parts of the ARX X5 environment agree on: clocks, states, waypoints, pictures, and who moves the arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from uva_agents.utils.clocks import Clock

N_JOINTS = 6


class DriverError(RuntimeError):
    """The arm cannot do what was asked for; the message says why and what to check."""


class TooLateError(DriverError):
    """An :class:`Order` that came too late was not taken up: the arm goes on with what it had."""


@dataclass(frozen=True, slots=True, eq=False)
class ArmState:
    """One measurement of the arm.

    Attributes:
        time_s: when it was true, on the driver's clock.
        joint_pos: (6,) rad.
        joint_vel: (6,) rad/s.
        joint_torque: (6,) N m.
        eef_pose: (6,) tool frame in the base frame: x, y, z in metres; roll, pitch, yaw in rad, R = Rz(yaw) Ry(pitch) Rx(roll).
        gripper_pos: opening, metres; 0 is closed.
        gripper_vel: m/s.
        gripper_torque: N m.
    """

    time_s: float
    joint_pos: np.ndarray
    joint_vel: np.ndarray
    joint_torque: np.ndarray
    eef_pose: np.ndarray
    gripper_pos: float
    gripper_vel: float
    gripper_torque: float


@dataclass(frozen=True, slots=True, eq=False)
class Waypoint:
    """Where the joints shall be at a time.

    Joints rather than tool poses: what inverse kinematics makes of a pose is then seen, and checked, before it is sent.

    Attributes:
        time_s: on the driver's clock.
        joint_pos: (6,) rad.
        gripper_pos: opening, metres.
    """

    time_s: float
    joint_pos: np.ndarray
    gripper_pos: float


class Order(tuple[Waypoint, ...]):
    """Waypoints that continue what a driver follows now, and may be taken up until ``by_s`` on its clock.

    Up to then the arm is where both the old waypoints and these lead. Later it is not, and would jump from one to the other: a
    driver that knows of this raises :class:`TooLateError` instead. To any other, these are waypoints.
    """

    by_s: float

    @classmethod
    def of(cls, waypoints: Sequence[Waypoint], by_s: float) -> Order:
        """Waypoints with the last moment at which they may be taken up."""
        order = cls(waypoints)
        order.by_s = by_s
        return order


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture: ``image`` uint8 (H, W, 3) RGB, and when it was seen (its latency taken off), on the same clock as states."""

    time_s: float
    image: np.ndarray


class Camera(Protocol):
    """Newest picture of a camera."""

    def read(self) -> Frame:
        """The newest frame; the same one again if there is none newer.

        Raises:
            DriverError: there is none yet, or the camera is gone.
        """

    def close(self) -> None:
        """Let go of the device."""


class Kinematics(Protocol):
    """Joints to tool poses (as :attr:`ArmState.eef_pose`) and back."""

    def forward(self, joint_pos: np.ndarray) -> np.ndarray:
        """(6,) joints, rad -> (6,) pose."""

    def inverse(self, eef_pose: np.ndarray, seed: np.ndarray) -> np.ndarray | None:
        """(6,) pose -> (6,) joints within their limits, near ``seed``; None where there are none."""


class Driver(Protocol):
    """Moves one arm, the real one or its twin. Never moves it on construction or :meth:`connect`."""

    clock: Clock

    def connect(self) -> None:
        """Begin to talk to the arm, which stays damped (passive).

        Raises:
            DriverError: no arm answers.
        """

    def state(self) -> ArmState:
        """The newest measurement."""

    def send(self, waypoints: Sequence[Waypoint]) -> None:
        """Follow these from now on, straight from each to the next, and stay at the last; replaces what is queued.

        Args:
            waypoints: times rise and lie in the future.

        Raises:
            DriverError: the arm is damped, or no longer answers.
            TooLateError: they are an :class:`Order` that came too late; nothing was changed.
        """

    def hold(self) -> None:
        """Stay, stiff, where the arm is now; forget what is queued."""

    def damp(self) -> None:
        """Become passive: the motors damp, and the arm sinks. Forget what is queued."""

    def home(self) -> None:
        """Become stiff, go slowly to all joints zero with the gripper open, and return when there."""

    def close(self) -> None:
        """:meth:`damp`, and let go of the arm."""
