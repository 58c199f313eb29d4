"""The only way to the arm: everything that is sent to a driver goes through here."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path as FilePath
from types import TracebackType
from typing import Any

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import ArmState, Camera, Driver, DriverError, Kinematics, Waypoint
from uva_agents.envs.arx_x5.arm.limits import ArmLimits
from uva_agents.envs.arx_x5.checks import flag, instance, path
from uva_agents.envs.arx_x5.safety.commands import Reader, Refused, Wanted, check_first
from uva_agents.envs.arx_x5.safety.config import SafetyConfig
from uva_agents.envs.arx_x5.safety.envelope import Fence
from uva_agents.envs.arx_x5.safety.estop import EStop
from uva_agents.envs.arx_x5.safety.events import Intervention, Kind, Record, Sent, numbers
from uva_agents.envs.arx_x5.safety.executor import Follows, Motion
from uva_agents.envs.arx_x5.safety.guarded import Guarded
from uva_agents.envs.arx_x5.safety.homing import WayHome, in_the_way
from uva_agents.envs.arx_x5.safety.monitor import Health, Problem
from uva_agents.envs.arx_x5.safety.watch import WatchedClock, WatchThread, runs_by_itself
from uva_agents.utils.clocks import Clock

log = logging.getLogger(__name__)

_GRACE_S = 0.002
"""Between choosing waypoints and the driver's look at them, where time passes by itself."""
_OTHERS_S = 30.0
"""So long one who closes the arm waits for another who does already."""
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
    stop, for whatever reason, the arm is at rest within ``config.watchdog_s``: every path that is sent ends at rest by then. After
    a hold, a refusal, a stop or a fault nothing goes on before the arm is at rest, and then it goes on from where it is.

    As a context manager it connects, and at the end does what ``config.on_exit`` says, also after an exception.

    Args:
        driver: of the arm or its twin.
        kinematics: of the arm's model.
        limits: the same model's.
        config: what is allowed.
        camera: if its pictures become old the arm stops.
        stop: the emergency stop; by default its own, :attr:`stop`.
        log_file: interventions as lines of JSON, appended. One that cannot be written is said once, see :attr:`log_problem`.
        threaded: whether a thread watches the arm; by default where the driver's clock runs by itself. On a simulated clock
            :attr:`clock` watches while somebody sleeps on it.

    Raises:
        InputError: ``config`` allows more than the arm's model can do, or an argument is of the wrong type.
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
        self.config = (
            SafetyConfig() if config is None else instance("config", config, SafetyConfig, "SafetyConfig(speed=0.1)")
        )
        self.config.check_arm(limits)
        self.limits = limits
        self.stop = EStop() if stop is None else instance("stop", stop, EStop, "EStop()")
        if log_file is not None:
            path("log_file", log_file)
        if threaded is not None:
            flag("threaded", threaded)
        self._driver = driver
        self._guarded = Guarded(driver, dry_run=self.config.dry_run)
        self._threaded = runs_by_itself(driver.clock) if threaded is None else threaded
        self.clock: Clock = driver.clock if self._threaded else WatchedClock(driver.clock, self.tick)
        self._fence = Fence(kinematics, limits, self.config)
        self._reader = Reader(self._fence, kinematics)
        self._motion = Motion(
            self._fence,
            self._guarded,
            grace_s=_GRACE_S if self._threaded else 0.0,
            dry_run=self.config.dry_run,
        )
        self._health = Health(self._guarded, camera=camera, limits=limits, config=self.config)
        self._record = Record(log_file, now_s=driver.clock.now())
        self._lock = threading.RLock()
        self._stiffening = (
            threading.RLock()
        )  # a limp arm is being held: closing waits for that. Taken before the other lock
        self._era = 0  # counts what ends whatever the arm does: one who finds another number has been ended
        self._leaver: int | None = None  # the thread that closes the arm
        self._left = threading.Event()
        self._depth = 0
        self._mode = Mode.LIMP
        self._near = True  # the arm was halted: it goes on from rest, and the next action has to be near
        self._halted: tuple[Kind | None, str] = None, ""  # why, last
        self._undamped = False  # the driver refused to let the arm go limp
        self._problem: Problem | None = None
        self._problem_since = 0.0
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
            if self._mode not in (Mode.HOLDING, Mode.MOVING) or not self._motion.known:
                return None
            path = self._motion.path
            return path.joints[-1].copy(), float(path.grippers[-1])

    @property
    def sent_to(self) -> np.ndarray:
        """(6,) joints where the arm should be now."""
        with self._lock:
            return self._motion.where()

    @property
    def log_problem(self) -> str | None:
        """Why interventions are not kept in the file, if so."""
        return self._record.problem

    def connect(self) -> None:
        """As :meth:`Driver.connect`; from now on the arm is watched, and seen to when Python ends."""
        with self._locked():
            self._open_to_move()
            if self._connected:
                return
            self._guarded.connect()
            self._connected = True
            atexit.register(self.close)
            if self._threaded:
                self._watch = WatchThread(self.tick)

    def state(self) -> ArmState:
        """As :meth:`Driver.state`."""
        return self._guarded.state()

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
        """Brake within the limits, and stay there, stiff; that ends a way home, too. A limp arm stays limp."""
        with self._locked():
            self._open()
            if self._mode is not Mode.LIMP:
                self._halt("hold() was called")

    def refuse(self, reason: str) -> tuple[Intervention, ...]:
        """As :meth:`hold`, because there is nothing that could be sent: an agent that computes NaN, for example.

        Returns:
            Every intervention since the last command; the last one, of kind ``not_finite``, is this.
        """
        with self._locked():
            self._open()
            self._note(Kind.NOT_FINITE, reason)
            if self._mode in (Mode.HOLDING, Mode.MOVING):
                self._halt(reason, Kind.NOT_FINITE)
            return self._record.take()

    def damp(self) -> None:
        """Brake, then go limp: the arm sinks.

        Raises:
            DriverError: the driver does not let it. That is tried again for as long as somebody watches.
        """
        self.hold()
        self._rest()
        with self._locked():
            self._open()
            self._limp()
            if self._undamped:
                raise DriverError(f"the arm cannot be made limp: {self._halted[1]}")

    def home(self) -> None:
        """Go to all joints zero, gripper open, and return when there: at ``home_speed``, within the limits, from where the arm is.

        A limp arm becomes stiff first. Whatever stops it on its way, an obstacle, a fault, a stop or another call, ends the way.

        Raises:
            DriverError: the stop is pressed, something is wrong with the arm, the way home leads through the table or out of the
                workspace, or something ended it. The arm holds.
        """
        self._go_home(self._open_to_move)

    def _go_home(self, check: Callable[[], None]) -> None:
        with self._locked():
            check()
            limp, era = self._mode is Mode.LIMP, self._era
            self._check_home()
            beyond = self._way_home_is_free() if limp else None
            self._check_era(era)
            if not limp:
                self._halt("home() was called")
                if self._mode is Mode.LIMP:
                    raise DriverError(f"the arm could not be held, and is limp: {self._halted[1]}")
                self._open()
            self._mode, self._undamped, self._era = Mode.HOMING, False, self._era + 1
            era = self._era
        way = WayHome(
            self._motion,
            clock=self.clock,
            fence=self._fence.slower(self.config.home_speed, beyond=beyond),
            limits=self.limits,
            turn=functools.partial(self._turn, era),
        )
        with self._homing(era):
            if limp:
                self._stiffen(era)
            way.run()

    def _stiffen(self, era: int) -> None:
        """Hold a limp arm: that takes its time, in which the arm is watched, and may be let go of again."""
        with self._stiffening:
            with self._turn(era):
                pass
            try:
                self._motion.stay()
            finally:
                with self._locked():
                    self._sink_again(era)

    def close(self) -> None:
        """What ``config.on_exit`` says; then let go of the arm, which sinks, unless that is ``"hold"``."""
        mine = False
        try:
            with self._lock:  # waits for a command that is under way; another one is not taken any more
                if self._mode is Mode.CLOSED:
                    return
                if self._leaver is None:
                    mine, self._leaver = True, threading.get_ident()
            if mine:
                if self._connected:
                    self._leave()
            elif self._leaver != threading.get_ident():  # else this is inside of it, in a handler of a signal
                self._left.wait(_OTHERS_S)
        finally:
            if mine:
                self._let_go()

    def _let_go(self) -> None:
        with self._lock:
            self._mode, self._era = Mode.CLOSED, self._era + 1
            self._motion.interrupt()
        atexit.unregister(self.close)
        if self._watch is not None:
            self._watch.stop()
        try:
            if self._connected and (self.config.on_exit != "hold" or self.config.dry_run):
                with self._lock:
                    self._guarded.close()
        finally:
            self._record.close()
            self._left.set()

    def __enter__(self) -> SafeArm:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._mode is not Mode.CLOSED:
            with self._locked():
                self._note(Kind.EXIT, f"{kind.__name__}: {error}")
        self.close()

    # --- watching -----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Look at clock, stop, arm and camera. Called by the watch; calling it more often does no harm."""
        with self._locked():
            if self._mode is Mode.CLOSED or not self._connected:
                return
            now = self._motion.look_at_clock()
            self._fresh_s = min(self._fresh_s, now)  # a clock that was set back
            self._problem_since = min(self._problem_since, now)
            if self.stop.pressed and not self._stopped:
                self._stopped = True
                why = f"the stop is pressed: {self.stop.reason}"
                self._note(Kind.STOPPED, why)
                if self._mode is not Mode.LIMP:
                    self._halt(why, Kind.STOPPED, firmly=True)
            if self._mode is Mode.LIMP:
                if self._undamped:
                    self._limp()
                return
            try:
                self._look(now)
            finally:
                self._watchdog(now)  # whatever comes of looking

    def _watchdog(self, now: float) -> None:
        if self._mode is Mode.MOVING and now >= self._fresh_s + self.config.watchdog_s:
            why = f"no fresh action for {self.config.watchdog_s} s; the arm holds"
            self._note(Kind.WATCHDOG, why)
            self._halt(why, Kind.WATCHDOG)
        silent = now >= self._fresh_s + self.config.watchdog_s + self.config.damp_after_s
        strong = self._problem is not None and self._problem.kind is Kind.OVER_CURRENT
        pressed = strong and now >= self._problem_since + _PRESSED_S
        stopped = self._stopped and self.config.on_stop == "damp" and self._motion.ended
        if self._mode is Mode.HOLDING and (silent or pressed or stopped):
            why = "no fresh action for long" if silent else "over-current goes on" if pressed else "stopped"
            self._note(Kind.WATCHDOG_DAMP, f"{why}; the arm goes limp and sinks, home() makes it stiff again")
            self._limp()

    def _look(self, now: float) -> None:
        follows = self._mode is not Mode.LIMP and self._motion.known and not self.config.dry_run
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what is measured may be any number
                problem = self._health.problem(now, self._motion.where() if follows else None)
        except Exception as error:  # a bug, and no reason to let the arm go on unseen
            problem = Problem(Kind.DRIVER, f"looking at the arm failed: {type(error).__name__}: {error}")
        if self._watch is not None and not self._watch.alive:
            problem = Problem(
                Kind.WATCHDOG, "nobody watches the arm any more: its thread has ended; close() and begin anew"
            )
        if problem is not None and (self._problem is None or problem.kind is not self._problem.kind):
            self._note(problem.kind, problem.detail)
            self._problem_since = now
            if self._mode is not Mode.LIMP:
                self._halt(problem.detail, problem.kind, where_it_is=problem.pushes)
        self._problem = problem

    # --- moving -------------------------------------------------------------------------------------------------------

    def _command(self, read: Callable[[np.ndarray, float, float], Wanted]) -> Sent:
        with self._locked():
            self._open_to_move()
            self.tick()
            waypoints: tuple[Waypoint, ...] = ()
            era = self._era
            try:
                try:
                    self._ready()
                    self._check_era(era)
                    with np.errstate(over="ignore", invalid="ignore"):  # what is asked for may be any number
                        waypoints, notes = self._motion.follow(self._first(read))
                    self._check_era(era)
                finally:
                    self._sink_again(era)
                for note in notes:
                    self._note(*note, sent=waypoints)
                self._fresh_s = self._driver.clock.now()
                self._mode, self._near = Mode.MOVING, False
            except Refused as refused:
                self._note(*refused.note)
                if self._mode in (Mode.HOLDING, Mode.MOVING):
                    self._halt(refused.note[1], refused.note[0])
            except BaseException as error:
                # Also Ctrl-C in the middle of an order: nobody knows whether the driver took it.
                if isinstance(error, DriverError):
                    self._note(Kind.DRIVER, str(error))
                unsure = isinstance(error, DriverError) or not self._motion.known
                if unsure and self._mode in (Mode.HOLDING, Mode.MOVING):
                    self._halt(str(error), Kind.DRIVER, where_it_is=True)
                raise
            return Sent(waypoints, self._record.take())

    def _first(self, read: Callable[[np.ndarray, float, float], Wanted]) -> Callable[[np.ndarray, float], Wanted]:
        now = self._driver.clock.now()

        def reading(here: np.ndarray, left_s: float) -> Wanted:
            wanted = read(here, left_s, now)
            if self._near:
                check_first(wanted, here, fence=self._fence)
                self._motion.check_rest()
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
        if self._near and (self._motion.ended or not self._motion.known):  # else it brakes: see _first
            self._motion.begin()

    def _halt(self, why: str, kind: Kind | None = None, *, firmly: bool = False, where_it_is: bool = False) -> None:
        """Brake within the limits; ``firmly``: if that cannot be, at once. ``where_it_is``: stay there instead."""
        if self._mode is Mode.CLOSED:
            return
        if kind is not None or self._mode is not Mode.HOLDING:
            self._halted = kind, why  # one who holds an arm that was halted does not know better why
        self._mode, self._near, self._era = Mode.HOLDING, True, self._era + 1
        self._motion.interrupt()
        era = self._era
        if self._motion.follows is Follows.PLACE and not where_it_is:
            return  # it stays where it was; the path it left is no way to brake
        try:
            if not where_it_is and self._motion.known and (self._motion.brake() or not firmly):
                return
        except DriverError as error:
            self._note(Kind.DRIVER, f"braking was not possible: {error}")
            self._halted = Kind.DRIVER, str(error)
        if era != self._era:  # inside of the driver's call somebody did something else, and knows better
            self._sink_again(era)
            if self._mode is not Mode.HOLDING or self._motion.follows is not Follows.UNKNOWN:
                return
            era = self._era
        try:
            try:
                self._motion.stay()
            finally:
                self._sink_again(era)
        except DriverError as error:
            self._note(Kind.DRIVER, f"the arm cannot be held, so it is damped: {error}")
            self._halted = Kind.DRIVER, str(error)
            self._limp()

    def _limp(self) -> None:
        if self._mode is Mode.CLOSED:
            return
        self._mode, self._near, self._era = Mode.LIMP, True, self._era + 1
        try:
            self._motion.limp()
            self._undamped = False
        except DriverError as error:
            if not self._undamped:
                self._note(Kind.DRIVER, f"the arm cannot be made limp, which is tried again: {error}")
            self._undamped, self._halted = True, (Kind.DRIVER, str(error))

    def _sink_again(self, era: int) -> None:
        """Where an order reached the driver after the arm was let go of inside of it, that is undone."""
        if era == self._era or self._mode not in (Mode.LIMP, Mode.CLOSED):
            return
        with contextlib.suppress(DriverError):
            if self._mode is Mode.CLOSED and self.config.on_exit == "hold":
                self._motion.stay()
            else:
                self._motion.limp()

    def _check_era(self, era: int) -> None:
        """Raises DriverError where something has ended what was begun in that era."""
        if era != self._era:
            raise DriverError(f"something ended this meanwhile: {self._halted[1]}")

    def _rest(self) -> None:
        """Sleep until what was sent is done."""
        self.clock.sleep_until(self._motion.rest_s)

    def _check_home(self) -> None:
        """Raises DriverError where nobody goes home."""
        if self.stop.pressed:
            raise DriverError(f"the stop is pressed ({self.stop.reason}): see why, then reset_stop()")
        if not self._connected:
            raise DriverError("the arm is not connected: call connect() first")
        if self._mode is Mode.HOMING:
            raise DriverError("the arm is on its way home already")
        self._look(self._driver.clock.now())
        if self._problem is not None:
            raise DriverError(f"the arm does not go home while this is so: {self._problem.detail}")

    def _way_home_is_free(self) -> np.ndarray:
        """(19,) the room that a limp arm has where it hangs."""
        try:
            here = self._motion.measured_joints()
        except Refused as refused:
            raise DriverError(f"the arm does not go home while this is so: {refused.note[1]}") from None
        what = in_the_way(self._fence, here, self.limits.home_joint_pos)
        if what is not None:
            why = f"the straight way of the joints home leads {what}"
            self._note(Kind.HOME_PATH, why)
            raise DriverError(f"{why}: move the limp arm by hand, then home() again")
        return self._fence.room_at(here)

    @contextlib.contextmanager
    def _turn(self, era: int) -> Iterator[None]:
        """For every order on the way home that was begun in that era: not on another one that somebody began since."""
        with self._locked():
            self.tick()
            self._check_way(era)
            try:
                yield
            finally:
                self._sink_again(era)
            self._check_way(era)
            self._fresh_s = self._driver.clock.now()

    def _check_way(self, era: int) -> None:
        if self._mode is not Mode.HOMING or era != self._era:
            raise DriverError(f"something stopped the way home: {self._halted[1]}")

    @contextlib.contextmanager
    def _homing(self, era: int) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            with self._locked():
                if self._mode is Mode.HOLDING and self._motion.follows is Follows.UNKNOWN:
                    self._halt(self._halted[1], self._halted[0], where_it_is=True)  # an order came after the halt
                if self._mode is Mode.HOMING and era == self._era:  # otherwise it was halted, and that was noted
                    kind, why, wanted = Kind.DRIVER, str(error), None
                    if isinstance(error, Refused):
                        kind, why, wanted = error.note
                    if isinstance(error, (Refused, DriverError)):
                        self._note(kind, f"on the way home: {why}", wanted)
                    self._halt(why, kind, where_it_is=not self._motion.known)
            if isinstance(error, Refused):
                raise DriverError(error.note[1]) from None
            raise
        else:
            with self._locked():
                self._check_way(era)
                self._mode, self._near = Mode.HOLDING, True
        finally:
            self._fresh_s = self._driver.clock.now()

    def _leave(self) -> None:
        """What ``config.on_exit`` says."""
        if self._mode is Mode.LIMP:
            with self._stiff_or_limp(), self._locked():
                if self._undamped:
                    self._limp()
            return
        try:
            self.hold()
            self._rest()
            self._leave_for_home()
        finally:
            # Also when Ctrl-C is pressed once more: an arm that goes limp has come to rest before.
            if self.mode is not Mode.LIMP:
                try:
                    with self._locked():
                        self._halt("the arm is left")
                    self._driver.clock.sleep_until(self._motion.rest_s)
                finally:
                    if self.config.on_exit != "hold":
                        with self._stiff_or_limp(), self._locked():
                            self._limp()

    @contextlib.contextmanager
    def _stiff_or_limp(self) -> Iterator[None]:
        """Once another thread that makes a limp arm stiff has finished; a driver that never answers keeps nobody for ever."""
        waited = self._stiffening.acquire(timeout=_OTHERS_S)
        try:
            yield
        finally:
            if waited:
                self._stiffening.release()

    def _leave_for_home(self) -> None:
        for _ in range(2):
            well = self._mode is not Mode.LIMP and self._problem is None and not self.stop.pressed
            if self.config.on_exit != "hold_then_home" or not well:
                break
            if self._halted[0] in (Kind.TRACKING, Kind.OVER_CURRENT):
                self._note(Kind.EXIT, f"the arm does not go home, it was stopped by something: {self._halted[1]}")
                break
            try:
                self._go_home(self._open)
                break
            except DriverError as error:
                log.error("on the way out: %s", error)
                # One order that failed is no reason to let the arm sink where it is. All else is.
                if self._halted[0] is not Kind.DRIVER:
                    break

    # --- small ones ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._mode is Mode.CLOSED:
            raise DriverError("the arm has been closed: make a new one")

    def _open_to_move(self) -> None:
        self._open()
        if self._leaver is not None:
            raise DriverError("the arm is being closed, and moves for nobody else: make a new one")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The lock; once it is let go of, and the arm has been told what to do, interventions are said and saved."""
        outermost = False
        try:
            with self._lock:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                    outermost = self._depth == 0
        finally:
            if outermost:
                self._record.flush()

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
