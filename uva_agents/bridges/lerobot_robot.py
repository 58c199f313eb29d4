"""The ARX X5 as LeRobot's tools expect a robot: flat dictionaries of floats, and actions returned as they were really sent.

LeRobot itself is not needed. Unlike its plug-ins for this arm, nothing here moves on :meth:`ArxX5Robot.connect`, no torque limit is
raised, and every action passes the same safety layer as in ``uva/ArxX5-v0``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np

from uva_agents.envs.arx_x5.actions import Targets
from uva_agents.envs.arx_x5.arm.interface import Camera, Driver, DriverError
from uva_agents.envs.arx_x5.checks import flag
from uva_agents.envs.arx_x5.drivers.factory import TwinDriver, make_driver
from uva_agents.envs.arx_x5.observing import picture
from uva_agents.envs.arx_x5.options import MADE_WITH, check_driver, check_rate, check_setup
from uva_agents.envs.arx_x5.safety import Intervention, SafetyConfig
from uva_agents.envs.arx_x5.system.assembly import assemble, checked_model
from uva_agents.envs.arx_x5.system.system import ArmSystem, Latencies
from uva_agents.errors import InputError

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "wrist_rotate")
"""Joints 1 to 6, by the names of LeRobot's plug-in for this arm: recorded datasets of both fit together."""
POSE = ("x", "y", "z", "roll", "pitch", "yaw")
_JOINT_KEYS = tuple(f"{name}.pos" for name in (*JOINTS, "gripper"))
_POSE_KEYS = tuple(f"eef.{name}" for name in (*POSE, "gripper"))


@dataclass(frozen=True, kw_only=True)
class ArxX5RobotConfig:
    """What :class:`ArxX5Robot` is made from.

    Attributes:
        id: name of this arm, for people.
        driver: ``"arx5"``, ``"sim"``, or a driver.
        model: ``"X5"`` or ``"X5_umi"``; the real arm needs it said, because another model's motors answer differently.
        interface: the CAN adapter.
        cartesian: actions are tool poses instead of joints.
        control_hz: actions per second; each is to be reached one period later.
        safety: limits; :class:`SafetyConfig`'s own by default.
        cameras: name -> camera; observations are of the moment that the first one's newest picture shows.
        image_size: (height, width) of their pictures.
        latencies: of measurements and actions.
        driver_options: more for :func:`~uva_agents.envs.arx_x5.drivers.factory.make_driver`.
    """

    id: str = "arx_x5"
    driver: str | Driver = "arx5"
    model: str | None = None
    interface: str = "can0"
    cartesian: bool = False
    control_hz: float = 20.0
    safety: SafetyConfig | None = None
    cameras: Mapping[str, Camera] = field(default_factory=dict)
    image_size: tuple[int, int] = (480, 640)
    latencies: Latencies | None = None
    driver_options: Mapping[str, Any] = field(default_factory=dict)


