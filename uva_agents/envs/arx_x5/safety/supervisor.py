"""What the arm is doing, and how motion ends: modes, faults, halting, damping. One lock guards all of it."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from enum import Enum

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import DriverError, Waypoint
from uva_agents.envs.arx_x5.safety.config import SafetyConfig
from uva_agents.envs.arx_x5.safety.estop import EStop
from uva_agents.envs.arx_x5.safety.events import Intervention, InterventionKind, InterventionLog, numbers
from uva_agents.envs.arx_x5.safety.executor import LastCommand, TrajectoryExecutor
from uva_agents.envs.arx_x5.safety.monitor import ArmMonitor, Problem
from uva_agents.envs.arx_x5.safety.watch import WatchThread
from uva_agents.utils.clocks import Clock

_PRESSING_S = 0.5
"""An arm that still presses against something so long after a hold, is damped."""


class Mode(Enum):
    """What the arm is doing, as far as the safety layer decides."""

    DAMPED = "damped"  # passive: the motors damp, nothing holds the arm, and it sinks
    HOLDING = "holding"  # stiff; the next action has to be near
    MOVING = "moving"
    HOMING = "homing"
    CLOSED = "closed"


class ArmSupervisor:
    """The state machine of one arm. Every change of it, and every order, is made under :meth:`locked`.

    Args:
        clock: of the driver.
        executor: through which orders leave.
        monitor: of arm and camera.
        events: takes interventions.
        config: what is allowed.
        stop: the emergency stop.

    Attributes:
        mode: what the arm is doing.
        generation: grows whenever what the arm does is ended: work that finds another number than at its start has been ended.
        from_rest: the arm was halted: it goes on from rest, and the next action has to be near.
        halted: why it was halted last.
        damping_failed: the driver failed to damp the arm; that is tried again.
        problem: what is wrong with the arm or its camera, and ``problem_since_s``.
        stopped: the emergency stop has been seen and acted on.
        last_command_s: time of the newest command that was accepted.
        closing_thread: the thread that closes the arm, if one does.
        stiffening: held while a damped arm becomes stiff: closing waits for that. Taken before the other lock.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        executor: TrajectoryExecutor,
        monitor: ArmMonitor,
        events: InterventionLog,
        config: SafetyConfig,
        stop: EStop,
    ) -> None:
        self._clock, self._executor, self._monitor, self._events = clock, executor, monitor, events
        self._config, self._stop = config, stop
        self.lock, self._depth = threading.RLock(), 0
        self.stiffening = threading.RLock()
        self.connected = False
        self.watch: WatchThread | None = None
        self.mode = Mode.DAMPED
        self.generation = 0
        self.from_rest = True
        self.halted: tuple[InterventionKind | None, str] = None, ""
        self.damping_failed = False
        self.problem: Problem | None = None
        self.problem_since_s = 0.0
        self.stopped = False
        self.last_command_s = -math.inf
        self.closing_thread: int | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The lock; once it is released, and the arm has its orders, interventions are logged and saved."""
        outermost = False
        try:
            with self.lock:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                    outermost = self._depth == 0
        finally:
            if outermost:
                self._events.flush()

    def note(
        self,
        kind: InterventionKind,
        detail: str,
        wanted: tuple[float, ...] | None = None,
        *,
        sent: Sequence[Waypoint] = (),
    ) -> None:
        """One more intervention."""
        last = numbers(sent[-1].joint_pos, sent[-1].gripper_pos) if sent else None
        self._events.write(Intervention(self._clock.now(), kind, detail, wanted, last))

    # --- what may be asked for ----------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raises DriverError once the arm has been closed."""
        if self.mode is Mode.CLOSED:
            raise DriverError("the arm has been closed: make a new one")

    def check_open_to_move(self) -> None:
        """Raises DriverError also while the arm is being closed."""
        self.check_open()
        if self.closing_thread is not None:
            raise DriverError("the arm is being closed, and moves for nobody else: make a new one")

    def check_generation(self, generation: int) -> None:
        """Raises DriverError where something has ended what was begun in that generation."""
        if generation != self.generation:
            raise DriverError(f"something ended this meanwhile: {self.halted[1]}")

    # --- watching -----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Check clock, stop, arm and camera; calling it more often does no harm."""
        with self.locked():
            if self.mode is Mode.CLOSED or not self.connected:
                return
            now = self._executor.check_clock()
            self.last_command_s = min(self.last_command_s, now)  # a clock that was set back
            self.problem_since_s = min(self.problem_since_s, now)
            if self._stop.pressed and not self.stopped:
                self.stopped = True
                why = f"the stop is pressed: {self._stop.reason}"
                self.note(InterventionKind.STOPPED, why)
                if self.mode is not Mode.DAMPED:
                    self.halt(why, InterventionKind.STOPPED, or_hold=True)
            if self.mode is Mode.DAMPED:
                if self.damping_failed:
                    self.damp()
                return
            try:
                self.check_arm(now)
            finally:
                self._watchdog(now)  # whatever comes of looking

    def check_arm(self, now: float) -> None:
        """Check for problems of arm, camera and watch; halt at a new one."""
        moving = self.mode is not Mode.DAMPED and self._executor.known and not self._config.dry_run
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what is measured may be any number
                problem = self._monitor.problem(now, self._executor.where() if moving else None)
        except Exception as error:  # a bug, and no reason to let the arm go on unseen
            problem = Problem(InterventionKind.DRIVER, f"looking at the arm failed: {type(error).__name__}: {error}")
        if self.watch is not None and not self.watch.alive:
            problem = Problem(
                InterventionKind.WATCHDOG,
                "nobody watches the arm any more: its thread has ended; close() and begin anew",
            )
        if problem is not None and (self.problem is None or problem.kind is not self.problem.kind):
            self.note(problem.kind, problem.detail)
            self.problem_since_s = now
            if self.mode is not Mode.DAMPED:
                self.halt(problem.detail, problem.kind, where_it_is=problem.pushes)
        self.problem = problem

    def _watchdog(self, now: float) -> None:
        config = self._config
        if self.mode is Mode.MOVING and now >= self.last_command_s + config.watchdog_s:
            why = f"no fresh action for {config.watchdog_s} s; the arm holds"
            self.note(InterventionKind.WATCHDOG, why)
            self.halt(why, InterventionKind.WATCHDOG)
        silent = now >= self.last_command_s + config.watchdog_s + config.damp_after_s
        strong = self.problem is not None and self.problem.kind is InterventionKind.OVER_CURRENT
        pressing = strong and now >= self.problem_since_s + _PRESSING_S
        stopped = self.stopped and config.on_stop == "damp" and self._executor.ended
        if self.mode is Mode.HOLDING and (silent or pressing or stopped):
            why = "no fresh action for long" if silent else "over-current goes on" if pressing else "stopped"
            self.note(
                InterventionKind.WATCHDOG_DAMP, f"{why}; the arm is damped and sinks, home() makes it stiff again"
            )
            self.damp()

    # --- ending motion ------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Brake within the limits, and stay there, stiff. A damped arm stays damped."""
        with self.locked():
            self.check_open()
            if self.mode is not Mode.DAMPED:
                self.halt("hold() was called")

    def halt(
        self, why: str, kind: InterventionKind | None = None, *, or_hold: bool = False, where_it_is: bool = False
    ) -> None:
        """Carry out the fail-safe manoeuvre: brake within the limits.

        Args:
            or_hold: if that cannot be, hold at once instead of letting the old trajectory, which ends at rest, go on.
            where_it_is: do not brake within the limits, hold at once.
        """
        if self.mode is Mode.CLOSED:
            return
        if kind is not None or self.mode is not Mode.HOLDING:
            self.halted = kind, why  # a hold of an arm that was halted already is not the reason
        self.mode, self.from_rest, self.generation = Mode.HOLDING, True, self.generation + 1
        self._executor.interrupt()
        generation = self.generation
        if self._executor.last_command is LastCommand.HOLD and not where_it_is:
            return  # it stays where it was; the trajectory it left is no way to brake
        try:
            if not where_it_is and self._executor.known and (self._executor.brake() or not or_hold):
                return
        except DriverError as error:
            self.note(InterventionKind.DRIVER, f"braking was not possible: {error}")
            self.halted = InterventionKind.DRIVER, str(error)
        if (
            generation != self.generation
        ):  # something else was ordered inside of the driver's call, and takes precedence
            self.damp_again(generation)
            if self.mode is not Mode.HOLDING or self._executor.last_command is not LastCommand.UNKNOWN:
                return
            generation = self.generation
        try:
            try:
                self._executor.hold_here()
            finally:
                self.damp_again(generation)
        except DriverError as error:
            self.note(InterventionKind.DRIVER, f"the arm cannot be held, so it is damped: {error}")
            self.halted = InterventionKind.DRIVER, str(error)
            self.damp()

    def damp(self) -> None:
        """Make the arm passive: it sinks. Where the driver refuses, :meth:`tick` tries again."""
        if self.mode is Mode.CLOSED:
            return
        self.mode, self.from_rest, self.generation = Mode.DAMPED, True, self.generation + 1
        try:
            self._executor.damp()
            self.damping_failed = False
        except DriverError as error:
            if not self.damping_failed:
                self.note(InterventionKind.DRIVER, f"the arm cannot be damped, which is tried again: {error}")
            self.damping_failed, self.halted = True, (InterventionKind.DRIVER, str(error))

    def damp_again(self, generation: int) -> None:
        """Where an order reached the driver after the arm was damped or closed inside of it, that is undone."""
        if generation == self.generation or self.mode not in (Mode.DAMPED, Mode.CLOSED):
            return
        with contextlib.suppress(DriverError):
            if self.mode is Mode.CLOSED and self._config.on_exit == "hold":
                self._executor.hold_here()
            else:
                self._executor.damp()
