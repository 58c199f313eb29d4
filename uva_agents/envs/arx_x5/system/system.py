"""The arm system: an arm behind its safety layer, its cameras, and its newest measurements."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uva_agents.envs.arx_x5.actions import Targets
from uva_agents.envs.arx_x5.arm.interface import ArmState, Camera, DriverError, Frame, Kinematics, Waypoint
from uva_agents.envs.arx_x5.checks import number
from uva_agents.envs.arx_x5.safety import Intervention, SafeArm, Sent
from uva_agents.envs.arx_x5.system.history import StateHistory
from uva_agents.errors import InputError
from uva_agents.utils.clocks import Clock

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """What lies between the world and the numbers; ``docs/arx_x5.md`` says how to measure it.

    A camera takes its own latency off the times of its frames.

    Attributes:
        state_s: a measurement was true this long before its time stamp.
        action_s: the arm is where it was sent this long after the time it was sent for. Waypoints are sent for that much earlier.

    Raises:
        InputError: no number, negative, or more than a second.
    """

    state_s: float = 0.0
    action_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("state_s", "action_s"):
            value = number(name, getattr(self, name))
            if not 0 <= value <= 1:
                raise InputError(f"{name}={value:g} must be between 0 and 1 s: a latency, in seconds")


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Pictures and the arm's state at one moment.

    Attributes:
        time_s: the moment: when the first camera's frame was seen; without cameras, of the newest measurement.
        state: the arm at that moment.
        newest: the arm's newest measurement.
        frames: of each camera, the newest.
    """

    time_s: float
    state: ArmState
    newest: ArmState
    frames: dict[str, Frame]


@dataclass(frozen=True, slots=True, eq=False)
class Scheduled:
    """What became of targets that were to be sent.

    Attributes:
        waypoints: that were sent, as they went to the arm; none where nothing was.
        interventions: of the safety layer.
        dropped: how many targets came too late and were left out.
        late_s: how much too late the first one was; 0 if it was not.
        sent: (A,) float32, the action that was really sent in place of the first one that was not too late; ``None`` if nothing
            was, and outside an environment, which alone knows actions.
    """

    waypoints: tuple[Waypoint, ...] = ()
    interventions: tuple[Intervention, ...] = ()
    dropped: int = 0
    late_s: float = 0.0
    sent: np.ndarray | None = None


