"""From names and settings to an arm that can be driven: the driver, the safety layer around it, cameras."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from uva_agents.envs.arx_x5.arm.interface import Camera, Driver
from uva_agents.envs.arx_x5.arm.kinematics import X5Kinematics
from uva_agents.envs.arx_x5.arm.limits import MODELS, arm_limits
from uva_agents.envs.arx_x5.safety import SafeArm, SafetyConfig
from uva_agents.envs.arx_x5.safety.simulated import SimulatedSafeArm
from uva_agents.envs.arx_x5.safety.watch import runs_by_itself
from uva_agents.envs.arx_x5.system.system import ArmSystem, CameraFreshness, Latencies
from uva_agents.errors import InputError

log = logging.getLogger(__name__)


def checked_model(model: str | None, driver: str | Driver) -> str:
    """The arm's model, with a default only where nothing can break.

    Raises:
        InputError: it is not said and cannot be known, or unknown.
    """
    if model is None:
        model = "X5" if driver == "sim" else getattr(driver, "model", None)
    if not isinstance(model, str):
        raise InputError(
            f"say which model the arm is: model= one of {', '.join(map(repr, MODELS))}. Another model's motors answer differently, "
            "so there is no default"
        )
    return arm_limits(model).model


def assemble(
    driver: Driver,
    *,
    model: str,
    cameras: Mapping[str, Camera],
    latencies: Latencies | None = None,
    safety: SafetyConfig | None = None,
    simulated: bool = False,
    **watching: Any,
) -> ArmSystem:
    """The safety layer around a driver, with cameras. Nothing is connected yet.

    Args:
        driver: of the arm or its twin.
        model: of the arm.
        cameras: name -> camera; pictures of the first one must stay fresh.
        latencies: of measurements and actions.
        safety: limits.
        simulated: the driver is a twin's, which may be put elsewhere.
        watching: more for :class:`SafeArm`: ``stop``, ``log_file``.

    Raises:
        InputError: the limits allow more than the model can do.
    """
    kinematics = X5Kinematics(model)
    by_itself = runs_by_itself(driver.clock)
    camera_freshness = CameraFreshness(driver.clock) if cameras else None
    arm = (SimulatedSafeArm if simulated else SafeArm)(
        driver,
        kinematics=kinematics,
        limits=arm_limits(model),
        config=safety,
        camera=camera_freshness,
        threaded=by_itself,
        **watching,
    )
    return ArmSystem(
        arm,
        kinematics=kinematics,
        cameras=cameras,
        camera_freshness=camera_freshness,
        latencies=latencies,
        background=by_itself,
    )
