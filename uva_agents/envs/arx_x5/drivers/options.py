"""How a driver treats its arm."""

from __future__ import annotations

from dataclasses import dataclass, fields

from uva_agents.envs.arx_x5.checks import number
from uva_agents.errors import InputError


@dataclass(frozen=True, slots=True)
class DriverOptions:
    """How a driver treats its arm.

    Attributes:
        observation_latency_s: age of a measurement when it arrives; taken off its time.
        stiffen_s: gains rise from nothing over so long.
        stiffen_far: rad between the command and the arm at which it does not become stiff; the SDK refuses at 0.2.
        home_speed: rad/s of the fastest joint on the way home.
        home_gripper_speed: m/s.
        home_near: rad within which the arm is at home; gravity compensation is not perfect.
        silent_s: the arm no longer answers if its newest measurement is older.

    Raises:
        InputError: a number that makes no sense; the message names it.
    """

    observation_latency_s: float = 0.0
    stiffen_s: float = 0.3
    stiffen_far: float = 0.15
    home_speed: float = 0.5
    home_gripper_speed: float = 0.05
    home_near: float = 0.1
    silent_s: float = 0.25

    def __post_init__(self) -> None:
        for field in fields(self):
            value = number(field.name, getattr(self, field.name))
            if value < 0 or (value == 0 and field.name != "observation_latency_s"):
                raise InputError(f"{field.name}={value} must be positive")
        if self.stiffen_far >= 0.2:
            raise InputError(f"stiffen_far={self.stiffen_far} must be below 0.2 rad, where the SDK refuses and stops")
