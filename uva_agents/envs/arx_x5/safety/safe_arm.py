"""The only way to the arm: everything that is sent to a driver goes through here."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import ArmState, Camera, Driver, DriverError, Kinematics, Waypoint
from uva_agents.envs.arx_x5.arm.limits import ArmLimits
from uva_agents.envs.arx_x5.checks import flag, instance, path
from uva_agents.envs.arx_x5.safety.commands import CommandParser, CommandRejected, TargetTrajectory, check_first
from uva_agents.envs.arx_x5.safety.config import SafetyConfig
from uva_agents.envs.arx_x5.safety.envelope import SafetyEnvelope
from uva_agents.envs.arx_x5.safety.estop import EStop
from uva_agents.envs.arx_x5.safety.events import Intervention, InterventionKind, InterventionLog, Sent
from uva_agents.envs.arx_x5.safety.executor import TrajectoryExecutor
from uva_agents.envs.arx_x5.safety.guarded import GuardedDriver
from uva_agents.envs.arx_x5.safety.homing_procedure import HomingProcedure
from uva_agents.envs.arx_x5.safety.monitor import ArmMonitor
from uva_agents.envs.arx_x5.safety.shutdown import Shutdown
from uva_agents.envs.arx_x5.safety.supervisor import ArmSupervisor, Mode
from uva_agents.envs.arx_x5.safety.watch import WatchedClock, WatchThread, runs_by_itself
from uva_agents.utils.clocks import Clock

_GRACE_S = 0.002
"""Between choosing waypoints and the time at which the driver receives them, where time passes by itself."""


class SafeArm:
    """A driver with limits: it is one itself, and keeps the one inside to itself.

    Every command is checked, and clipped, slowed or rejected where it has to be; what was really sent comes back. When commands
    stop, for whatever reason, the arm is at rest within ``config.watchdog_s``: every trajectory that is sent ends at rest by then.
    After a hold, a rejection, a stop or a fault nothing goes on before the arm is at rest, and then it goes on from where it is.

    As a context manager it connects, and at the end does what ``config.on_exit`` says, also after an exception.

    Args:
        driver: of the arm or its twin.
        kinematics: of the arm's model.
        limits: the same model's.
        config: what is allowed.
        camera: if its pictures become old the arm stops.
        stop: the emergency stop; by default its own, :attr:`stop`.
        log_file: interventions as lines of JSON, appended. One that cannot be written is reported once, see :attr:`log_problem`.
        threaded: whether a thread watches the arm; by default where the driver's clock runs by itself. On a simulated clock
            :attr:`clock` watches during sleeps.

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
        log_file: str | Path | None = None,
        threaded: bool | None = None,
    ) -> None:
        self.config = config = (
            SafetyConfig() if config is None else instance("config", config, SafetyConfig, "SafetyConfig(speed=0.1)")
        )
        config.check_arm(limits)
        self.limits = limits
        self.stop = stop = EStop() if stop is None else instance("stop", stop, EStop, "EStop()")
        if log_file is not None:
            path("log_file", log_file)
        if threaded is not None:
            flag("threaded", threaded)
        self._driver = driver
        self._guarded = GuardedDriver(driver, dry_run=config.dry_run)
        self._threaded = runs_by_itself(driver.clock) if threaded is None else threaded
        self._envelope = SafetyEnvelope(kinematics, limits, config)
        self._parser = CommandParser(self._envelope, kinematics)
        self._executor = TrajectoryExecutor(
            self._envelope, self._guarded, grace_s=_GRACE_S if self._threaded else 0.0, dry_run=config.dry_run
        )
        self._monitor = ArmMonitor(self._guarded, camera=camera, limits=limits, config=config)
        self._events = InterventionLog(log_file, now_s=driver.clock.now())
        self._supervisor = ArmSupervisor(
            driver.clock,
            executor=self._executor,
            monitor=self._monitor,
            events=self._events,
            config=config,
            stop=stop,
        )
        self.clock: Clock = driver.clock if self._threaded else WatchedClock(driver.clock, self.tick)
        self._homing = HomingProcedure(
            self._supervisor,
            executor=self._executor,
            envelope=self._envelope,
            limits=limits,
            stop=stop,
            clock=self.clock,
            driver_clock=driver.clock,
        )
        self._shutdown = Shutdown(
            self._supervisor,
            executor=self._executor,
            homing=self._homing,
            driver=self._guarded,
            events=self._events,
            config=config,
            stop=stop,
            clock=self.clock,
        )

    # --- what an environment needs ------------------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """What the arm is doing."""
        return self._supervisor.mode

    @property
    def at_rest(self) -> bool:
        """Whether nothing that was sent is still to be done."""
        return self.mode in (Mode.DAMPED, Mode.CLOSED) or (self.mode is not Mode.HOMING and self._executor.ended)

    @property
    def goal(self) -> tuple[np.ndarray, float] | None:
        """Joints (6,) and gripper where what was sent ends; ``None`` where the arm is damped, homing, or stays somewhere else."""
        with self._supervisor.lock:
            if self.mode not in (Mode.HOLDING, Mode.MOVING) or not self._executor.known:
                return None
            trajectory = self._executor.trajectory
            return trajectory.joints[-1].copy(), float(trajectory.grippers[-1])

    @property
    def sent_to(self) -> np.ndarray:
        """(6,) joints where the arm should be now."""
        with self._supervisor.lock:
            return self._executor.where()

    @property
    def log_problem(self) -> str | None:
        """Why interventions are not kept in the file, if so."""
        return self._events.problem

    def connect(self) -> None:
        """As :meth:`Driver.connect`; from now on the arm is watched, and seen to when Python ends."""
        supervisor = self._supervisor
        with supervisor.locked():
            supervisor.check_open_to_move()
            if supervisor.connected:
                return
            self._guarded.connect()
            supervisor.connected = True
            atexit.register(self.close)
            if self._threaded:
                supervisor.watch = WatchThread(self.tick)

    def state(self) -> ArmState:
        """As :meth:`Driver.state`."""
        return self._guarded.state()

    def command_joints(self, waypoints: Sequence[Waypoint]) -> Sent:
        """Go through joints, straight from each to the next; replaces what is queued.

        Returns:
            What was really sent, and every intervention since the last command. Nothing that is wrong with the waypoints raises.
        """
        return self._command(lambda here, branch_s, now: self._parser.joints(waypoints, now=now))

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
            lambda here, branch_s, now: self._parser.poses(
                times, poses, grippers, now=now, here=here, branch_s=branch_s
            )
        )

    def take_interventions(self) -> tuple[Intervention, ...]:
        """Those since the last command, which no command has returned yet."""
        with self._supervisor.lock:
            return self._events.take()

    def reset_stop(self) -> None:
        """Release the emergency stop. The arm does not move; the first action has to be near where it is."""
        with self._supervisor.lock:
            self.stop.reset()
            self._supervisor.stopped, self._supervisor.from_rest = False, True

    # --- the driver's own methods -------------------------------------------------------------------------------------

    def send(self, waypoints: Sequence[Waypoint]) -> None:
        """:meth:`command_joints` for code that knows drivers only.

        Raises:
            DriverError: the arm is damped. Whatever else is wrong with the waypoints does not raise.
        """
        if self.mode is Mode.DAMPED:
            raise DriverError("the arm is damped (passive): call home() first")
        sent = self.command_joints(waypoints)
        with self._supervisor.lock:  # who calls this does not see what came back
            self._events.give_back(sent.interventions)

    def hold(self) -> None:
        """Brake within the limits, and stay there, stiff; that ends a way home, too. A damped arm stays damped."""
        self._supervisor.hold()

    def refuse(self, reason: str) -> tuple[Intervention, ...]:
        """As :meth:`hold`, because there is nothing that could be sent: an agent that computes NaN, for example.

        Returns:
            Every intervention since the last command; the last one, of kind ``not_finite``, is this.
        """
        supervisor = self._supervisor
        with supervisor.locked():
            supervisor.check_open()
            supervisor.note(InterventionKind.NOT_FINITE, reason)
            if supervisor.mode in (Mode.HOLDING, Mode.MOVING):
                supervisor.halt(reason, InterventionKind.NOT_FINITE)
            return self._events.take()

    def damp(self) -> None:
        """Brake, then become passive: the arm sinks.

        Raises:
            DriverError: the driver does not let it. That is tried again for as long as the arm is watched.
        """
        supervisor = self._supervisor
        supervisor.hold()
        self.clock.sleep_until(self._executor.rest_s)
        with supervisor.locked():
            supervisor.check_open()
            supervisor.damp()
            if supervisor.damping_failed:
                raise DriverError(f"the arm cannot be damped: {supervisor.halted[1]}")

    def home(self) -> None:
        """Go to all joints zero, gripper open, and return when there: at ``home_speed``, within the limits, from where the arm is.

        A damped arm becomes stiff first. Whatever stops it on its way, an obstacle, a fault, a stop or another call, ends the way.

        Raises:
            DriverError: the stop is pressed, something is wrong with the arm, the way home leads through the table or out of the
                workspace, or something ended it. The arm holds.
        """
        self._homing.run(self._supervisor.check_open_to_move)

    def close(self) -> None:
        """What ``config.on_exit`` says; then let go of the arm, which sinks, unless that is ``"hold"``."""
        self._shutdown.close(lambda: atexit.unregister(self.close))

    def __enter__(self) -> SafeArm:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self.mode is not Mode.CLOSED:
            with self._supervisor.locked():
                self._supervisor.note(InterventionKind.EXIT, f"{kind.__name__}: {error}")
        self.close()

    def tick(self) -> None:
        """Check clock, stop, arm and camera. Called by the watch; calling it more often does no harm."""
        self._supervisor.tick()

    # --- moving -------------------------------------------------------------------------------------------------------

    def _command(self, read: Callable[[np.ndarray, float, float], TargetTrajectory]) -> Sent:
        supervisor, executor = self._supervisor, self._executor
        with supervisor.locked():
            supervisor.check_open_to_move()
            self.tick()
            waypoints: tuple[Waypoint, ...] = ()
            generation = supervisor.generation
            try:
                try:
                    self._check_ready()
                    supervisor.check_generation(generation)
                    with np.errstate(over="ignore", invalid="ignore"):  # what is asked for may be any number
                        waypoints, notes = executor.follow(self._checking_first(read))
                    supervisor.check_generation(generation)
                finally:
                    supervisor.damp_again(generation)
                for note in notes:
                    supervisor.note(*note, sent=waypoints)
                supervisor.last_command_s = self._driver.clock.now()
                supervisor.mode, supervisor.from_rest = Mode.MOVING, False
            except CommandRejected as rejection:
                supervisor.note(*rejection.note)
                if supervisor.mode in (Mode.HOLDING, Mode.MOVING):
                    supervisor.halt(rejection.note[1], rejection.note[0])
            except BaseException as error:
                # Also Ctrl-C in the middle of an order: it is unknown whether the driver took it.
                if isinstance(error, DriverError):
                    supervisor.note(InterventionKind.DRIVER, str(error))
                unsure = isinstance(error, DriverError) or not executor.known
                if unsure and supervisor.mode in (Mode.HOLDING, Mode.MOVING):
                    supervisor.halt(str(error), InterventionKind.DRIVER, where_it_is=True)
                raise
            return Sent(waypoints, self._events.take())

    def _checking_first(
        self, read: Callable[[np.ndarray, float, float], TargetTrajectory]
    ) -> Callable[[np.ndarray, float], TargetTrajectory]:
        """``read`` at the present time; after a halt, only targets near the arm, and only once it rests."""
        now = self._driver.clock.now()

        def reading(here: np.ndarray, branch_s: float) -> TargetTrajectory:
            target = read(here, branch_s, now)
            if self._supervisor.from_rest:
                check_first(target, here, envelope=self._envelope)
                self._executor.check_rest()
            return target

        return reading

    def _check_ready(self) -> None:
        """Raises CommandRejected where no command may move the arm."""
        supervisor, executor = self._supervisor, self._executor
        if not supervisor.connected or supervisor.mode in (Mode.DAMPED, Mode.HOMING):
            homing = supervisor.mode is Mode.HOMING
            why = "on its way home" if homing else "damped (passive); call connect() and home() first"
            raise CommandRejected(InterventionKind.NOT_READY, f"the arm is {why}")
        if self.stop.pressed:
            why = f"the stop is pressed ({self.stop.reason}); see why, then reset_stop()"
            raise CommandRejected(InterventionKind.STOPPED, why)
        if supervisor.problem is not None:
            raise CommandRejected(supervisor.problem.kind, supervisor.problem.detail)
        if supervisor.from_rest and (executor.ended or not executor.known):  # else it brakes: see _checking_first
            executor.begin()
