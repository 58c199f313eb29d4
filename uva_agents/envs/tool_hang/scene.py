"""robosuite's ToolHang as a simulation that can be reset, stepped, saved and drawn; no observations, no episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from uva_agents.envs import robosuite_gl, states
from uva_agents.envs.robosuite_actions import absolute_controller

CONTROL_HZ = 20
CAMERAS = {"pixels": "sideview", "pixels_wrist": "robot0_eye_in_hand"}
"""Name in an observation to name in the simulator."""
QUALITIES = ("full", "fast")
_LARGE = 1e10
"""What MuJoCo calls a failed simulation."""
_SITE = "gripper0_right_grip_site"
_HAND = "robot0_right_hand"


@dataclass(frozen=True, slots=True)
class Pose:
    """Of the grip site, world frame: position (3,) in metres, rotation (3, 3)."""

    position: np.ndarray
    rotation: np.ndarray


class ToolHangScene:
    """A Panda, a stand, a hook frame and a wrench on a table.

    Args:
        absolute: the controller takes poses of the grip site in the world's frame, not changes.
        quality: of pictures; ``"fast"`` leaves out reflections. There are no shadows either way: the only light casts none.
        largest: height and width of the largest picture that will be asked for.

    Raises:
        ImportError: robosuite or MuJoCo is not installed.
    """

    def __init__(self, *, absolute: bool, quality: str, largest: tuple[int, int]) -> None:
        robosuite = robosuite_gl.prepare(needed_by="uva/ToolHang-v0", extra="toolhang")
        import mujoco

        self._mj = mujoco
        self._quality, self._largest = quality, largest
        config = robosuite.load_composite_controller_config(controller=None, robot="Panda")
        if absolute:
            absolute_controller(config)
        self._env = robosuite.make(
            "ToolHang",
            robots="Panda",
            controller_configs=config,
            control_freq=CONTROL_HZ,
            # The model is the same in every episode: nothing is gained by compiling it again.
            hard_reset=False,
            ignore_done=True,
            use_object_obs=False,
            use_camera_obs=False,
            has_renderer=False,
            # An OpenGL context does not survive a fork: there is none until a picture is asked for.
            has_offscreen_renderer=False,
            renderer="mujoco",
            seed=0,
        )
        # Not used here: robosuite goes through them in every 2 ms step, and what it returns is 2 ms old.
        for observable in self._env._observables.values():
            observable.set_enabled(False)
        # Older versions drew from numpy's global generator, in this order: with a generator of that kind a seed gives the start
        # that it gave there.
        self._rng = np.random.RandomState(0)
        self._env.rng = self._rng
        for sampler in (self._env.placement_initializer, *self._env.placement_initializer.samplers.values()):
            sampler.rng = self._rng
        self._sim = self._env.sim
        self._model, self._data = self._sim.model._model, self._sim.data._data
        self._substeps = round(1 / CONTROL_HZ / self._model.opt.timestep)
        self._site = self._model.site(_SITE).id
        self._hand = self._model.body(_HAND).id
        self._fingers = self._env.robots[0]._ref_gripper_joint_pos_indexes["right"]
        self._state_size = mujoco.mj_stateSize(self._model, mujoco.mjtState.mjSTATE_INTEGRATION)

    def reset(self, seed: int) -> None:
        """Arm, frame and wrench where ``seed`` puts them."""
        self._rng.seed(seed)
        self._env.reset()
        self._refresh()

    def step(self, native: np.ndarray) -> None:
        """Simulate 50 ms with (7,) numbers for the controller: a pose as position and rotation vector, or changes; gripper."""
        env, sim = self._env, self._sim
        for substep in range(self._substeps):
            sim.step1()
            env._pre_action(native, substep == 0)
            sim.step2()
        self._refresh()

    def _refresh(self) -> None:
        # After integrating, positions of bodies and contacts are still those of 2 ms ago. This is computed again at the start of
        # the next step and changes nothing that the next step depends on.
        self._mj.mj_fwdPosition(self._model, self._data)
        # After a reset or a jump they would take their next goal from where the arm was when they last looked.
        for controller in self._env.robots[0].part_controllers.values():
            controller.new_update = True

    def pose(self) -> Pose:
        """Where the grip site is."""
        data = self._data
        return Pose(data.site_xpos[self._site].copy(), data.site_xmat[self._site].reshape(3, 3).copy())

    def proprioception(self) -> np.ndarray:
        """float64 (9,): position of the grip site, quaternion (x, y, z, w) of the hand, two finger positions, in metres.

        These are robosuite's ``robot0_eef_pos``, ``robot0_eef_quat`` and ``robot0_gripper_qpos``. The hand is a quarter turn from
        the grip site.
        """
        data = self._data
        w, x, y, z = data.xquat[self._hand]
        return np.array([*data.site_xpos[self._site], x, y, z, w, *data.qpos[self._fingers]])

    def stages(self) -> tuple[bool, bool]:
        """Is the frame in the stand? Does the wrench hang on the frame, let go? Success is both, in robosuite's words too."""
        return bool(self._env._check_frame_assembled()), bool(self._env._check_tool_on_frame())

    def save(self) -> tuple[bytes, tuple[float, ...], tuple[float, ...]]:
        """Everything that the future depends on: physics, what the gripper was told so far, posture that the arm prefers."""
        physics = np.empty(self._state_size)
        self._mj.mj_getState(self._model, self._data, physics, self._mj.mjtState.mjSTATE_INTEGRATION)
        robot = self._env.robots[0]
        gripper, posture = robot.gripper["right"].current_action, robot.part_controllers["right"].initial_joint
        return physics.tobytes(), tuple(gripper.tolist()), tuple(posture.tolist())

    def check(self, state: Any) -> None:
        """Raise an InputError where ``physics``, ``gripper`` and ``posture`` of a state are not what :meth:`save` returns."""
        states.numbers(state.physics, "physics", size=self._state_size, low=-_LARGE, high=_LARGE)
        states.numbers(state.gripper, "gripper", low=-1.0, high=1.0)
        states.numbers(state.posture, "posture", size=7)
        states.numbers(state.last_gripper, "last_gripper", size=1, low=-1.0, high=1.0)

    def restore(self, physics: bytes, gripper: tuple[float, ...], posture: tuple[float, ...]) -> None:
        """Go to what :meth:`save` returned, and :meth:`check` has looked at."""
        self._mj.mj_setState(self._model, self._data, np.frombuffer(physics), self._mj.mjtState.mjSTATE_INTEGRATION)
        robot = self._env.robots[0]
        robot.gripper["right"].current_action = np.array(gripper)
        robot.part_controllers["right"].initial_joint = np.array(posture)
        self._refresh()

    def draw(self, camera: str, height: int, width: int) -> np.ndarray:
        """Picture uint8 (height, width, 3), upright, of the present moment."""
        if self._sim._render_context_offscreen is None:
            self._open_context()
        picture = self._sim.render(camera_name=camera, height=height, width=width)
        # OpenGL's first row is the lowest.
        return np.ascontiguousarray(picture[::-1])

    def _open_context(self) -> None:
        from robosuite.utils.binding_utils import MjRenderContextOffscreen

        # Large enough from the beginning: a buffer that has to grow is made again, textures and all.
        screen = self._model.vis.global_
        screen.offheight, screen.offwidth = self._largest
        context = MjRenderContextOffscreen(self._sim, device_id=-1)
        # Collision shapes are group 0, what is meant to be seen group 1.
        context.vopt.geomgroup[0], context.vopt.geomgroup[1] = 0, 1
        if self._quality == "fast":
            context.scn.flags[self._mj.mjtRndFlag.mjRND_REFLECTION] = 0

    def close(self) -> None:
        """Free the simulator and what it has on the graphics side. Calling again does nothing."""
        env, self._env = self._env, None
        if env is None:
            return
        # What refers to the simulation from here would keep it.
        self._sim = self._model = self._data = None
        env.close()
        del env
        robosuite_gl.free_abandoned()

    _env: Any
    _sim: Any
    _model: Any
    _data: Any
