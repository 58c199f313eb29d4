"""What the arm follows, and how that is replaced: the only place that orders to the driver come from.

A path continues another in one of two ways only. Either the driver is known to follow the old one, and the new one leaves it at a
point that was checked (:meth:`Motion.follow`, :meth:`Motion.brake`). Or it begins at rest where the arm is measured to be
(:meth:`Motion.begin`). Every order but an accepted path makes the old path unknown, so that it cannot be continued by mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import ArmState, Driver, DriverError, Order, TooLateError, Waypoint
from uva_agents.envs.arx_x5.safety.commands import Note, Refused, Wanted
from uva_agents.envs.arx_x5.safety.envelope import Fence
from uva_agents.envs.arx_x5.safety.events import Kind, numbers, said
from uva_agents.envs.arx_x5.safety.monitor import not_measured
from uva_agents.envs.arx_x5.safety.trajectory_filter import Governor, Path

_STRETCHES = (1.0, 2.5, 6.0)
"""Times the lead: how far ahead a new path leaves the old one, if computing it took longer than that at first."""
_BEHIND_RAD, _BEHIND_M = 0.05, 0.005
"""A joint or the gripper that is farther from where it should be has been slowed; less is what rounding a corner takes."""
_STILL = 0.05
"""rad/s: an arm that is slower rests."""
SAG = 0.1
"""rad: so far an arm may hang from where it was sent, for gravity compensation is not perfect, and still be there."""


class Follows(Enum):
    """What the driver was told last."""

    PATH = "path"
    PLACE = "place"  # to stay where the arm was at that moment
    UNKNOWN = "unknown"  # nothing yet, to go limp, or an order that failed, may be after it was taken


class Motion:
    """See the module.

    Args:
        fence: the limits.
        driver: of the arm.
        grace_s: points nearer than that are not sent: they would be past when the driver looks at them.
        dry_run: nothing is really sent, so that where the arm is says nothing about the path.
    """

    def __init__(self, fence: Fence, driver: Driver, *, grace_s: float = 0.0, dry_run: bool = False) -> None:
        self._fence, self._driver, self._clock = fence, driver, driver.clock
        self._grace_s, self._dry_run = grace_s, dry_run
        self._governor = Governor(fence)
        self._told_s = self._latest_s = self._clock.now()
        self.path = Path.resting(self._told_s, fence.config.period_s, np.zeros(6), 0.0)
        self.follows = Follows.UNKNOWN
        self._orders = 0  # counts whatever ends the computing, and the sending, of a path

    @property
    def known(self) -> bool:
        """Whether the driver is known to follow the path."""
        return self.follows is Follows.PATH

    @property
    def rest_s(self) -> float:
        """When the arm is at rest: at the end of its path, or once it had the time to brake where it was told to stay."""
        return self.path.end_s if self.known else self._told_s + self._fence.config.stop_s

    @property
    def ended(self) -> bool:
        """Whether the arm is at rest by now."""
        return self.rest_s <= self._clock.now()

    def where(self) -> np.ndarray:
        """(6,) joints that the path leads to now."""
        return self.path.where(self._clock.now())[0]

    # --- beginning ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Have a path to continue that is at rest where the arm is. What was halted, however, goes on from here only.

        That may be the end of the path, if the arm has got there. Otherwise the driver is told to stay where the arm is.

        Raises:
            Refused: the arm is not, or cannot be seen to be, at rest.
            DriverError: from the driver.
        """
        self.look_at_clock()
        self.check_rest()
        if self.known:
            if self._dry_run:
                return
            state = self._measured()
            if np.abs(state.joint_pos - self.path.joints[-1]).max() <= SAG:
                return
        self._resting()
        self.stay()
        state = self._resting()
        self.rest_at(state.joint_pos, state.gripper_pos)

    def check_rest(self) -> None:
        """Raises Refused while the arm brakes."""
        if not self.ended:
            raise Refused(Kind.NOT_READY, "the arm brakes, and nothing begins before it is at rest")

    def rest_at(self, joints: np.ndarray, gripper: float) -> None:
        """The arm is known to rest there: joints (6,)."""
        self.interrupt()
        self._latest_s = self._clock.now()
        self.path = Path.resting(self._latest_s, self._fence.config.period_s, joints, gripper)
        self.follows = Follows.PATH

    def stay(self) -> None:
        """Stay, stiff, where the arm is, whatever it followed.

        Raises:
            DriverError: from the driver.
        """
        self._lose()
        self._driver.hold()
        self._told_s, self.follows = self._clock.now(), Follows.PLACE

    def limp(self) -> None:
        """Go limp.

        Raises:
            DriverError: from the driver.
        """
        self._lose()
        self._driver.damp()
        self._lose()  # whatever else was told meanwhile: this came last

    def measured_joints(self) -> np.ndarray:
        """(6,) joints where the arm is.

        Raises:
            Refused: the measurement is old, or no number.
            DriverError: there is none.
        """
        return self._measured().joint_pos

    def restore(self, path: Path, follows: Follows) -> None:
        """A simulation was put back to where this was so."""
        self.interrupt()
        self._latest_s = self._told_s = self._clock.now()
        self.path, self.follows = path, follows

    def interrupt(self) -> None:
        """Something else shall be done: a path that is being computed is not sent any more."""
        self._orders += 1

    # --- continuing ---------------------------------------------------------------------------------------------------

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
        started_s, since = self.look_at_clock(), self._orders
        if not self.known:
            raise Refused(Kind.NOT_READY, "the arm is not known to follow a path that could be continued")
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
            waypoints = self._take(path, left_s, since)
            if waypoints is not None:
                return waypoints, [*wanted.notes, *_behind(path, times, wanted, chosen)]
        raise Refused(
            Kind.LATE, f"computing a path takes longer than {_STRETCHES[-1] * self._fence.config.lead_s:.2f} s here"
        )

    def brake(self) -> bool:
        """Stop, within the limits; whether that was possible. True at rest on the path.

        Raises:
            DriverError: from the driver.
        """
        self.look_at_clock()
        since = self._orders
        if not self.known:
            return False
        if self.ended:
            return True
        for stretch in _STRETCHES:
            leave, keep = self._branch(self._governor, stretch)
            path = self._governor.brake(self.path, leave, keep=keep)
            if self._governor.why_not(path, leave - keep) is not None:
                return False
            if self._take(path, self.path.time(leave), since) is not None:
                return True
        return False

    # --- small ones ---------------------------------------------------------------------------------------------------

    def _lose(self) -> None:
        # Before the driver is called: it may raise after it has obeyed.
        self.interrupt()
        self._told_s, self.follows = self._clock.now(), Follows.UNKNOWN

    def look_at_clock(self) -> float:
        """Now; a path is not known any more once the clock was set back. To be called often."""
        now = self._clock.now()
        if now < self._latest_s - 1e-6:
            # A clock that was set back does not tell where on its path the arm is.
            self._told_s, self.follows = now, Follows.UNKNOWN if self.known else self.follows
        self._latest_s = now
        return now

    def _measured(self) -> ArmState:
        state = self._driver.state()
        why = not_measured(state, self._clock.now(), self._fence.config)
        if why is not None:
            raise Refused(Kind.STALE_STATE, why)
        return state

    def _resting(self) -> ArmState:
        state = self._measured()
        if np.abs(state.joint_vel).max() > _STILL and not self._dry_run:
            raise Refused(Kind.NOT_READY, "the arm has been told to stay where it is, and still moves")
        return state

    def _branch(self, governor: Governor, stretch: float) -> tuple[int, int]:
        """Where the old path is left, and the first of its points that is still needed."""
        now = self._clock.now()
        leave = self.path.index_at(now + stretch * self._fence.config.lead_s)
        keep = min(self.path.index_at(now) - 1, governor.oldest_needed(self.path, leave))
        # Long after its end the path is a single point.
        return leave, max(keep, 0)

    def _take(self, path: Path, left_s: float, since: int) -> tuple[Waypoint, ...] | None:
        """Send a path that leaves the old one at ``left_s``; None if it is too late for that, and the old one goes on.

        Raises:
            DriverError: from the driver; or somebody, say a handler of a signal, did something else ``since`` the path was begun.
        """
        if since != self._orders:
            raise DriverError("something else was asked for while a path was computed")
        soonest_s = self._clock.now() + self._grace_s
        if soonest_s > left_s:
            return None
        waypoints = path.waypoints(soonest_s)
        # An error, or Ctrl-C, may come at any line: then nobody knows which of the two paths the arm follows.
        self._lose()
        mine, late = self._orders, False
        if waypoints:
            try:
                self._driver.send(Order.of(waypoints, left_s))
            except TooLateError:
                late = True
        if mine != self._orders:
            self._lose()
            raise DriverError(
                "something else was asked for while a path was sent: nobody knows which of them the arm follows"
            )
        if late:
            self.follows, self._orders = Follows.PATH, since  # as if nothing had been sent
            return None
        self.path, self.follows = path, Follows.PATH
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
                f"behind by up to {said(joint_off)} rad and {said(gripper_off, 4)} m of the gripper: asked for faster than allowed",
                numbers(wanted.asked[i]),
            )
    return [] if note is None else [note]