class ArxX5Robot:
    """One arm, used as LeRobot's scripts use a robot.

    >>> with ArxX5Robot(ArxX5RobotConfig(driver="sim")) as robot:      # doctest: +SKIP
    ...     robot.home()
    ...     obs = robot.get_observation()
    ...     sent = robot.send_action({key: obs[key] for key in robot.action_features})

    Nothing moves before :meth:`home`: connecting leaves the arm damped (passive), and a damped arm follows nothing.

    Args:
        config: what it is made from.

    Raises:
        InputError: the model is not said, or a setting makes no sense.
    """

    name = "arx_x5"
    config_class = ArxX5RobotConfig

    def __init__(self, config: ArxX5RobotConfig | None = None) -> None:
        self.config = config or ArxX5RobotConfig()
        check_rate(self.config.control_hz)
        flag("cartesian", self.config.cartesian)
        check_setup(self.config.safety, self.config.latencies)
        named = isinstance(self.config.driver, str)
        check_driver(self.config.driver, self.config.driver_options if named else {}, known=(*MADE_WITH, "clock"))
        self._model = checked_model(self.config.model, self.config.driver)
        self.id = self.config.id
        self.interventions: tuple[Intervention, ...] = ()
        """Of the last :meth:`send_action`."""
        self._system: ArmSystem | None = None
        self._twin: TwinDriver | None = None

    # -- what it can tell and do, also while disconnected ------------------------------------------------------------

    @property
    def observation_features(self) -> dict[str, Any]:
        """Key -> ``float``, or (H, W, 3) of a camera's pictures."""
        joints = {f"{name}.{what}": float for name in (*JOINTS, "gripper") for what in ("pos", "velocity", "effort")}
        pictures = dict.fromkeys(self.config.cameras, (*self.config.image_size, 3))
        return {**joints, **dict.fromkeys(_POSE_KEYS, float), **pictures}

    @property
    def action_features(self) -> dict[str, Any]:
        """Key -> ``float``: rad and metres."""
        return dict.fromkeys(_POSE_KEYS if self.config.cartesian else _JOINT_KEYS, float)

    @property
    def is_connected(self) -> bool:
        """Whether it talks to the arm: from :meth:`connect` to :meth:`disconnect`."""
        return self._system is not None

    @property
    def is_calibrated(self) -> bool:
        """True: the motors keep their own zeros."""
        return True

    def calibrate(self) -> None:
        """Nothing to do, see :attr:`is_calibrated`."""

    def configure(self) -> None:
        """Nothing to do: gains and limits are the driver's and the safety layer's."""

    # -- connection --------------------------------------------------------------------------------------------------

    def connect(self, calibrate: bool = True) -> None:
        """Begin to talk to the arm and its cameras. Nothing moves; the arm stays damped.

        Args:
            calibrate: accepted for LeRobot's sake; there is nothing to calibrate.

        Raises:
            ImportError: the package that the driver needs is not installed.
            DriverError: connected already, or no arm answers; the message says what to check.
        """
        if self._system is not None:
            raise DriverError(f"{self.id} is connected already")
        config = self.config
        driver: Driver
        if isinstance(config.driver, str):
            options = {"interface": config.interface, **config.driver_options}
            driver = made = make_driver(config.driver, model=self._model, **options)
            self._twin = made if isinstance(made, TwinDriver) else None
        else:
            driver = config.driver
        system = assemble(
            driver, model=self._model, cameras=config.cameras, latencies=config.latencies, safety=config.safety
        )
        self._system = system
        try:
            system.connect()
            system.wait_for_frames()
        except BaseException:
            self.disconnect()
            raise
        self.configure()

    def disconnect(self) -> None:
        """Bring the arm to rest as its safety layer is set to, and let go of everything. Does nothing while disconnected."""
        system, self._system = self._system, None
        if system is not None:
            system.close()
        twin, self._twin = self._twin, None
        if twin is not None:
            twin.shut_down()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    def __del__(self) -> None:
        if getattr(self, "_system", None) is not None:
            self.disconnect()

    # -- motion ------------------------------------------------------------------------------------------------------

    def home(self) -> None:
        """Go slowly to all joints zero, gripper open, and return when there. There is no collision check."""
        self._connected("home()").arm.home()

    def hold(self) -> None:
        """Come to rest, stiff. A damped arm stays damped: it is :meth:`home` that makes it stiff."""
        self._connected("hold()").arm.hold()

    def stop(self, reason: str = "stop() was called") -> None:
        """Emergency stop, from any thread."""
        self._connected("stop()").arm.stop.press(reason)

    def get_observation(self) -> dict[str, Any]:
        """The arm at the moment of the first camera's newest picture, and each camera's newest picture.

        Raises:
            DriverError: not connected, or the arm or a camera does not answer.
        """
        snapshot = self._connected("get_observation()").snapshot()
        state = snapshot.state
        found: dict[str, Any] = {}
        for i, name in enumerate(JOINTS):
            found |= {
                f"{name}.pos": float(state.joint_pos[i]),
                f"{name}.velocity": float(state.joint_vel[i]),
                f"{name}.effort": float(state.joint_torque[i]),
            }
        found |= {
            "gripper.pos": state.gripper_pos,
            "gripper.velocity": state.gripper_vel,
            "gripper.effort": state.gripper_torque,
        }
        found |= dict(zip(_POSE_KEYS, (*state.eef_pose.tolist(), state.gripper_pos), strict=True))
        pictures = {name: picture(frame.image, self.config.image_size) for name, frame in snapshot.frames.items()}
        return {**found, **pictures}

    def send_action(self, action: Mapping[str, Any]) -> dict[str, float]:
        """Be there one period from now, as far as the safety layer allows.

        Args:
            action: a number for every key of :attr:`action_features`.

        Returns:
            The same keys with what was really sent: where the arm is, if nothing was. :attr:`interventions` says why it differs.

        Raises:
            InputError: keys are missing, or unknown.
            DriverError: not connected, or the arm does not answer.
        """
        system = self._connected("send_action()")
        keys = tuple(self.action_features)
        if set(action) != set(keys):
            missing, unknown = sorted(set(keys) - set(action)), sorted(set(action) - set(keys))
            wrong = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has the unknown {', '.join(unknown)}"] * bool(
                unknown
            )
            raise InputError(f"the action {' and '.join(wrong)}: its keys are those of action_features")
        row = np.array([float(action[key]) for key in keys])
        values, gripper = row[None, :6], row[6:]
        targets = Targets(values, None, gripper) if self.config.cartesian else Targets(None, values, gripper)
        reached_s = system.clock.now() + max(1 / self.config.control_hz, system.reaction_s)
        result = system.send(targets, np.array([reached_s]))
        self.interventions = result.interventions
        joints, opening = system.where_sent(result.waypoints, reached_s)
        if self.config.cartesian:
            joints = system.kinematics.forward(joints)
        return dict(zip(keys, (*joints.tolist(), opening), strict=True))

    def _connected(self, what: str) -> ArmSystem:
        if self._system is None:
            raise DriverError(f"{what} of {self.id} before connect() or after disconnect()")
        return self._system
