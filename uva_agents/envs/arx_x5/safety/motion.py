"""The path that the arm follows, and how another takes its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from uva_agents.envs.arx_x5.interface import Clock, Waypoint
from uva_agents.envs.arx_x5.safety.events import Kind, numbers
from uva_agents.envs.arx_x5.safety.fence import Fence
from uva_agents.envs.arx_x5.safety.governor import Governor, Path
from uva_agents.envs.arx_x5.safety.wanted import Note, Refused, Wanted

_STRETCHES = (1.0, 2.5, 6.0)
"""Times the lead: how far ahead a new path leaves the old one, if computing it took longer than that at first."""
_BEHIND_RAD, _BEHIND_M = 0.05, 0.005
"""A joint or the gripper that is farther from where it should be has been slowed; less is what rounding a corner takes."""


class Motion:
    """What was sent last, and what is sent next.

    Args:
        fence: the limits.
        clock: of the driver.
        send: gives waypoints to the driver.
        grace_s: points nearer than that are not sent: they would be past when the driver looks at them.
    """

    def __init__(
        self, fence: Fence, *, clock: Clock, send: Callable[[Sequence[Waypoint]], None], grace_s: float = 0.0
    ) -> None:
        self._fence, self._clock, self._send, self._grace_s = fence, clock, send, grace_s
        self._governor = Governor(fence)
        self.sure = True  # whether the driver is known to follow the path
        self.path = Path.resting(clock.now(), fence.config.period_s, np.zeros(6), 0.0)

    def rest_at(self, joints: np.ndarray, gripper: float) -> None:
        """The arm rests there: joints (6,)."""
        self.path, self.sure = Path.resting(self._clock.now(), self._fence.config.period_s, joints, gripper), True

    @property
    def ended(self) -> bool:
        """Whether the arm is at rest by now."""
        return self.path.end_s <= self._clock.now()

    def where(self) -> np.ndarray:
        """(6,) joints that the arm was sent to now."""
        return self.path.where(self._clock.now())[0]

    def follow(
        self, read: Callable[[np.ndarray, float], Wanted], *, governor: Governor | None = None
    ) -> tuple[tuple[Waypoint, ...], list[Note]]:
        """Send what is wanted, as far as it is allowed.

        Args:
            read: joints (6,) from where the new path begins, and when -> what is wanted.
            governor: another, slower one.

        Returns:
            What was sent, and why that is not what was wanted.

        Raises:
            Refused: nothing of it may be sent; the old path goes on.
            DriverError: from the driver.
        """
        governor = governor or self._governor
        started_s = self._clock.now()
        for stretch in _STRETCHES:
            leave, keep = self._branch(governor, stretch)
            left_s = self.path.time(leave)
            wanted = read(self.path.joints_at(leave), left_s)
            chosen = np.flatnonzero(wanted.times > left_s)
            times = wanted.times[chosen]
            if not len(chosen):
                # All of it is for before the first moment that can still be changed: then as soon as it can.
                chosen, times = np.array([len(wanted.times) - 1]), np.array([left_s + self.path.period_s])
            path = governor.follow(
                self.path,
                leave,
                times=times,
                joints=wanted.joints[chosen],
                grippers=wanted.grippers[chosen],
                until_s=started_s + self._fence.config.watchdog_s,
                keep=keep,
            )
            limit = governor.why_not(path, leave - keep)
            if limit is not None:
                # The governor keeps more distance than this check does, so this says that it is wrong somewhere.
                raise Refused(Kind.SLOWED, f"no path was found within the limits ({limit})", numbers(wanted.asked[0]))
            if self._clock.now() <= left_s:
                waypoints = self._take(path)
                return waypoints, [*wanted.notes, *_behind(path, times, wanted, chosen)]
        raise Refused(
            Kind.LATE, f"computing a path takes longer than {_STRETCHES[-1] * self._fence.config.lead_s:.2f} s here"
        )

    def brake(self) -> bool:
        """Stop, within the limits; whether that was possible. True at rest."""
        if self.ended:
            return True
        for stretch in _STRETCHES:
            leave, keep = self._branch(self._governor, stretch)
            path = self._governor.brake(self.path, leave, keep=keep)
            if self._governor.why_not(path, leave - keep) is not None:
                return False
            if self._clock.now() <= self.path.time(leave):
                self._take(path)
                return True
        return False

    def _branch(self, governor: Governor, stretch: float) -> tuple[int, int]:
        """Where the old path is left, and the first of its points that is still needed."""
        now = self._clock.now()
        leave = self.path.index_at(now + stretch * self._fence.config.lead_s)
        keep = min(self.path.index_at(now) - 1, governor.oldest_needed(self.path, leave))
        # Long after its end the path is a single point.
        return leave, max(keep, 0)

    def _take(self, path: Path) -> tuple[Waypoint, ...]:
        waypoints = path.waypoints(self._clock.now() + self._grace_s)
        # An error, or Ctrl-C, may come at any line: then nobody knows which of the two paths the arm follows.
        self.sure = False
        if waypoints:
            self._send(waypoints)
        self.path, self.sure = path, True
        return waypoints


def _behind(path: Path, times: np.ndarray, wanted: Wanted, chosen: np.ndarray) -> list[Note]:
    """Whether the path lags behind what was wanted, and where most."""
    worst, note = 0.0, None
    for time_s, i in zip(times, chosen, strict=True):
        if time_s > path.end_s and i != chosen[-1]:
            break
        joints, gripper = path.where(min(time_s, path.end_s))
        joint_off, gripper_off = float(np.abs(joints - wanted.joints[i]).max()), abs(gripper - wanted.grippers[i])
        off = max(joint_off / _BEHIND_RAD, gripper_off / _BEHIND_M)
        if off > max(worst, 1.0):
            worst = off
            note = (
                Kind.SLOWED,
                f"behind by up to {joint_off:.3f} rad and {gripper_off:.4f} m of the gripper: asked for faster than allowed",
                numbers(wanted.asked[i]),
            )
    return [] if note is None else [note]
