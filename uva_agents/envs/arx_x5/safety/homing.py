"""The way home: straight in the joints, as paths like any other, only slower."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from uva_agents.envs.arx_x5.arm.limits import ArmLimits
from uva_agents.envs.arx_x5.safety.commands import Refused, Wanted
from uva_agents.envs.arx_x5.safety.envelope import SAG_M, Fence
from uva_agents.envs.arx_x5.safety.events import Kind
from uva_agents.envs.arx_x5.safety.executor import SAG, Motion
from uva_agents.envs.arx_x5.safety.trajectory_filter import Governor
from uva_agents.utils.clocks import Clock

_POINTS = 60
_ELBOW = 0.03
"""rad"""
_NEAR = 1e-3
"""rad: a path that ends nearer than that to where it leads gets there."""
_LOOK_S = 0.02
_SETTLE_S = 2.0
"""An arm that was told to stay where it is, or is home, rests after so long; or something is wrong with it."""
_LATE = 8
"""Pieces of the way in a row that a busy machine may fail to compute in time."""


class WayHome:
    """Leads a stiff arm home.

    Args:
        motion: of the arm.
        clock: to sleep on.
        fence: the limits of the way.
        limits: of the arm's model.
        turn: entered before the arm is told anything: raises ``DriverError`` once something has ended the way home.
    """

    def __init__(
        self,
        motion: Motion,
        *,
        clock: Clock,
        fence: Fence,
        limits: ArmLimits,
        turn: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._motion, self._clock, self._fence, self._limits, self._turn = motion, clock, fence, limits, turn
        self._governor = Governor(fence)

    def run(self) -> None:
        """From rest where the arm is to home, and return when it is there.

        Raises:
            Refused: this way leads nowhere, or the arm does not get there.
            DriverError: from the driver, or something ended it.
        """
        self._until(self._motion.begin, _SETTLE_S)
        for stage in stages_home(self._limits.home_joint_pos):
            self._glide(stage, self._fence.gripper_max)
        if not self._fence.config.dry_run:
            self._until(self._arrived, _SETTLE_S)

    def _until(self, done: Callable[[], None], seconds: float) -> None:
        """Again until it is not refused."""
        self._clock.sleep_until(self._motion.rest_s)
        give_up_s = self._clock.now() + seconds
        while True:
            with self._turn():
                try:
                    return done()
                except Refused:
                    if self._clock.now() >= give_up_s:
                        raise
            self._clock.sleep_until(self._clock.now() + _LOOK_S)

    def _glide(self, joints: np.ndarray, gripper: float) -> None:
        """Slowly straight to joints (6,), within the limits."""
        nearest, late = math.inf, 0
        while True:
            with self._turn():
                try:
                    self._motion.follow(
                        lambda here, left_s: straight_to(joints, gripper, left_s), governor=self._governor
                    )
                    late = 0
                except Refused as refused:
                    late += 1
                    if refused.note[0] is not Kind.LATE or late > _LATE:
                        raise
                path = self._motion.path
            until_s = self._clock.now() + self._fence.config.watchdog_s / 2
            self._clock.sleep_until(min(path.end_s, until_s) if not late else self._clock.now() + _LOOK_S)
            if late:
                continue
            off, gripper_off = float(np.abs(path.joints[-1] - joints).max()), abs(path.grippers[-1] - gripper)
            arrived = off <= _NEAR and gripper_off < 1e-6
            if arrived and self._motion.ended:
                return
            # Whether the path has ended says nothing here: at a wall, paths stay where they are for as long as they may.
            if not arrived and off + gripper_off > nearest - 1e-6:
                raise Refused(
                    Kind.HOME_PATH,
                    "the straight way of the joints home leaves the limits: lead the arm clear of them, then home() again",
                )
            nearest = off + gripper_off

    def _arrived(self) -> None:
        off = np.abs(self._motion.measured_joints() - self._limits.home_joint_pos)
        if off.max() > SAG:
            joint = int(off.argmax())
            raise Refused(
                Kind.HOME_PATH,
                f"the arm did not get home: joint {joint + 1} is {off[joint]:.2f} rad from there; see what blocks it",
            )


def in_the_way(fence: Fence, here: np.ndarray, home: np.ndarray) -> str | None:
    """What a straight line of the joints from ``here`` (6,) to ``home`` (6,) leads through or out of, if anything.

    A limit that the arm is beyond already may be, as far as it is.
    """
    way = here + np.linspace(0, 1, _POINTS)[:, None] * (home - here)
    room = fence.room(way, *fence.tool(way))[:, 12:]
    under = (room < np.minimum(0.0, room[0]) - SAG_M).any(0)
    if not under.any():
        return None
    return "through the table" if under[-1] else "out of the workspace box"


def stages_home(home: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints (6,) to go through, the last of which are home: joint 3 comes last, or links 2 and 3 may touch, as the SDK has it."""
    nearly = home.copy()
    nearly[2] += _ELBOW
    return nearly, home


def straight_to(joints: np.ndarray, gripper: float, left_s: float) -> Wanted:
    """A course to joints (6,), as fast as the limits allow, from ``left_s`` on."""
    row = np.append(joints, gripper)[None]
    return Wanted(np.array([left_s + 1e-3]), row[:, :6], row[:, 6], row, ())
