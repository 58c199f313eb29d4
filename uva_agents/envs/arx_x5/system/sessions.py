"""Sessions: episodes with the arm itself, where nothing moves without permission, or with its twin, which can be put back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import ArmState, Camera, Driver, DriverError
from uva_agents.envs.arx_x5.drivers.factory import TwinDriver, make_driver
from uva_agents.envs.arx_x5.drivers.options import DriverOptions
from uva_agents.envs.arx_x5.drivers.sdk import SdkDriver
from uva_agents.envs.arx_x5.observing import OUTSIDE, WRIST, picture
from uva_agents.envs.arx_x5.safety import SafetyConfig
from uva_agents.envs.arx_x5.safety.simulated import SimulatedSafeArm
from uva_agents.envs.arx_x5.system.assembly import assemble
from uva_agents.envs.arx_x5.system.system import ArmSystem, Latencies
from uva_agents.envs.arx_x5.tasks.tasks import TwinTask, make_task
from uva_agents.envs.arx_x5.twin.appearance_draws import LOOKS, draw_appearance
from uva_agents.envs.arx_x5.twin.camera import TwinCamera
from uva_agents.envs.checks import checked_choice
from uva_agents.errors import InputError
from uva_agents.utils.clocks import MonotonicClock, SimulatedClock

log = logging.getLogger(__name__)

Home = bool | Callable[[], bool]
"""Whether the arm may go home, or who is asked each time."""


class ArmSession(Protocol):
    """What differs between arm and twin: how an episode begins, and whether it succeeded."""

    system: ArmSystem
    task: str
    task_description: str

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """Bring everything to the start of an episode.

        Raises:
            DriverError: that is not possible; the message says why.
        """

    def success(self, state: ArmState) -> bool:
        """Whether the task is done, the arm being at ``state``."""

    def draw(self, size: tuple[int, int]) -> np.ndarray:
        """A picture uint8 (*size, 3) for people."""

    def close(self) -> None:
        """Bring the arm to rest, and let go of everything."""


class RealArmSession:
    """With the arm itself. Nothing moves without permission.

    Args:
        system: the arm, not connected yet.
        views: key of its pictures -> camera.
        home: whether a reset may send the arm home.
        success: tells whether the task is done; ``None``: never.
    """

    task = "arx_x5"
    task_description = "whatever the arm is used for"

    def __init__(
        self,
        system: ArmSystem,
        *,
        views: Mapping[str, str] | None = None,
        home: Home = False,
        success: Callable[[ArmState], bool] | None = None,
    ) -> None:
        self.system, self._views = system, dict(views or {})
        self._home, self._success = home, success
        system.connect()

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """See :meth:`ArmSession.begin`. Options: ``home``, and ``release_stop=True`` to let go of a pressed stop."""
        for name in ("task", "looks"):
            if name in options:
                raise InputError(f"reset option {name!r} is for the twin: nobody rearranges things around an arm")
        arm = self.system.arm
        if arm.stop.pressed:
            if options.get("release_stop") is not True:
                raise DriverError(
                    f"the emergency stop is pressed ({arm.stop.reason}): see why, then reset(options={{'release_stop': True}})"
                )
            arm.reset_stop()
        home = options.get("home", self._home)
        if home() if callable(home) else home:
            arm.home()
        else:
            arm.hold()
            while not arm.at_rest:  # what was halted goes on from rest only
                self.system.sleep_until(self.system.now() + 0.02)
        self.system.wait_for_frames()

    def success(self, state: ArmState) -> bool:
        """What the constructor's ``success`` says of ``state``; false without one."""
        return self._success is not None and bool(self._success(state))

    def draw(self, size: tuple[int, int]) -> np.ndarray:
        """See :meth:`ArmSession.draw`: the outside camera's picture, else the wrist's, else a black one."""
        for name in (OUTSIDE, WRIST):
            for key, view in self._views.items():
                if view == name and key in self.system.cameras:
                    return picture(self.system.cameras[key].read().image, size)
        return np.zeros((*size, 3), np.uint8)

    def close(self) -> None:
        """See :meth:`ArmSession.close`."""
        self.system.close()


