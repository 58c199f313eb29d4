"""The gymnasium environment ``uva/Libero10-v0``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from uva_agents.envs.libero.install import assets_folder, libero_folder
from uva_agents.envs.libero.options import (
    GOAL_HIGH,
    GOAL_LOW,
    RESET_OPTIONS,
    STARTS,
    check_state,
    checked_choice,
    checked_wait,
    observation_spaces,
    unknown_option,
)
from uva_agents.envs.libero.scene import CAMERAS, CONTROL_HZ, QUALITIES, LiberoState, Scene
from uva_agents.envs.libero.tasks import LiberoTask, find_task, initial_states
from uva_agents.envs.robosuite_actions import absolute_from_pose, native_from_absolute
from uva_agents.envs.robosuite_spaces import OPEN, action_space, checked_action, checked_mode, checked_size

Observation = dict[str, Any]


class LiberoEnv(gym.Env[Observation, np.ndarray]):
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
        instruction: what ``task`` says. ``"prompt"``: with the scene in front, as the released model was trained; ``"language"``:
            the words alone; ``None``: there is no ``task``, which stable-baselines3 wants, because it takes arrays only.
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
        if render_mode not in (None, "rgb_array"):
            raise ValueError(
                f'render_mode={render_mode!r} is not offered: pass "rgb_array" and show or save what render() returns'
            )
        self.action_mode = checked_mode(action_mode)
        if instruction not in (None, "prompt", "language"):
            raise ValueError(f'instruction={instruction!r} is unknown: pass "prompt", "language" or None')
        libero_folder(), assets_folder()  # what is missing is said now rather than in the first episode
        self.render_mode = render_mode
        self.image_size = checked_size(image_size)
        self._suite = suite
        self._default_task = self._task = find_task(suite, task_id)
        self._initial = checked_choice(initial_states, "initial_states", STARTS)
        self._wait = checked_wait(wait_steps)
        self._instruction = instruction
        self._render_observations = render_observations
        self._quality = checked_choice(quality, "quality", QUALITIES)
        self._render_size = checked_size(render_size)
        spaces = observation_spaces(self.image_size if render_observations else None, words=instruction is not None)
        agent_space = spaces["agent_pos"]
        assert isinstance(agent_space, gym.spaces.Box)
        self._agent_space = agent_space
        # Gymnasium types a Dict's observations as dict[str, Any].
        self.observation_space = gym.spaces.Dict(spaces)
        self._box = action_space(action_mode, GOAL_LOW, GOAL_HIGH)
        self.action_space = self._box
        # Built by the first reset: a vector environment makes one only to look at its spaces, and then forks.
        self._scene: Scene | None = None
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
        options = dict(options or {})
        for name in options:
            if name not in RESET_OPTIONS:
                raise ValueError(unknown_option(name))
        if seed is not None and not 0 <= seed < 2**32:
            raise ValueError(f"seed={seed} is out of range: LIBERO's seeds go from 0 to 2**32 - 1")
        task = self._default_task
        if options.get("task_id") is not None:
            task = find_task(self._suite, options["task_id"])
        initial = checked_choice(options.get("initial_states", self._initial), "initial_states", STARTS)
        wait = checked_wait(options.get("wait_steps", self._wait))
        index = options.get("initial_state")
        if index is not None:
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
        scene = self._running("step()")
        value = checked_action(action, self.action_mode, self._box, name="LIBERO")
        native = native_from_absolute(value) if self.action_mode == "absolute" else value
        scene.step(native, absolute=self.action_mode != "delta")
        self._last_gripper = float(value[-1])

    def hold_action(self) -> np.ndarray:
        """The action (A,) that keeps the arm where it is and the gripper as it was told last."""
        scene = self._running("hold_action()")
        if self.action_mode == "delta":
            return np.array([0, 0, 0, 0, 0, 0, self._last_gripper], np.float32)
        action = absolute_from_pose(*scene.grip(), self._last_gripper)
        return (action if self.action_mode == "absolute" else native_from_absolute(action)).astype(np.float32)

    def get_obs(self) -> Observation:
        """The observation of the present moment, as :meth:`step` returns it; changes nothing."""
        scene = self._running("get_obs()")
        found: Observation = {"agent_pos": self._agent_pos(scene)}
        if self._render_observations:
            found |= self._pictures(scene)
        if self._instruction is not None:
            found["task"] = self._task.prompt if self._instruction == "prompt" else self._task.language
        return found

    def observe(self) -> Observation:
        """The observation of the present moment, with pictures whatever ``render_observations`` says."""
        return {**self.get_obs(), **self._pictures(self._running("observe()"))}

    def render(self) -> np.ndarray | None:
        """Picture uint8 (render_size, render_size, 3) of the present moment, from in front of the robot."""
        return self._running("render()").draw(CAMERAS["pixels"], *self._render_size)

    def get_state(self) -> LiberoState:
        """The present moment, for :meth:`set_state` of this or any other LIBERO environment of the same suite.

        Raises:
            RuntimeError: the environment has not been reset.
        """
        scene = self._running("get_state()")
        return LiberoState(self._task.suite, self._task.task_id, *scene.save(), self._last_gripper, self._state_index)

    def set_state(self, state: LiberoState) -> None:
        """Go to ``state``; what follows equals what followed there, bit for bit.

        Takes milliseconds, or some seconds if it is of another task. The step limit of ``gymnasium.make`` is a wrapper and keeps
        its own count.

        Raises:
            TypeError: ``state`` is something else.
            ValueError: it is of another suite.
        """
        if not isinstance(state, LiberoState):
            raise TypeError(f"set_state() takes what get_state() returned, a LiberoState, not {type(state).__name__}")
        if state.suite != self._suite:
            raise ValueError(f"this state is of {state.suite}, and this environment of {self._suite}")
        scene = self._built(find_task(state.suite, state.task_id))
        if not self._started:
            scene.reset(0)
        scene.restore(state.physics, state.places, state.gripper)
        self._started, self._state_index, self._last_gripper = True, state.initial_state, state.last_gripper

    def flat_state(self) -> np.ndarray:
        """float64 (1 + nq + nv,) time, positions, velocities: what LIBERO's recordings hold as a state. Where fixtures stand is not
        in it; :meth:`get_state` has everything."""
        return self._running("flat_state()").flat_state()

    def joint_positions(self) -> np.ndarray:
        """float64 (7,) radians: what LIBERO's recordings hold as joint states."""
        return self._running("joint_positions()").joints()

    def close(self) -> None:
        """Free the simulation. A reset builds it again."""
        scene, self._scene, self._started = self._scene, None, False
        if scene is not None:
            scene.close()

    def _built(self, task: LiberoTask) -> Scene:
        if self._scene is None or self._scene.task != task:
            self.close()
            largest = np.max([self.image_size, self._render_size], axis=0)
            self._scene = Scene(task, quality=self._quality, largest=(int(largest[0]), int(largest[1])))
        self._task = task
        return self._scene

    def _running(self, what: str) -> Scene:
        if self._scene is None or not self._started:
            raise RuntimeError(f"{what} before reset(): call env.reset() first")
        return self._scene

    def _pictures(self, scene: Scene) -> Observation:
        return {key: scene.draw(camera, *self.image_size) for key, camera in CAMERAS.items()}

    def _agent_pos(self, scene: Scene) -> np.ndarray:
        space = self._agent_space
        value = np.concatenate([scene.grip()[0], scene.hand_quaternion(), scene.fingers()])
        return np.asarray(np.clip(value.astype(np.float32), space.low, space.high))

    def _info(self) -> dict[str, Any]:
        scene = self._running("step()")
        position, rotation = scene.grip()
        return {
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
