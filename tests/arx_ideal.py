"""An arm without physics that is always exactly where its waypoints say, and a camera that knows when it looked."""

from collections.abc import Sequence

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import ArmState, DriverError, Frame, Waypoint


class HandClock:
    """Time that passes only while somebody sleeps; ``extra_s`` more each time, for a busy machine."""

    def __init__(self, *, extra_s: float = 0.0) -> None:
        self.time_s, self.extra_s = 100.0, extra_s

    def now(self) -> float:
        return self.time_s

    def sleep_until(self, time_s: float) -> None:
        self.time_s = max(self.time_s, time_s + self.extra_s)


class IdealDriver:
    """Straight from each waypoint to the next.

    Args:
        kinematics: for the tool's pose.
        clock: its own time.
        behind_s: the arm follows this much later than it was told.
        stamp_late_s: measurements carry a time this much too late.
    """

    def __init__(self, kinematics, clock=None, *, behind_s: float = 0.0, stamp_late_s: float = 0.0) -> None:
        self.clock = clock or HandClock()
        self.kinematics, self.behind_s, self.stamp_late_s = kinematics, behind_s, stamp_late_s
        self.calls: list[str] = []
        self.sent: list[tuple[Waypoint, ...]] = []
        self.connected = self.stiff = False
        self.dead: str | None = None
        start = self.clock.now()
        self._track = [(start, np.zeros(7))]

    # -- the driver's interface --------------------------------------------------------------------------------------

    def connect(self) -> None:
        self._alive()
        self.calls.append("connect")
        self.connected = True

    def state(self) -> ArmState:
        self._alive()
        if not self.connected:
            raise DriverError("not connected")
        now = self.clock.now()
        then = now - self.stamp_late_s
        row, before = self.where(then), self.where(then - 1e-3)
        vel = (row - before) / 1e-3
        return ArmState(
            now,
            row[:6],
            vel[:6],
            np.zeros(6),
            np.asarray(self.kinematics.forward(row[:6])),
            float(row[6]),
            float(vel[6]),
            0.0,
        )

    def send(self, waypoints: Sequence[Waypoint]) -> None:
        self._alive()
        if not self.stiff:
            raise DriverError("the arm is damped")
        now = self.clock.now()
        assert all(w.time_s > now for w in waypoints), "a waypoint in the past"
        self.sent.append(tuple(waypoints))
        begin = now + self.behind_s
        kept = [knot for knot in self._track if knot[0] < begin]
        kept.append((begin, self.where(begin)))
        self._track = kept[-2000:] + [
            (w.time_s + self.behind_s, np.append(w.joint_pos, w.gripper_pos)) for w in waypoints
        ]

    def hold(self) -> None:
        self._alive()
        self.calls.append("hold")
        self.stiff = True
        self._stay(self.where(self.clock.now()))

    def damp(self) -> None:
        self._alive()
        self.calls.append("damp")
        self.stiff = False
        self._stay(self.where(self.clock.now()))

    def home(self) -> None:
        self._alive()
        self.calls.append("home")
        self.stiff = True
        self.clock.sleep_until(self.clock.now() + 0.5)
        self._stay(np.array([0, 0, 0, 0, 0, 0, 0.08]))

    def close(self) -> None:
        self.calls.append("close")
        self.connected = self.stiff = False

    # -- for tests ---------------------------------------------------------------------------------------------------

    def where(self, time_s: float) -> np.ndarray:
        """(7,) joints and gripper at a time, the past included."""
        times = np.array([knot[0] for knot in self._track])
        rows = np.stack([knot[1] for knot in self._track])
        return np.array([np.interp(time_s, times, rows[:, i]) for i in range(7)])

    def put(self, row: np.ndarray) -> None:
        """The arm is at (7,) joints and gripper, and was there always."""
        self._track = [(self.clock.now() - 10.0, row)]

    def _stay(self, row: np.ndarray) -> None:
        now = self.clock.now()
        self._track = [knot for knot in self._track if knot[0] < now] + [(now, row)]

    def _alive(self) -> None:
        if self.dead is not None:
            raise DriverError(self.dead)


class KnowingCamera:
    """Frames at a fixed rate that become available ``latency_s`` after they were seen; the picture says nothing, ``seen`` does.

    Args:
        clock: the driver's.
        size: (height, width).
    """

    def __init__(self, clock, *, latency_s: float = 0.0, hz: float = 60.0, size=(48, 64)) -> None:
        self.clock, self.latency_s, self.hz, self.size = clock, latency_s, hz, size
        self.dead: str | None = None
        self.closed = False
        self.reads = 0
        self.warm_s = clock.now()

    def read(self) -> Frame:
        if self.dead is not None:
            raise DriverError(self.dead)
        if self.clock.now() < self.warm_s:
            raise DriverError("no picture yet")
        self.reads += 1
        seen = np.floor((self.clock.now() - self.latency_s) * self.hz + 1e-6) / self.hz
        image = np.zeros((*self.size, 3), np.uint8)
        image[:, : self.size[1] // 2] = (200, 100, 50)
        return Frame(float(seen), image)

    def close(self) -> None:
        self.closed = True
