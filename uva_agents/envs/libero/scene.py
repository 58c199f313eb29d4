"""One LIBERO task in the simulator: starts, control steps, pictures, saving and restoring."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import importlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from uva_agents.envs import robosuite_gl, states
from uva_agents.envs.libero import install
from uva_agents.envs.libero.tasks import LiberoTask, initial_states
from uva_agents.envs.robosuite_spaces import OPEN

CONTROL_HZ = 20
CAMERAS = {"pixels": "agentview", "pixels_wrist": "robot0_eye_in_hand"}
"""Name in an observation to name in the simulator."""
QUALITIES = ("full", "fast")

_ATTEMPTS = 100
_LARGE = 1e10
"""What MuJoCo calls a failed simulation."""


@dataclass(frozen=True, slots=True)
class LiberoState:
    """A moment of an episode as a value: picklable, valid in every environment of this kind and version of MuJoCo.

    Attributes:
        suite, task_id: the task.
        physics: what MuJoCo integrates, about 2 kB.
        places: where cupboards and other fixtures stand; they are put somewhere else in every episode.
        gripper: commands of the two fingers, which follow the actions with a delay.
        last_gripper: of the last action.
        initial_state: the fixed initial state that the episode began in, or ``None``.
        stamp: which environment, task and version it is of, and a checksum.
    """

    suite: str
    task_id: int
    physics: bytes
    places: bytes
    gripper: bytes
    last_gripper: float
    initial_state: int | None
    stamp: states.Stamp | None = field(default=None, kw_only=True)


class LiberoScene:
    """A task, built.

    Args:
        task: which.
        quality: of pictures; ``"fast"`` leaves out shadows and reflections.
        largest: height and width of the largest picture that will be asked for.

    Raises:
        ImportError: a package is missing.
    """

    def __init__(self, task: LiberoTask, *, quality: str, largest: tuple[int, int]) -> None:
        domain: Any = install.load()
        # After load(), so that MUJOCO_GL is set.
        import mujoco

        self.task = task
        self._mujoco = mujoco
        self._quality, self._largest = quality, largest
        utils: Any = importlib.import_module("libero.libero.envs.bddl_utils")
        file = str(task.bddl_file)
        with _silent(), _seeded(0):
            kind = domain.TASK_MAPPING[utils.get_problem_info(file)["problem_name"]]
            self._env: Any = _until_placed(lambda: _build(kind, file))
        self._substeps = round(1 / CONTROL_HZ / self._model.opt.timestep)
        self._state_size = int(mujoco.mj_stateSize(self._model, mujoco.mjtState.mjSTATE_INTEGRATION))

    @property
    def _model(self) -> Any:
        return self._env.sim.model._model

    @property
    def _data(self) -> Any:
        return self._env.sim.data._data

    @property
    def _robot(self) -> Any:
        return self._env.robots[0]

    # -- time ----------------------------------------------------------------------------------------

    def reset(self, seed: int, state: int | None = None) -> None:
        """Go to a start.

        Args:
            seed: of LIBERO's draws.
            state: a fixed initial state. It says nothing about fixtures: those are drawn.
        """
        with _silent(), _seeded(seed):
            _until_placed(self._env.reset)
        if state is not None:
            flat = initial_states(self.task)[state]
            n = self._model.nq
            self._data.time, self._data.qpos[:], self._data.qvel[:] = flat[0], flat[1 : 1 + n], flat[1 + n :]
        self._env._post_process()  # a burner that is on is red
        self._refresh()

    def hold(self) -> None:
        """A control step in which the arm stays where it is and the gripper opens."""
        self.step(np.array([0, 0, 0, 0, 0, 0, OPEN]), absolute=False)

    def step(self, native: np.ndarray, *, absolute: bool) -> None:
        """Simulate 50 ms.

        Args:
            native: (7,) for the controller: changes in [-1, 1], LIBERO's own, or the grip site's position and rotation vector in
                the world; gripper.
            absolute: which of the two.
        """
        env, sim = self._env, self._env.sim
        # robosuite makes the controller anew at every reset.
        controller = self._robot.part_controllers["right"]
        controller.input_type, controller.input_ref_frame = ("absolute", "world") if absolute else ("delta", "base")
        for substep in range(self._substeps):
            sim.step1()
            env._pre_action(native, substep == 0)
            sim.step2()
        env._post_process()
        self._refresh()

    def _refresh(self) -> None:
        """After integrating, positions and contacts are those of 2 ms ago, and after a jump even older in the controllers."""
        self._mujoco.mj_fwdPosition(self._model, self._data)
        for controller in self._robot.part_controllers.values():
            controller.new_update = True

    # -- looking -------------------------------------------------------------------------------------

    def success(self) -> bool:
        """Whether the task is done."""
        return bool(self._env._check_success())

    def grip(self) -> tuple[np.ndarray, np.ndarray]:
        """Grip site in the world: position (3,) in metres, rotation (3, 3). What absolute actions set."""
        site = self._robot.eef_site_id["right"]
        return self._data.site_xpos[site].copy(), self._data.site_xmat[site].reshape(3, 3).copy()

    def hand_quaternion(self) -> np.ndarray:
        """(4,) x, y, z, w of the hand, which is what LIBERO and robomimic record; a quarter turn from the grip site."""
        w, x, y, z = self._env.sim.data.get_body_xquat(self._robot.robot_model.eef_name["right"])
        return np.array([x, y, z, w])

    def fingers(self) -> np.ndarray:
        """(2,) metres."""
        return np.array([self._data.qpos[i] for i in self._robot._ref_gripper_joint_pos_indexes["right"]])

    def joints(self) -> np.ndarray:
        """(7,) radians."""
        return np.array(self._data.qpos[self._robot._ref_joint_pos_indexes])

    def flat_state(self) -> np.ndarray:
        """(1 + nq + nv,) time, positions, velocities: what LIBERO records as a state."""
        return np.concatenate([[self._data.time], self._data.qpos, self._data.qvel])

    def objects(self) -> dict[str, np.ndarray]:
        """Name -> (7,) position in metres and quaternion w, x, y, z, of everything that the task is about."""
        ids = self._env.obj_body_id
        return {name: np.concatenate([self._data.xpos[i], self._data.xquat[i]]) for name, i in ids.items()}

    def draw(self, camera: str, height: int, width: int) -> np.ndarray:
        """Picture uint8 (height, width, 3), upright."""
        if self._env.sim._render_context_offscreen is None:
            self._open_eyes()
        picture = self._env.sim.render(width, height, camera_name=camera)
        return np.ascontiguousarray(picture[::-1])

    def _open_eyes(self) -> None:
        """Make the OpenGL context: when it is first needed, because it belongs to one process and takes memory."""
        from robosuite.utils.binding_utils import MjRenderContextOffscreen

        # Large enough from the beginning: a buffer that has to grow is made again, textures and all.
        screen = self._model.vis.global_
        screen.offheight, screen.offwidth = self._largest
        kept = self._physics()
        context = MjRenderContextOffscreen(self._env.sim, device_id=-1)
        self._set_physics(kept)  # making it computes forces, which would change the last bits of what follows
        self._refresh()
        context.vopt.geomgroup[0], context.vopt.geomgroup[1] = 0, 1  # what one sees, not what collides
        if self._quality == "fast":
            flags = self._mujoco.mjtRndFlag
            context.scn.flags[flags.mjRND_SHADOW] = context.scn.flags[flags.mjRND_REFLECTION] = 0

    # -- saving --------------------------------------------------------------------------------------

    def save(self) -> tuple[bytes, bytes, bytes]:
        """Physics, places of fixtures, gripper; for :meth:`restore`."""
        places = np.concatenate([self._model.body_pos, self._model.body_quat], axis=1)
        gripper = np.asarray(self._robot.gripper["right"].current_action, np.float64)
        return self._physics().tobytes(), places.tobytes(), gripper.tobytes()

    def check(self, state: LiberoState) -> None:
        """Raise an InputError where values of a state are not what :meth:`save` returns."""
        states.numbers(state.physics, "physics", size=self._state_size, low=-_LARGE, high=_LARGE)
        states.numbers(state.places, "places", size=7 * self._model.nbody, low=-_LARGE, high=_LARGE)
        states.numbers(state.gripper, "gripper", low=-1.0, high=1.0)
        states.numbers(state.last_gripper, "last_gripper", size=1, low=-1.0, high=1.0)

    def restore(self, physics: bytes, places: bytes, gripper: bytes) -> None:
        """Go where :meth:`save` was called, in any scene of the same task; :meth:`check` has looked at it."""
        there, where = np.frombuffer(physics), np.frombuffer(places)
        self._model.body_pos[:], self._model.body_quat[:] = np.split(where.reshape(-1, 7), [3], axis=1)
        self._set_physics(there)
        self._robot.gripper["right"].current_action = np.frombuffer(gripper).copy()
        self._env._post_process()
        self._refresh()

    def _physics(self) -> np.ndarray:
        state = np.empty(self._state_size)
        self._mujoco.mj_getState(self._model, self._data, state, self._mujoco.mjtState.mjSTATE_INTEGRATION)
        return state

    def _set_physics(self, state: np.ndarray) -> None:
        self._mujoco.mj_setState(self._model, self._data, state, self._mujoco.mjtState.mjSTATE_INTEGRATION)

    def close(self) -> None:
        """Free simulation and pictures."""
        env, self._env = self._env, None
        if env is not None:
            env.close()
            del env
            robosuite_gl.free_abandoned()
            _return_memory()


def _return_memory() -> None:
    """A task is some hundred megabytes of textures, which glibc would keep for this process when the next one is built."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


