"""Stands for the package ``arx5_interface`` where there is no arm: an ideal arm that records what it is told.

Names, arguments, units and errors are the real ones; ``test_arx_driver.py`` compares them with the real package's
where that is installed.
``world`` says what the fake world is like, and keeps every controller that was made.
"""

from __future__ import annotations

import enum
import sys
import threading
import time
from dataclasses import dataclass, field

import numpy as np

from uva_agents.envs.arx_x5.arm.kinematics import X5Kinematics
from uva_agents.envs.arx_x5.arm.limits import MODELS, arm_limits
from uva_agents.envs.arx_x5.twin.interpolation import Interpolator, with_velocities
from uva_agents.envs.arx_x5.twin.sdk import (
    ControllerConfig,
    EEFState,
    Gain,
    JointState,
    RobotConfig,
    controller_config,
    robot_config,
)

__all__ = [
    "Arx5JointController",
    "ControllerConfig",
    "ControllerConfigFactory",
    "EEFState",
    "Gain",
    "JointState",
    "LogLevel",
    "RobotConfig",
    "RobotConfigFactory",
]


@dataclass
class World:
    """Attributes:
    interfaces: that exist.
    powered: is the arm switched on?
    joints: (6,) rad, where it lies.
    gripper: m.
    controllers: every one that was made.
    """

    interfaces: set = field(default_factory=lambda: {"can0"})
    powered: bool = True
    joints: np.ndarray = field(default_factory=lambda: np.array([0.1, 0.3, 0.4, 0.2, -0.1, 0.2]))
    gripper: float = 0.01
    controllers: list = field(default_factory=list)


world = World()


def install(monkeypatch, **changes) -> World:
    """From now on ``import arx5_interface`` gives this module, in a fresh world."""
    global world
    world = World(**changes)
    monkeypatch.setitem(sys.modules, "arx5_interface", sys.modules[__name__])
    return world


class LogLevel(enum.Enum):
    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4
    CRITICAL = 5
    OFF = 6


class RobotConfigFactory:
    @staticmethod
    def get_instance():
        return RobotConfigFactory()

    def get_config(self, robot_model):
        if robot_model not in MODELS:
            raise RuntimeError(f"Unknown robot model. Currently available: {' '.join(MODELS)} ")
        return robot_config(arm_limits(robot_model))


class ControllerConfigFactory:
    @staticmethod
    def get_instance():
        return ControllerConfigFactory()

    def get_config(self, controller_type, joint_dof):
        if controller_type != "joint_controller":
            raise RuntimeError("Unknown controller type. Currently available: joint_controller, cartesian_controller")
        return controller_config(arm_limits("X5"))


