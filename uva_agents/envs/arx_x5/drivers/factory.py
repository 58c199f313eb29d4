"""Drivers by name: the arm, through the SDK, or its twin."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import DriverError
from uva_agents.envs.arx_x5.arm.limits import arm_limits
from uva_agents.envs.arx_x5.checks import instance
from uva_agents.envs.arx_x5.drivers.options import DriverOptions
from uva_agents.envs.arx_x5.drivers.sdk import SdkDriver
from uva_agents.envs.arx_x5.twin.camera import TwinCamera
from uva_agents.envs.arx_x5.twin.controller import ControllerState, TwinController
from uva_agents.envs.arx_x5.twin.realism import IDEAL, TwinRealism
from uva_agents.envs.arx_x5.twin.sdk import TYPES
from uva_agents.errors import InputError
from uva_agents.utils.clocks import Clock, MonotonicClock, SimulatedClock

DRIVERS = ("arx5", "sim")
_CHECK = """Check, in this order:
  1. Has the arm power, is its e-stop released, and was the gripper closed when it was switched on?
  2. Is the CAN adapter plugged in, and does `ip link` list it? Interfaces are named {interface!r} here; pass interface= otherwise.
  3. Is it up? candleLight adapters: sudo ip link set {interface} up type can bitrate 1000000
     SLCAN adapters, after each plug-in: sudo slcand -o -f -s8 /dev/arxcan0 {interface} && sudo ip link set {interface} up
     EtherCAT adapters (interface en.../eth...): python needs the right to raw network access (setcap cap_net_raw)
  4. Do other programs talk to the same arm?
  5. Is model={model!r} the arm that stands there? Another model's motors answer differently, and moving it is dangerous."""


def make_driver(
    driver: str = "sim",
    *,
    model: str = "X5",
    interface: str = "can0",
    clock: Clock | None = None,
    options: DriverOptions | None = None,
    realism: TwinRealism = IDEAL,
) -> SdkDriver:
    """A driver for one arm, not connected yet.

    Args:
        driver: ``"arx5"``, the arm itself through the package ``arx5_interface``; or ``"sim"``, its twin.
        model: ``"X5"`` or ``"X5_umi"``.
        interface: of the arm: ``can...``, or ``en...``/``eth...`` for EtherCAT adapters.
        clock: of the driver. A :class:`SimulatedClock` goes with the twin only; by default the machine's time.
        options: how the arm is treated.
        realism: of the twin: delays, noise.

    Raises:
        ImportError: a package is missing; the message names it.
        DriverError: ``"arx5"`` with the simulated clock.
        InputError: no such driver or model, or options of the wrong type.
    """
    if options is not None:
        instance("options", options, DriverOptions, "DriverOptions(stiffen_s=0.5)")
    instance("realism", realism, TwinRealism, "TwinRealism(action_latency_s=0.04)")
    if not isinstance(interface, str):
        raise InputError(f"interface={interface!r} must be the name of an adapter, for example 'can0'")
    if driver == "sim":
        if not (clock is None or isinstance(clock, SimulatedClock | MonotonicClock)):
            raise InputError("the twin lives by a SimulatedClock or a MonotonicClock")
        return TwinDriver(model=model, clock=clock, options=options, realism=realism)
    if driver != "arx5":
        raise InputError(f"driver must be one of {', '.join(map(repr, DRIVERS))}, not {driver!r}")
    arm_limits(model)
    if isinstance(clock, SimulatedClock):
        raise DriverError("the arm moves in real time: driver='arx5' cannot live by a SimulatedClock")
    sdk = load_sdk()
    return SdkDriver(
        lambda: _open(sdk, model, interface), types=sdk, model=model, clock=clock or MonotonicClock(), options=options
    )


def load_sdk() -> ModuleType:
    """``arx5_interface``.

    Raises:
        ImportError: it is not installed, or does not load.
    """
    try:
        return importlib.import_module("arx5_interface")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"driver='arx5' needs the arm's SDK, and {error.name} is not installed: pip install 'uva-agents[arx]'. "
            "Without an arm, driver='sim' is its twin"
        ) from error
    except ImportError as error:
        raise ImportError(f"the arm's SDK is installed and does not load: {error}") from error


