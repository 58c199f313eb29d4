"""Where an episode takes place: with the arm itself, which is only ever asked, or with its twin, where everything can be put back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from uva_agents.envs.arx_x5.assembly import assemble
from uva_agents.envs.arx_x5.interface import ArmState, Camera, Driver, DriverError
from uva_agents.envs.arx_x5.observing import OUTSIDE, WRIST, picture
from uva_agents.envs.arx_x5.rig import Latencies, Rig
from uva_agents.envs.arx_x5.safety import SafetyConfig

Home = bool | Callable[[], bool]
"""Whether the arm may go home, or who is asked each time."""


class Stage(Protocol):
    """What the environment cannot know about: how an episode begins, and whether it succeeded."""

    rig: Rig
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


class RealStage:
    """With the arm itself. Nothing moves unless somebody allowed it.

    Args:
        rig: the arm, not connected yet.
        home: whether a reset may send the arm home.
        success: tells whether the task is done; ``None``: nobody can tell.
    """

    task = "arx_x5"
    task_description = "whatever the arm is used for"

    def __init__(self, rig: Rig, *, home: Home = False, success: Callable[[ArmState], bool] | None = None) -> None:
        self.rig = rig
        self._home, self._success = home, success
        rig.connect()

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        arm = self.rig.arm
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
        self.rig.wait_for_frames()

    def success(self, state: ArmState) -> bool:
        return self._success is not None and bool(self._success(state))

    def draw(self, size: tuple[int, int]) -> np.ndarray:
        for name in (OUTSIDE, WRIST):
            if name in self.rig.cameras:
                return picture(self.rig.cameras[name].read().image, size)
        return np.zeros((*size, 3), np.uint8)


def open_stage(
    driver: str | Driver,
    *,
    model: str,
    task: str | None,
    realtime: bool,
    cameras: Mapping[str, Camera | None],
    wanted: tuple[str, ...],
    image_size: tuple[int, int],
    latencies: Latencies | None,
    safety: SafetyConfig,
    home: Home | None,
    success: Callable[[ArmState], bool] | None,
    log_file: str | None,
    options: Mapping[str, Any],
) -> Stage:
    """The stage that goes with a driver, connected.

    Args:
        driver: ``"sim"``, ``"arx5"``, or a driver.
        cameras: key -> camera, where the caller has brought one.
        wanted: keys of the pictures that observations hold.

    Raises:
        ValueError: options that do not go together.
        DriverError: no arm answers.
    """
    if not isinstance(driver, str):
        given = {key: camera for key, camera in cameras.items() if camera is not None}
        missing = [key for key in wanted if key not in given]
        if missing:
            raise ValueError(f"there is no camera for {', '.join(missing)}: give camera= or outside_camera=, or pass render_observations=False")
        rig = assemble(driver, model=model, cameras=given, latencies=latencies, safety=safety, log_file=log_file)
        return RealStage(rig, home=bool(home) if not callable(home) else home, success=success)
    raise NotImplementedError
