"""Paths that keep every limit and end at rest, made from whatever was asked for.

The argument why nothing unsafe is sent:

1. Every path that is sent ends at rest, inside the limits, before the watchdog's time is over; all of it was checked
   (:meth:`Fence.broken`) before.
2. A new path leaves the one that is being followed at a point of the grid that lies ahead, and starts with that point: whenever
   the driver takes it up before then, the arm goes straight to a point that it was going to anyway.
3. From every point of a path one way to stop has been checked: braking along a straight line of the joints in a fixed time,
   or, while it already brakes, the rest of that. A step is only taken if the same holds after it; otherwise the arm brakes.

So there is always something allowed to do, at worst to go on braking, and if nothing new can be sent, the old path ends at rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from uva_agents.envs.arx_x5.interface import Waypoint
from uva_agents.envs.arx_x5.safety.fence import Fence

_TRIES = ((1.0, 1.0), (1.0, 0.7), (1.0, 0.4), (0.6, 1.0), (1.0, 0.15), (0.6, 0.5), (0.25, 1.0), (0.0, 1.0), (0.0, 0.5))
"""Next velocities to try, best first: this share of the wanted one, approached by this share of what acceleration allows."""
_EASE = 0.6
"""Share of the acceleration that catching up counts on for slowing down again."""
_FIRM = 0.85
"""The same for the end of the course."""


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """Points on a grid of time; before the first and after the last the arm rests there.

    Attributes:
        start_s: time of the first point.
        period_s: between points.
        joints: (M, 6) rad.
        grippers: (M,) metres.
        may_brake: (M,) from which points braking was checked; at the others the arm brakes already, since the last such point.
    """

    start_s: float
    period_s: float
    joints: np.ndarray
    grippers: np.ndarray
    may_brake: np.ndarray

    @classmethod
    def resting(cls, time_s: float, period_s: float, joints: np.ndarray, gripper: float) -> Path:
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

    def left_at(self, index: int, joints: np.ndarray, grippers: np.ndarray, may_brake: np.ndarray, *, keep: int) -> Path:
        """Up to point ``index`` as it is, and then on with others; points before ``keep`` are forgotten."""
        kept = range(keep, index + 1)
        last = len(self.may_brake) - 1
        return Path(
            self.time(keep),
            self.period_s,
            np.concatenate([[self.joints_at(i) for i in kept], joints]),
            np.concatenate([[self.gripper_at(i) for i in kept], grippers]),
            # Past its end the arm rests, and nothing is left to brake.
            np.concatenate([[i > last or bool(self.may_brake[i]) for i in kept], may_brake]).astype(bool),
        )


class Governor:
    """Makes paths.

    Args:
        fence: the limits.
    """

    def __init__(self, fence: Fence) -> None:
        self._fence = fence
        n = fence.config.stop_steps
        # After a step with velocity v, braking goes on with these shares of v: evenly down to rest.
        self._fall = np.arange(n - 1, 0, -1) / n

    def follow(
        self,
        old: Path,
        leave: int,
        *,
        times: np.ndarray,
        joints: np.ndarray,
        grippers: np.ndarray,
        until_s: float,
        keep: int,
    ) -> Path:
        """Leave ``old`` at its point ``leave`` for the wanted course, as near to it as the limits allow.

        Args:
            times: (T,) rising, after the point that is left.
            joints: (T, 6) wanted, within their limits of position.
            grippers: (T,) wanted, metres, within their range.
            until_s: the path is at rest by then, if the old one was.
            keep: as in :meth:`Path.left_at`.
        """
        c, dt = self._fence.config, old.period_s
        before, here, gripper = old.joints_at(leave - 1), old.joints_at(leave), old.gripper_at(leave)
        way_out, room = self._way_out(old, leave), self._fence.room_at(here)
        steps = max(0, int((until_s - old.time(leave)) / dt + 1e-6) - c.stop_steps)
        grid = old.time(leave) + dt * np.arange(steps + 1)
        knots = np.append(old.time(leave), times)
        course = np.stack([np.interp(grid, knots, np.append(here[i], joints[:, i])) for i in range(6)], axis=1)
        squeeze = np.interp(grid, knots, np.append(gripper, grippers))
        # How much of the course is left at every point of the grid, and after its last.
        left = np.append(np.abs(np.diff(course, axis=0)).max(1)[::-1].cumsum()[::-1], 0.0)
        left = left + np.abs(joints[-1] - course[-1]).max()
        rows, openings, may_brake = [], [], []
        for step in range(steps):
            lag = course[step] - here
            arrived = np.abs(lag).max() < 1e-7 and np.abs(here - before).max() < 1e-9
            if arrived and grid[step] >= times[-1] and abs(squeeze[-1] - gripper) < 1e-9:
                break
            if arrived and np.array_equal(course[step], course[step + 1]):
                taken: np.ndarray | None = np.tile(here, (len(self._fall) + 1, 1))
            else:
                taken = self._step(before, here, lag, (course[step + 1] - course[step]) / dt, float(left[step]), room)
            may_brake.append(taken is not None or not len(way_out))
            if taken is None:
                taken = way_out if len(way_out) else here[None]
            before, here, way_out = here, taken[0], taken[1:]
            gripper += float(np.clip(squeeze[step + 1] - gripper, -c.gripper_speed * dt, c.gripper_speed * dt))
            rows.append(here)
            openings.append(gripper)
        return old.left_at(
            leave,
            np.concatenate([np.reshape(rows, (-1, 6)), way_out]),
            np.append(openings, np.full(len(way_out), gripper)),
            np.append(may_brake, np.zeros(len(way_out), bool)),
            keep=keep,
        )

    def brake(self, old: Path, leave: int, *, keep: int) -> Path:
        """Leave ``old`` at its point ``leave`` and stop, by the way that was checked with it."""
        rows = self._way_out(old, leave)
        return old.left_at(leave, rows, np.full(len(rows), old.gripper_at(leave)), np.zeros(len(rows), bool), keep=keep)

    def oldest_needed(self, path: Path, index: int) -> int:
        """The first point that has to be kept so that the path can still be left at ``index``."""
        return self._braked_since(path, index) - 1

    def why_not(self, path: Path, first: int) -> str | None:
        """Which limit the path exceeds after its point ``first``, if any."""
        last = max(len(path.joints), first + 1)
        return self._fence.broken(np.stack([path.joints_at(i) for i in range(first - 1, last + 1)]))

    def _braked_since(self, path: Path, index: int) -> int:
        """The last point up to ``index`` from which braking was checked."""
        while index < len(path.may_brake) and index > 0 and not path.may_brake[index]:
            index -= 1
        return index

    def _way_out(self, path: Path, index: int) -> np.ndarray:
        """(m, 6) points that follow point ``index`` when stopping there; none at rest."""
        since = self._braked_since(path, index)
        here = path.joints_at(since)
        step = here - path.joints_at(since - 1)
        if not step.any():
            return np.empty((0, 6))
        return np.asarray((here + np.cumsum(self._fall)[:, None] * step)[index - since :])

    def _step(
        self, before: np.ndarray, here: np.ndarray, lag: np.ndarray, pace: np.ndarray, left: float, room: np.ndarray
    ) -> np.ndarray | None:
        """(n, 6) the next point and the braking that follows it: the best allowed, or None.

        Args:
            lag: (6,) from here to where the arm should be now, rad.
            pace: (6,) how fast that moves, rad/s.
            left: how far it still goes, rad of the joint that turns most.
            room: (19,) as in :meth:`Fence.allowed`.
        """
        dt = self._fence.config.period_s
        now, reach = (here - before) / dt, self._reach(here)
        tries = self._tries(now, self._wanted(lag, pace, left, reach), reach)
        # The first is nearly always good, and alone it is checked in half the time.
        for some in (tries[:1], tries[1:]):
            paths = here + dt * np.cumsum(np.append(1.0, self._fall))[:, None] * some[:, None, :]
            known = np.broadcast_to(np.stack([before, here]), (len(some), 2, 6))
            good = self._fence.allowed(np.concatenate([known, paths], axis=1), room)
            if good.any():
                return np.asarray(paths[int(good.argmax())])
        return None

    def _reach(self, here: np.ndarray) -> np.ndarray:
        """(6, 6) what the tool does when a joint turns: rows x, y, z and the rotation, columns the joints."""
        points, turned = self._fence.tool(np.concatenate([here[None], here + 1e-4 * np.eye(6)]))
        spin = turned[1:] @ turned[0].T
        lean = np.stack([spin[:, 2, 1], spin[:, 0, 2], spin[:, 1, 0]], axis=1)
        lean = (lean - np.stack([spin[:, 1, 2], spin[:, 2, 0], spin[:, 0, 1]], axis=1)) / 2
        return np.concatenate([points[1:] - points[0], lean], axis=1).T / 1e-4

    def _measures(self, reach: np.ndarray, change: np.ndarray) -> np.ndarray:
        """(..., 3) of joint vectors (..., 6): the largest entry, how far the tool goes, how far it turns."""
        tool = change @ reach.T
        return np.stack(
            [np.abs(change).max(-1), np.linalg.norm(tool[..., :3], axis=-1), np.linalg.norm(tool[..., 3:], axis=-1)], -1
        )

    def _wanted(self, lag: np.ndarray, pace: np.ndarray, left: float, reach: np.ndarray) -> np.ndarray:
        """(6,) velocity that goes along and catches up, within the speed limits and so that the arm can stop at the end."""
        c = self._fence.config
        behind = self._measures(reach, lag)
        wanted = pace
        if behind[0] > 1e-9:
            wanted = pace + lag * (self._stoppable(behind[0], behind, _EASE) / behind[0])
        spare = 0.55 * c.period_s
        most = np.array([c.joint_speed, c.speed - spare * c.accel, c.turn - spare * c.turn_accel])
        fast = self._measures(reach, wanted)
        over = float((fast / most).max())
        rest = left + behind[0]
        if rest > 1e-9:
            # As if all that is left of the course went on in this direction.
            over = max(over, fast[0] / self._stoppable(rest, fast, _FIRM))
        return wanted / max(1.0, over)

    def _stoppable(self, distance: float, along: np.ndarray, share: float) -> float:
        """Speed of the joint that turns most, rad/s, from which a share of the accelerations stops it after one step and ``distance``.

        Args:
            distance: rad of that joint.
            along: :meth:`_measures` of the direction.
        """
        c, dt = self._fence.config, self._fence.config.period_s
        per_joint = np.maximum(along / max(along[0], 1e-12), 1e-9)
        slow = share * float((np.array([c.joint_accel, c.accel, c.turn_accel]) / per_joint).min())
        return slow * (math.sqrt(dt * dt + 2 * distance / slow) - dt)

    def _tries(self, now: np.ndarray, wanted: np.ndarray, reach: np.ndarray) -> np.ndarray:
        """(L, 6) velocities after one step from ``now`` on, best first."""
        c = self._fence.config
        share, part = np.array(_TRIES).T
        change = share[:, None] * wanted - now
        most = 0.9 * c.period_s * np.array([c.joint_accel, c.accel, c.turn_accel])
        over = (self._measures(reach, change) / most).max(-1)
        return np.asarray(now + change * (part / np.maximum(1.0, over))[:, None])
