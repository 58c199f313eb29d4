"""Trajectories of the joints on a grid of time, at rest before their first point and after their last."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import Waypoint


@dataclass(frozen=True, slots=True, eq=False)
class JointTrajectory:
    """Points on a grid of time, straight in the joints between them; before the first and after the last the arm rests there.

    Attributes:
        start_s: time of the first point.
        period_s: between points.
        joints: (M, 6) rad.
        grippers: (M,) metres.
        branchable: (M,) at which points the fail-safe manoeuvre that begins there was verified, so that another trajectory may
            branch off; at the others the arm brakes already, since the last such point.
    """

    start_s: float
    period_s: float
    joints: np.ndarray
    grippers: np.ndarray
    branchable: np.ndarray

    @classmethod
    def resting(cls, time_s: float, period_s: float, joints: np.ndarray, gripper: float) -> JointTrajectory:
        """Stay at joints (6,)."""
        return cls(time_s, period_s, np.array(joints, float)[None], np.array([gripper], float), np.array([True]))

    @property
    def end_s(self) -> float:
        """When the arm is at rest."""
        return self.time(len(self.joints) - 1)

    def time(self, index: int) -> float:
        """Of a point, also past the last."""
        return self.start_s + index * self.period_s

    def index_at(self, time_s: float) -> int:
        """The first point at ``time_s`` or later."""
        return max(0, math.ceil((time_s - self.start_s) / self.period_s - 1e-6))

    def joints_at(self, index: int) -> np.ndarray:
        """(6,) at a point, also before the first and past the last."""
        return np.asarray(self.joints[min(max(index, 0), len(self.joints) - 1)])

    def gripper_at(self, index: int) -> float:
        """Metres, as :meth:`joints_at`."""
        return float(self.grippers[min(max(index, 0), len(self.grippers) - 1)])

    def where(self, time_s: float) -> tuple[np.ndarray, float]:
        """Joints (6,) and gripper at any time."""
        position = (time_s - self.start_s) / self.period_s
        index = math.floor(position)
        share = position - index
        joints = (1 - share) * self.joints_at(index) + share * self.joints_at(index + 1)
        return joints, (1 - share) * self.gripper_at(index) + share * self.gripper_at(index + 1)

    def waypoints(self, after_s: float) -> tuple[Waypoint, ...]:
        """The points that lie after a time."""
        first = self.index_at(after_s + 1e-3 * self.period_s)
        return tuple(
            Waypoint(self.time(i), self.joints[i].copy(), float(self.grippers[i]))
            for i in range(first, len(self.joints))
        )

    def branched_at(
        self, index: int, joints: np.ndarray, grippers: np.ndarray, branchable: np.ndarray, *, keep: int
    ) -> JointTrajectory:
        """Up to point ``index`` as it is, and then on with others; points before ``keep`` are forgotten."""
        kept = range(keep, index + 1)
        last = len(self.branchable) - 1
        return JointTrajectory(
            self.time(keep),
            self.period_s,
            np.concatenate([[self.joints_at(i) for i in kept], joints]),
            np.concatenate([[self.gripper_at(i) for i in kept], grippers]),
            # Past its end the arm rests, and the fail-safe manoeuvre is empty.
            np.concatenate([[i > last or bool(self.branchable[i]) for i in kept], branchable]).astype(bool),
        )
