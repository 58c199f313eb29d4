"""The trajectory that the arm executes, and how it is replaced: the only place that orders to the driver come from.

A trajectory begins in one of two ways only. Either the driver is known to follow the old one, and the new one branches off it at a
verified point (:meth:`TrajectoryExecutor.follow`, :meth:`TrajectoryExecutor.brake`): the step of the recursive feasibility in
:mod:`uva_agents.envs.arx_x5.safety.trajectory_filter`. Or it begins at rest where the arm is measured to be
(:meth:`TrajectoryExecutor.begin`): its base. Every order but an accepted trajectory makes the state unknown, so that the old
trajectory cannot be continued by mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import ArmState, Driver, DriverError, Order, TooLateError, Waypoint
from uva_agents.envs.arx_x5.safety.commands import CommandRejected, Note, TargetTrajectory
from uva_agents.envs.arx_x5.safety.envelope import SafetyEnvelope
from uva_agents.envs.arx_x5.safety.events import InterventionKind, number_text, numbers
from uva_agents.envs.arx_x5.safety.joint_trajectory import JointTrajectory
from uva_agents.envs.arx_x5.safety.monitor import not_measured
from uva_agents.envs.arx_x5.safety.trajectory_filter import TrajectoryFilter

_LEAD_FACTORS = (1.0, 2.5, 6.0)
"""Times the lead: how far ahead a new trajectory branches off the old one, if computing it took longer than that at first."""
_BEHIND_RAD, _BEHIND_M = 0.05, 0.005
"""A joint or the gripper that is farther from where it should be has been slowed; less is what rounding a corner takes."""
_REST_SPEED = 0.05
"""rad/s: an arm that is slower rests."""
SAG = 0.1
"""rad: so far an arm may hang from where it was sent, for gravity compensation is not perfect, and still be there."""


class LastCommand(Enum):
    """The last command to the driver."""

    TRAJECTORY = "trajectory"
    HOLD = "hold"  # to stay where the arm was at that moment
    UNKNOWN = "unknown"  # none yet, damping, or an order that failed, perhaps after it was taken


class TrajectoryExecutor:
    """See the module.

    Args:
        envelope: the limits.
        driver: of the arm.
        grace_s: points nearer than that are not sent: they would be past when the driver looks at them.
        dry_run: nothing is really sent, so that where the arm is says nothing about the trajectory.
    """

    def __init__(
        self, envelope: SafetyEnvelope, driver: Driver, *, grace_s: float = 0.0, dry_run: bool = False
    ) -> None:
        self._envelope, self._driver, self._clock = envelope, driver, driver.clock
        self._grace_s, self._dry_run = grace_s, dry_run
        self._filter = TrajectoryFilter(envelope)
        self._commanded_s = self._latest_s = self._clock.now()
        self.trajectory = JointTrajectory.resting(self._commanded_s, envelope.config.period_s, np.zeros(6), 0.0)
        self.last_command = LastCommand.UNKNOWN
        self._orders = 0  # counts whatever ends the computing, and the sending, of a trajectory

    @property
    def known(self) -> bool:
        """Whether the driver is known to follow :attr:`trajectory`."""
        return self.last_command is LastCommand.TRAJECTORY

    @property
    def rest_s(self) -> float:
        """When the arm is at rest: at the end of its trajectory, or once it had the time to brake after a hold."""
        return self.trajectory.end_s if self.known else self._commanded_s + self._envelope.config.stop_s

    @property
    def ended(self) -> bool:
        """Whether the arm is at rest by now."""
        return self.rest_s <= self._clock.now()

    def where(self) -> np.ndarray:
        """(6,) joints that the trajectory leads to now."""
        return self.trajectory.where(self._clock.now())[0]

    # --- beginning ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Have a trajectory to continue that is at rest where the arm is. What was halted, however, goes on from here only.

        That may be the end of the trajectory, if the arm has got there. Otherwise the driver is ordered to hold where the arm is.

        Raises:
            CommandRejected: the arm is not, or cannot be seen to be, at rest.
            DriverError: from the driver.
        """
        self.check_clock()
        self.check_rest()
        if self.known:
            if self._dry_run:
                return
            state = self._measured()
            if np.abs(state.joint_pos - self.trajectory.joints[-1]).max() <= SAG:
                return
        self._measured_at_rest()
        self.hold_here()
        state = self._measured_at_rest()
        self.rest_at(state.joint_pos, state.gripper_pos)

    def check_rest(self) -> None:
        """Raises CommandRejected while the arm brakes."""
        if not self.ended:
            raise CommandRejected(InterventionKind.NOT_READY, "the arm brakes, and nothing begins before it is at rest")

    def rest_at(self, joints: np.ndarray, gripper: float) -> None:
        """The arm is known to rest there: joints (6,)."""
        self.interrupt()
        self._latest_s = self._clock.now()
        self.trajectory = JointTrajectory.resting(self._latest_s, self._envelope.config.period_s, joints, gripper)
        self.last_command = LastCommand.TRAJECTORY

    def hold_here(self) -> None:
        """Stay, stiff, where the arm is, whatever it followed.

        Raises:
            DriverError: from the driver.
        """
        self._mark_unknown()
        self._driver.hold()
        self._commanded_s, self.last_command = self._clock.now(), LastCommand.HOLD

    def damp(self) -> None:
        """Make the arm damped (passive).

        Raises:
            DriverError: from the driver.
        """
        self._mark_unknown()
        self._driver.damp()
        self._mark_unknown()  # whatever else was ordered meanwhile: this came last

    def measured_joints(self) -> np.ndarray:
        """(6,) joints where the arm is.

        Raises:
            CommandRejected: the measurement is old, or no number.
            DriverError: there is none.
        """
        return self._measured().joint_pos

    def restore(self, trajectory: JointTrajectory, last_command: LastCommand) -> None:
        """A simulation was put back to where this was so."""
        self.interrupt()
        self._latest_s = self._commanded_s = self._clock.now()
        self.trajectory, self.last_command = trajectory, last_command

    def interrupt(self) -> None:
        """Something else shall be done: a trajectory that is being computed is not sent any more."""
        self._orders += 1

    # --- continuing ---------------------------------------------------------------------------------------------------

    def follow(
        self,
        read: Callable[[np.ndarray, float], TargetTrajectory],
        *,
        trajectory_filter: TrajectoryFilter | None = None,
    ) -> tuple[tuple[Waypoint, ...], list[Note]]:
        """Follow a target trajectory, as far as it is allowed.

        Args:
            read: joints (6,) where the new trajectory begins, and when -> the target trajectory.
            trajectory_filter: another, slower one.

        Returns:
            What was sent, and why it differs from the target.

        Raises:
            CommandRejected: nothing of it may be sent; the old trajectory goes on.
            DriverError: from the driver.
        """
        trajectory_filter = trajectory_filter or self._filter
        started_s, since = self.check_clock(), self._orders
        if not self.known:
            raise CommandRejected(
                InterventionKind.NOT_READY, "the arm is not known to follow a path that could be continued"
            )
        for factor in _LEAD_FACTORS:
            branch, keep = self._branch_point(trajectory_filter, factor)
            branch_s = self.trajectory.time(branch)
            target = read(self.trajectory.joints_at(branch), branch_s)
            chosen = np.flatnonzero(target.times > branch_s)
            times = target.times[chosen]
            if not len(chosen):
                # All of it is for before the first moment that can still be changed: then as soon as it can.
                chosen, times = np.array([len(target.times) - 1]), np.array([branch_s + self.trajectory.period_s])
            trajectory = trajectory_filter.follow(
                self.trajectory,
                branch,
                times=times,
                joints=target.joints[chosen],
                grippers=target.grippers[chosen],
                until_s=started_s + self._envelope.config.watchdog_s,
                keep=keep,
            )
            limit = trajectory_filter.broken_limit(trajectory, branch - keep)
            if limit is not None:
                # The filter keeps more distance than this check does, so this says that it is wrong somewhere.
                raise CommandRejected(
                    InterventionKind.SLOWED,
                    f"no path was found within the limits ({limit})",
                    numbers(target.commanded[0]),
                )
            waypoints = self._send(trajectory, branch_s, since)
            if waypoints is not None:
                return waypoints, [*target.notes, *_behind(trajectory, times, target, chosen)]
        raise CommandRejected(
            InterventionKind.LATE,
            f"computing a path takes longer than {_LEAD_FACTORS[-1] * self._envelope.config.lead_s:.2f} s here",
        )

    def brake(self) -> bool:
        """Stop, within the limits; whether that was possible. True at rest on the trajectory.

        Raises:
            DriverError: from the driver.
        """
        self.check_clock()
        since = self._orders
        if not self.known:
            return False
        if self.ended:
            return True
        for factor in _LEAD_FACTORS:
            branch, keep = self._branch_point(self._filter, factor)
            trajectory = self._filter.brake(self.trajectory, branch, keep=keep)
            if self._filter.broken_limit(trajectory, branch - keep) is not None:
                return False
            if self._send(trajectory, self.trajectory.time(branch), since) is not None:
                return True
        return False

    # --- small ones ---------------------------------------------------------------------------------------------------

    def _mark_unknown(self) -> None:
        # Before the driver is called: it may raise after it has obeyed.
        self.interrupt()
        self._commanded_s, self.last_command = self._clock.now(), LastCommand.UNKNOWN

    def check_clock(self) -> float:
        """Now; a trajectory is not known any more once the clock was set back. To be called often."""
        now = self._clock.now()
        if now < self._latest_s - 1e-6:
            # A clock that was set back does not tell where on its trajectory the arm is.
            self._commanded_s, self.last_command = now, LastCommand.UNKNOWN if self.known else self.last_command
        self._latest_s = now
        return now

    def _measured(self) -> ArmState:
        state = self._driver.state()
        why = not_measured(state, self._clock.now(), self._envelope.config)
        if why is not None:
            raise CommandRejected(InterventionKind.STALE_STATE, why)
        return state

    def _measured_at_rest(self) -> ArmState:
        state = self._measured()
        if np.abs(state.joint_vel).max() > _REST_SPEED and not self._dry_run:
            raise CommandRejected(
                InterventionKind.NOT_READY, "the arm has been told to stay where it is, and still moves"
            )
        return state

    def _branch_point(self, trajectory_filter: TrajectoryFilter, factor: float) -> tuple[int, int]:
        """Where the new trajectory branches off the old one, and the first point of the old one that is still needed."""
        now = self._clock.now()
        branch = self.trajectory.index_at(now + factor * self._envelope.config.lead_s)
        keep = min(self.trajectory.index_at(now) - 1, trajectory_filter.oldest_needed(self.trajectory, branch))
        # Long after its end the trajectory is a single point.
        return branch, max(keep, 0)

    def _send(self, trajectory: JointTrajectory, branch_s: float, since: int) -> tuple[Waypoint, ...] | None:
        """Send a trajectory that branches off the old one at ``branch_s``; None if it is too late: the old one goes on.

        Raises:
            DriverError: from the driver; or something else was ordered ``since``, say by a handler of a signal.
        """
        if since != self._orders:
            raise DriverError("something else was asked for while a path was computed")
        soonest_s = self._clock.now() + self._grace_s
        if soonest_s > branch_s:
            return None
        waypoints = trajectory.waypoints(soonest_s)
        # An error, or Ctrl-C, may come at any line: then it is unknown which of the two trajectories the arm follows.
        self._mark_unknown()
        own, late = self._orders, False
        if waypoints:
            try:
                self._driver.send(Order.of(waypoints, branch_s))
            except TooLateError:
                late = True
        if own != self._orders:
            self._mark_unknown()
            raise DriverError(
                "something else was asked for while a path was sent: nobody knows which of them the arm follows"
            )
        if late:
            self.last_command, self._orders = LastCommand.TRAJECTORY, since  # as if nothing had been sent
            return None
        self.trajectory, self.last_command = trajectory, LastCommand.TRAJECTORY
        return waypoints


def _behind(trajectory: JointTrajectory, times: np.ndarray, target: TargetTrajectory, chosen: np.ndarray) -> list[Note]:
    """Whether the trajectory lags behind the target, and where most."""
    worst, note = 0.0, None
    for time_s, i in zip(times, chosen, strict=True):
        if time_s > trajectory.end_s and i != chosen[-1]:
            break
        joints, gripper = trajectory.where(min(time_s, trajectory.end_s))
        joint_off, gripper_off = float(np.abs(joints - target.joints[i]).max()), abs(gripper - target.grippers[i])
        off = max(joint_off / _BEHIND_RAD, gripper_off / _BEHIND_M)
        if off > max(worst, 1.0):
            worst = off
            note = (
                InterventionKind.SLOWED,
                f"behind by up to {number_text(joint_off)} rad and {number_text(gripper_off, 4)} m of the gripper: "
                "asked for faster than allowed",
                numbers(target.commanded[i]),
            )
    return [] if note is None else [note]
