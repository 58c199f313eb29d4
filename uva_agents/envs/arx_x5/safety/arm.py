"""The only way to the arm: everything that is sent to a driver goes through here."""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path as FilePath
from types import TracebackType
from typing import Any

import numpy as np

from uva_agents.envs.arx_x5.interface import ArmState, Camera, Clock, Driver, DriverError, Kinematics, Waypoint
from uva_agents.envs.arx_x5.limits import ArmLimits
from uva_agents.envs.arx_x5.safety.config import SafetyConfig
from uva_agents.envs.arx_x5.safety.estop import EStop
from uva_agents.envs.arx_x5.safety.events import Intervention, Kind, Record, Sent, numbers
from uva_agents.envs.arx_x5.safety.fence import Fence
from uva_agents.envs.arx_x5.safety.governor import Governor
from uva_agents.envs.arx_x5.safety.health import Health, Problem
from uva_agents.envs.arx_x5.safety.homing import in_the_way, stages_home, straight_to
from uva_agents.envs.arx_x5.safety.motion import Motion
from uva_agents.envs.arx_x5.safety.wanted import Reader, Refused, Wanted, check_first
from uva_agents.envs.arx_x5.safety.watch import WatchedClock, WatchThread, runs_by_itself

log = logging.getLogger(__name__)

_STILL = 0.05
"""rad/s: an arm that is slower rests."""
_GRACE_S = 0.002
"""Between choosing waypoints and the driver's look at them, where time passes by itself."""
_HOME = 1e-3
"""rad: nearer than that the arm is home."""
_PRESSED_S = 0.5
"""An arm that still presses against something so long after it was told to stay where it is, goes limp."""


class Mode(Enum):
    """What the arm is doing, as far as the safety layer decides."""

    LIMP = "limp"
    HOLDING = "holding"  # stiff; the next action has to be near
    MOVING = "moving"
    HOMING = "homing"
    CLOSED = "closed"


