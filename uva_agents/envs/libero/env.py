"""The gymnasium environment ``uva/Libero10-v0``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from uva_agents.envs import states
from uva_agents.envs.checks import (
    checked_choice,
    checked_count,
    checked_flag,
    checked_options,
    checked_render_mode,
    checked_seed,
    checked_size,
)
from uva_agents.envs.libero.install import assets_folder, libero_folder
from uva_agents.envs.libero.options import (
    GOAL_HIGH,
    GOAL_LOW,
    INSTRUCTIONS,
    NAME,
    RESET_OPTIONS,
    STARTS,
    check_state,
    observation_spaces,
)
from uva_agents.envs.libero.scene import CAMERAS, CONTROL_HZ, QUALITIES, LiberoScene, LiberoState
from uva_agents.envs.libero.tasks import LiberoTask, find_task, initial_states
from uva_agents.envs.lifecycle import Lifecycle
from uva_agents.envs.robosuite_actions import absolute_from_pose, native_from_absolute
from uva_agents.envs.robosuite_spaces import OPEN, action_space, checked_action, checked_mode

Observation = dict[str, Any]


class LiberoEnv(Lifecycle, gym.Env[Observation, np.ndarray]):
    """``uva/Libero10-v0``: a Panda arm does what it is told, in kitchens, living rooms and a study.

    Observation: ``pixels`` uint8 (H, W, 3) RGB, upright, from in front of the robot; ``pixels_wrist`` of the same size;
    ``agent_pos`` float32 (9,): position of the grip site in metres, quaternion (x, y, z, w) of the hand, positions of the two
    fingers; ``task``, a str: what to do.

    Action, for 0.05 s. ``"absolute"``: float32 (10,), where the grip site is to go: position in the world in metres, rot6d (the
    first two rows of the rotation matrix), and the gripper, from -1 (open) to 1 (close); what UVA and Diffusion Policy learn.
    ``"absolute_vector"``: float32 (7,), the same with a rotation vector in radians, as policies from released weights give it.
    ``"delta"``: float32 (7,) in [-1, 1], LIBERO's own: change of position (1 is 5 cm) and rotation (vector, 1 is 0.5 rad),
    gripper. Actions outside the space are clipped.

    Reward: 1 when the task is done, else 0. Terminates then. ``gymnasium.make`` limits episodes to 500 steps.

    ``reset(seed=s)`` with ``initial_states="random"`` begins where LIBERO's generator puts things for seed ``s``, as in UVA's
    evaluation; with ``"fixed"`` in state ``s`` of LIBERO's fixed ones (counted round), as in LIBERO's. Without a seed the next one
    follows. ``options``, for one episode: ``task_id``, ``initial_states``, ``initial_state`` (a fixed one by its number),
    ``wait_steps``.

    ``info``: ``is_success``, ``task_name``, ``task_id``, ``suite``, ``language``, ``initial_state`` (-1 for a random one),
    ``grip_position`` (3,) and ``grip_rotation`` (3, 3) of the grip site, ``objects`` (name -> (7,) position and quaternion w, x, y,
    z).

    Args:
        render_mode: ``"rgb_array"`` or ``None``; pictures are available in both cases.
        task_id: of the suite, from 0.
        suite: ``"libero_10"``, ``"libero_spatial"``, ``"libero_object"``, ``"libero_goal"`` or ``"libero_90"``.
        initial_states: ``"random"`` or ``"fixed"``.
        action_mode: ``"absolute"``, ``"absolute_vector"`` or ``"delta"``.
        image_size: of ``pixels`` and ``pixels_wrist``: (height, width), or the side of a square.
        instruction: what ``task`` says. ``"prompt"`` (or ``"observation"``): with the scene in front, as the released model was
            trained; ``"language"``: the words alone. ``"info"``: the prompt is in ``info["task"]``, and the observation has arrays
            only, as stable-baselines3's algorithms and gymnasium's AsyncVectorEnv with shared memory want it. ``None``: there is
            no ``task``.
        wait_steps: control steps before an episode begins, with the gripper opening, in which things come to rest.
        render_observations: False leaves the pictures out, for fast simulation; :meth:`observe` draws when asked.
        quality: ``"full"``, as LIBERO draws, or ``"fast"``: no shadows, no reflections.
        render_size: side of the pictures of :meth:`render`.

    Raises:
        ImportError: LIBERO, its meshes or robosuite is not installed; the message says what to install.
        ValueError: an unknown option.
    """

    # gymnasium declares it without ClassVar.
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # type: ignore[misc]
    _max_episode_steps = 500
    _env_id: ClassVar[str] = NAME
    _carried: ClassVar[tuple[str, ...]] = ("_task", "_next_fixed")

    def __init__(
        self,
        render_mode: str | None = "rgb_array",
        *,
        task_id: int = 0,
        suite: str = "libero_10",
        initial_states: str = "random",
        action_mode: str = "absolute",
        image_size: int | tuple[int, int] = 128,
        instruction: str | None = "prompt",
        wait_steps: int = 10,
        render_observations: bool = True,
        quality: str = "full",
        render_size: int = 384,
    ) -> None:
        self.render_mode = checked_render_mode(render_mode)
        self.action_mode = checked_mode(action_mode)
        if instruction is not None:
            instruction = checked_choice(instruction, "instruction", INSTRUCTIONS)
        self.image_size = checked_size(image_size)
        self._render_size = checked_size(render_size, "render_size")
        self._initial = checked_choice(initial_states, "initial_states", STARTS)
        self._wait = checked_count(wait_steps, "wait_steps")
        self._quality = checked_choice(quality, "quality", QUALITIES)
        self._render_observations = checked_flag(render_observations, "render_observations")
        libero_folder(), assets_folder()  # what is missing is said now rather than in the first episode
        self._suite = suite
        self._default_task = self._task = find_task(suite, task_id)
        self._instruction = instruction
        in_words = instruction not in (None, "info")
        spaces = observation_spaces(self.image_size if render_observations else None, words=in_words)
        agent_space = spaces["agent_pos"]
        assert isinstance(agent_space, gym.spaces.Box)
        self._agent_space = agent_space
        # Gymnasium types a Dict's observations as dict[str, Any].
        self.observation_space = gym.spaces.Dict(spaces)
        self._box = action_space(action_mode, GOAL_LOW, GOAL_HIGH)
        self.action_space = self._box
        # Built by the first reset: a vector environment makes one only to look at its spaces, and then forks.
        self._scene: LiberoScene | None = None
        self._started = False
        self._next_fixed = 0
        self._state_index: int | None = None
        self._last_gripper = OPEN

    @property
    def task(self) -> str:
        """Name of the present task."""
        return self._task.name

    @property
    def task_description(self) -> str:
        """What to do."""
        return self._task.language

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode. Another task than before takes some seconds to build.

        Args:
            seed: below 2**32; the same seed always gives the same episode. ``None`` goes on to the next one.
            options: see the class.

        Raises:
            ValueError: an unknown option, a seed, task or state that there is not.
        """
        self._require_open("reset()")
        options = checked_options(options, RESET_OPTIONS, self._env_id)
        seed = checked_seed(seed, "LIBERO")
        task = self._default_task
        if "task_id" in options:
            task = find_task(self._suite, options["task_id"])
        initial = checked_choice(options.get("initial_states", self._initial), "initial_states", STARTS)
        wait = checked_count(options.get("wait_steps", self._wait), "wait_steps")
        index = options.get("initial_state")
        if "initial_state" in options:
            check_state(task, index)
        super().reset(seed=seed)
        if index is None and initial == "fixed":
            index = self._next_fixed if seed is None else seed
            self._next_fixed = index + 1
            index %= len(initial_states(task))
        if index is not None:
            # Fixtures are not in the state. They too are the same whenever the state is.
            start = index = int(index)
        else:
            start = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        scene = self._built(task)
        scene.reset(start, index)
        for _ in range(wait):
            scene.hold()
        self._started, self._state_index, self._last_gripper = True, index, OPEN
        return self.get_obs(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move for 0.05 s.

        Raises:
            ValueError: ``action`` has the wrong shape, is not finite, or has a rotation that is none.
            RuntimeError: the environment has not been reset.
        """
        self.advance(action)
        info = self._info()
        success = info["is_success"]
        return self.get_obs(), float(success), success, False, info

    def advance(self, action: Any) -> None:
        """The motion of :meth:`step` without a look at it: nothing is drawn."""
        scene = self._at("step()")
        value = checked_action(action, self.action_mode, self._box, name="LIBERO")
        native = native_from_absolute(value) if self.action_mode == "absolute" else value
        scene.step(native, absolute=self.action_mode != "delta")
        self._last_gripper = float(value[-1])

    def hold_action(self) -> np.ndarray:
        """The action (A,) that keeps the arm where it is and the gripper as it was told last."""
        scene = self._at("hold_action()")
        if self.action_mode == "delta":
            return np.array([0, 0, 0, 0, 0, 0, self._last_gripper], np.float32)
        action = absolute_from_pose(*scene.grip(), self._last_gripper)
        return (action if self.action_mode == "absolute" else native_from_absolute(action)).astype(np.float32)

    def get_obs(self) -> Observation:
        """The observation of the present moment, as :meth:`step` returns it; changes nothing."""
        scene = self._at("get_obs()")
        found: Observation = {"agent_pos": self._agent_pos(scene)}
        if self._render_observations:
            found |= self._pictures(scene)
        if self._instruction not in (None, "info"):
            found["task"] = self._task.language if self._instruction == "language" else self._task.prompt
        return found

    def observe(self) -> Observation:
        """The observation of the present moment, with pictures whatever ``render_observations`` says."""
        return {**self.get_obs(), **self._pictures(self._at("observe()"))}

    def render(self) -> np.ndarray | None:
        """Picture uint8 (render_size, render_size, 3) of the present moment, from in front of the robot."""
        return self._at("render()").draw(CAMERAS["pixels"], *self._render_size)

    def get_state(self) -> LiberoState:
        """The present moment, for :meth:`set_state` of this or any other LIBERO environment of the same task.

        Raises:
            RuntimeError: the environment has not been reset.
        """
        scene = self._at("get_state()")
        task = self._task
        values = (task.suite, task.task_id, *scene.save(), self._last_gripper, self._state_index)
        return LiberoState(*values, stamp=states.stamp(self._env_id, task.name, _made_by(), values))

    def set_state(self, state: LiberoState) -> None:
        """Go to ``state``; what follows equals what followed there, bit for bit.

        Takes milliseconds, or some seconds if another task is built. The step limit of ``gymnasium.make`` is a wrapper and keeps
        its own count.

        Raises:
            InputError: ``state`` is no state, of another environment, task or version, or was changed; nothing has happened then.
                Of several tasks an environment goes to states of the one it was made for and of the present one.
        """
        self._require_open("set_state()")
        tasks = {task.name: task for task in (self._default_task, self._task)}
        states.check(
            state,
            LiberoState,
            environment=self._env_id,
            made_by=_made_by(),
            tasks=tasks,
            fix="; make it with that suite and task_id, or give the task_id to reset(options={'task_id': ...}) first",
        )
        task = tasks[state.stamp.task] if state.stamp is not None else self._task
        another = self._scene is None or self._scene.task != task
        scene = self._built(task)
        scene.check(state)
        if another or not self._started:
            scene.reset(0)
        scene.restore(state.physics, state.places, state.gripper)
        self._started, self._state_index, self._last_gripper = True, state.initial_state, state.last_gripper

    def _running(self) -> bool:
        return self._started

    def _free(self) -> None:
        self._leave()

    def flat_state(self) -> np.ndarray:
        """float64 (1 + nq + nv,) time, positions, velocities: what LIBERO's recordings hold as a state.

        Where fixtures stand is not in it; :meth:`get_state` has everything.
        """
        return self._at("flat_state()").flat_state()

    def joint_positions(self) -> np.ndarray:
        """float64 (7,) radians: what LIBERO's recordings hold as joint states."""
        return self._at("joint_positions()").joints()

    def _leave(self) -> None:
        """Free the simulation."""
        scene, self._scene, self._started = getattr(self, "_scene", None), None, False
        if scene is not None:
            scene.close()

    def _built(self, task: LiberoTask) -> LiberoScene:
        if self._scene is None or self._scene.task != task:
            self._leave()
            largest = np.max([self.image_size, self._render_size], axis=0)
            self._scene = LiberoScene(task, quality=self._quality, largest=(int(largest[0]), int(largest[1])))
        self._task = task
        return self._scene

    def _at(self, what: str) -> LiberoScene:
        self._require_reset(what)
        assert self._scene is not None
        return self._scene

    def _pictures(self, scene: LiberoScene) -> Observation:
        return {key: scene.draw(camera, *self.image_size) for key, camera in CAMERAS.items()}

    def _agent_pos(self, scene: LiberoScene) -> np.ndarray:
        space = self._agent_space
        value = np.concatenate([scene.grip()[0], scene.hand_quaternion(), scene.fingers()])
        return np.asarray(np.clip(value.astype(np.float32), space.low, space.high))

    def _info(self) -> dict[str, Any]:
        scene = self._at("step()")
        position, rotation = scene.grip()
        words = {"task": self._task.prompt} if self._instruction == "info" else {}
        return words | {
            "is_success": scene.success(),
            "task_name": self._task.name,
            "task_id": self._task.task_id,
            "suite": self._task.suite,
            "language": self._task.language,
            "initial_state": -1 if self._state_index is None else self._state_index,
            "grip_position": position,
            "grip_rotation": rotation,
            "objects": scene.objects(),
        }


def _made_by() -> str:
    return states.simulator("mujoco", "robosuite", "rpent-libero")
