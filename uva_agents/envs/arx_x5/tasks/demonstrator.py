"""Does the twin's tasks from what only a simulation knows: demonstrations to learn from, and a check that the tasks can be done."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from uva_agents.envs.arx_x5.tasks.tasks import CupOnSaucer, Reach, TwinTask
from uva_agents.envs.arx_x5.twin.model import SAUCER_HEIGHT
from uva_agents.errors import InputError

_PITCH = 1.05
"""rad below the horizontal: so the palm stays above the cup, and the fingertips above the table."""
_GRASP_Z = 0.038
_BACK, _LIFTED = 0.09, 0.14
_SQUEEZED = 0.04
"""m: less than a cup is wide; the SDK stops squeezing at half the gripper's torque."""
_SPEED, _CALM, _SLOW, _TURN = 0.16, 0.1, 0.08, 0.9
"""On average; in the middle of the way half as fast again, which the safety layer's usual limits still allow."""
_CLOSING = 0.05
"""m/s. At the SDK's gains the gripper is 40 ms behind its command: closing on something at more than about 0.13 m/s, it has
gone so far ahead when it is stopped that its torque stays above the limit, and the arm switches itself off."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Where the arm shall be at the end of this step.

    Attributes:
        eef_pose: (6,), as in ``ArmState``.
        joint_pos: (6,) rad, the same by inverse kinematics.
        gripper_pos: m.
        slack: how much of a disturbance there is room for here, from 0, where everything depends on it, to 1.
    """

    eef_pose: np.ndarray
    joint_pos: np.ndarray
    gripper_pos: float
    slack: float = 0.0


class Demonstrator:
    """One target per control step, for one of the tasks here.

    Args:
        task: what to do.
        rate_hz: control steps per second.

    Raises:
        InputError: it knows no way to do this task.
    """

    def __init__(self, task: TwinTask, *, rate_hz: float) -> None:
        if not isinstance(task, Reach | CupOnSaucer):
            raise InputError(f"no demonstrator for the task {task.name!r}")
        self._task, self._dt = task, 1.0 / rate_hz
        self._driver = task.driver
        self._kinematics = task.driver.kinematics
        self.reset()

    def reset(self) -> None:
        """Begin anew, after the task did."""
        state = self._driver.state()
        self._pose, self._joints = state.eef_pose.copy(), state.joint_pos.copy()
        self._gripper, self._slack = state.gripper_pos, 0.0
        self._steps = self._reach() if isinstance(self._task, Reach) else self._cup()
        self.done = False
        """It has nothing more to do, and stays."""

    def act(self) -> Target:
        """The next target. When all is done, the last one again."""
        if next(self._steps, "end") == "end":
            self.done = True
        return Target(self._pose.copy(), self._joints.copy(), self._gripper, self._slack)

    def _reach(self) -> Iterator[None]:
        target = self._driver.twin.plant.target()
        yield from self._go(self._facing(target, pitch=0.9), speed=_CALM, slack=(1.0, 0.2))
        yield from self._wait(0.6)

    def _cup(self) -> Iterator[None]:
        plant, width = self._driver.twin.plant, self._kinematics.limits.gripper_width
        cup = plant.position("cup")
        grasp = self._facing(np.array([cup[0], cup[1], _GRASP_Z]), pitch=_PITCH)
        yield from self._go(_back(grasp, _BACK), speed=_SPEED, gripper=width, slack=(1.0, 0.5))
        yield from self._wait(0.1)
        yield from self._go(grasp, speed=_SLOW, slack=(0.5, 0.05))
        yield from self._wait(0.2)
        yield from self._grip(_SQUEEZED)
        yield from self._wait(0.25)
        yield from self._go(_raised(grasp, _LIFTED), speed=_SLOW, slack=(0.0, 0.4))
        saucer = plant.position("saucer")
        over = self._facing(np.array([saucer[0], saucer[1], _LIFTED]), pitch=_PITCH)
        yield from self._go(over, speed=_SPEED, slack=(0.4, 0.4))
        yield from self._wait(0.2)
        # The cup is not quite where the tool is, which may still be on its way.
        over[:2] = saucer[:2] - (plant.position("cup") - plant.tool())[:2]
        yield from self._go(over, speed=_SLOW, slack=(0.3, 0.2))
        yield from self._wait(0.1)
        down = over.copy()
        down[2] = _GRASP_Z + SAUCER_HEIGHT + 0.001
        yield from self._go(down, speed=_SLOW, slack=(0.2, 0.0))
        yield from self._wait(0.2)
        yield from self._grip(width)
        yield from self._wait(0.1)
        yield from self._go(_back(down, _BACK), speed=_SLOW)
        yield from self._wait(0.4)

    def _facing(self, point: np.ndarray, *, pitch: float) -> np.ndarray:
        """(6,) the tool at a point, seen from the base straight ahead, pointing down by ``pitch``."""
        return np.array([*point, 0.0, pitch, math.atan2(point[1], point[0])])

    def _go(
        self, pose: np.ndarray, *, speed: float, gripper: float | None = None, slack: tuple[float, float] = (0.0, 0.0)
    ) -> Iterator[None]:
        start, opened = self._pose.copy(), self._gripper
        change = pose - start
        change[3:] = [math.remainder(angle, 2 * math.pi) for angle in change[3:]]
        seconds = max(float(np.linalg.norm(change[:3])) / speed, float(np.abs(change[3:]).max()) / _TURN)
        steps = max(1, math.ceil(seconds / self._dt))
        for step in range(1, steps + 1):
            share = step / steps
            self._slack = slack[0] + (slack[1] - slack[0]) * share
            if gripper is not None:
                most = _CLOSING * step * self._dt
                self._gripper = opened + float(np.clip(gripper - opened, -most, most))
            # Slowly off, slowly in.
            there = start + change * (share * share * (3 - 2 * share))
            joints = self._kinematics.inverse(there, self._joints)
            if joints is not None:
                self._pose, self._joints = there, joints
            yield

    def _grip(self, opening: float) -> Iterator[None]:
        start, self._slack = self._gripper, 0.0
        steps = max(1, math.ceil(abs(opening - start) / _CLOSING / self._dt))
        for step in range(1, steps + 1):
            self._gripper = start + (opening - start) * step / steps
            yield

    def _wait(self, seconds: float) -> Iterator[None]:
        for _ in range(math.ceil(seconds / self._dt)):
            yield


def _back(pose: np.ndarray, metres: float) -> np.ndarray:
    """Back along the tool's axis."""
    result = pose.copy()
    pitch, yaw = pose[4], pose[5]
    axis = np.array([math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), -math.sin(pitch)])
    result[:3] -= metres * axis
    return result


def _raised(pose: np.ndarray, z: float) -> np.ndarray:
    result = pose.copy()
    result[2] = z
    return result
