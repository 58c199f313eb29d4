"""Whether arm and camera still answer, and whether the arm is where it was sent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import ArmState, Camera, Driver, DriverError
from uva_agents.envs.arx_x5.arm.limits import ArmLimits
from uva_agents.envs.arx_x5.safety.config import SafetyConfig
from uva_agents.envs.arx_x5.safety.events import InterventionKind, number_text


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that motion must stop for.

    Attributes:
        kind: what.
        detail: in words, with what to check.
        pushes: the arm presses against something: it has to stay where it is, not where it was sent.
    """

    kind: InterventionKind
    detail: str
    pushes: bool = False


def not_measured(state: ArmState, now: float, config: SafetyConfig) -> str | None:
    """Why a state says nothing about where the arm is now, if so."""
    grip = (state.gripper_pos, state.gripper_torque, state.time_s)
    if not np.isfinite(np.concatenate([state.joint_pos, state.joint_vel, state.joint_torque, grip])).all():
        return "the arm reports NaN or infinity; check power and CAN"
    age = now - state.time_s
    if age < -config.period_s:
        # It would never count as old, whatever the arm does meanwhile.
        return f"the arm's last measurement is {-age:.4g} s ahead of the clock; check whether a clock was set, and power and CAN"
    if age > config.state_age_s:
        return f"the arm's last measurement is {number_text(age, 2)} s old; check power and CAN"
    return None


class ArmMonitor:
    """Looks at measurements.

    Args:
        driver: of the arm.
        camera: to watch; ``None``: none.
        limits: of the arm's model.
        config: what is too old, too strong, too far.
    """

    def __init__(self, driver: Driver, *, camera: Camera | None, limits: ArmLimits, config: SafetyConfig) -> None:
        self._driver, self._camera, self._limits, self._config = driver, camera, limits, config
        self._strong_since = math.inf
        self._camera_ok_until = -math.inf

    @property
    def memory(self) -> tuple[float, float]:
        """What the next check depends on: since when torques are high, and until when the camera is known to be fresh."""
        return self._strong_since, self._camera_ok_until

    @memory.setter
    def memory(self, value: tuple[float, float]) -> None:
        self._strong_since, self._camera_ok_until = value

    def restart(self) -> None:
        """Forget what was seen before."""
        self.memory = (math.inf, -math.inf)

    def problem(self, now: float, sent_to: np.ndarray | None) -> Problem | None:
        """The first thing that is wrong, or None.

        Args:
            now: the driver's clock.
            sent_to: (6,) joints that the arm was sent to; ``None``: it is damped, or this is a dry run.
        """
        try:
            state = self._driver.state()
        except DriverError as error:
            return Problem(InterventionKind.DRIVER, f"the arm's state cannot be read: {error}")
        # By the clock after reading, which may have taken its time: a measurement made meanwhile is none from the future.
        return self._measured(self._driver.clock.now(), state, sent_to) or self._seen()

    def _measured(self, now: float, state: ArmState, sent_to: np.ndarray | None) -> Problem | None:
        c, limits = self._config, self._limits
        why = not_measured(state, now, c)
        if why is not None:
            return Problem(InterventionKind.STALE_STATE, why)
        share = np.append(
            np.abs(state.joint_torque) / limits.joint_torque_max, abs(state.gripper_torque) / limits.gripper_torque_max
        )
        worst = int(share.argmax())
        if share[worst] <= c.current_ratio:
            self._strong_since = math.inf
        else:
            self._strong_since = min(self._strong_since, state.time_s)
            if state.time_s - self._strong_since >= c.current_s:
                part = "the gripper" if worst == 6 else f"joint {worst + 1}"
                detail = f"{part} is at {number_text(100 * share[worst], 0)}% of its torque limit; see what it presses against"
                return Problem(InterventionKind.OVER_CURRENT, detail, pushes=True)
        if sent_to is not None:
            off = np.abs(state.joint_pos - sent_to)
            if off.max() > c.tracking_error:
                joint = int(off.argmax())
                detail = (
                    f"joint {joint + 1} is {number_text(off[joint], 2)} rad from where it was sent; see what blocks it"
                )
                return Problem(InterventionKind.TRACKING, detail, pushes=True)
        return None

    def _seen(self) -> Problem | None:
        # Reading a picture may cost a copy: only as often as an old one could matter. A clock that was set back makes none fresh.
        now, most = self._driver.clock.now(), self._config.camera_age_s / 4
        if self._camera is None or self._camera_ok_until - most - 1e-6 <= now < self._camera_ok_until:
            return None
        try:
            seen_s = float(self._camera.read().time_s)
            age = self._driver.clock.now() - seen_s
        except DriverError as error:
            return Problem(InterventionKind.STALE_CAMERA, f"the camera gives no picture: {error}")
        except Exception as error:  # of the camera's code: the arm is still watched
            return Problem(
                InterventionKind.STALE_CAMERA, f"the camera gives no picture: {type(error).__name__}: {error}"
            )
        if not age >= -self._config.period_s:
            detail = f"the camera's last picture is {-age:.4g} s ahead of the clock; check whether a clock was set"
            return Problem(InterventionKind.STALE_CAMERA, detail)
        if age > self._config.camera_age_s:
            return Problem(
                InterventionKind.STALE_CAMERA,
                f"the camera's last picture is {number_text(age, 2)} s old; check its cable",
            )
        self._camera_ok_until = now + min(self._config.camera_age_s - age, most)
        return None