@lru_cache(maxsize=1)
def _controller() -> dict[str, Any]:
    import robosuite

    config: dict[str, Any] = robosuite.load_composite_controller_config(controller=None, robot="Panda")
    return config


def _build(kind: Any, bddl_file: str) -> Any:
    """LIBERO's environment with LIBERO's settings. Resets keep the model, which changes no draw and takes milliseconds."""
    return kind(
        bddl_file,
        robots=["Panda"],
        controller_configs=copy.deepcopy(_controller()),
        initialization_noise=None,
        use_camera_obs=False,
        has_renderer=False,
        has_offscreen_renderer=False,
        renderer="mujoco",
        control_freq=CONTROL_HZ,
        ignore_done=True,
        hard_reset=False,
    )


def _until_placed(attempt: Any) -> Any:
    """LIBERO gives up when the things that it draws do not fit beside each other, and is then asked again."""
    from robosuite.utils.errors import RandomizationError

    for _ in range(_ATTEMPTS):
        try:
            return attempt()
        except RandomizationError as error:
            last = error
    raise RuntimeError(f"LIBERO found no room for its objects in {_ATTEMPTS} attempts") from last


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """LIBERO draws from numpy's global generator: lend it one that begins at ``seed``, and give the caller's back."""
    kept = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(kept)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()):
        yield
