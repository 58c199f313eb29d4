"""PushT: a round agent pushes a T-shaped block onto a T-shaped mark, seen from above.

Physics, drawing and reward are gym-pusht's. Added here: the initial states that the published PushT numbers were
measured on, ``is_success`` and coverage in every ``info``, saving and restoring the simulation exactly, and errors that
name the mistake.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

# SDL reads these when pygame starts: without them a machine with no display or sound card fails or fills stderr.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import gymnasium as gym
import numpy as np
from gym_pusht.envs.pusht import PushTEnv as GymPushT
from gym_pusht.envs.pusht import pymunk_to_shapely

from uva_agents.envs import states
from uva_agents.envs.checks import checked_options, checked_render_mode, checked_seed, checked_side, finite_action
from uva_agents.envs.lifecycle import Lifecycle
from uva_agents.envs.pusht_values import GOAL, SIZE, Pose, Start, checked_start, initial_state

ResetOptions = Mapping[str, Any]
_Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class PushTState:
    """A moment of an episode, as where it began and what was done since. Hashable, picklable, small.

    The physics engine keeps contact impulses, overlap corrections and the order in which it visits contacts to itself,
    so copied positions and velocities drift away from the original within a few pushes. Replaying does not.

    Attributes:
        start: agent x, agent y, block x, block y, block angle, as given to ``reset_to_state``.
        actions: the (x, y) targets executed since, in order.
        max_coverage: best coverage seen since the reset, in [0, 1].
        goal: pose of the mark.
        stamp: which environment and version it is of, and a checksum.
    """

    start: Start
    actions: tuple[_Pair, ...]
    max_coverage: float
    goal: Pose = GOAL
    stamp: states.Stamp | None = field(default=None, kw_only=True)


class PushTEnv(Lifecycle, GymPushT):  # type: ignore[misc]  # gym-pusht has no type information
    """``uva/PushT-v0``.

    Observation: ``pixels`` uint8 (96, 96, 3) RGB and ``agent_pos`` float32 (2,) in [0, 512].
    Action: float32 (2,), the point in [0, 512]^2 that the agent moves towards for 0.1 s; values outside are clipped.
    Reward: coverage of the mark by the block, divided by 0.95 and clipped to [0, 1].
    Terminates when coverage exceeds 0.95.

    ``reset(seed=s)`` gives the initial state that the original Diffusion Policy environment gives for seed ``s``.
    ``reset(options={"reset_to_state": [agent_x, agent_y, block_x, block_y, block_angle]})`` places both. The block
    turns about its centre of mass *after* it was placed, as in the original: its final position is not the one given.

    Args:
        render_mode: ``"rgb_array"`` or ``None``; pictures are available in both cases.
        render_size: side in pixels of the square pictures of :meth:`render`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    task = "pusht"
    task_description = "push the T-shaped block onto the T-shaped mark"
    _max_episode_steps = 300
    _env_id: ClassVar[str] = "uva/PushT-v0"
    _options: ClassVar[tuple[str, ...]] = ("reset_to_state",)
    _state: ClassVar[type[PushTState]] = PushTState

    def __init__(self, render_mode: str | None = "rgb_array", render_size: int = 512) -> None:
        checked_render_mode(render_mode)
        render_size = checked_side(render_size)
        super().__init__(
            obs_type="pixels_agent_pos",
            # The observation itself is a rendered picture, so the simulator's own mode is never None.
            render_mode="rgb_array",
            visualization_width=render_size,
            visualization_height=render_size,
        )
        self.observation_space = gym.spaces.Dict(
            {
                "pixels": gym.spaces.Box(0, 255, (self.observation_height, self.observation_width, 3), np.uint8),
                # The agent is an overdamped follower of a target inside the workspace: it never leaves it.
                "agent_pos": gym.spaces.Box(0.0, SIZE, (2,), np.float32),
            }
        )
        self.action_space = gym.spaces.Box(0.0, SIZE, (2,), np.float32)
        self._goal = GOAL
        self._start: Start | None = None
        self._actions: list[_Pair] = []
        self._max_coverage = 0.0
        self._last_action: _Pair | None = None

    def reset(
        self, *, seed: int | None = None, options: ResetOptions | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: below 2**32; the same seed always gives the same initial state. ``None`` draws the next one.
            options: see the class.

        Raises:
            ValueError: an unknown option, a malformed state or a seed out of range.
        """
        self._require_open("reset()")
        options = checked_options(options, self._options, self._env_id)
        seed = checked_seed(seed, "PushT")
        # Seeds the generator that later resets without a seed draw from; gym-pusht's reset would render in vain.
        gym.Env.reset(self, seed=seed)
        start = self._chosen_start(options, seed)
        self._begin(options)
        self._place(start)
        self._max_coverage = 0.0
        observation, info = self.get_obs(), self._get_info()
        self._max_coverage = info["max_coverage"]
        return observation, info

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Move the agent towards ``action`` for 0.1 s.

        Raises:
            ValueError: ``action`` has the wrong shape or is not finite.
            RuntimeError: the environment has not been reset, or was closed.
        """
        self._require_reset("step()")
        self._advance(_checked_action(action))
        info = self._get_info()
        self._max_coverage = info["max_coverage"]
        reward = float(np.clip(info["coverage"] / self.success_threshold, 0.0, 1.0))
        return self.get_obs(), reward, info["is_success"], False, info

    def advance(self, action: Any) -> None:
        """The motion of :meth:`step` without a look at it: no drawing, no reward, no end of the episode."""
        self._require_reset("advance()")
        self._advance(_checked_action(action))

    def get_obs(self) -> dict[str, np.ndarray]:
        """The observation of the present moment; draws, changes nothing."""
        self._require_reset("get_obs()")
        observation = super().get_obs()
        # float32(-1e-15) is still negative, hence outside the space.
        position = np.clip(np.asarray(observation["agent_pos"], np.float32), 0.0, SIZE)
        return {"pixels": observation["pixels"], "agent_pos": position}

    def render(self) -> np.ndarray | None:
        """Picture uint8 (render_size, render_size, 3) of the present moment, with the target of the last action."""
        self._require_reset("render()")
        return np.asarray(super().render())

    def get_state(self) -> PushTState:
        """The present moment, for :meth:`set_state` of this or any other environment of the same id.

        Raises:
            RuntimeError: the environment has not been reset, or was closed.
        """
        self._require_reset("get_state()")
        values = self._moment()
        return self._state(*values, stamp=states.stamp(self._env_id, "", _made_by(), values))

    def _moment(self) -> tuple[Any, ...]:
        """Values of the state's fields."""
        assert self._start is not None
        return self._start, tuple(self._actions), float(self._max_coverage), self._goal

    def set_state(self, state: PushTState) -> None:
        """Go to ``state``; what follows equals what followed there, bit for bit.

        Costs one physics step (about 0.2 ms) per action since the reset, or since the present moment if ``state`` lies
        in its future. The step limit of ``gymnasium.make`` is a wrapper and keeps its own count.

        Raises:
            InputError: ``state`` is no state, of another environment or version, or was changed; nothing has happened then.
        """
        self._require_open("set_state()")
        states.check(state, self._state, environment=self._env_id, made_by=_made_by(), validate=self._validate)
        self._adopt(state)
        done = len(self._actions)
        if self._start != state.start or tuple(self._actions) != state.actions[:done]:
            self._place(state.start)
            done = 0
        for action in state.actions[done:]:
            self._advance(action)
        self._max_coverage = state.max_coverage

    def draw_state(self, state: Any) -> np.ndarray:
        """What ``pixels`` would be with agent and block at recorded poses; the episode that is running does not notice.

        Args:
            state: (5,) agent x, agent y, block x, block y, block angle, as in the recorded demonstrations, where the block
                is where they say (unlike ``reset_to_state``).
        """
        self._require_open("draw_state()")
        x, y, *block = checked_start(state, "draw_state()")
        running = {name: getattr(self, name, None) for name in _SCENE}
        try:
            self._setup()
            self.agent.position = (x, y)
            self.block.angle, self.block.position = block[2], (block[0], block[1])
            for body in (self.agent, self.block):
                self.space.reindex_shapes_for_body(body)
            return np.asarray(self._render())
        finally:
            for name, value in running.items():
                setattr(self, name, value)

    def _running(self) -> bool:
        return self._start is not None

    def _free(self) -> None:
        GymPushT.close(self)

    def _chosen_start(self, options: ResetOptions, seed: int | None) -> Start:
        """Where the episode starts. Called once per reset, after seeding."""
        if "reset_to_state" in options:
            return checked_start(options["reset_to_state"])
        return initial_state(self._episode_seed(seed))

    def _episode_seed(self, seed: int | None) -> int:
        """The reset's own, or the next one that the generator gives."""
        return int(self.np_random.integers(2**31)) if seed is None else seed

    def _begin(self, options: ResetOptions) -> None:
        """Choose what varies from episode to episode besides the start. Called once per reset, after seeding."""

    def _adopt(self, state: PushTState) -> None:
        """Take over from ``state`` what :meth:`_begin` chose."""

    def _validate(self, state: PushTState) -> None:
        """Raise an InputError where no simulation can begin from such values."""
        states.numbers(state.start, "start", size=5)
        states.numbers(state.start[:4], "start", low=0.0, high=SIZE)
        if state.actions:
            states.numbers(state.actions, "actions", size=2 * len(state.actions), low=0.0, high=SIZE)
        states.numbers(state.max_coverage, "max_coverage", size=1, low=0.0, high=1.0 + 1e-6)
        states.numbers(state.goal, "goal", size=3)

    def _setup(self) -> None:
        super()._setup()
        self.goal_pose = np.array(self._goal)

    def _place(self, start: Start) -> None:
        self._setup()
        self._set_state(np.array(start))
        self._start, self._actions, self._last_action = start, [], None

    def _advance(self, action: _Pair) -> None:
        """The PD controller of gym-pusht in plain floats: the same operations in the same order, without drawing."""
        self.n_contact_points = 0
        agent, space, k_p, k_v, dt = self.agent, self.space, self.k_p, self.k_v, self.dt
        for _ in range(int(1 / (dt * self.control_hz))):
            (x, y), (vx, vy) = agent.position, agent.velocity
            ax = k_p * (action[0] - x) + k_v * (0.0 - vx)
            ay = k_p * (action[1] - y) + k_v * (0.0 - vy)
            agent.velocity = (vx + ax * dt, vy + ay * dt)
            space.step(dt)
        self._actions.append(action)
        self._last_action = action

    def _get_coverage(self) -> float:
        """Share of the mark that the block covers.

        gym-pusht visits the two bars of the block in the order of a set, so that the sum of their areas differs in its
        last bit from one environment to the next; a list keeps results repeatable.
        """
        block = pymunk_to_shapely(self.block, self._block_shapes)
        mark = pymunk_to_shapely(self.get_goal_pose_body(self.goal_pose), self._block_shapes)
        return float(mark.intersection(block).area / mark.area)

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        coverage = self._get_coverage()
        info["coverage"] = coverage
        info["max_coverage"] = max(self._max_coverage, coverage)
        info["is_success"] = coverage > self.success_threshold
        return info


# What gym-pusht's _setup() makes anew.
_SCENE = ("space", "teleop", "agent", "block", "_block_shapes", "goal_pose", "collision_handeler", "n_contact_points")


def _checked_action(action: Any) -> _Pair:
    value = finite_action(action, "PushT", (2,), "action of shape (2,), a target (x, y) in pixels")
    x, y = np.clip(value, 0.0, SIZE).tolist()
    return x, y


def _made_by() -> str:
    return states.simulator("pymunk", "gym-pusht")
