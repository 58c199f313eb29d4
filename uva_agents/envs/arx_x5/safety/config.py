"""What the safety layer allows, and when it steps in. Defaults are slow and small: raise them with care."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

from uva_agents.envs.arx_x5.arm.limits import MODELS, ArmLimits, arm_limits
from uva_agents.envs.arx_x5.checks import flag, number, short
from uva_agents.errors import InputError

_MOST_STEPS = 10**9
OnExit = Literal["hold_then_home", "damp", "hold"]
OnStop = Literal["hold", "damp"]
Vector = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class SafetyConfig:
    """Limits of what is sent to the arm. ``docs/arx_x5_safety.md`` has the reasons for every default.

    Attributes:
        box_min, box_max: (3,) corners of the box that the tool point stays in, base frame, metres.
        table_height: z of the table in the base frame, metres; the tool's corners stay above. ``None``: no table.
        finger_thickness: of the fingers across their opening, metres; makes the tool's corners, with the widest opening.
        joint_margin: kept from each end of every joint, rad.
        joint_speed: of every joint, rad/s.
        joint_accel: rad/s^2.
        speed: of the tool point, m/s.
        turn: of the tool, rad/s.
        accel: of the tool point, m/s^2.
        turn_accel: of the tool, rad/s^2.
        gripper_min, gripper_max: opening, metres; ``None``: the model's own width.
        gripper_speed: m/s.
        first_jump: how far the first target after homing, a hold or a stop may be, metres.
        first_turn: the same for the tool's rotation, rad.
        first_joints: the same for every joint, rad.
        watchdog_s: without a fresh action the arm is at rest after this long.
        damp_after_s: how much longer it then stays stiff; ``inf``: without end.
        state_age_s: an older measurement means that the arm no longer answers.
        camera_age_s: the same for pictures, where a camera is watched.
        tracking_error: how far a joint may be from where it was sent, rad.
        current_ratio: torques above this share of the model's limit are too high ...
        current_s: ... when they last this long.
        ik_jump: how far apart the joints of two neighbouring poses may be, rad, besides what the joint speed explains.
        home_speed: share of the speeds above to go home with.
        on_exit: what happens at the end of a ``with`` block, on an exception, Ctrl-C, or when Python ends.
        on_stop: what an emergency stop does once the arm has braked.
        dry_run: compute everything, send nothing.
        period_s: grid on which waypoints are sent.
        lead_s: how far ahead of now a new trajectory may branch off the one that is executed.

    Raises:
        InputError: a number that makes no sense, alone or with the others; the message names it.
    """

    box_min: Vector = (0.10, -0.35, 0.0)
    box_max: Vector = (0.60, 0.35, 0.50)
    table_height: float | None = 0.0
    finger_thickness: float = 0.0255
    joint_margin: float = 0.03
    joint_speed: float = 1.5
    joint_accel: float = 6.0
    speed: float = 0.25
    turn: float = 0.6
    accel: float = 1.0
    turn_accel: float = 3.0
    gripper_min: float = 0.0
    gripper_max: float | None = None
    gripper_speed: float = 0.1
    first_jump: float = 0.1
    first_turn: float = 0.5
    first_joints: float = 0.5
    watchdog_s: float = 1.0
    damp_after_s: float = 60.0
    state_age_s: float = 0.1
    camera_age_s: float = 0.5
    tracking_error: float = 0.35
    current_ratio: float = 0.9
    current_s: float = 0.03
    ik_jump: float = 0.3
    home_speed: float = 0.5
    on_exit: OnExit = "hold_then_home"
    on_stop: OnStop = "hold"
    dry_run: bool = False
    period_s: float = 0.02
    lead_s: float = 0.04

    def __post_init__(self) -> None:
        _choices(self)
        _numbers(self)
        _workspace(self)
        if self.watchdog_s < self.stop_s + 4 * self.period_s + self.lead_s:
            _possible(self)  # or a longer watchdog would be the next mistake
        if self.watchdog_s < self.stop_s + 4 * self.period_s + self.lead_s:
            raise InputError(
                f"watchdog_s={self.watchdog_s} leaves no time to move: braking alone takes {self.stop_s:.2f} s at these speeds "
                "and accelerations; make it longer, or the accelerations higher"
            )
        if self.lead_s < self.period_s:
            raise InputError(f"lead_s={self.lead_s} must be at least one period, period_s={self.period_s}")

    @property
    def stop_steps(self) -> int:
        """Grid steps of every braking: from full speed with some acceleration left over for what the arm's geometry adds."""
        slowest = max(
            self.speed / self.accel, self.turn / self.turn_accel, self.joint_speed / self.joint_accel, 2 * self.period_s
        )
        return math.ceil(min(1.15 * slowest / self.period_s, _MOST_STEPS))

    @property
    def stop_s(self) -> float:
        """Seconds of every braking."""
        return self.stop_steps * self.period_s

    def check_arm(self, limits: ArmLimits) -> None:
        """Compare with what the arm can do.

        Raises:
            InputError: more is allowed here than there.
        """
        width = limits.gripper_width
        for name, value, most in (
            ("joint_speed", self.joint_speed, float(limits.joint_vel_max.min())),
            ("speed", self.speed, limits.eef_vel_max),
            ("turn", self.turn, limits.eef_turn_max),
            ("gripper_speed", self.gripper_speed, limits.gripper_vel_max),
            ("gripper_max", width if self.gripper_max is None else self.gripper_max, width),
        ):
            if value > most:
                raise InputError(f"{name}={value:.4g} is more than the {limits.model} is made for: at most {most}")
        half_range = float((limits.joint_pos_max - limits.joint_pos_min).min()) / 2
        if self.joint_margin >= half_range:
            raise InputError(
                f"joint_margin={self.joint_margin} leaves no joint any range: less than {half_range:.2f} rad"
            )
        if self.gripper_min >= (width if self.gripper_max is None else self.gripper_max):
            raise InputError(f"gripper_min={self.gripper_min} must be below gripper_max={self.gripper_max or width}")


