"""The twin as the SDK would show it: ``Arx5JointController``, method for method, over a simulated arm.

It differs from the SDK in what the SDK gets wrong: over-current ends in damping, not in a thread that hangs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uva_agents.envs.arx_x5.arm.kinematics import X5Kinematics
from uva_agents.envs.arx_x5.arm.limits import arm_limits
from uva_agents.envs.arx_x5.twin.control_cycle import ControlCycle, CycleState
from uva_agents.envs.arx_x5.twin.interpolation import N_NUMBERS, with_velocities
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
_PATIENCE_S = 0.1
_HICCUPS_S = 0.3
"""Time that may be lost in all without a word: the first picture alone costs a tenth of a second."""


@dataclass(frozen=True, slots=True)
class ControllerState:
    """All that the future of a :class:`TwinController` depends on."""

    plant: PlantState
    since_start_s: float
    cycle: CycleState


class TwinController:
    """A simulated X5 behind the SDK's interface. Damped at first, as the arm.

    Args:
        model: ``"X5"`` or ``"X5_umi"``.
        clock: with a :class:`SimulatedClock`, physics advances during sleeps; with a :class:`MonotonicClock`, a thread of
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
        self._kinematics = X5Kinematics(model)
        self._robot, self._config = robot_config(limits), controller_config(limits)
        self.start_s = clock.now()
        self._cycle = ControlCycle(self.plant, self._robot, self._config, delay_s=realism.action_latency_s)
        self.lost_s = 0.0
        """Seconds of real time in which the simulation stood still, the computer being too slow."""
        self._warned = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if isinstance(clock, SimulatedClock):
            clock.follow(self._advance)
        else:
            self._thread = threading.Thread(target=self._live, name="arx-x5-twin", daemon=True)
            self._thread.start()

    @property
    def emergency(self) -> str | None:
        """Why it no longer listens; None while it does."""
        return self._cycle.emergency

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
        """The last command to the motors."""
        with self.present():
            return _joint_state(self._cycle.output, self.plant.time_s)

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
                self._cycle.interpolator.fix(now, vector)
            elif time <= now:
                raise ValueError("End time must be no less than current time")
            else:
                self._cycle.interpolator.replace(now, [time], [vector])

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
            moving = with_velocities(times, [self._cycle.interpolator.at(now), *(vector for _, vector in kept)])
            self._cycle.interpolator.replace(now, times[1:], moving[1:])

    def set_gain(self, gain: Gain) -> None:
        """Stiffness and damping from now on.

        Raises:
            RuntimeError: from damped to stiff while the arm is far from its command: it would jump.
        """
        kp, kd = np.append(gain.kp(), gain.gripper_kp), np.append(gain.kd(), gain.gripper_kd)
        if kp.size != 7 or kd.size != 7:
            raise ValueError("Joint state dimension mismatch")
        with self.present():
            if self.emergency:
                return
            far = float(np.abs(self.plant.measured[:6] - self._cycle.output[:6]).max())
            if not self._cycle.kp[:6].any() and kp[:6].max() > _KP_HARMLESS and far > _FAR:
                raise RuntimeError("Cannot set kp to non-zero when the joint pos cmd is far from current pos.")
            self._cycle.kp, self._cycle.kd = kp, kd

    def get_gain(self) -> Gain:
        """As set."""
        with self.lock:
            return Gain(self._cycle.kp[:6], self._cycle.kd[:6], float(self._cycle.kp[6]), float(self._cycle.kd[6]))

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
            self._cycle.interpolator.fix(now, first)
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
        """Damped: motors hold nothing; what is queued is forgotten."""
        gain = Gain(6)
        gain.kd()[:] = self._config.default_kd
        self.set_gain(gain)
        self.clock.sleep_until(self.clock.now() + 0.01)
        with self.present():
            if not self.emergency:
                self._cycle.interpolator.fix(self.plant.time_s, self._cycle.measured_command())

    # Time.

    def _advance(self, clock_s: float) -> None:
        with self.lock:
            # A hair early rather than a cycle late: times are sums of rounded numbers.
            until = clock_s - self.start_s + 1e-9
            while self.plant.time_s + self._config.controller_dt <= until:
                self._cycle.step()

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
                if self.lost_s > _HICCUPS_S and not self._warned:
                    self._warned = True
                    _log.warning(
                        "this computer is too slow for the twin in real time: its time has stood still for %.2f s",
                        self.lost_s,
                    )
            self._advance(now)

    def _live(self) -> None:
        # Every call brings physics to the present; this thread only bounds the time between calls.
        while not self._closed.wait(0.004):
            self._catch_up()

    # What only a simulation allows.

    def settle(self) -> None:
        """After bodies were placed by hand: stay where the arm is now, as stiff as before."""
        with self.lock:
            self.plant.settle()
            self._cycle.settle()

    def save(self) -> ControllerState:
        """All that the future depends on."""
        with self.lock:
            return ControllerState(
                plant=self.plant.save(),
                since_start_s=self.get_timestamp(),
                cycle=self._cycle.save(),
            )

    def restore(self, state: ControllerState) -> None:
        """Go to what :meth:`save` returned."""
        with self.lock:
            self.plant.restore(state.plant)
            self._cycle.restore(state.cycle)

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