class SafeArm:
    """A driver with limits: it is one itself, and keeps the one inside to itself.

    Every command is checked, and clipped, slowed or refused where it has to be; what was really sent comes back. When commands
    stop, for whatever reason, the arm is at rest within ``config.watchdog_s``: every path that is sent ends at rest by then.

    As a context manager it connects, and at the end does what ``config.on_exit`` says, also after an exception.

    Args:
        driver: of the arm or its twin.
        kinematics: of the arm's model.
        limits: the same model's.
        config: what is allowed.
        camera: if its pictures become old the arm stops.
        stop: the emergency stop; by default its own, :attr:`stop`.
        log_file: interventions as lines of JSON, appended.
        threaded: whether a thread watches the arm; by default where the driver's clock runs by itself. On a simulated clock
            :attr:`clock` watches while somebody sleeps on it.

    Raises:
        ValueError: ``config`` allows more than the arm's model can do.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        kinematics: Kinematics,
        limits: ArmLimits,
        config: SafetyConfig | None = None,
        camera: Camera | None = None,
        stop: EStop | None = None,
        log_file: str | FilePath | None = None,
        threaded: bool | None = None,
    ) -> None:
        self.config = SafetyConfig() if config is None else config
        self.config.check_arm(limits)
        self.limits = limits
        self.stop = EStop() if stop is None else stop
        self._driver = driver
        self._threaded = runs_by_itself(driver.clock) if threaded is None else threaded
        self.clock: Clock = driver.clock if self._threaded else WatchedClock(driver.clock, self.tick)
        self._fence = Fence(kinematics, limits, self.config)
        self._reader = Reader(self._fence, kinematics)
        self._slow = Governor(self._fence.slower(self.config.home_speed))
        grace_s = _GRACE_S if self._threaded else 0.0
        self._motion = Motion(self._fence, clock=driver.clock, send=self._send, grace_s=grace_s)
        self._health = Health(driver, camera=camera, limits=limits, config=self.config)
        self._record = Record(log_file)
        self._lock = threading.RLock()
        self._mode = Mode.LIMP
        self._near = True  # the next action has to be near
        self._moved = False  # the driver was told to stay where the arm was: that is not where it was sent
        self._problem: Problem | None = None
        self._problem_since = 0.0
        self._driver_homes = False
        self._stopped = False  # the stop has been seen and acted on
        self._fresh_s = -math.inf
        self._watch: WatchThread | None = None
        self._connected = False

    # --- what an environment needs ------------------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """What the arm is doing."""
        return self._mode

    @property
    def at_rest(self) -> bool:
        """Whether nothing that was sent is still to be done."""
        return self._mode in (Mode.LIMP, Mode.CLOSED) or (self._mode is not Mode.HOMING and self._motion.ended)

    @property
    def goal(self) -> tuple[np.ndarray, float] | None:
        """Joints (6,) and gripper where what was sent ends; ``None`` where the arm is limp, homing, or stays somewhere else."""
        with self._lock:
            if self._mode not in (Mode.HOLDING, Mode.MOVING) or self._moved:
                return None
            path = self._motion.path
            return path.joints[-1].copy(), float(path.grippers[-1])

    @property
    def sent_to(self) -> np.ndarray:
        """(6,) joints where the arm should be now."""
        with self._lock:
            return self._motion.where()

    def connect(self) -> None:
        """As :meth:`Driver.connect`; from now on the arm is watched, and seen to when Python ends."""
        self._open()
        if self._connected:
            return
        self._driver.connect()
        self._connected = True
        atexit.register(self.close)
        if self._threaded:
            self._watch = WatchThread(self.tick)

    def state(self) -> ArmState:
        """As :meth:`Driver.state`."""
        return self._driver.state()

    def command_joints(self, waypoints: Sequence[Waypoint]) -> Sent:
        """Go through joints, straight from each to the next; replaces what is queued.

        Returns:
            What was really sent, and every intervention since the last command. Nothing that is wrong with the waypoints raises.
        """

        return self._command(lambda here, left_s, now: self._reader.joints(waypoints, now=now))

    def command_poses(self, times: Any, poses: Any, grippers: Any) -> Sent:
        """Go through tool poses; replaces what is queued.

        Args:
            times: (T,) on the driver's clock.
            poses: (T, 6) as :attr:`ArmState.eef_pose`.
            grippers: (T,) metres.

        Returns:
            As :meth:`command_joints`.
        """

        return self._command(
            lambda here, left_s, now: self._reader.poses(times, poses, grippers, now=now, here=here, left_s=left_s)
        )

    def take_interventions(self) -> tuple[Intervention, ...]:
        """Those since the last command, which no command has returned yet."""
        with self._lock:
            return self._record.take()

    def reset_stop(self) -> None:
        """Release the emergency stop. The arm does not move; the first action has to be near where it is."""
        with self._lock:
            self.stop.reset()
            self._stopped, self._near = False, True

    # --- the driver's own methods -------------------------------------------------------------------------------------

    def send(self, waypoints: Sequence[Waypoint]) -> None:
        """:meth:`command_joints` for code that knows drivers only.

        Raises:
            DriverError: the arm is limp. Whatever else is wrong with the waypoints does not raise.
        """
        if self._mode is Mode.LIMP:
            raise DriverError("the arm is limp: call home() first")
        sent = self.command_joints(waypoints)
        with self._lock:  # who calls this does not see what came back
            self._record.give_back(sent.interventions)

    def hold(self) -> None:
        """Brake within the limits, and stay there, stiff. A limp arm stays limp."""
        with self._lock:
            self._open()
            if self._mode in (Mode.HOLDING, Mode.MOVING):
                self._halt()

    def damp(self) -> None:
        """Brake, then go limp: the arm sinks."""
        self.hold()
        self._rest()
        with self._lock:
            self._limp()

    def home(self) -> None:
        """As :meth:`Driver.home`: by the driver where the arm is limp, at ``home_speed`` and within the limits where it is stiff.

        Raises:
            DriverError: the stop is pressed, the way home leads through the table or out of the workspace, or something stopped it.
        """
        with self._lock:
            self._open()
            if self.stop.pressed:
                raise DriverError(f"the stop is pressed ({self.stop.reason}): see why, then reset_stop()")
            if not self._connected:
                raise DriverError("the arm is not connected: call connect() first")
            limp = self._mode is Mode.LIMP or self._moved
            if limp:
                self._check_way_home()
            else:
                self._halt()
        if limp:
            self._home_from_limp()
        else:
            self._rest()
            for stage in stages_home(self.limits.home_joint_pos):
                self._glide(stage, self._fence.gripper_max)

    def close(self) -> None:
        """What ``config.on_exit`` says; then let go of the arm, which sinks, unless that is ``"hold"``."""
        if self._mode is Mode.CLOSED:
            return
        try:
            if self._connected:
                self._leave()
        finally:
            self._mode = Mode.CLOSED
            atexit.unregister(self.close)
            if self._watch is not None:
                self._watch.stop()
            if self._connected and (self.config.on_exit != "hold" or self.config.dry_run):
                self._driver.close()
            self._record.close()

    def __enter__(self) -> SafeArm:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._mode is not Mode.CLOSED:
            with self._lock:
                self._note(Kind.EXIT, f"{kind.__name__}: {error}")
        self.close()

    # --- watching -----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Look at clock, stop, arm and camera. Called by the watch; calling it more often does no harm."""
        with self._lock:
            if self._mode is Mode.CLOSED or not self._connected:
                return
            now = self._driver.clock.now()
            if self.stop.pressed and not self._stopped:
                self._stopped = True
                self._note(Kind.STOPPED, f"the stop is pressed: {self.stop.reason}")
                if self._mode is not Mode.LIMP:
                    self._halt(firmly=True, where_it_is=self._driver_homes)
            if self._mode is Mode.LIMP:
                return
            self._look(now)
            if self._mode is Mode.MOVING and now >= self._fresh_s + self.config.watchdog_s:
                self._note(Kind.WATCHDOG, f"no fresh action for {self.config.watchdog_s} s; the arm holds")
                self._halt()
            silent = now >= self._fresh_s + self.config.watchdog_s + self.config.damp_after_s
            strong = self._problem is not None and self._problem.kind is Kind.OVER_CURRENT
            pressed = strong and now >= self._problem_since + _PRESSED_S
            stopped = self._stopped and self.config.on_stop == "damp" and self._motion.ended
            if self._mode is Mode.HOLDING and (silent or pressed or stopped):
                why = "no fresh action for long" if silent else "over-current goes on" if pressed else "stopped"
                self._note(Kind.WATCHDOG_DAMP, f"{why}; the arm goes limp and sinks, home() makes it stiff again")
                self._limp()

    def _look(self, now: float) -> None:
        follows = self._mode in (Mode.HOLDING, Mode.MOVING) and not self._moved and not self.config.dry_run
        problem = self._health.problem(now, self._motion.where() if follows else None)
        if problem is not None and (self._problem is None or problem.kind is not self._problem.kind):
            self._note(problem.kind, problem.detail)
            self._problem_since = now
            self._halt(where_it_is=problem.pushes)
        self._problem = problem

    # --- moving -------------------------------------------------------------------------------------------------------

    def _command(self, read: Callable[[np.ndarray, float, float], Wanted]) -> Sent:
        with self._lock:
            self._open()
            self.tick()
            waypoints: tuple[Waypoint, ...] = ()
            try:
                self._ready()
                waypoints, notes = self._motion.follow(self._first(read))
                for note in notes:
                    self._note(*note, sent=waypoints)
                self._fresh_s = self._driver.clock.now()
                self._mode, self._near = Mode.MOVING, False
            except Refused as refused:
                self._note(*refused.note)
                if self._mode in (Mode.HOLDING, Mode.MOVING):
                    self._halt()
            except DriverError as error:
                self._note(Kind.DRIVER, str(error))
                self._halt(where_it_is=True)
                raise
            return Sent(waypoints, self._record.take())

    def _first(self, read: Callable[[np.ndarray, float, float], Wanted]) -> Callable[[np.ndarray, float], Wanted]:
        now = self._driver.clock.now()

        def reading(here: np.ndarray, left_s: float) -> Wanted:
            wanted = read(here, left_s, now)
            if self._near:
                check_first(wanted, here, fence=self._fence)
            return wanted

        return reading

    def _ready(self) -> None:
        """Raises Refused where no command may move the arm."""
        if not self._connected or self._mode in (Mode.LIMP, Mode.HOMING):
            why = "on its way home" if self._mode is Mode.HOMING else "limp; call connect() and home() first"
            raise Refused(Kind.NOT_READY, f"the arm is {why}")
        if self.stop.pressed:
            raise Refused(Kind.STOPPED, f"the stop is pressed ({self.stop.reason}); see why, then reset_stop()")
        if self._problem is not None:
            raise Refused(self._problem.kind, self._problem.detail)
        if self._moved:
            state = self._driver.state()
            if np.abs(state.joint_vel).max() > _STILL:
                raise Refused(Kind.NOT_READY, "the arm has been told to stay where it is, and still moves")
            self._drive(self._driver.hold)
            self._motion.rest_at(state.joint_pos, state.gripper_pos)
            self._moved = False

    def _halt(self, *, firmly: bool = False, where_it_is: bool = False) -> None:
        """Brake within the limits; ``firmly``: if that cannot be, at once. ``where_it_is``: stay there instead."""
        if self._mode is not Mode.HOMING:
            self._mode = Mode.HOLDING
        self._near = True
        if self._moved and not where_it_is:
            return  # it stays where it was; the path it left is no way to brake
        try:
            if not where_it_is and self._motion.sure and (self._motion.brake() or not firmly):
                return
        except DriverError as error:
            self._note(Kind.DRIVER, f"braking was not possible: {error}")
        self._moved = True
        try:
            self._drive(self._driver.hold)
        except DriverError as error:
            self._note(Kind.DRIVER, f"the arm cannot be held, so it is damped: {error}")
            self._limp()

    def _limp(self) -> None:
        self._mode, self._near = Mode.LIMP, True
        self._moved = False
        self._drive(self._driver.damp)

    def _rest(self) -> None:
        """Sleep until what was sent is done."""
        self.clock.sleep_until(self._motion.path.end_s)

    def _check_way_home(self) -> None:
        what = in_the_way(self._fence, self._driver.state().joint_pos, self.limits.home_joint_pos)
        if what is not None:
            self._note(Kind.HOME_PATH, f"the straight way of the joints home leads {what}")
            raise DriverError(
                f"the straight way of the joints home leads {what}: move the limp arm by hand, then home() again"
            )

    def _home_from_limp(self) -> None:
        with self._homing():
            self._driver_homes, self._moved = True, False
            try:
                self._drive(self._driver.home)
            finally:
                self._driver_homes = False
            with self._lock:
                if self._moved:
                    raise DriverError("something stopped the way home: see the interventions")
                # The command is home; the arm may hang a little below that, which is no reason to let it sink further.
                self._motion.rest_at(self.limits.home_joint_pos, self.limits.gripper_width)

    def _glide(self, joints: np.ndarray, gripper: float) -> None:
        """Slowly straight to joints (6,), within the limits."""
        nearest = math.inf
        with self._homing():
            while True:
                with self._lock:
                    if self._stopped or self._problem is not None:
                        raise DriverError("something stopped the way home: see the interventions")
                    self._motion.follow(lambda here, left_s: straight_to(joints, gripper, left_s), governor=self._slow)
                    self._fresh_s = self._driver.clock.now()
                    path = self._motion.path
                self.clock.sleep_until(min(path.end_s, self._fresh_s + self.config.watchdog_s / 2))
                off, gripper_off = float(np.abs(path.joints[-1] - joints).max()), abs(path.grippers[-1] - gripper)
                arrived = off <= _HOME and gripper_off < 1e-6
                if arrived and self._motion.ended:
                    return
                # Whether the path has ended says nothing here: at a wall, paths stay where they are for as long as they may.
                if not arrived and off + gripper_off > nearest - 1e-6:
                    self._note(Kind.HOME_PATH, "the straight way of the joints home leaves the limits; the arm holds")
                    raise DriverError(
                        "the straight way of the joints home leaves the limits: lead the arm clear of them, then home() again"
                    )
                nearest = off + gripper_off

    @contextlib.contextmanager
    def _homing(self) -> Iterator[None]:
        with self._lock:
            self._mode = Mode.HOMING
        try:
            yield
        finally:
            with self._lock:
                if self._mode is Mode.HOMING:
                    self._mode, self._near = Mode.HOLDING, True
                self._fresh_s = self._driver.clock.now()

    def _leave(self) -> None:
        """What ``config.on_exit`` says."""
        if self._mode is Mode.LIMP:
            return
        try:
            self.hold()
            self._rest()
            if self.config.on_exit == "hold_then_home" and not self.stop.pressed and self._problem is None:
                self.home()
        except DriverError as error:
            log.error("on the way out: %s", error)
        finally:
            # Also when Ctrl-C is pressed once more: an arm that goes limp has come to rest before.
            if self.mode is not Mode.LIMP:
                try:
                    with self._lock:
                        self._halt()
                    self._driver.clock.sleep_until(self._motion.path.end_s)
                finally:
                    if self.config.on_exit != "hold":
                        self._limp()

    # --- small ones ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._mode is Mode.CLOSED:
            raise DriverError("the arm has been closed: make a new one")

    def _send(self, waypoints: Sequence[Waypoint]) -> None:
        self._drive(lambda: self._driver.send(waypoints))

    def _drive(self, act: Callable[[], None]) -> None:
        if not self.config.dry_run:
            act()

    def _note(
        self,
        kind: Kind,
        detail: str,
        wanted: tuple[float, ...] | None = None,
        *,
        sent: Sequence[Waypoint] = (),
    ) -> None:
        last = numbers(sent[-1].joint_pos, sent[-1].gripper_pos) if sent else None
        intervention = Intervention(self._driver.clock.now(), kind, detail, wanted, last)
        self._record.write(intervention)
