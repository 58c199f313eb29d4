"""The gymnasium environment ``uva/ToolHang-v0``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from uva_agents.envs import states
from uva_agents.envs.checks import (
    checked_choice,
    checked_flag,
    checked_options,
    checked_render_mode,
    checked_seed,
    checked_side,
    checked_size,
)
from uva_agents.envs.lifecycle import Lifecycle
from uva_agents.envs.robosuite_actions import absolute_from_pose, native_from_absolute
from uva_agents.envs.robosuite_spaces import OPEN, action_space, checked_action, checked_mode
from uva_agents.envs.tool_hang.scene import CAMERAS, CONTROL_HZ, QUALITIES, ToolHangScene

WORKSPACE_LOW, WORKSPACE_HIGH = (-0.60, -0.75, 0.70), (0.45, 0.75, 1.75)
"""Positions that an absolute action may ask for, metres, world frame: the table is 0.8 high, the arm's base at x = -0.56."""

Observation = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class ToolHangState:
    """A moment of an episode as a value: picklable, valid in every ToolHang environment of the same MuJoCo and robosuite.

    Attributes:
        physics: MuJoCo's integration state (about 1 kB).
        gripper: commands of the two fingers, which follow the actions with a delay.
        posture: joint angles that the arm prefers where the tool leaves it a choice: those it began the episode with.
        last_gripper: of the last action.
        stamp: which environment and version it is of, and a checksum.
    """

    physics: bytes
    gripper: tuple[float, ...]
    posture: tuple[float, ...]
    last_gripper: float
    stamp: states.Stamp | None = field(default=None, kw_only=True)