class CameraFreshness:
    """A camera for the safety layer that gives the age of the first camera's picture at the last snapshot.

    It reads nothing itself: drawing takes time, and reading a device twice as often finds nothing newer. Where no
    snapshots are taken no actions depend on old pictures, and the watchdog decides.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._age_s, self._error = 0.0, ""
        self._image = np.zeros((1, 1, 3), np.uint8)

    def saw(self, frame: Frame) -> None:
        """The newest picture is this one."""
        self._age_s, self._error = self._clock.now() - frame.time_s, ""

    def failed(self, error: DriverError) -> None:
        """There was none."""
        self._error = str(error)

    def read(self) -> Frame:
        """A black picture with the age of the newest real one."""
        if self._error:
            raise DriverError(self._error)
        return Frame(self._clock.now() - self._age_s, self._image)

    def close(self) -> None:
        """Nothing to let go of."""


class ArmSystem:
    """One arm with its cameras. See the module.

    Args:
        arm: the safety layer around a driver.
        kinematics: of the arm's model.
        cameras: name -> camera; the first one's frames set the times of snapshots.
        camera_freshness: gets the times of the first camera's frames.
        latencies: of measurements and actions.
        sample_s: between measurements of the arm.
        background: measure in a thread of its own, for clocks that run by themselves. Otherwise while sleeping.
    """

    def __init__(
        self,
        arm: SafeArm,
        *,
        kinematics: Kinematics,
        cameras: Mapping[str, Camera] | None = None,
        camera_freshness: CameraFreshness | None = None,
        latencies: Latencies | None = None,
        sample_s: float = 0.01,
        background: bool,
    ) -> None:
        self.arm, self.kinematics = arm, kinematics
        self.cameras = dict(cameras or {})
        self.latencies = latencies or Latencies()
        self._camera_freshness = camera_freshness
        self.history = StateHistory(latency_s=self.latencies.state_s)
        self._sample_s, self._background = sample_s, background
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def clock(self) -> Clock:
        """The driver's."""
        return self.arm.clock

    def now(self) -> float:
        """Of :attr:`clock`: the system is one itself, see :meth:`sleep_until`."""
        return self.clock.now()

    @property
    def reaction_s(self) -> float:
        """How far ahead of now the first moment lies that a target sent now can still be for."""
        return self.arm.config.lead_s + self.latencies.action_s

    def connect(self) -> None:
        """Begin to talk to the arm, and to measure. Nothing moves.

        Raises:
            DriverError: no arm answers.
        """
        self.arm.connect()
        self.restart()
        if self._background and self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._measure, name="arx-state", daemon=True)
            self._thread.start()

    def restart(self) -> None:
        """Forget where the arm has been: it may have been put elsewhere."""
        self.history.clear()
        self.history.add(self.arm.state())

    def sleep_until(self, time_s: float) -> None:
        """Until the clock says ``time_s``, measuring meanwhile."""
        while not self._background:
            until = self.clock.now() + self._sample_s
            if until >= time_s:
                break
            self.clock.sleep_until(until)
            self.history.add(self.arm.state())
        self.clock.sleep_until(time_s)

    def snapshot(self, *, cameras: bool = True) -> Snapshot:
        """The newest frames, and the arm at their time.

        Raises:
            DriverError: a camera or the arm does not answer.
        """
        frames = {name: self._read(name) for name in self.cameras} if cameras else {}
        self.history.add(self.arm.state())
        newest = self.history.newest()
        first = next(iter(frames.values()), None)
        time_s = newest.time_s if first is None else first.time_s
        return Snapshot(time_s, self.history.at(time_s), newest, frames)

    def wait_for_frames(self, *, timeout_s: float = 10.0) -> None:
        """Until every camera has one: capture cards take seconds to wake up.

        Raises:
            DriverError: one has none in time.
        """
        end_s = self.clock.now() + timeout_s
        for name, camera in self.cameras.items():
            while True:
                try:
                    camera.read()
                    break
                except DriverError as error:
                    if self.clock.now() >= end_s:
                        raise DriverError(f"camera {name!r} gave no picture within {timeout_s:g} s: {error}") from error
                    self.sleep_until(self.clock.now() + 0.05)

    def send(self, targets: Targets, times: np.ndarray) -> Scheduled:
        """Be at ``targets`` at ``times`` (T,), rising, on the system's clock.

        They are sent for :attr:`Latencies.action_s` earlier. Those whose time has then passed are dropped; if that is all of them,
        nothing is sent, and the arm goes on with what it has.
        """
        earlier = np.asarray(times, np.float64) - self.latencies.action_s
        soonest = self.clock.now() + self.arm.config.lead_s
        dropped = int(np.searchsorted(earlier, soonest - 1e-9))
        late_s = max(0.0, soonest - float(earlier[0]))
        if dropped == len(targets):
            return Scheduled(dropped=dropped, late_s=late_s)
        sent = self._command(targets.after(dropped), earlier[dropped:])
        return Scheduled(sent.waypoints, sent.interventions, dropped, late_s)

    def where_sent(self, waypoints: Sequence[Waypoint], time_s: float) -> tuple[np.ndarray, float]:
        """Joints (6,) and gripper that the arm is sent to by then; where it is now, if it is sent nowhere.

        Args:
            time_s: when it was to be there; what was sent for that moment was sent :attr:`Latencies.action_s` earlier.
        """
        if not waypoints:
            state = self.history.newest()
            return state.joint_pos, state.gripper_pos
        times = [w.time_s + self.latencies.action_s for w in waypoints]
        rows = np.array([[*w.joint_pos, w.gripper_pos] for w in waypoints])
        row = np.array([np.interp(time_s, times, column) for column in rows.T])
        return row[:6], float(row[6])

    def close(self) -> None:
        """Bring the arm to rest as its safety layer is set to, and let go of everything."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)
            self._thread = None
        try:
            self.arm.close()
        finally:
            for camera in self.cameras.values():
                with contextlib.suppress(DriverError):
                    camera.close()

    def _read(self, name: str) -> Frame:
        watched = self._camera_freshness if name == next(iter(self.cameras)) else None
        try:
            frame = self.cameras[name].read()
        except DriverError as error:
            if watched is not None:
                watched.failed(error)
            raise
        if watched is not None:
            watched.saw(frame)
        return frame

    def _command(self, targets: Targets, times: np.ndarray) -> Sent:
        if targets.poses is not None:
            return self.arm.command_poses(times, targets.poses, targets.grippers)
        assert targets.joints is not None
        rows = zip(times, targets.joints, targets.grippers, strict=True)
        return self.arm.command_joints([Waypoint(float(t), joints, float(gripper)) for t, joints, gripper in rows])

    def _measure(self) -> None:
        due_s, failed = self.clock.now(), ""
        while not self._stop.is_set():
            try:
                self.history.add(self.arm.state())
                failed = ""
            except DriverError as error:
                # snapshot() raises the same error for its caller to handle. It may pass.
                if str(error) != failed:
                    failed = str(error)
                    log.warning("the arm's state cannot be read: %s", error)
            due_s = max(due_s + self._sample_s, self.clock.now())
            self.clock.sleep_until(due_s)
