"""What a driver uses of the SDK's joint controller: its methods, its time, and what may be sent to it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import N_JOINTS, Waypoint
from uva_agents.utils.clocks import Clock


class Controller(Protocol):
    """What a driver uses of ``arx5_interface.Arx5JointController``."""

    def get_timestamp(self) -> float:
        """Seconds on the controller's own clock."""
        ...

    def get_joint_state(self) -> Any:
        """The newest measurement, the SDK's ``JointState``: joints (6,) in rad, gripper in metres."""
        ...

    def get_joint_cmd(self) -> Any:
        """The last command to the motors, a ``JointState``."""
        ...

    def set_joint_cmd(self, cmd: Any, /) -> None:
        """Go straight to a ``JointState``: by its timestamp, or at once where that is 0. Replaces what is queued."""
        ...

    def set_joint_traj(self, traj: list[Any], /) -> None:
        """Follow a list of ``JointState``, straight from each to the next. Replaces what is queued."""
        ...

    def get_gain(self) -> Any:
        """The gains in use, the SDK's ``Gain``."""
        ...

    def set_gain(self, gain: Any, /) -> None:
        """Use other gains, a ``Gain``, from now on."""
        ...

    def get_robot_config(self) -> Any:
        """The SDK's ``RobotConfig``: limits of joints and gripper, and the gripper's width in metres."""
        ...

    def get_controller_config(self) -> Any:
        """The SDK's ``ControllerConfig``: default gains and the period of the control loop."""
        ...


class ControllerClock:
    """Maps a controller's own time to a driver's clock.

    Args:
        clock: the driver's.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset: float | None = None

    def restart(self) -> None:
        """Another controller."""
        self._offset = None

    def offset(self, controller: Controller) -> float:
        """Seconds from the controller's time to the clock's."""
        best = None
        for _ in range(3):
            before = self._clock.now()
            there = controller.get_timestamp()
            after = self._clock.now()
            if best is None or after - before < best[0]:
                best = after - before, (before + after) / 2 - there
            if best[0] < 2e-4:
                break
        assert best is not None
        # The controller may read another clock of the machine, which may be set: followed, but not its scatter.
        if self._offset is None or abs(best[1] - self._offset) > 5e-4:
            self._offset = best[1]
        return self._offset


def check_waypoints(waypoints: Sequence[Waypoint]) -> None:
    """That there are waypoints, of six finite joints each, with times that rise.

    Raises:
        ValueError: there are none, or one is not such.
    """
    if not waypoints:
        raise ValueError("send() needs at least one waypoint; to stay where the arm is, call hold()")
    for waypoint in waypoints:
        joints = np.asarray(waypoint.joint_pos, float)
        if joints.shape != (N_JOINTS,):
            raise ValueError(f"a waypoint has {N_JOINTS} joints, not shape {joints.shape}")
        if not (np.isfinite(joints).all() and math.isfinite(waypoint.gripper_pos) and math.isfinite(waypoint.time_s)):
            raise ValueError(f"a waypoint holds a number that is none: {waypoint}")
    for earlier, later in itertools.pairwise(waypoints):
        if later.time_s <= earlier.time_s:
            raise ValueError(f"times of waypoints must rise, and {later.time_s} follows {earlier.time_s}")
