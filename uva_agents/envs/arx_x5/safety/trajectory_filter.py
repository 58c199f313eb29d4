"""The trajectory filter: makes of whatever was asked for a trajectory that keeps every limit and ends at rest.

It is fail-safe trajectory planning, in the sense of the literature on provably safe motion planning (for example C. Pek and
M. Althoff, "Fail-safe motion planning for online verification of autonomous vehicles using convex optimization", IEEE Transactions
on Robotics 37(3), 2021): a trajectory is executed only together with a verified *fail-safe trajectory*, a manoeuvre to a safe
terminal state, in which the robot may stay indefinitely. Here the fail-safe manoeuvre is braking, and the terminal set is "at rest
inside the envelope". The filter is *recursively feasible*, as model predictive control has it: from every state that it leads to
it knows a feasible continuation, by induction:

1. Base: an arm at rest inside the envelope (:meth:`JointTrajectory.resting`) has the trivial fail-safe trajectory, to stay.
2. Step: :meth:`TrajectoryFilter.follow` appends a point only if braking from that point, along a straight line of the joints in a
   fixed time, keeps every limit too (:meth:`SafetyEnvelope.allowed`, of the step and the braking together). Otherwise it appends
   the next point of the fail-safe manoeuvre that was verified with an earlier point. So each point has a verified continuation,
   and every trajectory ends with one: at rest inside the envelope, before the watchdog's time is over.
3. Replanning: a new trajectory branches off the one that is executed at a point of the grid ahead of now, and begins with that
   point (:meth:`JointTrajectory.branched_at`): whenever the driver takes it up before then, the arm goes on to a point that it was
   going to anyway. If there is no new trajectory, too late or not verified, the old one goes on, and it is fail-safe by 2.
4. Independent check: the whole result is verified once more, on a finer grid and by other code (:meth:`SafetyEnvelope.broken`),
   before it is sent.

All of it is about a *known* state, see :mod:`uva_agents.envs.arx_x5.safety.executor`.
"""

from __future__ import annotations

import math

import numpy as np

from uva_agents.envs.arx_x5.safety.envelope import SafetyEnvelope
from uva_agents.envs.arx_x5.safety.joint_trajectory import JointTrajectory

Magnitudes = tuple[float, float, float]
"""Of joints, rad; of the tool point, metres; of the tool's rotation, rad. Or of their rates."""

_CANDIDATES = (
    (1.0, 1.0),
    (1.0, 0.7),
    (1.0, 0.4),
    (0.6, 1.0),
    (1.0, 0.15),
    (0.6, 0.5),
    (0.25, 1.0),
    (0.0, 1.0),
    (0.0, 0.5),
)
"""Next velocities to try, best first: this share of the desired one, approached with this share of the allowed acceleration."""
_BATCH_STEPS = 16
"""Steps that are extrapolated first and verified together."""
_MAX_SEARCHED_STEPS = 16
"""Most steps of a trajectory that are searched for one by one."""
_ARRIVED = 2e-5
"""rad: nearer than that the arm has arrived."""
_CATCH_UP_ACCEL_SHARE = 0.6
"""Share of the acceleration that catching up counts on for slowing down again."""
_STOP_ACCEL_SHARE = 0.85
"""The same for the end of the target trajectory."""


