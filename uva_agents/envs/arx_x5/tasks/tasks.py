"""What there is to do on the twin, and when it is done. Tasks see the truth; agents see the cameras."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from uva_agents.envs.arx_x5.drivers.factory import TwinDriver
from uva_agents.envs.arx_x5.twin.model import BLOCK_SIDE, CUP_HEIGHT, SAUCER_HEIGHT
from uva_agents.errors import InputError

START_POSE = (0.30, 0.0, 0.22, 0.0, 0.9, 0.0)
"""Of the tool: over the table, the wrist camera looking at where things are."""
_START_SPREAD = (0.03, 0.05, 0.03, 0.0, 0.1, 0.2)
_PARKED = {"cup": (0.02, 0.50), "saucer": (0.20, 0.50), "block": (-0.10, 0.50)}
"""x, y of what a task does not need: in sight, out of the way."""
_RADIUS, _ANGLE = (0.29, 0.43), 0.5
"""Where things are put: metres from the arm's base, and rad to either side of straight ahead."""


class TwinTask(Protocol):
    """One thing to do, on one twin."""

    name: str
    description: str
    """In words, for agents that read."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin anew: arm stiff near its start, things where ``rng`` puts them. No time passes."""

    def is_success(self) -> bool:
        """Is it done, as things are now?"""


class Reach:
    """Bring the tool to the green marker and stay: within 15 mm, slower than 5 cm/s.

    Args:
        driver: of the twin.
    """

    name = "reach"
    description = "reach the green ball"
    near_m, slow_m_s = 0.015, 0.05

    def __init__(self, driver: TwinDriver) -> None:
        self.driver = driver

    def reset(self, rng: np.random.Generator) -> None:
        """Begin anew."""
        _park(self.driver, "cup", "saucer", "block")
        start = _start(self.driver, rng)
        target = start
        while np.linalg.norm(target - start) < 0.08:
            radius, angle = rng.uniform(*_RADIUS), rng.uniform(-_ANGLE, _ANGLE)
            target = np.array([radius * math.cos(angle), radius * math.sin(angle), rng.uniform(0.08, 0.28)])
        self.driver.twin.plant.show_target(target)
        self.driver.settle()

    def is_success(self) -> bool:
        """Is the tool at the marker, and slow?"""
        with self.driver.twin.present():
            plant = self.driver.twin.plant
            joints, speeds = plant.data.qpos[:6].copy(), plant.data.qvel[:6].copy()
            target = plant.target()
        distance = float(np.linalg.norm(self.driver.kinematics.matrix(joints)[:3, 3] - target))
        speed = float(np.linalg.norm(self.driver.kinematics.jacobian(joints)[:3] @ speeds))
        return distance < self.near_m and speed < self.slow_m_s


class CupOnSaucer:
    """Pick the cup up and put it on the saucer: upright, near its middle, at rest, let go.

    Args:
        driver: of the twin.
    """

    name = "cup"
    description = "put the blue cup on the white saucer"
    near_m, upright, slow = 0.025, math.cos(math.radians(10)), 0.05

    def __init__(self, driver: TwinDriver) -> None:
        self.driver = driver

    def reset(self, rng: np.random.Generator) -> None:
        """Begin anew."""
        plant = self.driver.twin.plant
        _park(self.driver, "block")
        plant.show_target(None)
        _start(self.driver, rng)
        cup = saucer = _on_table(rng)
        while np.linalg.norm(cup - saucer) < 0.16:
            cup, saucer = _on_table(rng), _on_table(rng)
        plant.place("cup", np.append(cup, CUP_HEIGHT / 2), yaw=rng.uniform(-math.pi, math.pi))
        plant.place("saucer", np.append(saucer, SAUCER_HEIGHT / 2))
        self.driver.settle()

    def is_success(self) -> bool:
        """Does the cup stand on the saucer, and does the gripper leave it alone?"""
        with self.driver.twin.present():
            plant = self.driver.twin.plant
            cup, saucer = plant.position("cup"), plant.position("saucer")
            above = float(cup[2] - saucer[2]) - (CUP_HEIGHT + SAUCER_HEIGHT) / 2
            return (
                float(np.linalg.norm(cup[:2] - saucer[:2])) < self.near_m
                and abs(above) < 0.004
                and float(plant.up("cup")[2]) > self.upright
                and float(np.linalg.norm(plant.velocity("cup")[:3])) < self.slow
                and plant.touching("cup", "saucer")
                and not plant.touching("cup", "left_finger")
                and not plant.touching("cup", "right_finger")
            )


_TASKS: dict[str, Callable[[TwinDriver], TwinTask]] = {"reach": Reach, "cup": CupOnSaucer}
TASKS = tuple(_TASKS)


def make_task(name: str, driver: TwinDriver) -> TwinTask:
    """``"reach"`` or ``"cup"``, on that twin.

    Raises:
        InputError: no such task.
    """
    try:
        return _TASKS[name](driver)
    except (KeyError, TypeError):
        close = difflib.get_close_matches(str(name), TASKS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"task must be one of {', '.join(map(repr, TASKS))}, not {name!r}{hint}") from None


def _start(driver: TwinDriver, rng: np.random.Generator) -> np.ndarray:
    """The arm near its start, stiff, gripper open; returns where its tool is, (3,)."""
    while True:
        pose = np.array(START_POSE) + rng.uniform(-1, 1, 6) * _START_SPREAD
        joints = driver.kinematics.inverse(pose, np.array([0.0, 1.2, 1.0, -0.5, 0.0, 0.0]))
        if joints is not None:
            driver.place_arm(joints, gripper_pos=driver.kinematics.limits.gripper_width * rng.uniform(0.8, 1.0))
            return np.asarray(pose[:3])


def _park(driver: TwinDriver, *names: str) -> None:
    heights = {"cup": CUP_HEIGHT, "saucer": SAUCER_HEIGHT, "block": BLOCK_SIDE}
    for name in names:
        driver.twin.plant.place(name, np.array([*_PARKED[name], heights[name] / 2]))


def _on_table(rng: np.random.Generator) -> np.ndarray:
    radius, angle = rng.uniform(*_RADIUS), rng.uniform(-_ANGLE, _ANGLE)
    return np.array([radius * math.cos(angle), radius * math.sin(angle)])
