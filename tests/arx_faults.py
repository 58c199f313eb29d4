"""An arm on a bad day: every call of its driver may fail, before or after it obeys, or take its time; things stand in its way.

And a judge of every order that it took: where the arm was when it came, and whether it could follow without a jump.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace

import numpy as np

from tests.arx_arm import SimulatedClock, WritingArm, violations
from uva_agents.envs.arx_x5.arm.interface import DriverError, Order, TooLateError

METHODS = ("connect", "state", "send", "hold", "damp", "close")
KINDS = {
    "connect": ("raises", "raises_os", "stalls", "stops"),
    "state": ("raises", "raises_os", "cancels", "stalls", "stops", "nan", "old", "garbage", "future"),
    "send": ("raises", "raises_os", "cancels", "raises_late", "stalls", "stalls_late", "stops"),
    "hold": ("raises", "raises_os", "cancels", "raises_late", "stalls", "stalls_late", "stops"),
    "damp": ("raises", "raises_os", "cancels", "raises_late", "stalls", "stops"),
    "close": ("raises", "raises_late", "stalls"),
}
"""What may go wrong in a call; ``_late``: after it has obeyed. ``stops``: somebody presses the emergency stop meanwhile."""
GARBAGE = (
    ("joint_pos", np.zeros(3)),
    ("gripper_pos", None),
    ("time_s", None),
    ("joint_pos", None),
    ("joint_pos", np.array([None] * 6)),
    ("joint_vel", np.array(["a"] * 6)),
    ("joint_torque", np.zeros(6) + 1j),
    ("joint_pos", [0, [1], 2, 3, 4, 5]),
    ("joint_pos", np.ma.masked_array(np.zeros(6), True)),
    ("joint_pos", np.zeros(6, bool)),
    ("eef_pose", None),
    ("time_s", "1"),
    ("gripper_torque", np.zeros(1)),
    ("gripper_vel", "fast"),
    ("", None),
    ("", "state"),
)
"""(field, value): what a measurement cannot hold; no field: instead of one."""
COAST_S = 0.04
"""An arm that is told to stay where it is swings for a few times this long."""


@dataclass(frozen=True)
class Fault:
    """In the ``after``-th call of a method from now on, and in the next ones, ``times`` in all.

    Attributes:
        seconds: how long it stalls, or how old a measurement is.
    """

    method: str
    kind: str
    after: int = 0
    times: int = 1
    seconds: float = 0.5


class StallingClock(SimulatedClock):
    """Sleeps too long once it is past a time."""

    def __init__(self):
        super().__init__()
        self.stall_at, self.stall_s = math.inf, 0.0

    def sleep_until(self, time_s):
        super().sleep_until(time_s)
        if self._now >= self.stall_at:
            self.stall_at = math.inf
            super().sleep_until(self._now + self.stall_s)


class FaultyArm(WritingArm):
    """Follows exactly, or with a lag; see the module.

    Attributes:
        orders: of every order that was taken up: what :func:`jumps` looks at.
        stop: pressed by faults that stop.
        wall_at: a time from which on the joints cannot be moved, until :attr:`free_at`.
    """

    def __init__(self, *, lag_s=0.0):
        super().__init__(StallingClock(), lag_s=lag_s)
        self.stop = None
        self.orders = []
        self.wall_at, self.free_at = math.inf, -math.inf
        self._wall = None
        self._fault, self._count = None, 0
        self._coast = self.clock.now(), np.zeros(6)
        self._first_order = True  # nothing was sent since it was told to stay, or was switched on
        self.happened = 0

    def arm(self, fault):
        """From now on."""
        self._fault, self._count = fault, 0

    def _trouble(self, method):
        """Before a call; returns what is to happen in or after it."""
        fault = self._fault
        if fault is None or fault.method != method:
            return ""
        self._count += 1
        if not fault.after < self._count <= fault.after + fault.times:
            return ""
        self.happened += 1
        if fault.kind == "raises":
            raise DriverError(f"{method} is refused")
        if fault.kind == "cancels":
            raise asyncio.CancelledError
        if fault.kind == "raises_os":
            raise OSError(f"the bus is gone in {method}")
        if fault.kind == "stalls":
            self.clock.sleep_until(self.clock.now() + fault.seconds)
        if fault.kind == "stops" and self.stop is not None:
            self.stop.press(f"in {method}")
        return fault.kind

    def _after(self, kind, method):
        if kind == "raises_late":
            raise DriverError(f"{method} was done, and the answer is lost")
        if kind == "stalls_late":
            self.clock.sleep_until(self.clock.now() + self._fault.seconds)

    def connect(self):
        self._trouble("connect")
        super().connect()

    def _where(self):
        value = super()._where()
        now = self.clock.now()
        if self.wall_at <= now < self.free_at:
            if self._wall is None:
                self._wall = value[:6].copy()
            value = np.append(self._wall, value[6])
        else:
            self._wall = None
        return value

    def velocity(self):
        """(6,) rad/s of the arm, which swings when it is told to stay where it is."""
        now = self.clock.now()
        if self._wall is not None:
            return np.zeros(6)
        since, speed = self._coast
        swing = speed * math.exp(-(now - since) / COAST_S)
        began = self.knots[self.breaks[-1]][0]
        earlier = max(now - 1e-3, began)
        driven = (self.commanded(now)[:6] - self.commanded(earlier)[:6]) / 1e-3 if now > began else np.zeros(6)
        return driven + swing

    def state(self):
        kind = self._trouble("state")
        self.torque = np.zeros(6)
        where = self._where()
        if self._wall is not None:
            self.torque = 400.0 * (self.commanded(self.clock.now())[:6] - where[:6])
        state = super().state()
        old = {"old": 1.0, "future": -1.0}.get(kind, 0.0) * (self._fault.seconds if self._fault else 0.0)
        joints = np.full(6, np.nan) if kind == "nan" else where[:6]
        found = type(state)(
            state.time_s - old, joints, self.velocity(), state.joint_torque, np.zeros(6), float(where[6]), 0.0, 0.0
        )
        if kind == "garbage":
            name, value = GARBAGE[self._count % len(GARBAGE)]
            return replace(found, **{name: value}) if name else value
        return found

    def send(self, waypoints):
        kind = self._trouble("send")
        now = self.clock.now()
        # As the SDK's driver: an order that came too late is not taken, and single points that are past are left out.
        if isinstance(waypoints, Order) and now > waypoints.by_s:
            raise TooLateError("too late")
        waypoints = [w for w in waypoints if w.time_s > now]
        if not waypoints:
            raise DriverError("all waypoints are past")
        commanded, measured = self.commanded(now), self._where()
        if not self.damped:
            self.orders.append((now, self._first_order, commanded, measured, self.velocity(), waypoints[0]))
        super().send(waypoints)
        self._first_order = False
        self._after(kind, "send")

    def _anew(self, value):
        self._coast = self.clock.now(), self.velocity()
        self._first_order = True
        super()._anew(value)

    def hold(self):
        kind = self._trouble("hold")
        super().hold()
        self._after(kind, "hold")

    def damp(self):
        kind = self._trouble("damp")
        super().damp()
        self._after(kind, "damp")

    def home(self):
        raise AssertionError("the driver's own way home knows no limits")

    def close(self):
        kind = self._trouble("close")
        super().close()
        self._after(kind, "close")


def jumps(driver, config):
    """What is wrong with how the orders began: (name, by how much) for each."""
    found = []
    for now, first_order, commanded, measured, velocity, first in driver.orders:
        ahead = first.time_s - now
        row = np.append(first.joint_pos, first.gripper_pos)
        off = np.abs(row - commanded)
        if off[:6].max() > config.joint_speed * ahead + 1e-6:
            found.append(("jump of the joints", now, float(off[:6].max())))
        if off[6] > config.gripper_speed * ahead + 1e-6:
            found.append(("jump of the gripper", now, float(off[6])))
        if first_order:
            # What goes on after a hold, or after damping, begins at rest where the arm is.
            if np.abs(velocity).max() > 0.06:
                found.append(("begins while the arm moves", now, float(np.abs(velocity).max())))
            away = np.abs(row[:6] - measured[:6]).max()
            if away > config.joint_accel * config.period_s * ahead + 5e-3:
                found.append(("begins elsewhere", now, float(away)))
    return found


def judged(driver, config):
    """All that is wrong with all that the arm was sent."""
    *cut, last = driver.courses()
    found = [found for course in cut for found in violations(course, config, cut=True)]
    return found + violations(last, config) + jumps(driver, config)
