"""The twin below its controller: bodies, motors and sensors. What a controller cannot know about is here: noise, delays, truth."""

from __future__ import annotations

import importlib
from collections import deque
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from uva_agents.envs import gl
from uva_agents.envs.arx_x5.arm.limits import ArmLimits
from uva_agents.envs.arx_x5.twin.appearance import AppearanceWriter, TwinAppearance
from uva_agents.envs.arx_x5.twin.exposures import Exposure, Exposures, SavedExposures
from uva_agents.envs.arx_x5.twin.interpolation import N_NUMBERS
from uva_agents.envs.arx_x5.twin.model import OBJECTS, PHYSICS_DT, TARGET_AWAY, arm_xml, gear, scene_xml
from uva_agents.envs.arx_x5.twin.realism import IDEAL, TwinRealism

START_JOINTS = (0.0, 0.02, 0.02, 0.0, 0.0, 0.0)
"""Where the arm lies before it is switched on: nearly at home. Exactly zero is what motors report that are off."""


def load_mujoco() -> ModuleType:
    """MuJoCo, ready to draw without a display where nothing else is asked for.

    Raises:
        ImportError: it is not installed; the message says what to install.
        MachineError: ``MUJOCO_GL`` asks for what there is not.
    """
    gl.prepare()
    try:
        return importlib.import_module("mujoco")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the twin of the arm needs MuJoCo, and {error.name} is not installed: pip install 'uva-agents[arx]'"
        ) from error


@dataclass(frozen=True, slots=True)
class PlantState:
    """All that the future of a :class:`Plant` depends on."""

    physics: bytes
    cycles: int
    target: tuple[float, ...]
    measured: bytes
    reported: tuple[float, bytes]
    in_flight: tuple[tuple[float, bytes], ...]
    rng: dict[str, Any]
    exposures: SavedExposures
    appearance: TwinAppearance