def _choices(config: SafetyConfig) -> None:
    for name, allowed in (("on_exit", get_args(OnExit)), ("on_stop", get_args(OnStop))):
        value = getattr(config, name)
        if not isinstance(value, str) or value not in allowed:
            raise InputError(f"{name}={short(value)} is unknown: one of {', '.join(map(repr, allowed))}")
    flag("dry_run", config.dry_run)


_MAY_BE_ZERO = {"joint_margin", "gripper_min", "finger_thickness"}
_SHARES = {"current_ratio", "home_speed"}
# Every command makes a trajectory of up to watchdog_s / period_s points, on the time of the control loop.
_RANGES = {"period_s": (0.002, 0.5), "watchdog_s": (0.0, 60.0)}


def _numbers(config: SafetyConfig) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in ("box_min", "box_max", "table_height", "on_exit", "on_stop", "dry_run"):
            continue
        if field.name == "gripper_max" and value is None:
            continue
        number(field.name, value, infinite=field.name == "damp_after_s")
        if value < 0 or (value == 0 and field.name not in _MAY_BE_ZERO):
            raise InputError(f"{field.name}={value} must be {'zero or ' if field.name in _MAY_BE_ZERO else ''}positive")
        if field.name in _SHARES and value > 1:
            raise InputError(f"{field.name}={value} is a share: at most 1")
        least, most = _RANGES.get(field.name, (0.0, math.inf))
        if not least <= value <= most:
            raise InputError(f"{field.name}={value} must be between {least:g} and {most:g} s")


def _possible(config: SafetyConfig) -> None:
    """That at least one arm can do this, where a message of something else would lead astray."""
    models = [arm_limits(name) for name in MODELS]
    for name, most in (
        ("joint_speed", max(float(limits.joint_vel_max.min()) for limits in models)),
        ("speed", max(limits.eef_vel_max for limits in models)),
        ("turn", max(limits.eef_turn_max for limits in models)),
    ):
        if getattr(config, name) > most:
            raise InputError(f"{name}={getattr(config, name):.4g} is more than an arm is made for: at most {most}")


def _workspace(config: SafetyConfig) -> None:
    for name in ("box_min", "box_max"):
        corner = getattr(config, name)
        try:
            good = len(corner) == 3 and all(number(name, v) is not None for v in corner)
        except (TypeError, InputError):
            good = False
        if not good:
            raise InputError(f"{name}={short(corner)} must be three finite numbers: x, y, z in metres")
    for axis, low, high in zip("xyz", config.box_min, config.box_max, strict=True):
        if low >= high:
            raise InputError(f"the workspace box is empty along {axis}: box_min {low} is not below box_max {high}")
    if config.table_height is not None:
        number("table_height", config.table_height)
        if config.table_height >= config.box_max[2]:
            raise InputError(
                f"the table (z={config.table_height}) is above the workspace box (z up to {config.box_max[2]})"
            )
