"""The control cycle of the twin, every 2 ms: waypoints within limits of position, speed and torque, gravity compensated."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

import numpy as np

from uva_agents.envs.arx_x5.twin.interpolation import N_NUMBERS, Interpolator
from uva_agents.envs.arx_x5.twin.plant import Plant
from uva_agents.envs.arx_x5.twin.sdk import ControllerConfig, RobotConfig

_log = logging.getLogger(__name__)
_GRIPPER_TOLERANCE = 0.005


@dataclass(frozen=True, slots=True)
class CycleState:
    """All that the future of a :class:`ControlCycle` depends on, besides the plant."""

    times: tuple[float, ...]
    values: tuple[bytes, ...]
    delayed: tuple[bytes, ...]
    output: bytes
    gains: bytes
    over_current: int
    emergency: str | None


class ControlCycle:
    """From waypoints to motor commands. Commands are vectors (21,), see :mod:`.interpolation`.

    Args:
        plant: of the arm.
        robot: its limits.
        config: default gains, and when currents are too high for too long.
        delay_s: from a command to the motors.

    Attributes:
        kp, kd: (7,) gains, the gripper's last. Damped at first.
        output: (21,) what the motors were commanded last.
        interpolator: the waypoints.
        emergency: why the arm no longer listens; None while it does.
    """

    def __init__(self, plant: Plant, robot: RobotConfig, config: ControllerConfig, *, delay_s: float) -> None:
        self._plant, self._robot, self._config = plant, robot, config
        self.emergency: str | None = None
        self.kp, self.kd = np.zeros(7), np.zeros(7)
        self.kd[:6] = config.default_kd
        self.output = self.measured_command()
        self.interpolator = Interpolator(0.0, self.output)
        self._delay = round(delay_s / config.controller_dt)
        self._delayed_commands: deque[np.ndarray] = deque()
        self._over_current = 0

    def step(self) -> None:
        """One cycle, and the plant's with it."""
        plant, limits = self._plant, self._robot
        dt, measured, before = self._config.controller_dt, plant.measured, self.output
        now = plant.time_s + dt
        self._watch_currents()
        command = self._delayed(self.interpolator.at(now))
        position = _between(command[:6], limits.joint_pos_min, limits.joint_pos_max)
        step = limits.joint_vel_max * dt
        position = _between(position, before[:6] - step, before[:6] + step)
        command[:6] = np.where(self.kp[:6] > 0, position, measured[:6])
        command[18] = self._gripper(command[18], before[18], measured, dt)
        torque = command[12:18] + plant.gravity_torques(measured[:6])
        command[12:18] = _between(torque, -limits.joint_torque_max, limits.joint_torque_max)
        command[20] = min(max(command[20], -limits.gripper_torque_max), limits.gripper_torque_max)
        self.output = command
        plant.step(command, self.kp, self.kd)

    def measured_command(self) -> np.ndarray:
        """(21,) to stay where the arm is."""
        command = np.zeros(N_NUMBERS)
        command[:6], command[18] = self._plant.measured[:6], self._plant.measured[18]
        return command

    def settle(self) -> None:
        """Bodies were placed by hand: stay where the arm is now, as stiff as before."""
        self._delayed_commands.clear()
        self.output = self.measured_command()
        self.interpolator.fix(self._plant.time_s, self.output)
        self._over_current, self.emergency = 0, None

    def save(self) -> CycleState:
        """All that the future depends on."""
        return CycleState(
            times=tuple(self.interpolator.times),
            values=tuple(vector.tobytes() for vector in self.interpolator.values),
            delayed=tuple(vector.tobytes() for vector in self._delayed_commands),
            output=self.output.tobytes(),
            gains=np.concatenate([self.kp, self.kd]).tobytes(),
            over_current=self._over_current,
            emergency=self.emergency,
        )

    def restore(self, state: CycleState) -> None:
        """Go to what :meth:`save` returned."""
        self.interpolator.times = list(state.times)
        self.interpolator.values = [np.frombuffer(vector).copy() for vector in state.values]
        self._delayed_commands = deque(np.frombuffer(vector).copy() for vector in state.delayed)
        self.output = np.frombuffer(state.output).copy()
        gains = np.frombuffer(state.gains)
        self.kp, self.kd = gains[:7].copy(), gains[7:].copy()
        self._over_current, self.emergency = state.over_current, state.emergency

    def _delayed(self, command: np.ndarray) -> np.ndarray:
        """The command as it was ``delay_s`` ago. Limits and gravity compensation, in the arm's own loop, are not late."""
        if not self._delay:
            return command
        commands = self._delayed_commands
        if not self.kp.any():
            # As the motors' command does: nothing of before is under way when the arm becomes stiff.
            command = self.measured_command()
        commands.append(command)
        return commands.popleft() if len(commands) > self._delay else commands[0].copy()

    def _gripper(self, commanded: float, before: float, measured: np.ndarray, dt: float) -> float:
        limits = self._robot
        if self.kp[6] <= 0:
            return min(max(float(measured[18]), 0.0), limits.gripper_width)
        step = limits.gripper_vel_max * dt
        commanded = min(max(commanded, before - step, 0.0), before + step, limits.gripper_width)
        # Something is between the fingers, or holds them: squeeze no harder.
        blocked = abs(measured[20]) > limits.gripper_torque_max / 2 and (commanded - before) * measured[20] > 0
        return before if blocked else commanded

    def _watch_currents(self) -> None:
        measured, limits = self._plant.measured, self._robot
        beyond = bool((np.abs(measured[12:18]) > limits.joint_torque_max).any())
        beyond |= abs(measured[20]) > limits.gripper_torque_max
        self._over_current = self._over_current + 1 if beyond else 0
        if self.emergency:
            return
        if self._over_current > self._config.over_current_cnt_max:
            self._stop_listening("over-current: a torque was above its limit in more than 20 cycles in a row")
        elif not -_GRIPPER_TOLERANCE <= measured[18] <= limits.gripper_width + _GRIPPER_TOLERANCE:
            self._stop_listening(f"the gripper reads {measured[18]:.3f} m, outside its range")

    def _stop_listening(self, reason: str) -> None:
        self.emergency = reason
        _log.error("%s; the arm is damped until it is restarted", reason)
        self.kp = np.zeros(7)
        self.kd = np.append(self._config.default_kd * [1, 3, 3, 1.5, 1, 1], 0.0)
        self.interpolator.fix(self._plant.time_s, self.measured_command())


def _between(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """``np.clip``, without what it checks: this runs 500 times a second."""
    clipped: np.ndarray = np.minimum(np.maximum(values, low), high)
    return clipped
