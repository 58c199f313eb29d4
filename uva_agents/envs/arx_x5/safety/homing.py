"""The homing motion: straight in the joints, in trajectories like any other, only slower."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from uva_agents.envs.arx_x5.arm.limits import ArmLimits
from uva_agents.envs.arx_x5.safety.commands import CommandRejected, TargetTrajectory
from uva_agents.envs.arx_x5.safety.envelope import SAG_M, SafetyEnvelope
from uva_agents.envs.arx_x5.safety.events import InterventionKind
from uva_agents.envs.arx_x5.safety.executor import SAG, TrajectoryExecutor
from uva_agents.envs.arx_x5.safety.trajectory_filter import TrajectoryFilter
from uva_agents.utils.clocks import Clock

_POINTS = 60
_ELBOW = 0.03
"""rad"""
_NEAR = 1e-3
"""rad: a trajectory that ends nearer than that to its target arrives."""
_LOOK_S = 0.02
_SETTLE_S = 2.0
"""An arm that holds, or is home, rests after so long; or something is wrong with it."""
_LATE = 8
"""Pieces of the way in a row that a busy machine may fail to compute in time."""


class HomingMotion:
    """Moves a stiff arm home.

    Args:
        executor: of the arm.
        clock: to sleep on.
        envelope: the limits of the way.
        limits: of the arm's model.
        step: entered before every order: raises ``DriverError`` once something has ended the way home.
    """

    def __init__(
        self,
        executor: TrajectoryExecutor,
        *,
        clock: Clock,
        envelope: SafetyEnvelope,
        limits: ArmLimits,
        step: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._executor, self._clock, self._envelope, self._limits, self._step = executor, clock, envelope, limits, step
        self._filter = TrajectoryFilter(envelope)

    def run(self) -> None:
        """From rest where the arm is to home, and return when it is there.

        Raises:
            CommandRejected: this way leads nowhere, or the arm does not get there.
            DriverError: from the driver, or something ended it.
        """
        self._retry(self._executor.begin, _SETTLE_S)
        for via in homing_via_points(self._limits.home_joint_pos):
            self._glide(via, self._envelope.gripper_max)
        if not self._envelope.config.dry_run:
            self._retry(self._arrived, _SETTLE_S)

    def _retry(self, done: Callable[[], None], seconds: float) -> None:
        """Again until it is not rejected."""
        self._clock.sleep_until(self._executor.rest_s)
        give_up_s = self._clock.now() + seconds
        while True:
            with self._step():
                try:
                    return done()
                except CommandRejected:
                    if self._clock.now() >= give_up_s:
                        raise
            self._clock.sleep_until(self._clock.now() + _LOOK_S)

    def _glide(self, joints: np.ndarray, gripper: float) -> None:
        """Slowly straight to joints (6,), within the limits."""
        nearest, late = math.inf, 0
        while True:
            with self._step():
                try:
                    self._executor.follow(
                        lambda here, branch_s: target_at(joints, gripper, branch_s), trajectory_filter=self._filter
                    )
                    late = 0
                except CommandRejected as rejection:
                    late += 1
                    if rejection.note[0] is not InterventionKind.LATE or late > _LATE:
                        raise
                trajectory = self._executor.trajectory
            until_s = self._clock.now() + self._envelope.config.watchdog_s / 2
            self._clock.sleep_until(min(trajectory.end_s, until_s) if not late else self._clock.now() + _LOOK_S)
            if late:
                continue
            off, gripper_off = (
                float(np.abs(trajectory.joints[-1] - joints).max()),
                abs(trajectory.grippers[-1] - gripper),
            )
            arrived = off <= _NEAR and gripper_off < 1e-6
            if arrived and self._executor.ended:
                return
            # That the trajectory has ended means nothing here: at a limit, trajectories stay where they are as long as they may.
            if not arrived and off + gripper_off > nearest - 1e-6:
                raise CommandRejected(
                    InterventionKind.HOME_PATH,
                    "the straight way of the joints home leaves the limits: lead the arm clear of them, then home() again",
                )
            nearest = off + gripper_off

    def _arrived(self) -> None:
        off = np.abs(self._executor.measured_joints() - self._limits.home_joint_pos)
        if off.max() > SAG:
            joint = int(off.argmax())
            raise CommandRejected(
                InterventionKind.HOME_PATH,
                f"the arm did not get home: joint {joint + 1} is {off[joint]:.2f} rad from there; see what blocks it",
            )


def obstruction(envelope: SafetyEnvelope, here: np.ndarray, home: np.ndarray) -> str | None:
    """What a straight line of the joints from ``here`` (6,) to ``home`` (6,) leads through or out of, if anything.

    A limit that the arm is beyond already may be, as far as it is.
    """
    way = here + np.linspace(0, 1, _POINTS)[:, None] * (home - here)
    clearance = envelope.clearance(way, *envelope.tool(way))[:, 12:]
    under = (clearance < np.minimum(0.0, clearance[0]) - SAG_M).any(0)
    if not under.any():
        return None
    return "through the table" if under[-1] else "out of the workspace box"


def homing_via_points(home: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints (6,) to go through, the last of which are home: joint 3 comes last, or links 2 and 3 may touch, as the SDK has it."""
    nearly = home.copy()
    nearly[2] += _ELBOW
    return nearly, home


def target_at(joints: np.ndarray, gripper: float, branch_s: float) -> TargetTrajectory:
    """The joints (6,) as a target trajectory, as fast as the limits allow, from ``branch_s`` on."""
    row = np.append(joints, gripper)[None]
    return TargetTrajectory(np.array([branch_s + 1e-3]), row[:, :6], row[:, 6], row, ())
