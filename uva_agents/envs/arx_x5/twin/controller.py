"""The twin as the SDK would show it: ``Arx5JointController``, method for method, over a simulated arm.

Every 2 ms: where the waypoints are now, clipped in position, speed and torque; gravity compensated; to the motors. It differs from
the SDK in what the SDK gets wrong: over-current ends in damping, not in a thread that hangs.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uva_agents.envs.arx_x5.arm.kinematics import X5Kinematics
from uva_agents.envs.arx_x5.arm.limits import arm_limits
from uva_agents.envs.arx_x5.twin.interpolation import N_NUMBERS, Interpolator, with_velocities
from uva_agents.envs.arx_x5.twin.plant import Plant, PlantState
from uva_agents.envs.arx_x5.twin.realism import IDEAL, TwinRealism
from uva_agents.envs.arx_x5.twin.sdk import (
    ControllerConfig,
    EEFState,
    Gain,
    JointState,
    RobotConfig,
    controller_config,
    robot_config,
)
from uva_agents.utils.clocks import MonotonicClock, SimulatedClock

_log = logging.getLogger(__name__)
_FAR = 0.2
"""rad between command and arm at which the SDK refuses to become stiff."""
_KP_HARMLESS = 1.0
_GRIPPER_TOLERANCE = 0.005
_PATIENCE_S = 0.1
_HICCUPS_S = 0.3
"""Time that may be lost in all without a word: the first picture alone costs a tenth of a second."""


@dataclass(frozen=True, slots=True)
class ControllerState:
    """All that the future of a :class:`TwinController` depends on."""

    plant: PlantState
    since_start_s: float
    times: tuple[float, ...]
    values: tuple[bytes, ...]
    late: tuple[bytes, ...]
    output: bytes
    gains: bytes
    over_current: int
    emergency: str | None


class TwinController:
    """A simulated X5 behind the SDK's interface. Limp at first, as the arm.

    Args:
        model: ``"X5"`` or ``"X5_umi"``.
        clock: with a :class:`SimulatedClock`, physics happens while somebody sleeps; with a :class:`MonotonicClock`, a thread of
            its own keeps it at the present.
        realism: delays and noise.

    Raises:
        ImportError: MuJoCo is not installed.
        ValueError: no such model.
    """

    def __init__(
        self,
        model: str = "X5",
        *,
        clock: SimulatedClock | MonotonicClock,
        realism: TwinRealism = IDEAL,
    ) -> None:
        limits = arm_limits(model)
        self.clock = clock
        self.lock = threading.RLock()
        self.plant = Plant(limits, realism=realism)
        self.emergency: str | None = None
        """Why it no longer listens; None while it does."""
        self._kinematics = X5Kinematics(model)
        self._robot, self._config = robot_config(limits), controller_config(limits)
        self.start_s = clock.now()
        self._kp, self._kd = np.zeros(7), np.zeros(7)
        self._kd[:6] = self._config.default_kd
        self._output = self._measured_command()
        self._interpolator = Interpolator(0.0, self._output)
        self._delay = round(realism.action_latency_s / self._config.controller_dt)
        self._late: deque[np.ndarray] = deque()
        self._over_current = 0
        self.lost_s = 0.0
        """Seconds of real time in which the simulation stood still, the computer being too slow."""
        self._told = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if isinstance(clock, SimulatedClock):
            clock.follow(self._advance)
        else:
            self._thread = threading.Thread(target=self._live, name="arx-x5-twin", daemon=True)
            self._thread.start()

    # The SDK's surface.

    def get_timestamp(self) -> float:
        """Seconds since this controller was made."""
        return self.clock.now() - self.start_s

    def get_joint_state(self) -> JointState:
        """The newest measurement, with the time at which it arrived."""
        with self.present():
            return _joint_state(self.plant.reported, self.plant.reported_s)

    def get_eef_state(self) -> EEFState:
        """The same as a tool pose."""
        state = self.get_joint_state()
        pose = EEFState(
            self._kinematics.forward(state.pos()), state.gripper_pos, state.gripper_vel, state.gripper_torque
        )
        pose.timestamp = state.timestamp
        return pose

    def get_joint_cmd(self) -> JointState:
        """What the motors were told last."""
        with self.present():
            return _joint_state(self._output, self.plant.time_s)

    def set_joint_cmd(self, cmd: JointState) -> None:
        """Go straight to ``cmd``, to be there at its timestamp, or at once where that is 0. Replaces what is queued.

        Raises:
            ValueError: its time is past, or it is of another number of joints.
        """
        vector = _vector(cmd)
        with self.present():
            if self.emergency:
                return
            now = self.get_timestamp()
            time = cmd.timestamp or now + self._config.default_preview_time
            if abs(time - now) < 1e-3:
                self._interpolator.fix(now, vector)
            elif time <= now:
                raise ValueError("End time must be no less than current time")
            else:
                self._interpolator.replace(now, [time], [vector])

    def set_joint_traj(self, traj: Sequence[JointState]) -> None:
        """Follow these, straight from each to the next. Those that are past are skipped. Replaces what is queued.

        Raises:
            ValueError: times fall, or one is of another number of joints.
        """
        vectors = [_vector(state) for state in traj]
        with self.present():
            if self.emergency:
                return
            now = self.get_timestamp()
            kept = [
                (state.timestamp, vector) for state, vector in zip(traj, vectors, strict=True) if state.timestamp > now
            ]
            if not kept:
                _log.warning("no waypoint of %d lies in the future", len(traj))
                return
            times = [now, *(time for time, _ in kept)]
            moving = with_velocities(times, [self._interpolator.at(now), *(vector for _, vector in kept)])
            self._interpolator.replace(now, times[1:], moving[1:])

    def set_gain(self, gain: Gain) -> None:
        """Stiffness and damping from now on.

        Raises:
            RuntimeError: from limp to stiff while the arm is far from what it is told: it would jump.
        """
        kp, kd = np.append(gain.kp(), gain.gripper_kp), np.append(gain.kd(), gain.gripper_kd)
        if kp.size != 7 or kd.size != 7:
            raise ValueError("Joint state dimension mismatch")
        with self.present():
            if self.emergency:
                return
            far = float(np.abs(self.plant.measured[:6] - self._output[:6]).max())
            if not self._kp[:6].any() and kp[:6].max() > _KP_HARMLESS and far > _FAR:
                raise RuntimeError("Cannot set kp to non-zero when the joint pos cmd is far from current pos.")
            self._kp, self._kd = kp, kd

    def get_gain(self) -> Gain:
        """As set."""
        with self.lock:
            return Gain(self._kp[:6], self._kd[:6], float(self._kp[6]), float(self._kd[6]))

    def get_robot_config(self) -> RobotConfig:
        """Limits of the arm."""
        return self._robot

    def get_controller_config(self) -> ControllerConfig:
        """Default gains and the like."""
        return self._config

    def get_home_pose(self) -> np.ndarray:
        """(6,) of the tool, all joints at zero."""
        return self._kinematics.forward(np.zeros(6))

    def reset_to_home(self) -> None:
        """Become stiff on the way to all joints at zero and the gripper open; returns when nearly there."""
        config, width = self._config, self._robot.gripper_width
        start, begin = self.get_joint_state(), self.get_gain()
        end = begin
        if not begin.kp().any():
            end = Gain(config.default_kp, config.default_kd, config.default_gripper_kp, config.default_gripper_kd)
        farthest = max(float(np.abs(start.pos()).max()), abs(width - start.gripper_pos) * 2 / width, 0.5)
        goal = np.zeros(6)
        # Links 2 and 3 would touch if all arrived at once.
        goal[2] = 0.03
        now = self.get_timestamp()
        with self.present():
            first = np.zeros(N_NUMBERS)
            first[:6], first[18] = start.pos(), start.gripper_pos
            self._interpolator.fix(now, first)
        arrival = JointState(goal, np.zeros(6), np.zeros(6), width)
        arrival.timestamp = now + farthest
        self.set_joint_cmd(arrival)
        steps = int(farthest / config.controller_dt)
        since = self.clock.now()
        for step in range(steps + 1):
            share = step / steps
            self.set_gain(begin * (1 - share) + end * share)
            self.clock.sleep_until(since + (step + 1) * config.controller_dt)
        home = JointState(np.zeros(6), np.zeros(6), np.zeros(6), width)
        home.timestamp = self.get_timestamp() + 0.5
        self.set_joint_cmd(home)

    def set_to_damping(self) -> None:
        """Limp, damped; what is queued is forgotten."""
        gain = Gain(6)
        gain.kd()[:] = self._config.default_kd
        self.set_gain(gain)
        self.clock.sleep_until(self.clock.now() + 0.01)
        with self.present():
            if not self.emergency:
                self._interpolator.fix(self.plant.time_s, self._measured_command())

    # The control cycle.

    def _cycle(self) -> None:
        plant, limits = self.plant, self._robot
        dt, measured, before = self._config.controller_dt, plant.measured, self._output
        now = plant.time_s + dt
        self._watch_currents()
        command = self._delayed(self._interpolator.at(now))
        position = _between(command[:6], limits.joint_pos_min, limits.joint_pos_max)
        step = limits.joint_vel_max * dt
        position = _between(position, before[:6] - step, before[:6] + step)
        command[:6] = np.where(self._kp[:6] > 0, position, measured[:6])
        command[18] = self._gripper(command[18], before[18], measured, dt)
        torque = command[12:18] + plant.gravity_torques(measured[:6])
        command[12:18] = _between(torque, -limits.joint_torque_max, limits.joint_torque_max)
        command[20] = min(max(command[20], -limits.gripper_torque_max), limits.gripper_torque_max)
        self._output = command
        plant.step(command, self._kp, self._kd)

    def _delayed(self, command: np.ndarray) -> np.ndarray:
        """What was wanted some cycles ago. Limits and gravity compensation, in the arm's own loop, are not late."""
        if not self._delay:
            return command
        if not self._kp.any():
            # As the motors' command does: nothing of before is under way when the arm becomes stiff.
            command = self._measured_command()
        self._late.append(command)
        return self._late.popleft() if len(self._late) > self._delay else self._late[0].copy()

    def _gripper(self, wanted: float, before: float, measured: np.ndarray, dt: float) -> float:
        limits = self._robot
        if self._kp[6] <= 0:
            return min(max(float(measured[18]), 0.0), limits.gripper_width)
        step = limits.gripper_vel_max * dt
        wanted = min(max(wanted, before - step, 0.0), before + step, limits.gripper_width)
        # Something is between the fingers, or holds them: squeeze no harder.
        blocked = abs(measured[20]) > limits.gripper_torque_max / 2 and (wanted - before) * measured[20] > 0
        return before if blocked else wanted

    def _watch_currents(self) -> None:
        measured, limits = self.plant.measured, self._robot
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
        self._kp = np.zeros(7)
        self._kd = np.append(self._config.default_kd * [1, 3, 3, 1.5, 1, 1], 0.0)
        self._interpolator.fix(self.plant.time_s, self._measured_command())

    def _measured_command(self) -> np.ndarray:
        """(21,) to stay where the arm is."""
        command = np.zeros(N_NUMBERS)
        command[:6], command[18] = self.plant.measured[:6], self.plant.measured[18]
        return command

    # Time.

    def _advance(self, clock_s: float) -> None:
        with self.lock:
            # A hair early rather than a cycle late: times are sums of rounded numbers.
            until = clock_s - self.start_s + 1e-9
            while self.plant.time_s + self._config.controller_dt <= until:
                self._cycle()

    def present(self) -> threading.RLock:
        """The lock, to be entered; physics has been brought to the present."""
        if self._thread is not None and not self._closed.is_set():
            self._catch_up()
        return self.lock

    def _catch_up(self) -> None:
        with self.lock:
            now = self.clock.now()
            behind = now - self.start_s - self.plant.time_s
            if behind > _PATIENCE_S:
                # Slower than time itself, it would fall back further with every call. As with an arm whose control thread does
                # not get the processor, its own time then stands still for a while.
                self.start_s += behind - _PATIENCE_S
                self.lost_s += behind - _PATIENCE_S
                if self.lost_s > _HICCUPS_S and not self._told:
                    self._told = True
                    _log.warning(
                        "this computer is too slow for the twin in real time: its time has stood still for %.2f s",
                        self.lost_s,
                    )
            self._advance(now)

    def _live(self) -> None:
        # Whoever calls brings physics to the present; this only keeps the time between calls short.
        while not self._closed.wait(0.004):
            self._catch_up()

    # What only a simulation allows.

    def settle(self) -> None:
        """After bodies were placed by hand: stay where the arm is now, as stiff as before."""
        with self.lock:
            self.plant.settle()
            self._late.clear()
            self._output = self._measured_command()
            self._interpolator.fix(self.plant.time_s, self._output)
            self._over_current, self.emergency = 0, None

    def save(self) -> ControllerState:
        """All that the future depends on."""
        with self.lock:
            return ControllerState(
                plant=self.plant.save(),
                since_start_s=self.get_timestamp(),
                times=tuple(self._interpolator.times),
                values=tuple(vector.tobytes() for vector in self._interpolator.values),
                late=tuple(vector.tobytes() for vector in self._late),
                output=self._output.tobytes(),
                gains=np.concatenate([self._kp, self._kd]).tobytes(),
                over_current=self._over_current,
                emergency=self.emergency,
            )

    def restore(self, state: ControllerState) -> None:
        """Go to what :meth:`save` returned."""
        with self.lock:
            self.plant.restore(state.plant)
            self._interpolator.times = list(state.times)
            self._interpolator.values = [np.frombuffer(vector).copy() for vector in state.values]
            self._late = deque(np.frombuffer(vector).copy() for vector in state.late)
            self._output = np.frombuffer(state.output).copy()
            gains = np.frombuffer(state.gains)
            self._kp, self._kd = gains[:7].copy(), gains[7:].copy()
            self._over_current, self.emergency = state.over_current, state.emergency

    def restore_at(self, state: ControllerState, clock_s: float) -> None:
        """The same, and show ``clock_s`` on the clock from now on, which must be a simulated one."""
        assert isinstance(self.clock, SimulatedClock)
        with self.lock:
            self.restore(state)
            self.clock.jump(clock_s)
            # A twin of another age: its time and the clock's belong together.
            self.start_s = clock_s - state.since_start_s

    def close(self) -> None:
        """End the simulation. Calling again does nothing."""
        self._closed.set()
        if isinstance(self.clock, SimulatedClock):
            self.clock.unfollow(self._advance)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)


def _vector(state: JointState) -> np.ndarray:
    position, velocity, torque = state.pos(), state.vel(), state.torque()
    if not position.size == velocity.size == torque.size == 6:
        raise ValueError("Joint state dimension mismatch")
    return np.concatenate([position, velocity, torque, [state.gripper_pos, state.gripper_vel, state.gripper_torque]])


def _joint_state(vector: np.ndarray, time_s: float) -> JointState:
    state = JointState(vector[:6], vector[6:12], vector[12:18], float(vector[18]), float(vector[19]), float(vector[20]))
    state.timestamp = time_s
    return state


def _between(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """``np.clip``, without what it checks: this runs 500 times a second."""
    clipped: np.ndarray = np.minimum(np.maximum(values, low), high)
    return clipped
