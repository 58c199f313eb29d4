"""PushT with a goal given as a picture: bring agent and block to where they were some steps later in another episode."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from uva_agents.envs import states
from uva_agents.envs.checks import WrongTypeError, checked_count
from uva_agents.envs.pusht import PushTEnv, PushTState, ResetOptions
from uva_agents.envs.pusht_values import SIZE, Start, checked_start, initial_state
from uva_agents.errors import InputError

NEAR_PX = 20.0
"""A goal is reached when (agent x, y, block x, y) are less than this far from it, as one distance in four dimensions..."""
NEAR_RAD = math.pi / 9
"""...and the block's angle is off by less than this (20 degrees)."""

_STRIDE = 10.0
_REACH = 150.0
_LEAD_IN = (30, 60)


@dataclass(frozen=True, slots=True)
class GoalState(PushTState):
    """A moment of an episode with what is to be reached."""

    wanted: Start = (0.0, 0.0, 0.0, 0.0, 0.0)


class PushTGoalEnv(PushTEnv):
    """``uva/PushTGoal-v0``: reach the state that a picture shows, within 50 steps.

    Observation: as ``uva/PushT-v0``, and ``goal`` uint8 (96, 96, 3), what ``pixels`` would be at the goal. The mark is drawn
    where it always is and means nothing. ``info`` has ``goal_state`` (5,), ``goal_distance`` (pixels, of agent and block
    positions together) and ``goal_angle`` (radians); ``is_success`` where both are near enough (:data:`NEAR_PX`,
    :data:`NEAR_RAD`). Reward: 0 at the goal, else minus distance / 512 minus angle / pi. Terminates when the goal is reached.

    A state is (agent x, y, block x, y, block angle) as ``info["pos_agent"]`` and ``info["block_pose"]`` show it; everything
    rests. Start and goal are ``ahead`` steps apart in an episode that someone else went through: by default a script that goes
    to and fro around the block and pushes it about (a function of the reset's seed, no data needed), or a recorded one.
    ``reset(options={"start_state": ..., "goal_state": ...})`` gives either, or both. An episode may start solved: then
    ``is_success`` is true on reset.

    Args:
        render_mode, render_size: as in ``uva/PushT-v0``.
        ahead: steps from start to goal.
        recordings: a replay buffer (zarr folder) with ``data/state`` (N, 5) and ``meta/episode_ends``, to take pairs from.
        episodes: which of its episodes, for example held-out ones; all when absent.

    Raises:
        InputError: recordings that are none, or have no episode of more than ``ahead`` steps.
    """

    task = "pusht-goal"
    task_description = "bring finger and block where the goal picture shows them"
    _env_id: ClassVar[str] = "uva/PushTGoal-v0"
    _options: ClassVar[tuple[str, ...]] = ("start_state", "goal_state")
    _state: ClassVar[type[PushTState]] = GoalState

    def __init__(
        self,
        render_mode: str | None = "rgb_array",
        render_size: int = 512,
        ahead: int = 25,
        recordings: str | Path | None = None,
        episodes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(render_mode, render_size)
        ahead = checked_count(ahead, "ahead", 1)
        if episodes is not None and recordings is None:
            raise InputError("episodes= chooses among recordings: give recordings=, too")
        if not isinstance(recordings, str | Path | None):
            raise WrongTypeError(f"recordings={recordings!r}: pass the path of a replay buffer")
        if episodes is not None:
            if not isinstance(episodes, Iterable):
                raise WrongTypeError(f"episodes={episodes!r}: pass numbers of episodes")
            episodes = [checked_count(number, "episodes") for number in episodes]
        self.ahead = ahead
        self._recorded = None if recordings is None else _Recording.read(Path(recordings), ahead, episodes)
        picture = self.observation_space["pixels"]
        self.observation_space = gym.spaces.Dict({**self.observation_space.spaces, "goal": picture})
        self._wanted: Start = (0.0, 0.0, 0.0, 0.0, 0.0)
        self._goal_image: np.ndarray | None = None

    def get_obs(self) -> dict[str, np.ndarray]:
        """The observation of the present moment, with the picture of the goal; draws, changes nothing."""
        if self._goal_image is None:
            self._goal_image = self.draw_state(self._wanted)
        return {**super().get_obs(), "goal": self._goal_image.copy()}

    def _moment(self) -> tuple[Any, ...]:
        return *super()._moment(), self._wanted

    def _adopt(self, state: PushTState) -> None:
        assert isinstance(state, GoalState)
        self._aim(state.wanted)

    def _validate(self, state: PushTState) -> None:
        super()._validate(state)
        assert isinstance(state, GoalState)
        states.numbers(state.wanted, "goal", size=5)

    def _aim(self, wanted: Start) -> None:
        if wanted != self._wanted:
            self._wanted, self._goal_image = wanted, None

    def _chosen_start(self, options: ResetOptions, seed: int | None) -> Start:
        start, wanted = (checked_start(options[name], name) if name in options else None for name in self._options)
        if start is None or wanted is None:
            drawn = self._drawn_pair(self._episode_seed(seed))
            start, wanted = start or drawn[0], wanted or drawn[1]
        self._aim(wanted)
        return start

    def _drawn_pair(self, seed: int) -> tuple[Start, Start]:
        if self._recorded is None:
            return scripted_pair(seed, self.ahead)
        return self._recorded.pair(seed)

    def _place(self, start: Start) -> None:
        """As recorded: unlike gym-pusht's own placement, which turns the block about its centre of mass afterwards."""
        self._setup()
        self.agent.position = start[:2]
        self.block.angle = start[4]
        self.block.position = start[2:4]
        for body in (self.agent, self.block):
            self.space.reindex_shapes_for_body(body)
        self._start, self._actions, self._last_action = start, [], None

    def _get_info(self) -> dict[str, Any]:
        info = super()._get_info()
        off = np.subtract(_state_of(self), self._wanted)
        distance = float(np.linalg.norm(off[:4]))
        angle = abs((off[4] + math.pi) % (2 * math.pi) - math.pi)
        info["goal_state"] = np.array(self._wanted)
        info["goal_distance"], info["goal_angle"] = distance, float(angle)
        info["is_success"] = bool(distance < NEAR_PX and angle < NEAR_RAD)
        return info

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Move the agent towards ``action`` for 0.1 s; see ``uva/PushT-v0`` for errors."""
        observation, _, terminated, truncated, info = super().step(action)
        reward = 0.0 if terminated else -info["goal_distance"] / SIZE - info["goal_angle"] / math.pi
        return observation, reward, terminated, truncated, info


def scripted_pair(seed: int, ahead: int = 25) -> tuple[Start, Start]:
    """Two moments, ``ahead`` steps apart, of a script that pushes the block about: a function of the seed.

    The agent goes, 10 pixels a step, from one point to the next, each drawn within 150 pixels of the block in x and y. The
    walls do not always hold what is squeezed against them (1 seed in 150): a pair with anything outside the picture is
    drawn again, from the next start.
    """
    for attempt in itertools.count():
        pair = _scripted_episode(seed if attempt == 0 else (seed, attempt), ahead)
        if all(_inside(moment) for moment in pair):
            return pair
    raise AssertionError("unreachable")


def _scripted_episode(seed: int | tuple[int, int], ahead: int) -> tuple[Start, Start]:
    rng = np.random.default_rng(seed)
    env = PushTEnv()
    env._place(initial_state(seed if isinstance(seed, int) else int(rng.integers(2**31))))
    lead_in = int(rng.integers(*_LEAD_IN))
    target, moments = np.array(env.agent.position), []
    point = target
    for _ in range(lead_in + ahead + 1):
        moments.append(_state_of(env))
        if np.linalg.norm(point - target) < 1.0:
            point = np.clip(np.array(env.block.position) + rng.uniform(-_REACH, _REACH, 2), 20.0, SIZE - 20.0)
        way = point - target
        target = target + way * min(1.0, _STRIDE / max(float(np.linalg.norm(way)), 1e-9))
        env.advance(target)
    env.close()
    return moments[lead_in], moments[lead_in + ahead]


def _inside(moment: Start) -> bool:
    return all(0 <= coordinate <= SIZE for coordinate in moment[:4])


def _state_of(env: PushTEnv) -> Start:
    (x, y), (block_x, block_y) = env.agent.position, env.block.position
    return float(x), float(y), float(block_x), float(block_y), float(env.block.angle)


@dataclass(frozen=True, eq=False)
class _Recording:
    """States (N, 5) and every step that has another one ``ahead`` steps later in its episode."""

    states: np.ndarray
    starts: np.ndarray
    ahead: int

    def pair(self, seed: int) -> tuple[Start, Start]:
        """A function of the seed: every step that can be a start is equally likely."""
        row = int(self.starts[np.random.default_rng(seed).integers(len(self.starts))])
        start, goal = (checked_start(self.states[i], "a recorded state") for i in (row, row + self.ahead))
        return start, goal

    @staticmethod
    def read(path: Path, ahead: int, episodes: Sequence[int] | None) -> _Recording:
        chosen = None if episodes is None else tuple(int(e) for e in episodes)
        return _read_recording(path.resolve(), ahead, chosen)


@lru_cache(maxsize=2)
def _read_recording(path: Path, ahead: int, episodes: tuple[int, ...] | None) -> _Recording:
    import zarr

    if not path.exists():
        raise InputError(f"no recordings at {path}")
    try:
        root = zarr.open_group(str(path), mode="r")
        states, ends = (np.asarray(root[key]) for key in ("data/state", "meta/episode_ends"))
    except (KeyError, OSError, ValueError) as error:
        raise InputError(f"{path} is no PushT replay buffer with data/state and meta/episode_ends: {error}") from error
    if states.ndim != 2 or states.shape[1] != 5:
        raise InputError(f"{path}: data/state must be (N, 5), finger x, y, block x, y, angle; it is {states.shape}")
    begins = np.concatenate([[0], ends[:-1]])
    if episodes is not None and any(not 0 <= e < len(ends) for e in episodes):
        raise InputError(f"{path} has episodes 0 to {len(ends) - 1}, and {list(episodes)} were asked for")
    numbers = range(len(ends)) if episodes is None else episodes
    parts = [np.arange(begins[e], max(begins[e], ends[e] - ahead)) for e in numbers]
    rows = np.concatenate(parts) if parts else np.zeros(0, int)
    if not len(rows):
        raise InputError(f"{path}: no episode has more than {ahead} steps, so none has a goal {ahead} steps ahead")
    usable = np.array([_inside(states[row]) and _inside(states[row + ahead]) for row in rows])
    rows = rows[usable]
    if not len(rows):
        raise InputError(f"{path}: no two steps {ahead} apart have finger and block within [0, {SIZE:.0f}] pixels")
    return _Recording(states.astype(np.float64), rows, ahead)