class TrajectoryFilter:
    """Makes fail-safe trajectories. See the module for the argument.

    Args:
        envelope: the limits.
    """

    def __init__(self, envelope: SafetyEnvelope) -> None:
        self._envelope = envelope
        c = envelope.config
        self._accels = (c.joint_accel, c.accel, c.turn_accel)
        # A little less than SafetyEnvelope.allowed demands.
        spare = 0.55 * c.period_s
        self._speeds = (c.joint_speed, c.speed - spare * c.accel, c.turn - spare * c.turn_accel)
        n = c.stop_steps
        # After a step with velocity v, braking goes on with these shares of v: evenly down to rest.
        self._braking_profile = np.arange(n - 1, 0, -1) / n

    def follow(
        self,
        old: JointTrajectory,
        branch: int,
        *,
        times: np.ndarray,
        joints: np.ndarray,
        grippers: np.ndarray,
        until_s: float,
        keep: int,
    ) -> JointTrajectory:
        """Branch off ``old`` at its point ``branch`` towards the target trajectory, as near to it as the limits allow.

        Args:
            times: (T,) rising, after the point at which the new trajectory branches off.
            joints: (T, 6) of the target, within their limits of position.
            grippers: (T,) of the target, metres, within their range.
            until_s: the trajectory is at rest by then, if the old one was.
            keep: as in :meth:`JointTrajectory.branched_at`.
        """
        c, dt = self._envelope.config, old.period_s
        here, gripper = old.joints_at(branch), old.gripper_at(branch)
        clearance = self._envelope.clearance_at(here)
        steps = max(0, int((until_s - old.time(branch)) / dt + 1e-6) - c.stop_steps)
        grid = old.time(branch) + dt * np.arange(steps + 1)
        knots = np.append(old.time(branch), times)
        target = np.stack([np.interp(grid, knots, np.append(here[i], joints[:, i])) for i in range(6)], axis=1)
        # How much of the target trajectory is left at every point of the grid, and after its last.
        left = np.append(np.abs(np.diff(target, axis=0)).max(1)[::-1].cumsum()[::-1], 0.0)
        left = left + np.abs(joints[-1] - target[-1]).max()
        rows, branchable = [old.joints_at(branch - 1), here], list[bool]()
        fail_safe, batch, searched = self._fail_safe_at(old, branch), _BATCH_STEPS, 0
        # Close to a limit every step takes long to find: a new command will come before the arm is past what was found.
        while (done := len(branchable)) < steps and searched < _MAX_SEARCHED_STEPS:
            ahead = self._extrapolate(rows[-2], rows[-1], target[done : done + batch + 1], left[done:])
            if not len(ahead):
                break
            allowed = self._verified(np.concatenate([np.stack(rows[-2:]), ahead]), clearance)
            passed = len(ahead) if allowed.all() else int(allowed.argmin())
            rows.extend(ahead[:passed])
            branchable.extend([True] * passed)
            if passed:
                fail_safe = self._braking(rows[-1], rows[-1] - rows[-2])
            batch = min(2 * batch, _BATCH_STEPS)
            if passed < len(ahead):
                now = done + passed
                taken = self._search_step(rows[-2], rows[-1], target[now : now + 2], float(left[now]), clearance)
                branchable.append(taken is not None or not len(fail_safe))
                if taken is None:
                    taken = fail_safe if len(fail_safe) else rows[-1][None]
                rows.append(taken[0])
                fail_safe, batch, searched = taken[1:], 2, searched + 1
        # What is left of the fail-safe manoeuvre ends the trajectory; the gripper takes as long as it needs, and stops where the
        # arm has to.
        squeeze = np.interp(grid, knots, np.append(gripper, grippers))
        openings = _rate_limited(gripper, squeeze, c.gripper_speed * dt)
        moving = len(branchable)
        needed = moving + len(fail_safe)
        if moving < steps:
            needed = max(needed, int(np.flatnonzero(np.append(1.0, np.diff(openings)))[-1]))
        resting = needed - moving - len(fail_safe)
        points = np.concatenate([np.reshape(rows[2:], (-1, 6)), fail_safe])
        points = np.concatenate([points, np.repeat((points[-1] if len(points) else here)[None], resting, axis=0)])
        opened = openings[1 : needed + 1] if moving < steps else openings[1 : moving + 1]
        opened = np.append(opened, np.full(needed - len(opened), opened[-1] if len(opened) else gripper))
        flags = np.concatenate([branchable, np.zeros(len(fail_safe)), np.ones(resting)])
        return old.branched_at(branch, points, opened, flags, keep=keep)

    def brake(self, old: JointTrajectory, branch: int, *, keep: int) -> JointTrajectory:
        """Branch off ``old`` at its point ``branch`` and stop, by the fail-safe manoeuvre that was verified with it."""
        rows = self._fail_safe_at(old, branch)
        return old.branched_at(
            branch, rows, np.full(len(rows), old.gripper_at(branch)), np.zeros(len(rows), bool), keep=keep
        )

    def oldest_needed(self, trajectory: JointTrajectory, index: int) -> int:
        """The first point that has to be kept so that another trajectory can still branch off at ``index``."""
        return self._braked_since(trajectory, index) - 1

    def broken_limit(self, trajectory: JointTrajectory, first: int) -> str | None:
        """Which limit the trajectory exceeds after its point ``first``, if any."""
        last = max(len(trajectory.joints), first + 1)
        return self._envelope.broken(np.stack([trajectory.joints_at(i) for i in range(first - 1, last + 1)]))

    def _braked_since(self, trajectory: JointTrajectory, index: int) -> int:
        """The last point up to ``index`` from which braking was verified."""
        while index < len(trajectory.branchable) and index > 0 and not trajectory.branchable[index]:
            index -= 1
        return index

    def _fail_safe_at(self, trajectory: JointTrajectory, index: int) -> np.ndarray:
        """(m, 6) points of the fail-safe manoeuvre after point ``index``; none at rest."""
        since = self._braked_since(trajectory, index)
        here = trajectory.joints_at(since)
        return self._braking(here, here - trajectory.joints_at(since - 1))[index - since :]

    def _braking(self, here: np.ndarray, step: np.ndarray) -> np.ndarray:
        """(n - 1, 6) points after ``here``, which was reached by ``step``; none at rest."""
        return np.asarray(here + np.cumsum(self._braking_profile)[:, None] * step) if step.any() else np.empty((0, 6))

    def _verified(self, rows: np.ndarray, clearance: np.ndarray) -> np.ndarray:
        """(K,) whether each step of rows (K + 2, 6), the first two of which are given, can be taken: with braking after it."""
        here, ahead = rows[1:-1], rows[2:]
        brake = ahead[:, None] + np.cumsum(self._braking_profile)[:, None] * (ahead - here)[:, None]
        return self._envelope.allowed(
            np.concatenate([np.stack([rows[:-2], here, ahead], axis=1), brake], axis=1), clearance
        )

    def _extrapolate(self, before: np.ndarray, here: np.ndarray, target: np.ndarray, left: np.ndarray) -> np.ndarray:
        """(K, 6) the points that come next if no limit of position is near; none once the arm has arrived.

        Args:
            target: (K + 1, 6) where the arm should be, from now on.
            left: how far the target trajectory still goes at each of these, rad of the joint that turns most.
        """
        dt = self._envelope.config.period_s
        rows = []
        for k in range(len(target) - 1):
            lag = target[k] - here
            if left[k] < 1e-9 and np.abs(lag).max() < _ARRIVED and np.abs(here - before).max() < _ARRIVED / 10:
                break
            jacobian, velocity = self._envelope.jacobian(here), (here - before) / dt
            desired = self._desired_velocity(lag, (target[k + 1] - target[k]) / dt, float(left[k]), jacobian)
            before, here = here, here + dt * self._accelerate(velocity, desired, 1.0, jacobian)
            rows.append(here)
        return np.reshape(rows, (-1, 6))

    def _search_step(
        self, before: np.ndarray, here: np.ndarray, target: np.ndarray, left: float, clearance: np.ndarray
    ) -> np.ndarray | None:
        """(n, 6) the next point and the braking that follows it: the best allowed candidate, or None.

        Args:
            target: (2, 6) where the arm should be now and next, rad.
            left: how far the target trajectory still goes, rad of the joint that turns most.
            clearance: (19,) as in :meth:`SafetyEnvelope.allowed`.
        """
        dt = self._envelope.config.period_s
        jacobian = self._envelope.jacobian(here)
        desired = self._desired_velocity(target[0] - here, (target[1] - target[0]) / dt, left, jacobian)
        velocity = (here - before) / dt
        candidates = np.stack(
            [self._accelerate(velocity, share * desired, part, jacobian) for share, part in _CANDIDATES]
        )
        profile = np.cumsum(np.append(1.0, self._braking_profile))
        points = here + dt * profile[:, None] * candidates[:, None, :]
        known = np.broadcast_to(np.stack([before, here]), (len(candidates), 2, 6))
        allowed = self._envelope.allowed(np.concatenate([known, points], axis=1), clearance)
        return np.asarray(points[int(allowed.argmax())]) if allowed.any() else None

    def _desired_velocity(self, lag: np.ndarray, pace: np.ndarray, left: float, jacobian: np.ndarray) -> np.ndarray:
        """(6,) velocity that goes along and catches up, within the speed limits and so that the arm can stop at the end.

        Args:
            lag: (6,) rad that the arm is behind the target.
            pace: (6,) rad/s of the target.
        """
        behind = _magnitudes(jacobian, lag)
        desired = pace
        if behind[0] > 1e-9:
            desired = pace + lag * (self._stoppable(behind[0], behind, _CATCH_UP_ACCEL_SHARE) / behind[0])
        fast = _magnitudes(jacobian, desired)
        over = max(value / most for value, most in zip(fast, self._speeds, strict=True))
        rest = left + behind[0]
        if rest > 1e-9:
            # As if all that is left of the target trajectory went on in this direction.
            over = max(over, fast[0] / self._stoppable(rest, fast, _STOP_ACCEL_SHARE))
        return desired / max(1.0, over)

    def _stoppable(self, distance: float, along: Magnitudes, share: float) -> float:
        """Speed of the joint that turns most, rad/s, from which a share of the accelerations stops it within ``distance``.

        Args:
            distance: rad of that joint.
            along: magnitudes of the direction.
        """
        dt = self._envelope.config.period_s
        slow = share * min(
            most * along[0] / max(value, 1e-9 * along[0], 1e-12)
            for value, most in zip(along, self._accels, strict=True)
        )
        slow = max(slow, 1e-9)
        return slow * (math.sqrt(dt * dt + 2 * distance / slow) - dt)

    def _accelerate(self, velocity: np.ndarray, desired: np.ndarray, part: float, jacobian: np.ndarray) -> np.ndarray:
        """(6,) velocity after one step from ``velocity`` to ``desired``, with a part of the acceleration that is allowed."""
        change = desired - velocity
        most = 0.9 * self._envelope.config.period_s
        over = max(
            value / (most * accel) for value, accel in zip(_magnitudes(jacobian, change), self._accels, strict=True)
        )
        return np.asarray(velocity + change * (part / max(1.0, over)))


def _magnitudes(jacobian: np.ndarray, change: np.ndarray) -> Magnitudes:
    """Of a joint vector (6,): its largest entry, how far the tool goes, how far it turns. numpy is slow on three numbers."""
    x, y, z, *turn = (jacobian @ change).tolist()
    return max(map(abs, change.tolist())), math.hypot(x, y, z), math.hypot(*turn)


def _rate_limited(start: float, target: np.ndarray, step: float) -> np.ndarray:
    """(N,) follows ``target`` (N,) from ``start``, never by more than ``step``."""
    out = np.empty(len(target))
    here = out[0] = start
    for i, value in enumerate(target[1:].tolist(), 1):
        here = out[i] = here + min(max(value - here, -step), step)
    return out
