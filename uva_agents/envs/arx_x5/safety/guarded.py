"""A driver whose every failure is a ``DriverError``: what the safety layer does about a failure must not depend on its class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from uva_agents.envs.arx_x5.interface import N_JOINTS, ArmState, Clock, Driver, DriverError, Waypoint

T = TypeVar("T")


class Guarded:
    """A ``Driver`` around one.

    Args:
        driver: that may raise anything: of sockets, of the SDK, of a bug.
        dry_run: only look at the arm; orders that would move it, or make it limp, are not passed on.
    """

    def __init__(self, driver: Driver, *, dry_run: bool = False) -> None:
        self._driver, self.dry_run = driver, dry_run
        self.clock: Clock = driver.clock

    def connect(self) -> None:
        """As :meth:`Driver.connect`."""
        _asked("connect", self._driver.connect)

    def state(self) -> ArmState:
        """As :meth:`Driver.state`; numbers may still be NaN or old.

        Raises:
            DriverError: there is no measurement, or it is not of six joints.
        """
        state = _asked("say where the arm is", self._driver.state)
        try:
            shapes = {np.shape(part) for part in (state.joint_pos, state.joint_vel, state.joint_torque)}
        except AttributeError as error:
            raise DriverError(f"the driver's state is no measurement: {error}") from error
        if shapes != {(N_JOINTS,)}:
            raise DriverError(f"the driver's state is no measurement of {N_JOINTS} joints: shapes {sorted(shapes)}")
        return state

    def send(self, waypoints: Sequence[Waypoint]) -> None:
        """As :meth:`Driver.send`."""
        if not self.dry_run:
            _asked("take waypoints", lambda: self._driver.send(waypoints))

    def hold(self) -> None:
        """As :meth:`Driver.hold`."""
        if not self.dry_run:
            _asked("hold the arm", self._driver.hold)

    def damp(self) -> None:
        """As :meth:`Driver.damp`."""
        if not self.dry_run:
            _asked("make the arm limp", self._driver.damp)

    def home(self) -> None:
        """Never used: the driver's own way home knows no limits."""
        raise DriverError("the way home is a path like any other: see SafeArm.home()")

    def close(self) -> None:
        """As :meth:`Driver.close`."""
        _asked("let go of the arm", self._driver.close)


def _asked(what: str, act: Callable[[], T]) -> T:
    try:
        return act()
    except (DriverError, AssertionError):
        raise
    except Exception as error:
        raise DriverError(f"the driver could not {what}: {type(error).__name__}: {error}") from error
