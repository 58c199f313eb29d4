"""``home()``: whether the arm may go home, the homing motion under the supervisor's lock, and what ends it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import DriverError
from uva_agents.envs.arx_x5.arm.limits import ArmLimits
from uva_agents.envs.arx_x5.safety.commands import CommandRejected
from uva_agents.envs.arx_x5.safety.envelope import SafetyEnvelope
from uva_agents.envs.arx_x5.safety.estop import EStop
from uva_agents.envs.arx_x5.safety.events import InterventionKind
from uva_agents.envs.arx_x5.safety.executor import LastCommand, TrajectoryExecutor
from uva_agents.envs.arx_x5.safety.homing import HomingMotion, obstruction
from uva_agents.envs.arx_x5.safety.supervisor import ArmSupervisor, Mode
from uva_agents.utils.clocks import Clock


class HomingProcedure:
    """Goes home, once at a time.

    Args:
        supervisor: of the arm.
        executor: through which orders leave.
        envelope: the limits.
        limits: of the arm's model.
        stop: the emergency stop.
        clock: to sleep on; the arm is watched meanwhile.
        driver_clock: the driver's own.
    """

    def __init__(
        self,
        supervisor: ArmSupervisor,
        *,
        executor: TrajectoryExecutor,
        envelope: SafetyEnvelope,
        limits: ArmLimits,
        stop: EStop,
        clock: Clock,
        driver_clock: Clock,
    ) -> None:
        self._supervisor, self._executor, self._envelope, self._limits = supervisor, executor, envelope, limits
        self._stop, self._clock, self._driver_clock = stop, clock, driver_clock

    def run(self, check: Callable[[], None]) -> None:
        """Go home, and return when there.

        Args:
            check: raises where the arm must not be moved.

        Raises:
            DriverError: the arm does not go home now, or something ended it. It holds, or is damped.
        """
        supervisor = self._supervisor
        with supervisor.locked():
            check()
            damped, generation = supervisor.mode is Mode.DAMPED, supervisor.generation
            self._check_ready()
            beyond = self._clearance_of_damped_arm() if damped else None
            supervisor.check_generation(generation)
            if not damped:
                supervisor.halt("home() was called")
                if supervisor.mode is Mode.DAMPED:
                    raise DriverError(f"the arm could not be held, and is damped: {supervisor.halted[1]}")
                supervisor.check_open()
            supervisor.mode, supervisor.damping_failed = Mode.HOMING, False
            supervisor.generation += 1
            generation = supervisor.generation
        motion = HomingMotion(
            self._executor,
            clock=self._clock,
            envelope=self._envelope.slower(self._envelope.config.home_speed, beyond=beyond),
            limits=self._limits,
            step=functools.partial(self._step, generation),
        )
        with self._ended_by_errors(generation):
            if damped:
                self._stiffen(generation)
            motion.run()

    def _stiffen(self, generation: int) -> None:
        """Hold a damped arm: that takes its time, in which the arm is watched, and may be damped again."""
        with self._supervisor.stiffening:
            with self._step(generation):
                pass
            try:
                self._executor.hold_here()
            finally:
                with self._supervisor.locked():
                    self._supervisor.damp_again(generation)

    def _check_ready(self) -> None:
        """Raises DriverError where the arm must not go home."""
        supervisor = self._supervisor
        if self._stop.pressed:
            raise DriverError(f"the stop is pressed ({self._stop.reason}): see why, then reset_stop()")
        if not supervisor.connected:
            raise DriverError("the arm is not connected: call connect() first")
        if supervisor.mode is Mode.HOMING:
            raise DriverError("the arm is on its way home already")
        supervisor.check_arm(self._driver_clock.now())
        if supervisor.problem is not None:
            raise DriverError(f"the arm does not go home while this is so: {supervisor.problem.detail}")

    def _clearance_of_damped_arm(self) -> np.ndarray:
        """(19,) where it hangs.

        Raises:
            DriverError: the straight line of the joints home is obstructed.
        """
        try:
            here = self._executor.measured_joints()
        except CommandRejected as rejection:
            raise DriverError(f"the arm does not go home while this is so: {rejection.note[1]}") from None
        what = obstruction(self._envelope, here, self._limits.home_joint_pos)
        if what is not None:
            why = f"the straight way of the joints home leads {what}"
            self._supervisor.note(InterventionKind.HOME_PATH, why)
            raise DriverError(f"{why}: move the damped arm by hand, then home() again")
        return self._envelope.clearance_at(here)

    @contextlib.contextmanager
    def _step(self, generation: int) -> Iterator[None]:
        """Around every order of the way home that began in this generation, and of no later one."""
        supervisor = self._supervisor
        with supervisor.locked():
            supervisor.tick()
            self._check_homing(generation)
            try:
                yield
            finally:
                supervisor.damp_again(generation)
            self._check_homing(generation)
            supervisor.last_command_s = self._driver_clock.now()

    def _check_homing(self, generation: int) -> None:
        if self._supervisor.mode is not Mode.HOMING or generation != self._supervisor.generation:
            raise DriverError(f"something stopped the way home: {self._supervisor.halted[1]}")

    @contextlib.contextmanager
    def _ended_by_errors(self, generation: int) -> Iterator[None]:
        """An error ends the way home in a halt, which is noted; without one the arm holds at home."""
        supervisor = self._supervisor
        try:
            yield
        except BaseException as error:
            with supervisor.locked():
                if supervisor.mode is Mode.HOLDING and self._executor.last_command is LastCommand.UNKNOWN:
                    # An order came after the halt.
                    supervisor.halt(supervisor.halted[1], supervisor.halted[0], where_it_is=True)
                if supervisor.mode is Mode.HOMING and generation == supervisor.generation:
                    # Otherwise it was halted, and that was noted.
                    kind, why, wanted = InterventionKind.DRIVER, str(error), None
                    if isinstance(error, CommandRejected):
                        kind, why, wanted = error.note
                    if isinstance(error, (CommandRejected, DriverError)):
                        supervisor.note(kind, f"on the way home: {why}", wanted)
                    supervisor.halt(why, kind, where_it_is=not self._executor.known)
            if isinstance(error, CommandRejected):
                raise DriverError(error.note[1]) from None
            raise
        else:
            with supervisor.locked():
                self._check_homing(generation)
                supervisor.mode, supervisor.from_rest = Mode.HOLDING, True
        finally:
            supervisor.last_command_s = self._driver_clock.now()
