"""Shutdown of the arm as ``SafetyConfig.on_exit`` says: once, from whichever thread."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

from uva_agents.envs.arx_x5.arm.interface import DriverError
from uva_agents.envs.arx_x5.safety.config import SafetyConfig
from uva_agents.envs.arx_x5.safety.estop import EStop
from uva_agents.envs.arx_x5.safety.events import InterventionKind, InterventionLog
from uva_agents.envs.arx_x5.safety.executor import TrajectoryExecutor
from uva_agents.envs.arx_x5.safety.guarded import GuardedDriver
from uva_agents.envs.arx_x5.safety.homing_procedure import HomingProcedure
from uva_agents.envs.arx_x5.safety.supervisor import ArmSupervisor, Mode
from uva_agents.utils.clocks import Clock

log = logging.getLogger(__name__)

_OTHERS_S = 30.0
"""How long a thread that closes the arm waits for another one that does already."""


class Shutdown:
    """Brings the arm to rest as configured, and lets go of it.

    Args:
        supervisor: of the arm.
        executor: through which orders leave.
        homing: the way home.
        driver: to be closed.
        events: to be closed.
        config: what ``on_exit`` says.
        stop: the emergency stop.
        clock: to sleep on; the arm is watched meanwhile.
    """

    def __init__(
        self,
        supervisor: ArmSupervisor,
        *,
        executor: TrajectoryExecutor,
        homing: HomingProcedure,
        driver: GuardedDriver,
        events: InterventionLog,
        config: SafetyConfig,
        stop: EStop,
        clock: Clock,
    ) -> None:
        self._supervisor, self._executor, self._homing = supervisor, executor, homing
        self._driver, self._events, self._config, self._stop, self._clock = driver, events, config, stop, clock
        self._closed = threading.Event()

    def close(self, released: Callable[[], None]) -> None:
        """Do it, unless it has been done; where another thread does it, wait for that.

        Args:
            released: called once nothing moves the arm any more.
        """
        supervisor, own = self._supervisor, False
        try:
            with supervisor.lock:  # waits for a command that is under way; another one is not taken any more
                if supervisor.mode is Mode.CLOSED:
                    return
                if supervisor.closing_thread is None:
                    own, supervisor.closing_thread = True, threading.get_ident()
            if own:
                if supervisor.connected:
                    self._bring_to_rest()
            elif (
                supervisor.closing_thread != threading.get_ident()
            ):  # else this is inside of it, in a handler of a signal
                self._closed.wait(_OTHERS_S)
        finally:
            if own:
                self._release(released)

    def _release(self, released: Callable[[], None]) -> None:
        supervisor = self._supervisor
        with supervisor.lock:
            supervisor.mode, supervisor.generation = Mode.CLOSED, supervisor.generation + 1
            self._executor.interrupt()
        released()
        if supervisor.watch is not None:
            supervisor.watch.stop()
        try:
            if supervisor.connected and (self._config.on_exit != "hold" or self._config.dry_run):
                with supervisor.lock:
                    self._driver.close()
        finally:
            self._events.close()
            self._closed.set()

    def _bring_to_rest(self) -> None:
        """What ``config.on_exit`` says."""
        supervisor = self._supervisor
        if supervisor.mode is Mode.DAMPED:
            with self._after_stiffening(), supervisor.locked():
                if supervisor.damping_failed:
                    supervisor.damp()
            return
        try:
            supervisor.hold()
            self._clock.sleep_until(self._executor.rest_s)
            self._go_home()
        finally:
            # Also when Ctrl-C is pressed once more: an arm that is damped has come to rest before.
            if not self._damped():
                try:
                    with supervisor.locked():
                        supervisor.halt("the arm is left")
                    self._driver.clock.sleep_until(self._executor.rest_s)
                finally:
                    if self._config.on_exit != "hold":
                        with self._after_stiffening(), supervisor.locked():
                            supervisor.damp()

    def _damped(self) -> bool:
        return self._supervisor.mode is Mode.DAMPED

    @contextlib.contextmanager
    def _after_stiffening(self) -> Iterator[None]:
        """Waits for another thread that makes a damped arm stiff, but not longer than a driver may take to answer."""
        waited = self._supervisor.stiffening.acquire(timeout=_OTHERS_S)
        try:
            yield
        finally:
            if waited:
                self._supervisor.stiffening.release()

    def _go_home(self) -> None:
        supervisor = self._supervisor
        for _ in range(2):
            well = not self._damped() and supervisor.problem is None and not self._stop.pressed
            if self._config.on_exit != "hold_then_home" or not well:
                break
            if supervisor.halted[0] in (InterventionKind.TRACKING, InterventionKind.OVER_CURRENT):
                why = f"the arm does not go home, it was stopped by something: {supervisor.halted[1]}"
                supervisor.note(InterventionKind.EXIT, why)
                break
            try:
                self._homing.run(supervisor.check_open)
                break
            except DriverError as error:
                log.error("on the way out: %s", error)
                # One order that failed is no reason to let the arm sink where it is. All else is.
                if supervisor.halted[0] is not InterventionKind.DRIVER:
                    break