class Arx5JointController:
    def __init__(self, *arguments):
        if len(arguments) == 2:
            model, interface = arguments
            robot = RobotConfigFactory.get_instance().get_config(model)
            config = ControllerConfigFactory.get_instance().get_config("joint_controller", 6)
        elif len(arguments) == 3:
            robot, config, interface = arguments
        else:
            raise TypeError("__init__(): incompatible constructor arguments")
        if not interface.startswith(("can", "en", "eth")):
            raise RuntimeError(
                "Interface name should start with can (for USB-CAN adapter) or en/eth (for EtherCAT-CAN adapter). "
                f"Unrecognized interface name {interface}"
            )
        if interface not in world.interfaces:
            raise RuntimeError(f"Failed to open USB-CAN adapter with interface name {interface}")
        if not world.powered:
            raise RuntimeError("None of the motors are initialized. Please check the connection or power of the arm.")
        self.calls: list = []
        self.fail_with: dict = {}
        self.silent_since: float | None = None
        self._lock = threading.RLock()
        self._robot, self._config = robot, config
        self._kinematics = X5Kinematics(robot.robot_model)
        self._begun = time.monotonic() - 1e-3
        self._gain = Gain(np.zeros(6), config.default_kd, 0.0, 0.0)
        self._running = True
        self._output = np.zeros(21)
        self._output[:6], self._output[18] = world.joints, world.gripper
        self._updated = 0.0
        self._interpolator = Interpolator(0.0, self._output)
        world.controllers.append(self)

    def _record(self, name, *arguments):
        self.calls.append((name, *arguments))
        if name in self.fail_with:
            raise self.fail_with[name]

    def _update(self):
        """The motors follow their command exactly, as fast as they are allowed to."""
        now = self.get_timestamp() if self.silent_since is None else self.silent_since
        if not self._running or now <= self._updated:
            return
        elapsed, self._updated = now - self._updated, now
        wanted = self._interpolator.at(now)
        if self._gain.kp().any():
            step = self._robot.joint_vel_max * elapsed
            self._output[:6] += np.clip(wanted[:6] - self._output[:6], -step, step)
        if self._gain.gripper_kp > 0:
            step = self._robot.gripper_vel_max * elapsed
            self._output[18] += np.clip(wanted[18] - self._output[18], -step, step)

    def _state(self):
        state = JointState(self._output[:6], np.zeros(6), np.zeros(6), float(self._output[18]))
        state.timestamp = self._updated
        return state

    def get_timestamp(self):
        return time.monotonic() - self._begun

    def get_joint_state(self):
        with self._lock:
            self._record("get_joint_state")
            self._update()
            return self._state()

    def get_eef_state(self):
        with self._lock:
            self._record("get_eef_state")
            self._update()
            state = EEFState(self._kinematics.forward(self._output[:6]), float(self._output[18]))
            state.timestamp = self._updated
            return state

    def get_joint_cmd(self):
        with self._lock:
            self._record("get_joint_cmd")
            self._update()
            return self._state()

    def set_joint_cmd(self, cmd):
        with self._lock:
            self._record("set_joint_cmd", cmd)
            self._update()
            now = self.get_timestamp()
            if cmd.timestamp == 0 or abs(cmd.timestamp - now) < 1e-3:
                self._interpolator.fix(now, _vector(cmd))
            elif cmd.timestamp <= now:
                raise ValueError("End time must be no less than current time")
            else:
                self._interpolator.replace(now, [cmd.timestamp], [_vector(cmd)])

    def set_joint_traj(self, traj):
        with self._lock:
            self._record("set_joint_traj", list(traj))
            self._update()
            times = [state.timestamp for state in traj]
            self._interpolator.replace(self.get_timestamp(), times, with_velocities(times, [_vector(s) for s in traj]))

    def set_gain(self, gain):
        with self._lock:
            self._record("set_gain", gain)
            self._update()
            far = np.abs(self._output[:6] - self._lying()).max()
            if not self._gain.kp().any() and gain.kp().max() > 1 and far > 0.2:
                self._running = False
                raise RuntimeError("Cannot set kp to non-zero when the joint pos cmd is far from current pos.")
            self._gain = gain

    def _lying(self):
        return self._output[:6]

    def get_gain(self):
        return self._gain

    def get_robot_config(self):
        return self._robot

    def get_controller_config(self):
        return self._config

    def get_home_pose(self):
        return self._kinematics.forward(np.zeros(6))

    def reset_to_home(self):
        self._record("reset_to_home")

    def set_to_damping(self):
        self._record("set_to_damping")

    def send_recv_once(self):
        self._record("send_recv_once")

    def recv_once(self):
        self._record("recv_once")

    def calibrate_gripper(self):
        self._record("calibrate_gripper")

    def calibrate_joint(self, joint_id):
        self._record("calibrate_joint", joint_id)

    def set_log_level(self, level):
        self._record("set_log_level", level)


def _vector(state):
    return np.concatenate(
        [state.pos(), state.vel(), state.torque(), [state.gripper_pos, state.gripper_vel, state.gripper_torque]]
    )