class ToolHangEnv(Lifecycle, gym.Env[Observation, np.ndarray]):
    """``uva/ToolHang-v0``: a Panda puts a hook frame into its stand and hangs a wrench on it (robosuite, 20 Hz, 700 steps).

    Observation: ``pixels`` uint8 (H, W, 3) RGB from the side, ``pixels_wrist`` uint8 (H, W, 3) from the hand, ``agent_pos``
    float32 (9,): position of the grip site in metres (3), quaternion x, y, z, w of the hand (4), positions of the fingers (2);
    robosuite's ``robot0_eef_pos``, ``robot0_eef_quat`` and ``robot0_gripper_qpos``.

    Action, ``"absolute"``: float32 (10,): where the grip site shall be, metres in the world's frame (3), the first two rows of
    its rotation matrix (6), gripper (1), positive to close. ``"absolute_vector"``: float32 (7,): the same with a rotation vector
    in radians, as policies from released weights give it. ``"delta"``: float32 (7,) in [-1, 1], robosuite's own: move by up to
    5 cm along x, y, z, turn by up to 0.5 rad about them, gripper. Values outside the action space are clipped.

    Reward: 1 on success, else 0. Terminates on success, as robosuite defines it: the frame stands in its stand and the wrench
    hangs on it, let go. ``info``: ``is_success``, its two halves ``frame_assembled`` and ``tool_on_frame``, and the pose of the
    grip site, ``grip_position`` (3,) and ``grip_rotation`` (3, 3).

    ``reset(seed=s)``: the random numbers are those that robosuite 1.4 and older draw after ``np.random.seed(s)``.

    Args:
        render_mode: ``"rgb_array"`` or ``None``; pictures are available in both cases.
        action_mode: ``"absolute"``, ``"absolute_vector"`` or ``"delta"``.
        image_size: of ``pixels`` and ``pixels_wrist``: (height, width), or the side of a square.
        quality: ``"full"``, as the published recordings were drawn, or ``"fast"``: without reflections, in two
            thirds of the time.
        render_observations: False leaves the pictures out, for fast simulation; :meth:`observe` draws when asked.
        render_size: side in pixels of the square pictures of :meth:`render`.

    Raises:
        ImportError: robosuite or MuJoCo is not installed.
        ValueError: an unknown option.
    """

    # gymnasium declares it without ClassVar.
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # type: ignore[misc]
    task = "toolhang"
    task_description = "put the hook frame into the stand and hang the wrench on it"
    _max_episode_steps = 700
    _env_id: ClassVar[str] = "uva/ToolHang-v0"

    def __init__(
        self,
        render_mode: str | None = "rgb_array",
        *,
        action_mode: str = "absolute",
        image_size: int | tuple[int, int] = 240,
        quality: str = "full",
        render_observations: bool = True,
        render_size: int = 480,
    ) -> None:
        self.render_mode = checked_render_mode(render_mode)
        self.action_mode = checked_mode(action_mode)
        quality = checked_choice(quality, "quality", QUALITIES)
        self.image_size = checked_size(image_size)
        self._render_size = checked_side(render_size)
        self._render_observations = checked_flag(render_observations, "render_observations")
        self.observation_space = _observation_space(self.image_size if render_observations else None)  # type: ignore[assignment]
        self._box = self.action_space = action_space(action_mode, WORKSPACE_LOW, WORKSPACE_HIGH)
        self._scene = ToolHangScene(
            absolute=action_mode != "delta",
            quality=quality,
            largest=(max(self.image_size[0], self._render_size), max(self.image_size[1], self._render_size)),
        )
        self._started = False
        self._last_gripper = OPEN

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: below 2**32; the same seed always gives the same episode. ``None`` draws the next one.
            options: there are none.

        Raises:
            ValueError: an option, or a seed out of range.
        """
        self._require_open("reset()")
        checked_options(options, (), self._env_id)
        seed = checked_seed(seed, "ToolHang")
        super().reset(seed=seed)
        self._scene.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        self._started, self._last_gripper = True, OPEN
        return self.get_obs(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Follow ``action`` for 50 ms.

        Raises:
            ValueError: ``action`` has the wrong shape, is not finite, or its rotation is none.
            RuntimeError: the environment has not been reset.
        """
        self.advance(action)
        info = self._info()
        return self.get_obs(), float(info["is_success"]), info["is_success"], False, info

    def advance(self, action: Any) -> None:
        """The motion of :meth:`step` without a look at it: nothing is drawn or judged."""
        self._require_reset("step()")
        value = checked_action(action, self.action_mode, self._box, name="ToolHang")
        self._scene.step(native_from_absolute(value) if self.action_mode == "absolute" else value)
        self._last_gripper = float(value[-1])

    def hold_action(self) -> np.ndarray:
        """The action (A,) that keeps the arm where it is and the gripper as it was told last."""
        self._require_reset("hold_action()")
        if self.action_mode == "delta":
            return np.array([0, 0, 0, 0, 0, 0, self._last_gripper], np.float32)
        pose = self._scene.pose()
        action = absolute_from_pose(pose.position, pose.rotation, self._last_gripper)
        return (action if self.action_mode == "absolute" else native_from_absolute(action)).astype(np.float32)

    def get_obs(self) -> Observation:
        """The observation of the present moment, as :meth:`step` returns it; changes nothing."""
        self._require_reset("get_obs()")
        return self.observe() if self._render_observations else {"agent_pos": self._agent_pos()}

    def observe(self) -> Observation:
        """The observation of the present moment with pictures, whatever ``render_observations`` says."""
        self._require_reset("observe()")
        pictures = {key: self._scene.draw(camera, *self.image_size) for key, camera in CAMERAS.items()}
        return {**pictures, "agent_pos": self._agent_pos()}

    def render(self) -> np.ndarray | None:
        """Picture uint8 (render_size, render_size, 3) of the present moment, from the side."""
        self._require_reset("render()")
        return self._scene.draw(CAMERAS["pixels"], self._render_size, self._render_size)

    def get_state(self) -> ToolHangState:
        """The present moment, for :meth:`set_state` of this or any other ToolHang environment.

        Raises:
            RuntimeError: the environment has not been reset.
        """
        self._require_reset("get_state()")
        values = (*self._scene.save(), self._last_gripper)
        return ToolHangState(*values, stamp=states.stamp(self._env_id, "", self._made_by(), values))

    def set_state(self, state: ToolHangState) -> None:
        """Go to ``state``; what follows equals what followed there, bit for bit.

        The step limit of ``gymnasium.make`` is a wrapper and keeps its own count.

        Raises:
            InputError: ``state`` is no state, of another environment or version, or was changed; nothing has happened then.
        """
        self._require_open("set_state()")
        states.check(
            state, ToolHangState, environment=self._env_id, made_by=self._made_by(), validate=self._scene.check
        )
        if not self._started:
            # Makes the controllers that the state is put into.
            self._scene.reset(0)
        self._scene.restore(state.physics, state.gripper, state.posture)
        self._started, self._last_gripper = True, state.last_gripper

    def _running(self) -> bool:
        return self._started

    def _free(self) -> None:
        self._started = False
        if hasattr(self, "_scene"):
            self._scene.close()

    @staticmethod
    def _made_by() -> str:
        return states.simulator("mujoco", "robosuite")

    def _agent_pos(self) -> np.ndarray:
        space = self.observation_space["agent_pos"]  # type: ignore[index]  # a Dict, see __init__
        return np.clip(self._scene.proprioception().astype(np.float32), space.low, space.high)

    def _info(self) -> dict[str, Any]:
        assembled, hung = self._scene.stages()
        pose = self._scene.pose()
        return {
            "is_success": assembled and hung,
            "frame_assembled": assembled,
            "tool_on_frame": hung,
            "grip_position": pose.position,
            "grip_rotation": pose.rotation,
        }


def _observation_space(image_size: tuple[int, int] | None) -> gym.spaces.Dict:
    # The arm reaches 0.86 m from its base; a finger opens to 0.04 m and gives way by less than another.
    limits = np.array([1.5, 1.5, 2.5, 1.0001, 1.0001, 1.0001, 1.0001, 0.1, 0.1], np.float32)
    spaces: dict[str, gym.Space[Any]] = {"agent_pos": gym.spaces.Box(-limits, limits, dtype=np.float32)}
    if image_size is not None:
        spaces |= {key: gym.spaces.Box(0, 255, (*image_size, 3), np.uint8) for key in CAMERAS}
    return gym.spaces.Dict(spaces)