class TwinSession:
    """With the twin, on which every episode begins from the same moment.

    Args:
        driver: of the twin.
        task: one of :data:`~uva_agents.envs.arx_x5.tasks.tasks.TASKS`.
        looks: one of :data:`~uva_agents.envs.arx_x5.twin.appearance_draws.LOOKS`.
        cameras: of the twin, by key; given ones take the place of its own.
        assembly: more for :func:`~uva_agents.envs.arx_x5.system.assembly.assemble`.
    """

    def __init__(
        self, driver: TwinDriver, task: str, *, looks: str = "plain", cameras: Mapping[str, Camera], **assembly: Any
    ) -> None:
        self.driver, self.first_task, self._looks = driver, task, checked_choice(looks, "looks", LOOKS)
        self.system = assemble(driver, cameras=cameras, simulated=True, **assembly)
        self.arm: SimulatedSafeArm = self.system.arm  # type: ignore[assignment]  # as asked for
        self._tasks: dict[str, TwinTask] = {}
        self.select(task)
        self._observer: TwinCamera | None = None
        self.system.connect()
        self._first = driver.get_state() if isinstance(driver.clock, SimulatedClock) else None

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """See :meth:`ArmSession.begin`: time, noise, objects and look anew from ``seed``.

        Options: ``home``, go home first; ``task`` and ``looks``, of this episode only.
        """
        appearance = draw_appearance(options.get("looks", self._looks), seed)
        self.select(options.get("task", self.first_task))

        def put() -> None:
            # Time begins anew, so that an episode does not depend on those before it, not even in the last digit.
            if self._first is not None:
                self.driver.set_state(self._first)
            self.driver.twin.plant.reseed(seed)
            self.driver.twin.plant.appearance = appearance
            self._task.reset(np.random.default_rng(seed))

        self.arm.placed(put)
        if options.get("home"):
            self.arm.home()

    def select(self, task: str) -> None:
        """From now on the episode is one of this task."""
        if task not in self._tasks:
            self._tasks[task] = make_task(task, self.driver)
        self._task = self._tasks[task]
        self.task, self.task_description = self._task.name, self._task.description

    def success(self, state: ArmState) -> bool:
        """Whether the task is done, as things are in the simulation now."""
        return bool(self._task.is_success())

    def draw(self, size: tuple[int, int]) -> np.ndarray:
        """See :meth:`ArmSession.draw`: from the outside camera, always in the size of the first call."""
        if self._observer is None:
            self._observer = self.driver.camera("outside", height=size[0], width=size[1], quality="full")
        return self._observer.draw()

    def close(self) -> None:
        """See :meth:`ArmSession.close`; the twin is shut down."""
        if self._first is not None:
            self.arm.abandon()
        try:
            self.system.close()
        finally:
            self.driver.shut_down()

    @property
    def repeats(self) -> bool:
        """Whether time can be put back."""
        return self._first is not None

    @property
    def truth(self) -> TwinTask:
        """The task, which knows where everything is: for demonstrators and rewards."""
        return self._task


def open_session(
    driver: str | Driver,
    *,
    model: str,
    task: str | None,
    realtime: bool,
    looks: str,
    views: Mapping[str, str],
    given: Mapping[str, Camera],
    needed: tuple[str, ...],
    image_size: tuple[int, int],
    latencies: Latencies | None,
    safety: SafetyConfig,
    home: Home,
    success: Callable[[ArmState], bool] | None,
    log_file: str | None,
    options: Mapping[str, Any],
) -> RealArmSession | TwinSession:
    """The session that goes with a driver, connected.

    Args:
        driver: ``"sim"``, ``"arx5"``, or a driver.
        looks: of the twin.
        views: key of the pictures that there may be -> camera.
        given: cameras that the caller has brought.
        needed: keys of the pictures that every observation holds.
        options: more for :func:`~uva_agents.envs.arx_x5.drivers.factory.make_driver`.

    Raises:
        InputError: options that do not go together.
        DriverError: no arm answers.
    """
    brought = {key: given[name] for key, name in views.items() if name in given}
    made = driver if not isinstance(driver, str) else _made(driver, model, realtime, latencies, options)
    rest: dict[str, Any] = {"model": model, "safety": safety, "log_file": log_file}
    if isinstance(made, TwinDriver):
        own = {key: made.camera(name, height=image_size[0], width=image_size[1]) for key, name in views.items()}
        if latencies is None:
            latencies = Latencies(action_s=made.twin.plant.realism.action_latency_s)
        latencies = replace(latencies, state_s=0.0)  # the driver has taken it off
        return TwinSession(made, task or "cup", looks=looks, cameras=own | brought, latencies=latencies, **rest)
    if task is not None:
        raise InputError(f"task={task!r} is one of the twin's; with an arm, give success= to say when it is done")
    if looks != "plain":
        raise InputError(f"looks={looks!r} is for the twin: an arm looks as it looks")
    if isinstance(driver, str):
        if latencies is None:
            log.warning("latencies were not given and are not compensated: measure them as docs/arx_x5.md says")
        else:
            latencies = replace(latencies, state_s=0.0)
    missing = [key for key in needed if key not in brought]
    if missing:
        raise InputError(
            f"there is no camera for {' and '.join(missing)}: give camera= and outside_camera=, or pass render_observations=False"
        )
    system = assemble(made, cameras=brought, latencies=latencies, **rest)
    return RealArmSession(system, views=views, home=home, success=success)


def _made(name: str, model: str, realtime: bool, latencies: Latencies | None, options: Mapping[str, Any]) -> SdkDriver:
    clock = SimulatedClock() if name == "sim" and not realtime else MonotonicClock()
    settings = dict(options)
    if name == "arx5" and latencies is not None:
        own = settings.get("options") or DriverOptions()
        settings["options"] = replace(own, observation_latency_s=latencies.state_s)
    return make_driver(name, model=model, clock=clock, **settings)