class Plant:
    """Steps of 2 ms. Numbers of a state or a command: vectors (21,), see :mod:`.interpolation`.

    Args:
        limits: of the model of the arm.
        realism: delays and noise.

    Raises:
        ImportError: MuJoCo is not installed.
    """

    def __init__(self, limits: ArmLimits, *, realism: TwinRealism = IDEAL) -> None:
        self.mj: Any = load_mujoco()
        self.limits, self.realism = limits, realism
        self.dt = limits.control_dt
        self.model: Any = self.mj.MjModel.from_xml_string(scene_xml(limits))
        self.data: Any = self.mj.MjData(self.model)
        self._appearance = AppearanceWriter(self.mj, self.model)
        # Views into the simulation: asking MuJoCo for them again and again would take as long as simulating.
        data, model = self.data, self.model
        self._q, self._v, self._force, self._control = data.qpos, data.qvel, data.actuator_force, data.ctrl
        self._stiffness, self._damping = model.actuator_biasprm[:, 1], model.actuator_biasprm[:, 2]
        self._arm: Any = self.mj.MjModel.from_xml_string(arm_xml(limits))
        self._arm_data: Any = self.mj.MjData(self._arm)
        self._gravity = np.empty(6)
        self._substeps = round(self.dt / PHYSICS_DT)
        self._ratio = gear(limits)
        # The gripper's gains are those of its motor; the actuator pulls at the opening.
        self._gain_scale = np.array([1.0] * 6 + [self._ratio**2])
        self._qpos = {name: int(self.model.joint(name).qposadr[0]) for name in OBJECTS}
        self._dof = {name: int(self.model.joint(name).dofadr[0]) for name in OBJECTS}
        self._size = self.mj.mj_stateSize(self.model, self.mj.mjtState.mjSTATE_INTEGRATION)
        # Independent streams: what one camera loses does not change what another sensor says.
        self._rng = np.random.default_rng([realism.seed, 0])
        self._noise = self._noise_scales()
        self.cycles = 0
        self.data.qpos[:6] = START_JOINTS
        self.mj.mj_forward(self.model, self.data)
        self.measured = self._sense()
        """(21,) what the arm's controller knows."""
        self.reported, self.reported_s = self.measured, 0.0
        """The same as it is seen from outside, later, and when it arrived."""
        self._in_flight: deque[tuple[float, np.ndarray]] = deque()
        self._exposures = Exposures(realism, lambda: (self.data.qpos.copy(), self.data.mocap_pos[0].copy()))

    @property
    def time_s(self) -> float:
        """Since the plant was made."""
        return self.cycles * self.dt

    # What the controller does.

    def gravity_torques(self, joint_pos: np.ndarray) -> np.ndarray:
        """(6,) N m that hold the arm still at (6,) rad, by the numbers of its links, whatever it carries."""
        mj, data = self.mj, self._arm_data
        data.qpos[:] = joint_pos
        mj.mj_kinematics(self._arm, data)
        mj.mj_comPos(self._arm, data)
        mj.mj_rne(self._arm, data, 0, self._gravity)
        return self._gravity.copy()

    def step(self, command: np.ndarray, kp: np.ndarray, kd: np.ndarray) -> None:
        """2 ms with a command (21,) and gains (7,), the gripper's last and in units of its motor."""
        self._drive(command, kp, kd)
        self.mj.mj_step(self.model, self.data, self._substeps)
        self.cycles += 1
        self._measure()
        self._exposures.step(self.time_s)

    def _drive(self, command: np.ndarray, kp: np.ndarray, kd: np.ndarray) -> None:
        position, velocity, torque = (
            np.append(command[:6], command[18]),
            np.append(command[6:12], command[19]),
            command[12:18],
        )
        kp, kd = kp * self._gain_scale, kd * self._gain_scale
        self._stiffness[:], self._damping[:] = -kp, -kd
        self._control[:] = kp * position + kd * velocity
        self._control[:6] += torque
        self._control[6] += command[20] * self._ratio

    # What sensors say.

    def _sense(self) -> np.ndarray:
        """(21,) the truth, as the motors' sensors see it."""
        q, v, force, sample = self._q, self._v, self._force, np.empty(N_NUMBERS)
        sample[:6], sample[6:12], sample[12:18] = q[:6], v[:6], force[:6]
        sample[18], sample[19], sample[20] = q[6] + q[7], v[6] + v[7], force[6] / self._ratio
        return sample

    def _measure(self) -> None:
        sample = self._sense()
        if self._noise is not None:
            sample += self._noise * self._rng.standard_normal(N_NUMBERS)
        if self.realism.dropped_states and self._rng.random() < self.realism.dropped_states:
            return
        # The arm's own loop is quick; from outside, measurements are seen later.
        self.measured = sample
        self._in_flight.append((self.time_s, sample))
        while self._in_flight and self._in_flight[0][0] + self.realism.observation_latency_s <= self.time_s + 1e-9:
            _, self.reported = self._in_flight.popleft()
            # As with the arm: the time at which it arrived. The time at which it was true is earlier by the latency.
            self.reported_s = self.time_s

    def _noise_scales(self) -> np.ndarray | None:
        r = self.realism
        scales = np.concatenate(
            [
                np.repeat([r.joint_pos_noise, r.joint_vel_noise, r.joint_torque_noise], 6),
                [r.gripper_pos_noise, r.gripper_pos_noise * 20, 0.0],
            ]
        )
        return scales if scales.any() else None

    # What cameras see.

    def watch(self, camera: str) -> None:
        """From now on, exposures are kept for a camera (a name in the model); the first is of this moment, and there at once."""
        self._exposures.watch(camera, self.time_s)

    def newest(self, camera: str) -> Exposure:
        """The newest exposure of a watched camera that has arrived by now."""
        return self._exposures.newest(camera, self.time_s)

    # What only a simulation allows.

    def place_arm(self, joint_pos: np.ndarray, gripper_pos: float) -> None:
        """The arm is there, at rest. Call :meth:`settle` when all is placed."""
        self.data.qpos[:6], self.data.qpos[6:8] = joint_pos, gripper_pos / 2
        self.data.qvel[:8] = 0

    def place(self, name: str, position: np.ndarray, yaw: float = 0.0) -> None:
        """An object's centre at (3,) metres, upright, turned by ``yaw``, at rest."""
        at, dof = self._qpos[name], self._dof[name]
        self.data.qpos[at : at + 3] = position
        self.data.qpos[at + 3 : at + 7] = [np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        self.data.qvel[dof : dof + 6] = 0

    def show_target(self, position: np.ndarray | None) -> None:
        """Put the green marker at (3,) metres; None takes it away. It is only seen, never touched."""
        self.data.mocap_pos[0] = TARGET_AWAY if position is None else position

    @property
    def appearance(self) -> TwinAppearance:
        """How everything looks; can be set, and is seen in pictures that are drawn from then on."""
        return self._appearance.appearance

    @appearance.setter
    def appearance(self, appearance: TwinAppearance) -> None:
        self._appearance.apply(appearance)

    def settle(self) -> None:
        """After placing: nothing moves, sensors and cameras see what is now, nothing of before is under way."""
        self.data.qacc_warmstart[:] = 0
        self.data.ctrl[:] = 0
        self.mj.mj_forward(self.model, self.data)
        self._in_flight.clear()
        self.measured = self.reported = self._sense()
        self.reported_s = self.time_s
        self._exposures.restart(self.time_s)

    def reseed(self, seed: int) -> None:
        """Noise from now on as ``seed`` has it."""
        self._rng = np.random.default_rng([self.realism.seed, 0, seed])

    def position(self, name: str) -> np.ndarray:
        """(3,) the centre of an object, metres."""
        at = self._qpos[name]
        centre: np.ndarray = self.data.qpos[at : at + 3].copy()
        return centre

    def up(self, name: str) -> np.ndarray:
        """(3,) where an object's top points, a unit vector."""
        at = self._qpos[name]
        _, x, y, z = w_xyz = self.data.qpos[at + 3 : at + 7]
        w = float(w_xyz[0])
        return np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])

    def velocity(self, name: str) -> np.ndarray:
        """(6,) of an object: m/s, then rad/s."""
        dof = self._dof[name]
        velocity: np.ndarray = self.data.qvel[dof : dof + 6].copy()
        return velocity

    def target(self) -> np.ndarray:
        """(3,) where the marker is."""
        marker: np.ndarray = self.data.mocap_pos[0].copy()
        return marker

    def tool(self) -> np.ndarray:
        """(3,) where the tool's frame is, metres."""
        site: np.ndarray = self.data.site("tool").xpos.copy()
        return site

    def touching(self, first: str, second: str) -> bool:
        """Do two bodies (an object, ``"left_finger"``, ``"link6"``, ...) touch?"""
        pair = {self.model.body(first).id, self.model.body(second).id}
        bodies = self.model.geom_bodyid
        return any({int(bodies[a]), int(bodies[b])} == pair for a, b in self.data.contact.geom)

    def save(self) -> PlantState:
        """All that the future depends on."""
        physics = np.empty(self._size)
        self.mj.mj_getState(self.model, self.data, physics, self.mj.mjtState.mjSTATE_INTEGRATION)
        return PlantState(
            physics=physics.tobytes(),
            cycles=self.cycles,
            target=tuple(self.data.mocap_pos[0].tolist()),
            measured=self.measured.tobytes(),
            reported=(self.reported_s, self.reported.tobytes()),
            in_flight=tuple((time, sample.tobytes()) for time, sample in self._in_flight),
            rng=dict(self._rng.bit_generator.state),
            exposures=self._exposures.save(),
            appearance=self.appearance,
        )

    def restore(self, state: PlantState) -> None:
        """Go to what :meth:`save` returned, here or in another plant of the same model.

        Raises:
            ValueError: it is of another model or version.
        """
        physics = np.frombuffer(state.physics)
        if physics.size != self._size:
            raise ValueError(
                f"this state holds {physics.size} numbers and this twin's {self._size}: it is of another version"
            )
        self.appearance = state.appearance
        self.mj.mj_setState(self.model, self.data, physics, self.mj.mjtState.mjSTATE_INTEGRATION)
        self.data.mocap_pos[0] = state.target
        self.mj.mj_forward(self.model, self.data)
        # Computing the forces above has begun the solver's next guess elsewhere than it was.
        self.mj.mj_setState(self.model, self.data, physics, self.mj.mjtState.mjSTATE_INTEGRATION)
        self.cycles = state.cycles
        self.measured = np.frombuffer(state.measured).copy()
        self.reported_s, self.reported = state.reported[0], np.frombuffer(state.reported[1]).copy()
        self._in_flight = deque((time, np.frombuffer(sample).copy()) for time, sample in state.in_flight)
        self._rng.bit_generator.state = state.rng
        self._exposures.restore(state.exposures, self.time_s)
