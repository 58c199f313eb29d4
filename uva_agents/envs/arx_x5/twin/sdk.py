"""The SDK's data types, for the twin: same names, methods and units as in the package ``arx5_interface``, which needs not be there.

As there, ``pos()`` and its like are methods and give the array itself, not a copy, and gains of the gripper are attributes.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, overload

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import N_JOINTS
from uva_agents.envs.arx_x5.arm.limits import ArmLimits

GRAVITY = (0.0, 0.0, -9.807)


def _vector(values: Any) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError("incompatible constructor arguments: an array of numbers was expected") from None
    if array.ndim != 1:
        raise TypeError(f"incompatible constructor arguments: a vector was expected, not shape {array.shape}")
    return array


class JointState:
    """Joints and gripper, measured or commanded. ``JointState(dof)`` or ``JointState(pos, vel, torque, gripper_pos, ...)``.

    Attributes:
        timestamp: s, on the controller's clock; 0 in a command means "now".
        gripper_pos: m.
        gripper_vel: m/s.
        gripper_torque: N m.
    """

    timestamp: float
    gripper_pos: float
    gripper_vel: float
    gripper_torque: float

    @overload
    def __init__(self, dof: int, /) -> None: ...
    @overload
    def __init__(
        self,
        pos: Any,
        vel: Any,
        torque: Any,
        gripper_pos: float,
        gripper_vel: float = 0.0,
        gripper_torque: float = 0.0,
        /,
    ) -> None: ...
    def __init__(self, *arguments: Any) -> None:
        self.timestamp = self.gripper_pos = self.gripper_vel = self.gripper_torque = 0.0
        if len(arguments) == 1:
            self._pos, self._vel, self._torque = (np.zeros(int(arguments[0])) for _ in range(3))
        elif len(arguments) in (4, 6):
            self._pos, self._vel, self._torque = (_vector(argument) for argument in arguments[:3])
            self.gripper_pos = float(arguments[3])
            if len(arguments) == 6:
                self.gripper_vel, self.gripper_torque = float(arguments[4]), float(arguments[5])
        else:
            raise TypeError(f"incompatible constructor arguments: 1, 4 or 6 were expected, not {len(arguments)}")

    def pos(self) -> np.ndarray:
        """(6,) rad."""
        return self._pos

    def vel(self) -> np.ndarray:
        """(6,) rad/s."""
        return self._vel

    def torque(self) -> np.ndarray:
        """(6,) N m."""
        return self._torque

    def __add__(self, other: JointState) -> JointState:
        total = JointState(
            self._pos + other._pos,
            self._vel + other._vel,
            self._torque + other._torque,
            self.gripper_pos + other.gripper_pos,
            self.gripper_vel + other.gripper_vel,
            self.gripper_torque + other.gripper_torque,
        )
        total.timestamp = self.timestamp
        return total

    def __mul__(self, scalar: float) -> JointState:
        product = JointState(
            self._pos * scalar,
            self._vel * scalar,
            self._torque * scalar,
            self.gripper_pos * scalar,
            self.gripper_vel * scalar,
            self.gripper_torque * scalar,
        )
        product.timestamp = self.timestamp
        return product


class EEFState:
    """Tool pose and gripper. ``EEFState()`` or ``EEFState(pose_6d, gripper_pos, ...)``.

    Attributes:
        timestamp: s, on the controller's clock.
        gripper_pos: m.
        gripper_vel: m/s.
        gripper_torque: N m.
    """

    timestamp: float
    gripper_pos: float
    gripper_vel: float
    gripper_torque: float

    def __init__(self, *arguments: Any) -> None:
        self.timestamp = self.gripper_pos = self.gripper_vel = self.gripper_torque = 0.0
        self._pose = np.zeros(6)
        if len(arguments) in (2, 4):
            self._pose = _vector(arguments[0])
            self.gripper_pos = float(arguments[1])
            if len(arguments) == 4:
                self.gripper_vel, self.gripper_torque = float(arguments[2]), float(arguments[3])
        elif arguments:
            raise TypeError(f"incompatible constructor arguments: 0, 2 or 4 were expected, not {len(arguments)}")

    def pose_6d(self) -> np.ndarray:
        """(6,) x, y, z in metres; roll, pitch, yaw in rad."""
        return self._pose

    def __add__(self, other: EEFState) -> EEFState:
        total = EEFState(
            self._pose + other._pose,
            self.gripper_pos + other.gripper_pos,
            self.gripper_vel + other.gripper_vel,
            self.gripper_torque + other.gripper_torque,
        )
        total.timestamp = self.timestamp
        return total

    def __mul__(self, scalar: float) -> EEFState:
        product = EEFState(
            self._pose * scalar, self.gripper_pos * scalar, self.gripper_vel * scalar, self.gripper_torque * scalar
        )
        product.timestamp = self.timestamp
        return product


class Gain:
    """``Gain(dof)``: zeros; or ``Gain(kp, kd, gripper_kp, gripper_kd)``. Units as in :class:`ArmLimits`."""

    gripper_kp: float
    gripper_kd: float

    def __init__(self, *arguments: Any) -> None:
        if len(arguments) == 1:
            self._kp, self._kd = np.zeros(int(arguments[0])), np.zeros(int(arguments[0]))
            self.gripper_kp = self.gripper_kd = 0.0
        elif len(arguments) == 4:
            self._kp, self._kd = _vector(arguments[0]), _vector(arguments[1])
            self.gripper_kp, self.gripper_kd = float(arguments[2]), float(arguments[3])
        else:
            raise TypeError(f"incompatible constructor arguments: 1 or 4 were expected, not {len(arguments)}")

    def kp(self) -> np.ndarray:
        """(6,) N m/rad."""
        return self._kp

    def kd(self) -> np.ndarray:
        """(6,) N m s/rad."""
        return self._kd

    def __add__(self, other: Gain) -> Gain:
        return Gain(
            self._kp + other._kp,
            self._kd + other._kd,
            self.gripper_kp + other.gripper_kp,
            self.gripper_kd + other.gripper_kd,
        )

    def __mul__(self, scalar: float) -> Gain:
        return Gain(self._kp * scalar, self._kd * scalar, self.gripper_kp * scalar, self.gripper_kd * scalar)


@dataclass
class RobotConfig:
    """What ``get_robot_config()`` returns, as far as it means something without motors."""

    robot_model: str
    joint_pos_min: np.ndarray
    joint_pos_max: np.ndarray
    joint_vel_max: np.ndarray
    joint_torque_max: np.ndarray
    ee_vel_max: np.ndarray
    gripper_vel_max: float
    gripper_torque_max: float
    gripper_width: float
    gripper_open_readout: float
    joint_dof: int
    gravity_vector: np.ndarray
    base_link_name: str = "base_link"
    eef_link_name: str = "eef_link"


@dataclass
class ControllerConfig:
    """What ``get_controller_config()`` returns."""

    controller_type: str
    default_kp: np.ndarray
    default_kd: np.ndarray
    default_gripper_kp: float
    default_gripper_kd: float
    over_current_cnt_max: int
    controller_dt: float
    gravity_compensation: bool = True
    background_send_recv: bool = True
    shutdown_to_passive: bool = True
    interpolation_method: str = "linear"
    default_preview_time: float = 0.0


def robot_config(limits: ArmLimits) -> RobotConfig:
    """A new one; arrays may be replaced."""
    return RobotConfig(
        robot_model=limits.model,
        joint_pos_min=limits.joint_pos_min.copy(),
        joint_pos_max=limits.joint_pos_max.copy(),
        joint_vel_max=limits.joint_vel_max.copy(),
        joint_torque_max=limits.joint_torque_max.copy(),
        ee_vel_max=np.array([limits.eef_vel_max] * 3 + [limits.eef_turn_max] * 3),
        gripper_vel_max=limits.gripper_vel_max,
        gripper_torque_max=limits.gripper_torque_max,
        gripper_width=limits.gripper_width,
        gripper_open_readout=limits.gripper_open_readout,
        joint_dof=N_JOINTS,
        gravity_vector=np.array(GRAVITY),
    )


def controller_config(limits: ArmLimits) -> ControllerConfig:
    """Of the joint controller. A new one; arrays may be replaced."""
    return ControllerConfig(
        controller_type="joint_controller",
        default_kp=limits.default_kp.copy(),
        default_kd=limits.default_kd.copy(),
        default_gripper_kp=limits.default_gripper_kp,
        default_gripper_kd=limits.default_gripper_kd,
        over_current_cnt_max=limits.over_current_cycles,
        controller_dt=limits.control_dt,
    )


TYPES = SimpleNamespace(JointState=JointState, EEFState=EEFState, Gain=Gain)
"""Stands where a driver would otherwise use the module ``arx5_interface``."""
