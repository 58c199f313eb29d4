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

from uva_agents.envs.arx_x5.arm.interface import Waypoint
from uva_agents.envs.arx_x5.safety.envelope import Fence

Amounts = tuple[float, float, float]
"""Of joints, rad; of the tool point, metres; of the tool's rotation, rad. Or of their rates."""

_TRIES = ((1.0, 1.0), (1.0, 0.7), (1.0, 0.4), (0.6, 1.0), (1.0, 0.15), (0.6, 0.5), (0.25, 1.0), (0.0, 1.0), (0.0, 0.5))
"""Next velocities to try, best first: this share of the wanted one, approached by this share of what acceleration allows."""
_BURST = 16
"""Steps that are guessed first and checked together."""
_TIGHT = 16
"""Most steps of a path that are searched for one by one."""
_THERE = 2e-5
"""rad: nearer than that the arm is there."""
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

    def left_at(
        self, index: int, joints: np.ndarray, grippers: np.ndarray, may_brake: np.ndarray, *, keep: int
    ) -> Path:
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
        c = fence.config
        self._accels = (c.joint_accel, c.accel, c.turn_accel)
        # A little less than Fence.allowed wants.
        spare = 0.55 * c.period_s
        self._speeds = (c.joint_speed, c.speed - spare * c.accel, c.turn - spare * c.turn_accel)
        n = c.stop_steps
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
        here, gripper = old.joints_at(leave), old.gripper_at(leave)
        room = self._fence.room_at(here)
        steps = max(0, int((until_s - old.time(leave)) / dt + 1e-6) - c.stop_steps)
        grid = old.time(leave) + dt * np.arange(steps + 1)
        knots = np.append(old.time(leave), times)
        course = np.stack([np.interp(grid, knots, np.append(here[i], joints[:, i])) for i in range(6)], axis=1)
        # How much of the course is left at every point of the grid, and after its last.
        left = np.append(np.abs(np.diff(course, axis=0)).max(1)[::-1].cumsum()[::-1], 0.0)
        left = left + np.abs(joints[-1] - course[-1]).max()
        rows, may_brake = [old.joints_at(leave - 1), here], list[bool]()
        way_out, burst, tight = self._way_out(old, leave), _BURST, 0
        # Where it is tight every step takes long to find: a new command will come before the arm is past what was found.
        while (done := len(may_brake)) < steps and tight < _TIGHT:
            guess = self._guess(rows[-2], rows[-1], course[done : done + burst + 1], left[done:])
            if not len(guess):
                break
            good = self._good(np.concatenate([np.stack(rows[-2:]), guess]), room)
            passed = len(guess) if good.all() else int(good.argmin())
            rows.extend(guess[:passed])
            may_brake.extend([True] * passed)
            if passed:
                way_out = self._braking(rows[-1], rows[-1] - rows[-2])
            burst = min(2 * burst, _BURST)
            if passed < len(guess):
                now = done + passed
                taken = self._step(rows[-2], rows[-1], course[now : now + 2], float(left[now]), room)
                may_brake.append(taken is not None or not len(way_out))
                if taken is None:
                    taken = way_out if len(way_out) else rows[-1][None]
                rows.append(taken[0])
                way_out, burst, tight = taken[1:], 2, tight + 1
        # Where the way out is left over, the arm brakes; the gripper takes as long as it needs, and stops where the arm has to.
        squeeze = np.interp(grid, knots, np.append(gripper, grippers))
        openings = _limited(gripper, squeeze, c.gripper_speed * dt)
        moving = len(may_brake)
        needed = moving + len(way_out)
        if moving < steps:
            needed = max(needed, int(np.flatnonzero(np.append(1.0, np.diff(openings)))[-1]))
        resting = needed - moving - len(way_out)
        path = np.concatenate([np.reshape(rows[2:], (-1, 6)), way_out])
        path = np.concatenate([path, np.repeat((path[-1] if len(path) else here)[None], resting, axis=0)])
        opened = openings[1 : needed + 1] if moving < steps else openings[1 : moving + 1]
        opened = np.append(opened, np.full(needed - len(opened), opened[-1] if len(opened) else gripper))
        brakes = np.concatenate([may_brake, np.zeros(len(way_out)), np.ones(resting)])
        return old.left_at(leave, path, opened, brakes, keep=keep)

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
        return self._braking(here, here - path.joints_at(since - 1))[index - since :]

    def _braking(self, here: np.ndarray, step: np.ndarray) -> np.ndarray:
        """(n - 1, 6) points after ``here``, which was reached by ``step``; none at rest."""
        return np.asarray(here + np.cumsum(self._fall)[:, None] * step) if step.any() else np.empty((0, 6))

    def _good(self, rows: np.ndarray, room: np.ndarray) -> np.ndarray:
        """(K,) whether each step of rows (K + 2, 6), the first two of which are given, can be taken: with braking after it."""
        here, ahead = rows[1:-1], rows[2:]
        brake = ahead[:, None] + np.cumsum(self._fall)[:, None] * (ahead - here)[:, None]
        return self._fence.allowed(np.concatenate([np.stack([rows[:-2], here, ahead], axis=1), brake], axis=1), room)

    def _guess(self, before: np.ndarray, here: np.ndarray, course: np.ndarray, left: np.ndarray) -> np.ndarray:
        """(K, 6) the points that come next if no limit of position is near; none once the arm is there.

        Args:
            course: (K + 1, 6) where the arm should be, from now on.
            left: how far the course still goes at each of these, rad of the joint that turns most.
        """
        dt = self._fence.config.period_s
        rows = []
        for k in range(len(course) - 1):
            lag = course[k] - here
            if left[k] < 1e-9 and np.abs(lag).max() < _THERE and np.abs(here - before).max() < _THERE / 10:
                break
            reach, now = self._fence.reach(here), (here - before) / dt
            wanted = self._wanted(lag, (course[k + 1] - course[k]) / dt, float(left[k]), reach)
            before, here = here, here + dt * self._towards(now, wanted, 1.0, reach)
            rows.append(here)
        return np.reshape(rows, (-1, 6))

    def _step(
        self, before: np.ndarray, here: np.ndarray, course: np.ndarray, left: float, room: np.ndarray
    ) -> np.ndarray | None:
        """(n, 6) the next point and the braking that follows it: the best allowed, or None.

        Args:
            course: (2, 6) where the arm should be now and next, rad.
            left: how far the course still goes, rad of the joint that turns most.
            room: (19,) as in :meth:`Fence.allowed`.
        """
        dt = self._fence.config.period_s
        reach = self._fence.reach(here)
        wanted = self._wanted(course[0] - here, (course[1] - course[0]) / dt, left, reach)
        now = (here - before) / dt
        tries = np.stack([self._towards(now, share * wanted, part, reach) for share, part in _TRIES])
        paths = here + dt * np.cumsum(np.append(1.0, self._fall))[:, None] * tries[:, None, :]
        known = np.broadcast_to(np.stack([before, here]), (len(tries), 2, 6))
        good = self._fence.allowed(np.concatenate([known, paths], axis=1), room)
        return np.asarray(paths[int(good.argmax())]) if good.any() else None

    def _wanted(self, lag: np.ndarray, pace: np.ndarray, left: float, reach: np.ndarray) -> np.ndarray:
        """(6,) velocity that goes along and catches up, within the speed limits and so that the arm can stop at the end."""
        behind = _amounts(reach, lag)
        wanted = pace
        if behind[0] > 1e-9:
            wanted = pace + lag * (self._stoppable(behind[0], behind, _EASE) / behind[0])
        fast = _amounts(reach, wanted)
        over = max(value / most for value, most in zip(fast, self._speeds, strict=True))
        rest = left + behind[0]
        if rest > 1e-9:
            # As if all that is left of the course went on in this direction.
            over = max(over, fast[0] / self._stoppable(rest, fast, _FIRM))
        return wanted / max(1.0, over)

    def _stoppable(self, distance: float, along: Amounts, share: float) -> float:
        """Speed of the joint that turns most, rad/s, from which a share of the accelerations stops it within ``distance``.

        Args:
            distance: rad of that joint.
            along: amounts of the direction.
        """
        dt = self._fence.config.period_s
        slow = share * min(
            most * along[0] / max(value, 1e-9 * along[0], 1e-12)
            for value, most in zip(along, self._accels, strict=True)
        )
        slow = max(slow, 1e-9)
        return slow * (math.sqrt(dt * dt + 2 * distance / slow) - dt)

    def _towards(self, now: np.ndarray, wanted: np.ndarray, part: float, reach: np.ndarray) -> np.ndarray:
        """(6,) velocity after one step from ``now`` to ``wanted``, with a part of the acceleration that is allowed."""
        change = wanted - now
        most = 0.9 * self._fence.config.period_s
        over = max(value / (most * accel) for value, accel in zip(_amounts(reach, change), self._accels, strict=True))
        return np.asarray(now + change * (part / max(1.0, over)))


def _amounts(reach: np.ndarray, change: np.ndarray) -> Amounts:
    """Of a joint vector (6,): its largest entry, how far the tool goes, how far it turns. numpy is slow on three numbers."""
    x, y, z, *turn = (reach @ change).tolist()
    return max(map(abs, change.tolist())), math.hypot(x, y, z), math.hypot(*turn)


def _limited(start: float, wanted: np.ndarray, step: float) -> np.ndarray:
    """(N,) follows (N,) from ``start``, never by more than ``step``."""
    out = np.empty(len(wanted))
    here = out[0] = start
    for i, value in enumerate(wanted[1:].tolist(), 1):
        here = out[i] = here + min(max(value - here, -step), step)
    return out
