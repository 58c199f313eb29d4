"""A driver over the SDK's joint controller: the arm's, its twin's, or a fake one's.

What the SDK does on its own and a robot must not: it is never asked to become stiff while its command is far from the arm (it would
throw and stop), it never homes on its own, and the blocking calls that keep every other thread from running are not used.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import N_JOINTS, ArmState, DriverError, Order, TooLateError, Waypoint
from uva_agents.envs.arx_x5.arm.kinematics import X5Kinematics
from uva_agents.envs.arx_x5.drivers.options import DriverOptions
from uva_agents.envs.arx_x5.drivers.sdk_controller import Controller, ControllerClock, check_waypoints
from uva_agents.utils.clocks import Clock

RESTART = (
    "Support the arm, press the hardware e-stop if it moves, switch its power off and on, and connect again. A red light on a "
    "motor means that it protects itself; common causes are a collision, too heavy a load, a loose CAN plug"
)
_STAY_S = 0.06
"""A last waypoint is sent twice more so much later: the SDK takes velocities over 0.05 s, and keeps that of the last."""


class SdkDriver:
    """The ``Driver`` of the interface. May be called from several threads; a hold or damping ends a :meth:`home` under way.

    Args:
        connect: makes the controller, which enables the motors: nothing happens before :meth:`connect`.
        types: has ``JointState`` and ``Gain``: the module ``arx5_interface``, or what stands for it.
        model: ``"X5"`` or ``"X5_umi"``.
        clock: of this driver; the controller's own time is mapped to it.
        options: how it treats the arm.
    """

    def __init__(
        self, connect: Any, *, types: Any, model: str, clock: Clock, options: DriverOptions | None = None
    ) -> None:
        self.clock = clock
        self.model = model
        self.options = options or DriverOptions()
        self.kinematics = X5Kinematics(model)
        self._make, self._types = connect, types
        self._controller: Controller | None = None
        self._lock = threading.RLock()
        self._stiff = False
        self._rising: float | None = (
            None  # share of the gains that is reached, while they rise or where that was interrupted
        )
        # Counts commands: a long one sees that it was overtaken.
        self._orders = 0
        self._controller_clock = ControllerClock(clock)

    @property
    def stiff(self) -> bool:
        """Does the arm hold itself?"""
        return self._stiff

    @property
    def connected(self) -> bool:
        """Between :meth:`connect` and :meth:`close`."""
        return self._controller is not None

    def connect(self) -> None:
        """Begin to talk to the arm, which stays damped (passive). Calling again does nothing.

        Raises:
            DriverError: no arm answers; the message says why and what to check.
        """
        with self._lock:
            if self._controller is None:
                controller = self._make()
                self._controller, self._stiff, self._rising = controller, False, None
                self._controller_clock.restart()

    def state(self) -> ArmState:
        """The newest measurement, on this driver's clock, its latency taken off.

        Raises:
            DriverError: not connected, or the arm reads numbers that are none.
        """
        controller = self._connected()
        try:
            # Kept while its arrays are used: in the SDK they are windows into it.
            state = controller.get_joint_state()
        except (RuntimeError, ValueError) as error:
            raise self._failed("read the arm's state", error) from error
        joint_pos, joint_vel, joint_torque = (
            np.array(part, float) for part in (state.pos(), state.vel(), state.torque())
        )
        if not np.isfinite(joint_pos).all():
            raise DriverError(f"the arm reports joints {joint_pos}: no measurement. {RESTART}")
        return ArmState(
            time_s=state.timestamp + self._controller_clock.offset(controller) - self.options.observation_latency_s,
            joint_pos=joint_pos,
            joint_vel=joint_vel,
            joint_torque=joint_torque,
            eef_pose=self.kinematics.forward(joint_pos),
            gripper_pos=float(state.gripper_pos),
            gripper_vel=float(state.gripper_vel),
            gripper_torque=float(state.gripper_torque),
        )

    def send(self, waypoints: Sequence[Waypoint]) -> None:
        """Follow these from now on, straight from each to the next, and stay at the last; replaces what is queued.

        Waypoints that have become past are left out.

        Raises:
            DriverError: the arm is damped, or no longer answers; or all waypoints are past.
            TooLateError: an :class:`Order` that may no longer be taken up.
            ValueError: no waypoints, times that do not rise, or numbers that are none.
        """
        check_waypoints(waypoints)
        with self._lock:
            controller = self._connected()
            if not self._stiff or self._rising is not None:
                raise DriverError(
                    "the arm is damped (passive) and follows nothing: call hold() where it is, or home(), first"
                )
            self._check_answering(controller)
            now = self.clock.now()
            if isinstance(waypoints, Order) and now > waypoints.by_s:
                late = now - waypoints.by_s
                raise TooLateError(
                    f"the waypoints came {late * 1000:.0f} ms after the arm passed the point they leave from"
                )
            left = [waypoint for waypoint in waypoints if waypoint.time_s > now]
            if not left:
                late = now - waypoints[-1].time_s
                raise DriverError(f"every waypoint is past, the last by {late * 1000:.0f} ms: send them earlier")
            self._orders += 1
            self._queue(controller, left)

    def hold(self) -> None:
        """Stay, stiff, where the arm is now; forget what is queued. The gripper keeps gripping what it grips.

        From damped, stiffness rises over ``options.stiffen_s``, and this returns when it has.

        Raises:
            DriverError: the arm does not answer, or cannot become stiff without a jump.
        """
        with self._lock:
            controller = self._connected()
            self._check_answering(controller)
            self._orders += 1
            if self._stiff and self._rising is None:
                # The command, not the measurement: what is between the fingers keeps them from getting there.
                command = controller.get_joint_cmd()
                self._stay(controller, gripper_pos=float(command.gripper_pos))
                return
            order = self._orders
        self._stiffen(order)

    def damp(self) -> None:
        """Become passive: the motors damp, and the arm sinks. Forget what is queued.

        Raises:
            DriverError: not connected, or the arm does not answer.
        """
        with self._lock:
            controller = self._connected()
            self._orders += 1
            self._stiff, self._rising = False, None
            config = controller.get_controller_config()
            try:
                controller.set_gain(self._gain(0.0, np.array(config.default_kd), 0.0, 0.0))
                self._stay(controller, gripper_pos=None)
            except (RuntimeError, ValueError) as error:
                raise self._failed("become passive", error) from error

    def home(self) -> None:
        """Become stiff, go slowly to all joints zero with the gripper open, and return when there.

        Raises:
            DriverError: the arm does not answer or does not get there, or another command came in between.
        """
        self.hold()
        with self._lock:
            controller = self._connected()
            state, now = self.state(), self.clock.now()
            width = float(controller.get_robot_config().gripper_width)
            options = self.options
            needed = float(np.abs(state.joint_pos).max()) / options.home_speed
            needed = max(needed, abs(width - state.gripper_pos) / options.home_gripper_speed, 0.5)
            before = np.zeros(N_JOINTS)
            # Links 2 and 3 would touch if all arrived at once.
            before[2] = 0.03
            ends = now + needed + 0.5
            self._orders += 1
            order = self._orders
            self._queue(controller, [Waypoint(now + needed, before, width), Waypoint(ends, np.zeros(N_JOINTS), width)])
        while self.clock.now() < ends + 2.0:
            self._sleep(0.02, order, "on the way home")
            if self.clock.now() < ends:
                continue
            if float(np.abs(self.state().joint_pos).max()) < options.home_near:
                return
        raise DriverError(
            f"the arm did not get home: joints stand at {self.state().joint_pos.round(3)} rad. Is something in its way?"
        )

    def close(self) -> None:
        """:meth:`damp`, and let go of the arm. Calling again does nothing. The SDK takes about 2 s for it."""
        with self._lock:
            if self._controller is None:
                return
            try:
                self.damp()
            finally:
                # The SDK's controller stops when there is no reference to it.
                self._controller = None

    # How.

    def _queue(self, controller: Controller, waypoints: Sequence[Waypoint]) -> None:
        offset = self._controller_clock.offset(controller)
        last = waypoints[-1]
        stays = [Waypoint(last.time_s + after, last.joint_pos, last.gripper_pos) for after in (_STAY_S, 2 * _STAY_S)]
        trajectory = []
        for waypoint in (*waypoints, *stays):
            state = self._joint_state(waypoint.joint_pos, waypoint.gripper_pos)
            state.timestamp = waypoint.time_s - offset
            trajectory.append(state)
        try:
            controller.set_joint_traj(trajectory)
        except (RuntimeError, ValueError) as error:
            raise self._failed("take waypoints", error) from error

    def _stay(self, controller: Controller, *, gripper_pos: float | None) -> None:
        """Command the measured joints, at once."""
        state = controller.get_joint_state()
        opening = float(state.gripper_pos) if gripper_pos is None else gripper_pos
        # Its time is 0: from now on.
        controller.set_joint_cmd(self._joint_state(np.array(state.pos(), float), opening))

    def _stiffen(self, order: int) -> None:
        """Gains rise from zero to the defaults, the command where the arm is. Not under the lock: it takes its time."""
        controller = self._connected()
        config = controller.get_controller_config()
        steps = max(1, round(self.options.stiffen_s / 0.02))
        kp, kd = np.array(config.default_kp, float), np.array(config.default_kd, float)
        try:
            with self._lock:
                self._stay(controller, gripper_pos=None)
            self._await_near(controller, order)
            # Goes on where an interrupted call left off.
            for step in range(1 + int(steps * (self._rising or 0.0)), steps + 1):
                share = step / steps
                with self._lock:
                    if order != self._orders:
                        raise DriverError("another command came while the arm became stiff")
                    gain = self._gain(kp * share, kd, config.default_gripper_kp * share, config.default_gripper_kd)
                    controller.set_gain(gain)
                    self._stiff, self._rising = True, share
                self._sleep(self.options.stiffen_s / steps, order, "while the arm became stiff")
            with self._lock:
                if order != self._orders:
                    raise DriverError("another command came while the arm became stiff")
                self._rising = None
        except (RuntimeError, ValueError) as error:
            if isinstance(error, DriverError):
                raise
            raise self._failed("become stiff", error) from error

    def _await_near(self, controller: Controller, order: int) -> None:
        """Until the arm's command is where the arm is: the SDK would throw and stop talking to it otherwise."""
        far = math.inf
        for _ in range(25):
            self._sleep(0.004, order, "while the arm became stiff")
            state, command = controller.get_joint_state(), controller.get_joint_cmd()
            far = float(np.abs(np.array(state.pos()) - np.array(command.pos())).max())
            if far < self.options.stiffen_far:
                return
        raise DriverError(
            f"the arm's command is {far:.2f} rad from where it is and does not follow it: it would jump. It stays damped. {RESTART}"
        )

    def _sleep(self, seconds: float, order: int, when: str) -> None:
        self.clock.sleep_until(self.clock.now() + seconds)
        if order != self._orders:
            raise DriverError(f"another command came {when}")

    def _check_answering(self, controller: Controller) -> None:
        # Asked before anything is sent: after an emergency stop the SDK's setters may never return.
        age = controller.get_timestamp() - controller.get_joint_state().timestamp
        if age > self.options.silent_s:
            raise DriverError(f"the arm has not answered for {age:.2f} s. {RESTART}")

    def _joint_state(self, joint_pos: np.ndarray, gripper_pos: float) -> Any:
        zeros = np.zeros(N_JOINTS)
        return self._types.JointState(np.array(joint_pos, float), zeros, zeros, float(gripper_pos))

    def _gain(self, kp: np.ndarray | float, kd: np.ndarray, gripper_kp: float, gripper_kd: float) -> Any:
        return self._types.Gain(np.zeros(N_JOINTS) + kp, np.array(kd, float), float(gripper_kp), float(gripper_kd))

    def _connected(self) -> Controller:
        if self._controller is None:
            raise DriverError("not connected to the arm: call connect() first")
        return self._controller

    def _failed(self, what: str, error: Exception) -> DriverError:
        return DriverError(f"the arm could not {what}: {error}. {RESTART}")
