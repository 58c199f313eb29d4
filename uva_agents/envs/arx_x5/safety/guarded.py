"""A driver whose every failure is a ``DriverError``: what the safety layer does about a failure must not depend on its class."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import N_JOINTS, ArmState, Driver, DriverError, Waypoint
from uva_agents.utils.clocks import Clock

T = TypeVar("T")

_ROWS = ("joint_pos", "joint_vel", "joint_torque", "eef_pose")
_NUMBERS = ("time_s", "gripper_pos", "gripper_vel", "gripper_torque")


class GuardedDriver:
    """A ``Driver`` around one.

    Args:
        driver: that may raise anything: of sockets, of the SDK, of a bug.
        dry_run: only look at the arm; orders that would move it, or damp it, are not passed on.
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
            DriverError: there is no measurement, or it is not of six joints, or not of numbers.
        """
        state = _asked("say where the arm is", self._driver.state)
        try:
            values = {name: getattr(state, name) for name in (*_ROWS, *_NUMBERS)}
        except Exception as error:  # of an attribute that is computed, for example
            raise DriverError(f"the driver's state is no measurement: {error}") from error
        if all(_is_row(values[name]) for name in _ROWS) and all(type(values[name]) is float for name in _NUMBERS):
            return state
        found: dict[str, Any] = {name: _reals(name, values[name], (N_JOINTS,)) for name in _ROWS}
        found |= {name: float(_reals(name, values[name], ())) for name in _NUMBERS}
        return ArmState(**found)

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
            _asked("damp the arm", self._driver.damp)

    def home(self) -> None:
        """Never used: the driver's own way home knows no limits."""
        raise DriverError("the way home is a path like any other: see SafeArm.home()")

    def close(self) -> None:
        """As :meth:`Driver.close`."""
        _asked("let go of the arm", self._driver.close)


def _is_row(value: Any) -> bool:
    """Quickly: this is asked for hundreds of times a second."""
    return type(value) is np.ndarray and value.dtype == np.float64 and value.shape == (N_JOINTS,)


def _reals(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Real numbers as float64 of a shape.

    Raises:
        DriverError: None, text, complex or masked numbers, truth values, lists of unequal lengths, another shape.
    """
    try:
        found = np.asarray(value)
        if isinstance(value, np.ma.MaskedArray) or found.dtype.kind not in "fiu":
            raise TypeError(f"{name} is {type(value).__name__} of {found.dtype}, and no real numbers")
        if found.shape != shape:
            raise TypeError(f"{name} has shape {found.shape} and not {shape}")
        return found.astype(np.float64)
    except Exception as error:  # whatever an object does that is asked for numbers
        raise DriverError(f"the driver's state is no measurement of {N_JOINTS} joints: {error}") from error


def _asked(what: str, act: Callable[[], T]) -> T:
    try:
        return act()
    except DriverError:
        raise
    except BaseException as error:
        # Ctrl-C, and what handlers of signals raise, jacobian the main thread in the middle of anything, and are for the program.
        drivers = isinstance(error, (Exception, asyncio.CancelledError, GeneratorExit))
        if not drivers and threading.current_thread() is threading.main_thread():
            raise
        raise DriverError(f"the driver could not {what}: {type(error).__name__}: {error}") from error
