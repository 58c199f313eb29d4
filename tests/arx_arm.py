"""An arm without physics that writes down where it was sent, and a judge that knows nothing of how the safety layer works."""

from __future__ import annotations

import math
from bisect import bisect_right
from operator import itemgetter

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import ArmState, DriverError, Waypoint
from uva_agents.envs.arx_x5.arm.kinematics import X5Kinematics
from uva_agents.envs.arx_x5.arm.limits import X5
from uva_agents.envs.arx_x5.safety import SafeArm, SafetyConfig

KINEMATICS = X5Kinematics()
HOME_POSE = KINEMATICS.forward(np.zeros(6))
NEAR = np.array([0.05, 0.05, 0.05, 0.0, 0.0, 0.0])


class SimulatedClock:
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self._now = 100.0

    def now(self):
        return self._now

    def sleep_until(self, time_s):
        self._now = max(self._now, time_s)


class WritingArm:
    """A driver that follows exactly, or with a first-order lag.

    Attributes:
        knots: rows (time, 6 joints, gripper) of the course that it was really sent on, as straight lines.
        breaks: indices of knots that begin anew: there the arm was told to stay where it was, or was homed.
        calls: names of what was called, in order.
    """

    def __init__(self, clock=None, *, lag_s=0.0):
        self.clock = SimulatedClock() if clock is None else clock
        self.lag_s = lag_s
        self.calls = []
        self.damped = True
        self.knots = [(self.clock.now(), *[0.0] * 6, 0.0)]
        self.breaks = [0]
        self.torque = np.zeros(6)
        self.frozen_at = None  # a time, once the arm no longer reports
        self.nan = False
        self.blocked = None  # joints (6,), once something holds the arm
        self.refuses = False
        self._measured = (self.clock.now(), np.zeros(7))
        self.wrong = []  # orders that no arm may get: the safety layer survives what is raised here, so courses() tells

    def commanded(self, time_s):
        """(7,) where it was sent to at a time."""
        i = bisect_right(self.knots, time_s, key=itemgetter(0))
        if i == 0:
            return np.array(self.knots[0][1:])
        if i == len(self.knots):
            return np.array(self.knots[-1][1:])
        (t0, *a), (t1, *b) = self.knots[i - 1], self.knots[i]
        share = (time_s - t0) / (t1 - t0) if t1 > t0 else 1.0
        return (1 - share) * np.array(a) + share * np.array(b)

    def connect(self):
        self.calls.append("connect")

    def _where(self):
        now = self.clock.now()
        if self.lag_s == 0.0:
            return self.commanded(now)
        # A lag of first order, in steps of a millisecond.
        time_s, value = self._measured
        for t in np.linspace(time_s, now, max(2, math.ceil((now - time_s) / 0.001) + 1))[1:]:
            value = value + (self.commanded(t) - value) * (1 - math.exp(-(t - time_s) / self.lag_s))
            time_s = t
        self._measured = (now, value)
        return value

    def state(self):
        now = self.clock.now() if self.frozen_at is None else self.frozen_at
        where = self._where()
        before = self.commanded(now - 1e-3)
        joints = where[:6] if self.blocked is None else self.blocked
        if self.nan:
            joints = np.full(6, np.nan)
        velocity = (self.commanded(now)[:6] - before[:6]) / 1e-3
        # Nobody here looks at the pose, and it takes half of the time.
        return ArmState(now, joints, velocity, self.torque, np.zeros(6), float(where[6]), 0.0, 0.0)

    def send(self, waypoints):
        self.calls.append("send")
        if self.refuses:
            raise DriverError("the test's arm refuses")
        if self.damped:
            raise DriverError("damped")
        now = self.clock.now()
        times = [w.time_s for w in waypoints]
        sound = all(w.joint_pos.shape == (6,) and np.isfinite([*w.joint_pos, w.gripper_pos]).all() for w in waypoints)
        if not (times and times[0] > now and (np.diff(times) > 0).all() and sound):
            self.wrong.append((now, waypoints))
            raise AssertionError(f"at {now}: {waypoints}")
        here = self.commanded(now)
        while self.knots and self.knots[-1][0] >= now and len(self.knots) > self.breaks[-1] + 1:
            self.knots.pop()
        if self.knots[-1][0] < now:
            self.knots.append((now, *here))
        for w in waypoints:
            self.knots.append((w.time_s, *w.joint_pos, w.gripper_pos))

    def _anew(self, value):
        now = self.clock.now()
        here = self.commanded(now)
        while self.knots and self.knots[-1][0] > now and len(self.knots) > self.breaks[-1] + 1:
            self.knots.pop()
        self.knots.append((now, *here))
        self.breaks.append(len(self.knots))
        self.knots.append((now, *value))

    def hold(self):
        self.calls.append("hold")
        self.damped = False
        self._anew(self._where())

    def damp(self):
        self.calls.append("damp")
        self.damped = True
        self._anew(self._where())

    def home(self):
        self.calls.append("home")
        self.damped = False
        self.clock.sleep_until(self.clock.now() + 0.5)
        self._anew(np.append(np.zeros(6), X5.gripper_width))
        self._measured = (self.clock.now(), np.append(np.zeros(6), X5.gripper_width))

    def close(self):
        self.calls.append("close")
        self.damped = True

    def courses(self):
        """Every unbroken course as (M, 8): time, joints, gripper."""
        assert not self.wrong, self.wrong
        ends = [*self.breaks[1:], len(self.knots)]
        return [np.array(self.knots[a:b]) for a, b in zip(self.breaks, ends, strict=True)]


def exact_matrix(joints):
    """(N, 6) -> (N, 4, 4), one by one."""
    return np.stack([KINEMATICS.matrix(row) for row in joints])


