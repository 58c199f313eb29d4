"""The gymnasium environment ``uva/BlockPush-v0``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from uva_agents.envs import states
from uva_agents.envs.block_push.camera import CAMERAS
from uva_agents.envs.block_push.layout import (
    ASSIGNMENTS,
    PUSHER_HIGH,
    PUSHER_LOW,
    Layout,
    layout_of_seed,
    parse_assignment,
)
from uva_agents.envs.block_push.scene import BlockPushScene
from uva_agents.envs.block_push.score import IN_SQUARE, Score, advance, both_placed, distances
from uva_agents.envs.checks import (
    checked_choice,
    checked_flag,
    checked_options,
    checked_render_mode,
    checked_seed,
    checked_side,
    checked_size,
    finite_action,
)
from uva_agents.envs.lifecycle import Lifecycle
from uva_agents.errors import InputError

MAX_STEP = 0.03
"""Largest change of the target per step and axis in the recorded demonstrations, metres."""

Observation = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class BlockPushState:
    """A moment of an episode as a value: picklable, valid in every environment of this kind and version of PyBullet.

    Attributes:
        physics: the simulation as PyBullet writes it (about 90 kB), contact impulses included.
        target: the pusher's target, metres.
        layout: where the episode began; the squares are still there.
        score: what it has earned so far.
        assignment: what it asks for.
        stamp: which environment, task and version it is of, and a checksum.
    """

    physics: bytes
    target: tuple[float, float]
    layout: Layout
    score: Score
    assignment: str | None
    stamp: states.Stamp | None = field(default=None, kw_only=True)


class BlockPushEnv(Lifecycle, gym.Env[Observation, np.ndarray]):
    """``uva/BlockPush-v0``: a robot arm pushes a red and a green block into a red and a green square.

    Observation: ``pixels`` uint8 (H, W, 3) RGB and ``agent_pos`` float32 (2,), the pusher's x and y in metres.
    Action: float32 (2,), for 0.1 s. ``"absolute"``: the point in metres that the pusher moves towards; values outside
    [0.15, 0.70] x [-0.50, 0.50] are clipped. ``"relative"``: change of that point; the point is clipped, not the change.
    Reward: with an assignment, 1 on success; without, that of the published task: 0.49 when a block first enters a
    square, 0.51 when both are placed. Terminates on success.

    ``info["state"]``: float64 (16,) x, y, yaw of the red and the green block, pusher x, y, its target x, y, and x, y,
    yaw of the green and the red square; yaws in [0, pi). ``reset(seed=s)`` starts where the published environment
    starts with seed ``s``. ``reset(options={"assignment": "R-G"})`` changes what this episode asks for.

    Args:
        render_mode: ``"rgb_array"`` or ``None``; pictures are available in both cases.
        assignment: ``"R-R"``, ``"R-G"``, ``"G-R"`` or ``"G-G"``, (block)-(square): success is that block inside that
            square. ``None``: both blocks inside different squares, in any way.
        action_mode: ``"absolute"`` or ``"relative"``.
        image_size: of ``pixels``: (height, width), or the side of a square.
        camera: ``"workspace"``, which fills the picture with where things happen, or ``"published"``.
        render_observations: False leaves ``pixels`` out, for fast simulation; :meth:`observe` draws when asked.
        draw_arm: show the arm, not only the pusher at its tip. Slow, and it hides blocks.
        render_size: height of the pictures of :meth:`render`; they keep the camera's proportions.

    Raises:
        ImportError: PyBullet is not installed.
        ValueError: an unknown option.
    """

    # gymnasium declares it without ClassVar.
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # type: ignore[misc]
    task = "block_push"
    task_description = "push the blocks into the squares"
    _max_episode_steps = 350
    _env_id: ClassVar[str] = "uva/BlockPush-v0"
    _carried: ClassVar[tuple[str, ...]] = ("_assignment",)

    def __init__(
        self,
        render_mode: str | None = "rgb_array",
        *,
        assignment: str | None = None,
        action_mode: str = "absolute",
        image_size: int | tuple[int, int] = 96,
        camera: str = "workspace",
        render_observations: bool = True,
        draw_arm: bool = False,
        render_size: int = 384,
    ) -> None:
        self.render_mode = checked_render_mode(render_mode)
        if assignment is not None:
            parse_assignment(assignment)
        self._assignment = self._default_assignment = assignment
        self._relative = checked_choice(action_mode, "action_mode", ("absolute", "relative")) == "relative"
        self._camera = CAMERAS[checked_choice(camera, "camera", tuple(CAMERAS))]
        self.image_size = checked_size(image_size)
        self._render_observations = checked_flag(render_observations, "render_observations")
        render_size = checked_side(render_size)
        self._render_size = (render_size, round(render_size * self._camera.width / self._camera.height))
        spaces: dict[str, gym.Space[Any]] = {
            # The arm stays near its target, which stays in the box; it overshoots by millimetres.
            "agent_pos": gym.spaces.Box(
                np.array(PUSHER_LOW, np.float32) - 0.1, np.array(PUSHER_HIGH, np.float32) + 0.1, dtype=np.float32
            )
        }
        if render_observations:
            spaces["pixels"] = gym.spaces.Box(0, 255, (*self.image_size, 3), np.uint8)
        # Gymnasium types a Dict's observations as dict[str, Any].
        self.observation_space = gym.spaces.Dict(spaces)  # type: ignore[assignment]
        if self._relative:
            self.action_space = gym.spaces.Box(-MAX_STEP, MAX_STEP, (2,), np.float32)
        else:
            self.action_space = gym.spaces.Box(np.array(PUSHER_LOW, np.float32), np.array(PUSHER_HIGH, np.float32))
        self._scene = BlockPushScene(draw_arm=checked_flag(draw_arm, "draw_arm"))
        self._layout: Layout | None = None
        self._score = Score()

    @property
    def assignment(self) -> str | None:
        """What this episode asks for."""
        return self._assignment

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: below 2**32; the same seed always gives the same episode. ``None`` draws the next one.
            options: ``assignment``, for this episode only; see the class.

        Raises:
            ValueError: an unknown option or a seed out of range.
        """
        self._require_open("reset()")
        assignment = checked_options(options, ("assignment",), self._env_id).get("assignment", self._default_assignment)
        if assignment is not None:
            parse_assignment(assignment)
        seed = checked_seed(seed, "BlockPush")
        super().reset(seed=seed)
        layout = layout_of_seed(int(self.np_random.integers(2**31)) if seed is None else seed)
        self._scene.reset(layout)
        self._layout, self._assignment, self._score = layout, assignment, Score()
        return self._observation(), self._info(layout, 0.0)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move the pusher for 0.1 s.

        Raises:
            ValueError: ``action`` has the wrong shape or is not finite.
            RuntimeError: the environment has not been reset.
        """
        layout = self._placed("step()")
        self._scene.step(self._target(action))
        self._score, reward = advance(self._score, distances(self._scene.block_poses(), layout))
        info = self._info(layout, reward)
        success = info["is_success"]
        return self._observation(), float(success) if self._assignment else reward, success, False, info

    def advance(self, action: Any) -> None:
        """The motion of :meth:`step` without a look at it: nothing is drawn. The score is kept."""
        layout = self._placed("advance()")
        self._scene.step(self._target(action))
        self._score, _ = advance(self._score, distances(self._scene.block_poses(), layout))

    def get_obs(self) -> Observation:
        """The observation of the present moment, as :meth:`step` returns it; changes nothing."""
        self._require_reset("get_obs()")
        return self._observation()

    def observe(self) -> Observation:
        """The observation of the present moment, ``pixels`` included whatever ``render_observations`` says."""
        self._require_reset("observe()")
        pixels = self._scene.draw(self.image_size, self._camera.view, self._camera.projection)
        return {"pixels": pixels, "agent_pos": self._agent_pos()}

    def render(self) -> np.ndarray | None:
        """Picture uint8 (render_size, width, 3) of the present moment."""
        self._require_reset("render()")
        return self._scene.draw(self._render_size, self._camera.view, self._camera.projection)

    def get_state(self) -> BlockPushState:
        """The present moment, for :meth:`set_state` of this or any other BlockPush environment.

        Raises:
            RuntimeError: the environment has not been reset.
        """
        layout = self._placed("get_state()")
        values = self._scene.save(), self._scene.target, layout, self._score, self._assignment
        return BlockPushState(*values, stamp=states.stamp(self._env_id, _name(self._assignment), _made_by(), values))

    def set_state(self, state: BlockPushState) -> None:
        """Go to ``state``; what follows equals what followed there, bit for bit.

        Going to the same state again is fast. The step limit of ``gymnasium.make`` is a wrapper and keeps its own count.

        Raises:
            InputError: ``state`` is no state, of another environment, assignment or version, or was changed; nothing has happened
                then. Of several assignments an environment goes to states of the one it was made for and of the present one.
        """
        self._require_open("set_state()")
        states.check(
            state,
            BlockPushState,
            environment=self._env_id,
            made_by=_made_by(),
            tasks={_name(self._default_assignment): None, _name(self._assignment): None},
            fix="; make it with that assignment, or give it to reset(options={'assignment': ...}) first",
            validate=_validate,
        )
        self._scene.restore(state.physics, state.target, state.layout)
        self._layout, self._score, self._assignment = state.layout, state.score, state.assignment

    def _running(self) -> bool:
        return self._layout is not None

    def _free(self) -> None:
        if hasattr(self, "_scene"):
            self._scene.close()

    def _placed(self, what: str) -> Layout:
        self._require_reset(what)
        assert self._layout is not None
        return self._layout

    def _target(self, action: Any) -> tuple[float, float]:
        value = finite_action(action, "BlockPush", (2,), "action of shape (2,), (x, y) in metres")
        if self._relative:
            value = value + self._scene.target
        x, y = np.clip(value, PUSHER_LOW, PUSHER_HIGH).tolist()
        return x, y

    def _agent_pos(self) -> np.ndarray:
        space = self.observation_space["agent_pos"]  # type: ignore[index]  # a Dict, see __init__
        return np.clip(np.array(self._scene.effector, np.float32), space.low, space.high)

    def _observation(self) -> Observation:
        return self.observe() if self._render_observations else {"agent_pos": self._agent_pos()}

    def _info(self, layout: Layout, reward: float) -> dict[str, Any]:
        blocks = self._scene.block_poses()
        d = distances(blocks, layout)
        if self._assignment is None:
            success = both_placed(d)
        else:
            block, square = parse_assignment(self._assignment)
            success = d[block][square] < IN_SQUARE
        squares = [(x, y, yaw % np.pi) for x, y, yaw in layout.squares]
        return {
            "is_success": success,
            "assignment": self._assignment,
            "state": np.array([*sum(blocks, ()), *self._scene.effector, *self._scene.target, *sum(squares, ())]),
            "block_distances": _by_name(d),
            "entered": _by_name(self._score.entered),
            "published_reward": reward,
            "score": self._score.total,
            "p1": self._score.p1,
            "p2": self._score.p2,
        }


def _by_name(pairs: tuple[tuple[Any, Any], tuple[Any, Any]]) -> dict[str, Any]:
    """Per assignment: ``{"R-R": ..., ...}``."""
    found = {}
    for name in ASSIGNMENTS:
        block, square = parse_assignment(name)
        found[name] = pairs[block][square]
    return found


def _name(assignment: str | None) -> str:
    return "any assignment" if assignment is None else assignment


def _made_by() -> str:
    return states.simulator("pybullet")


def _validate(state: BlockPushState) -> None:
    """PyBullet trusts what it reads: other bytes than its own end the process."""
    if not (isinstance(state.physics, bytes) and state.physics.startswith(b"BULLET")):
        raise InputError("this state holds no simulation as PyBullet writes it: it was damaged or put together by hand")
    states.numbers(state.target, "target", size=2, low=-10.0, high=10.0)
    states.numbers((*state.layout.blocks, *state.layout.squares), "layout", size=12, low=-10.0, high=10.0)
