"""``uva/Recorded-v0``: the recorded episodes of a dataset as an environment, for robots that no simulator is at hand of."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from uva_agents.data.conventions import RotationName
from uva_agents.data.fields import as_field
from uva_agents.data.opening import open_dataset
from uva_agents.data.recorded_rows import (
    equivalent_actions,
    given_bounds,
    observed_arrays,
    recorded_bounds,
    require_arrays,
    rotation_of,
    space_of,
)
from uva_agents.data.selection import chosen_episodes, format_episodes
from uva_agents.envs import states
from uva_agents.envs.checks import checked_count, checked_options, checked_render_mode, checked_seed, finite_action
from uva_agents.envs.lifecycle import Lifecycle
from uva_agents.envs.words import Words
from uva_agents.errors import InputError

REPRODUCED = 0.02
"""An episode counts as a success where the mean error is at most this share of the range."""
_MADE_BY = "replay"


@dataclass(frozen=True, slots=True)
class RecordedState:
    """A moment of a replayed episode.

    Attributes:
        episode: its number in the dataset.
        step: control steps done.
        total_error: sum of their errors.
        stamp: which dataset it is of, and a checksum.
    """

    episode: int
    step: int
    total_error: float
    stamp: states.Stamp | None = field(default=None, kw_only=True)


class RecordedEnv(Lifecycle, gym.Env[dict[str, Any], np.ndarray]):
    """Replays episodes of a dataset and measures how far actions are from those that were recorded.

    What is seen next never depends on the action: this measures imitation, step by step, on states that the demonstrator went
    through. It says nothing about what would come of an error. Formats are those of ``uva data inspect``.

    Observation: the dataset's cameras under canonical names (``pixels``, ``pixels_wrist``, ...), ``agent_pos`` where there is one,
    what else ``fields`` names, and ``task``, the episode's instruction, where there are some. Action: as recorded, within the
    bounds of all recorded ones (of rotations, those of their form). Reward: minus the mean absolute error, as a share of the
    range of each number. ``info`` has ``action_error`` (that mean), ``recorded_action``, ``episode`` (its number) and, at the
    last step, ``agreement``: 1 minus the mean error over the episode, 0 before. ``is_success``: that mean is at most
    :data:`REPRODUCED`. Terminates after the last recorded action; its last observation is seen twice.

    ``reset(seed=s)`` replays episode ``s`` modulo their number: consecutive seeds give all of them before one comes again.
    ``reset(options={"episode": n})`` chooses one by its number in the dataset. Frames are read when they are looked at.

    Args:
        data: path of the dataset.
        episodes: only these, by number or in words (``"0-4,7"``); all by default.
        fields: canonical name -> stored key, or a :class:`~uva_agents.data.Field`, or its plain values; where cameras are named,
            there are no others.
        rows_per_step: recorded rows in a control step.
        action_offset: control steps from an observation to the action that is taken at it; by default what the format says.
        limits: (low, high) of actions, one number or one per number of an action, instead of those of the data.
        control_hz: control steps per second, for pictures; by default as recorded.
        render_mode: ``"rgb_array"`` or ``None``; the picture is the main camera's.

    Raises:
        InputError: no dataset is given; episodes that it does not have.
        FileNotFoundError: there is none.
        DataError: no camera or actions in it, or it is damaged.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  (gymnasium's own annotation)
    task = "recorded"
    _env_id: ClassVar[str] = "uva/Recorded-v0"
    _options: ClassVar[tuple[str, ...]] = ("episode",)

    def __init__(
        self,
        data: str | Path | None = None,
        episodes: str | int | Sequence[int] | None = None,
        fields: Mapping[str, Any] | None = None,
        rows_per_step: int = 1,
        action_offset: int | None = None,
        limits: Sequence[Any] | None = None,
        control_hz: float | None = None,
        render_mode: str | None = "rgb_array",
    ) -> None:
        if data is None:
            raise InputError(f"{self._env_id} replays a dataset: give its path, data=PATH (--env-arg data=PATH)")
        self.render_mode = checked_render_mode(render_mode)
        self._rows_per_step = checked_count(rows_per_step, "rows_per_step", 1)
        origins = {name: as_field(value, f"fields[{name!r}]") for name, value in (fields or {}).items()}
        chosen = [episodes] if isinstance(episodes, int) else episodes
        dataset = open_dataset(data, fields=origins or None, episodes=None if limits is None else chosen)
        require_arrays(dataset)
        self._rotation = rotation_of(dataset)
        width = int(np.prod(dataset.arrays["action"].shape[1:]))
        low, high = recorded_bounds(dataset, self._rotation) if limits is None else given_bounds(limits, width)
        if limits is None and chosen is not None:
            dataset = dataset.select(chosen_episodes(chosen, len(dataset)))
        self._dataset = dataset
        self._offset = dataset.action_offset if action_offset is None else checked_count(action_offset, "action_offset")
        self._arrays = observed_arrays(dataset, origins)
        self._span = np.where(high > low, high - low, 1.0)
        self._lengths = -(-np.diff(dataset.ends, prepend=0) // self._rows_per_step)
        numbers = dataset.numbers if dataset.numbers is not None else range(len(dataset))
        self._numbers = {int(number): index for index, number in enumerate(numbers)}
        self._recording = f"{dataset.path.name} ({self._checksum():08x})"
        hz = control_hz or (dataset.control_hz or 10.0) / self._rows_per_step
        self.metadata = {**self.metadata, "render_fps": float(hz)}
        spaces: dict[str, gym.Space[Any]] = {name: space_of(name, value) for name, value in self._arrays.items()}
        if dataset.tasks is not None and any(dataset.tasks):
            spaces["task"] = Words.of(dataset.tasks)
        self.observation_space = gym.spaces.Dict(spaces)
        self.action_space = gym.spaces.Box(
            low.astype(np.float32), np.where(high > low, high, low + 1).astype(np.float32)
        )
        self._index: int | None = None
        self._step, self._total_error = 0, 0.0

    # -- what is replayed --------------------------------------------------------------------------------------------

    @property
    def episodes(self) -> tuple[int, ...]:
        """Numbers, in the dataset, of the episodes that are replayed, in the order of seeds."""
        return tuple(self._numbers)

    @property
    def episode(self) -> int:
        """Number of the episode that is running."""
        self._require_reset("episode")
        return self.episodes[self._now()]

    @property
    def steps_left(self) -> int:
        """Control steps to the end of the episode."""
        self._require_reset("steps_left")
        return int(self._lengths[self._now()]) - self._step

    @property
    def rotation(self) -> RotationName | None:
        """Form of the rotation in an action, where its numbers are named as those of a pose."""
        return self._rotation

    @property
    def task_description(self) -> str:
        """The episode's instruction, "" without one."""
        tasks = self._dataset.tasks
        return "" if tasks is None or self._index is None else tasks[self._index]

    def recorded_actions(self, steps: int) -> np.ndarray:
        """(steps, A) float32, recorded from now on; after the end of the episode its last one, as in training."""
        self._require_reset("recorded_actions()")
        actions = self._dataset.arrays["action"][self._rows(self._step + np.arange(steps), self._offset)]
        return np.asarray(actions.reshape(steps, -1), np.float32)

    # -- the environment ---------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: which; ``None`` draws one.
            options: see the class.

        Raises:
            InputError: an unknown option, or a number that is not among the episodes.
        """
        self._require_open("reset()")
        options = checked_options(options, self._options, self._env_id)
        seed = checked_seed(seed, "Recorded")
        super().reset(seed=seed)
        if "episode" in options:
            index = self._numbered(checked_count(options["episode"], "options['episode']"))
        else:
            index = (int(self.np_random.integers(2**31)) if seed is None else seed) % len(self._numbers)
        self._index, self._step, self._total_error = index, 0, 0.0
        return self.get_obs(), {"is_success": False, "agreement": 0.0, "episode": self.episode}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Go on by one control step, whatever the action is, and say how far it is from what was done.

        Raises:
            InputError: ``action`` has the wrong shape or is not finite.
            NotResetError: no episode has begun.
        """
        recorded = self.recorded_actions(1)[0]
        error = self._advance(action)
        done = self.steps_left == 0
        mean = self._total_error / max(self._step, 1)
        info = {
            "is_success": done and mean <= REPRODUCED,
            "agreement": max(0.0, 1.0 - mean) if done else 0.0,
            "action_error": error,
            "recorded_action": recorded,
            "episode": self.episode,
        }
        return self.get_obs(), -error, done, False, info

    def advance(self, action: Any) -> None:
        """:meth:`step` without a look at the next observation."""
        self._advance(action)

    def error_of(self, action: Any) -> float:
        """Mean absolute error of an action of now, as a share of the range; nothing moves.

        Raises:
            InputError: it has the wrong shape or is not finite.
        """
        shape = self.action_space.shape
        assert shape is not None
        given = finite_action(action, self._env_id, shape, f"action of shape {shape}")
        same = equivalent_actions(self.recorded_actions(1)[0].astype(np.float64), self._rotation)
        return min(float((np.abs(given - one) / self._span).mean()) for one in same)

    def get_obs(self) -> dict[str, Any]:
        """The observation of now; reads its frames from disk.

        Raises:
            DataError: they cannot be read.
        """
        self._require_reset("get_obs()")
        row = int(self._rows(np.array([self._step]))[0])
        obs: dict[str, Any] = {}
        for name, values in self._arrays.items():
            obs[name] = np.array(values[row])
        assert isinstance(self.observation_space, gym.spaces.Dict)
        if "task" in self.observation_space.spaces:
            obs["task"] = self.task_description
        return obs

    def render(self) -> np.ndarray:
        """The main camera's picture, uint8 (H, W, 3)."""
        self._require_reset("render()")
        return np.array(self._arrays["pixels"][int(self._rows(np.array([self._step]))[0])])

    def get_state(self) -> RecordedState:
        """The moment, for :meth:`set_state` of this environment or another of the same dataset."""
        self._require_reset("get_state()")
        values = (self.episode, self._step, self._total_error)
        return RecordedState(*values, stamp=states.stamp(self._env_id, self._recording, _MADE_BY, values))

    def set_state(self, state: RecordedState) -> None:
        """Go to a moment.

        Raises:
            InputError: no state, one of another environment or dataset, or a damaged one.
        """
        self._require_open("set_state()")
        states.check(
            state,
            RecordedState,
            environment=self._env_id,
            made_by=_MADE_BY,
            tasks=(self._recording,),
            fix=": make it with the same data, rows_per_step and action_offset",
            validate=self._validate,
        )
        self._index = self._numbered(state.episode)
        self._step, self._total_error = state.step, state.total_error

    # -- inside ------------------------------------------------------------------------------------------------------

    def _running(self) -> bool:
        return self._index is not None

    def _free(self) -> None:
        self._arrays, self._index = {}, None

    def _now(self) -> int:
        assert self._index is not None
        return self._index

    def _numbered(self, number: int) -> int:
        if number not in self._numbers:
            raise InputError(f"there is no episode {number} here, there are {format_episodes(self._numbers)}")
        return self._numbers[number]

    def _rows(self, steps: np.ndarray, offset: int = 0) -> np.ndarray:
        """Of control steps of this episode, those beyond it standing for its last row."""
        index = self._now()
        last = int(self._dataset.ends[index]) - 1
        begin = int(self._dataset.starts[index])
        if offset == 0:  # the last control step may begin before the last row
            last = begin + (int(self._lengths[index]) - 1) * self._rows_per_step
        rows: np.ndarray = np.minimum(begin + (steps + offset) * self._rows_per_step, last)
        return rows

    def _advance(self, action: Any) -> float:
        """The error; of steps after the end, which change nothing, too."""
        self._require_reset("step()")
        error = self.error_of(action)
        if self.steps_left:
            self._step += 1
            self._total_error += error
        return error

    def _validate(self, state: RecordedState) -> None:
        index = self._numbered(checked_count(state.episode, "episode"))
        if checked_count(state.step, "step") > self._lengths[index]:
            raise InputError(f"episode {state.episode} has {self._lengths[index]} steps, this state is at {state.step}")
        states.numbers(state.total_error, "total_error", size=1, low=0.0)

    def _checksum(self) -> int:
        """Of what actions and episodes there are; frames are not read."""
        found = zlib.crc32(np.ascontiguousarray(self._dataset.arrays["action"]).tobytes())
        found = zlib.crc32(self._dataset.ends.tobytes(), found)
        return zlib.crc32(repr((self._rows_per_step, self._offset, self.episodes)).encode(), found)