def violations(course, config: SafetyConfig, *, limits=X5, cut=False):
    """What a course (M, 8) does that ``config`` forbids: (name, by how much) for each limit that is exceeded.

    Positions and speeds are looked at every eighth of a period; accelerations are changes of the mean velocity from one period
    to the next, from any moment on. ``cut``: at its end the arm was told to stay where it was, and brakes as hard as it can.
    """
    found = []
    period, parts = config.period_s, 8
    if len(course) < 2 or course[-1, 0] - course[0, 0] < 1e-9:
        course = np.concatenate([course[-1:], course[-1:]])
        course[1, 0] += period
    fine = np.arange(course[0, 0] - 2 * period, course[-1, 0] + (0 if cut else 2 * period), period / parts)
    rows = np.stack([np.interp(fine, course[:, 0], course[:, i]) for i in range(1, 8)], axis=1)
    joints, gripper = rows[:, :6], rows[:, 6]
    moving = np.concatenate([[True], np.abs(np.diff(rows, axis=0)).max(1) > 0])
    matrix = np.empty((len(rows), 4, 4))
    matrix[moving] = exact_matrix(joints[moving])
    matrix = matrix[np.maximum.accumulate(np.where(moving, np.arange(len(rows)), 0))]
    point, turned = matrix[:, :3, 3], matrix[:, :3, :3]

    def most(name, values, limit, slack=1e-6):
        worst = float(np.max(values)) if np.size(values) else -math.inf
        if worst > limit + slack:
            found.append((name, worst, limit))

    margin = config.joint_margin
    most("joint_max", joints - (limits.joint_pos_max - margin), 0.0)
    most("joint_min", (limits.joint_pos_min + margin) - joints, 0.0)
    most("box_max", point - np.array(config.box_max), 0.0)
    most("box_min", np.array(config.box_min) - point, 0.0)
    if config.table_height is not None:
        for y in (-1, 1):
            for z in (-1, 1):
                corner = np.array([0.0, y * limits.gripper_width / 2, z * config.finger_thickness / 2])
                most("table", config.table_height - (point + turned @ corner)[:, 2], 0.0)
    most("gripper_max", gripper, limits.gripper_width if config.gripper_max is None else config.gripper_max)
    most("gripper_min", config.gripper_min - gripper, 0.0)
    step = period / parts
    most("gripper_speed", np.abs(np.diff(gripper)) / step, config.gripper_speed, 1e-5)
    most("joint_speed", np.abs(np.diff(joints, axis=0)) / step, config.joint_speed, 1e-5)
    most("speed", np.linalg.norm(np.diff(point, axis=0), axis=1) / step, config.speed, 1e-5)
    most("turn", np.linalg.norm(_turns(turned, 1), axis=1) / step, config.turn, 1e-5)
    joint_v = (joints[parts:] - joints[:-parts]) / period
    most("joint_accel", np.abs(joint_v[parts:] - joint_v[:-parts]) / period, config.joint_accel, 1e-3)
    point_v = (point[parts:] - point[:-parts]) / period
    most("accel", np.linalg.norm(point_v[parts:] - point_v[:-parts], axis=1) / period, config.accel, 1e-3)
    turn_v = _turns(turned, parts) / period
    most("turn_accel", np.linalg.norm(turn_v[parts:] - turn_v[:-parts], axis=1) / period, config.turn_accel, 1e-3)
    return found


def _turns(turned, apart):
    """(N - apart, 3) rotation vectors, base frame, between rotations that are ``apart`` rows from each other."""
    step = np.einsum("nij,nkj->nik", turned[apart:], turned[:-apart])
    twice = np.stack(
        [step[:, 2, 1] - step[:, 1, 2], step[:, 0, 2] - step[:, 2, 0], step[:, 1, 0] - step[:, 0, 1]], axis=1
    )
    sine = np.linalg.norm(twice, axis=1) / 2
    angle = np.arctan2(sine, (np.trace(step, axis1=1, axis2=2) - 1) / 2)
    return twice / 2 * np.where(sine > 1e-12, angle / np.maximum(sine, 1e-300), 1.0)[:, None]


def safe_arm(driver=None, **options):
    """A connected arm at home, and its driver."""
    driver = WritingArm() if driver is None else driver
    config = options.pop("config", None) or SafetyConfig(**options.pop("settings", {}))
    arm = SafeArm(
        driver, kinematics=KINEMATICS, limits=X5, config=config, threaded=options.pop("threaded", False), **options
    )
    arm.connect()
    arm.home()
    return arm, driver


def go(arm, joints, *, gripper=0.088, ahead=0.2):
    """One waypoint."""
    return arm.command_joints([Waypoint(arm.clock.now() + ahead, np.asarray(joints, float), gripper)])


def go_pose(arm, *poses, gripper=0.088, ahead=0.2):
    times = arm.clock.now() + ahead * (1 + np.arange(len(poses)))
    return arm.command_poses(times, np.array(poses), np.full(len(poses), gripper))


def sleep(arm, seconds):
    arm.clock.sleep_until(arm.clock.now() + seconds)


def kinds(sent):
    return [i.kind for i in sent.interventions]


def moving():
    """An arm in the middle of a motion."""
    arm, driver = safe_arm()
    go(arm, NEAR)
    sleep(arm, 0.1)
    go(arm, [0.6, 0.6, 0.6, 0.0, 0.0, 0.0])
    sleep(arm, 0.3)
    assert np.abs(driver.state().joint_vel).max() > 0.1
    return arm, driver


def assert_legal(arm, driver):
    for course in driver.courses():
        assert not violations(course, arm.config)