def _open(sdk: Any, model: str, interface: str) -> Any:
    try:
        return sdk.Arx5JointController(model, interface)
    except (RuntimeError, ValueError) as error:
        hints = _CHECK.format(interface=interface, model=model)
        raise DriverError(f"no arm at {interface!r}. The SDK says: {error}\n{hints}") from error


@dataclass(frozen=True, slots=True)
class TwinState:
    """Arm, objects, queue, clock and driver of a twin at one moment. Can be pickled."""

    controller: ControllerState
    clock_s: float
    stiff: bool


class TwinDriver(SdkDriver):
    """The same driver over the twin. Connected to from the start or not, the simulation runs.

    Args:
        model: ``"X5"`` or ``"X5_umi"``.
        clock: a :class:`SimulatedClock`, for simulations that repeat and take no longer than they must; by default the machine's
            time.
        options: how the arm is treated. Its ``observation_latency_s`` becomes the one of ``realism``: as if measured.
        realism: delays and noise.

    Raises:
        ImportError: MuJoCo is not installed.
    """

    def __init__(
        self,
        *,
        model: str = "X5",
        clock: SimulatedClock | MonotonicClock | None = None,
        options: DriverOptions | None = None,
        realism: TwinRealism = IDEAL,
    ) -> None:
        clock = clock or MonotonicClock()
        options = replace(options or DriverOptions(), observation_latency_s=realism.observation_latency_s)
        self.twin = TwinController(model, clock=clock, realism=realism)
        self._cameras: list[TwinCamera] = []
        super().__init__(lambda: self.twin, types=TYPES, model=model, clock=clock, options=options)

    def camera(self, name: str = "wrist", *, height: int = 224, width: int = 224, quality: str = "fast") -> TwinCamera:
        """``"wrist"`` or ``"outside"``; ends with the simulation. Arguments as of :class:`TwinCamera`.

        Raises:
            ValueError: no such camera or quality, or too large a picture.
        """
        camera = TwinCamera(self.twin, name, height=height, width=width, quality=quality)
        self._cameras.append(camera)
        return camera

    def place_arm(self, joint_pos: np.ndarray, *, gripper_pos: float) -> None:
        """The arm is there, at rest and stiff; to be followed by :meth:`settle`. Needs no time, as nothing real could."""
        controller, config = self.twin, self.twin.get_controller_config()
        with self._lock, controller.present():
            self.connect()
            self._orders += 1
            controller.plant.place_arm(joint_pos, gripper_pos)
            controller.settle()
            controller.set_gain(
                self._gain(config.default_kp, config.default_kd, config.default_gripper_kp, config.default_gripper_kd)
            )
            self._stiff, self._rising = True, None

    def settle(self) -> None:
        """After things were placed in the twin by hand: sensors and cameras see them, nothing of before is under way."""
        self.twin.settle()

    def get_state(self) -> TwinState:
        """All that the future depends on. Meant for the simulated clock: real time does not go back."""
        return TwinState(self.twin.save(), self.clock.now(), self._stiff)

    def set_state(self, state: TwinState) -> None:
        """Go to what :meth:`get_state` returned, here or in another twin of the same model; the clock goes there, too.

        Raises:
            DriverError: the clock is the machine's.
        """
        if not isinstance(self.clock, SimulatedClock):
            raise DriverError("real time does not go back: a twin's state is restored under a SimulatedClock only")
        with self._lock:
            self._orders += 1
            self._stiff, self._rising = state.stiff, None
            self.twin.restore_at(state.controller, state.clock_s)

    def shut_down(self) -> None:
        """:meth:`close`, and end the simulation; neither it nor its cameras can be used again."""
        try:
            self.close()
        finally:
            for camera in self._cameras:
                camera.close()
            self.twin.close()
