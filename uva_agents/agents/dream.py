"""Environments that live in a world model: real ``gymnasium`` environments, so that any RL library can train in them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from uva_agents.agents.arguments import whole
from uva_agents.agents.costs import checked_costs, name_of
from uva_agents.agents.futures import Futures
from uva_agents.agents.observations import to_floats
from uva_agents.checkpoints.folder import shipped_names
from uva_agents.errors import InputError

if TYPE_CHECKING:
    from uva_agents.agents.rollout import Rollout
    from uva_agents.agents.world_model import WorldModel

Starts = Callable[[np.random.Generator], Any] | Sequence[Mapping[str, Any]] | gym.Env[Any, Any]
"""Where dreams begin: observations to choose from, a function of a random generator that gives one, or an environment to reset."""


@dataclass(frozen=True)
class DreamRules:
    """What makes an environment of a world model.

    Args:
        objective: cost of an imagined frame (see :class:`uva_agents.planners.Objective`), given a rollout of one candidate and
            that one frame. The reward is minus the cost.
        horizon: control steps after which an episode is truncated, a multiple of the model's frame stride.
        hold: an action is held for all control steps of a frame, and the action space is the agent's. Otherwise a step takes
            one action per control step, (frame_stride, A).
        success_cost: an episode ends in success when the cost is at most this; ``None`` never ends one.
    """

    objective: Callable[[Rollout], Any]
    horizon: int = 64
    hold: bool = True
    success_cost: float | None = None


_BEGUN = {"is_success": False, "control_steps": 0}
"""What ``info`` says of a fresh episode."""


class _Dream:
    """What one and several dreams share: spaces, beginnings, steps, rewards."""

    def __init__(self, world: WorldModel, rules: DreamRules, starts: Starts | None, n: int) -> None:
        weights = world.weights
        c, spec = weights.config, weights.spec
        self.world, self.rules = world, rules
        self.stride = c.frame_stride
        if whole(rules.horizon, "horizon") < self.stride or rules.horizon % self.stride:
            raise InputError(f"horizon must be a multiple of the frame stride {self.stride}, got {rules.horizon}")
        if rules.horizon > c.action_steps and not c.sees_frames_alone:
            raise InputError(
                "these weights need proprioception or a wrist camera at every step, which nobody has measured in imagined frames: "
                f"horizon must be at most {c.action_steps}"
            )
        if not callable(rules.objective):
            raise TypeError(f"objective must be callable, rollout -> cost, got {type(rules.objective).__name__}")
        limit = rules.success_cost
        if limit is not None and (
            isinstance(limit, bool) or not isinstance(limit, int | float | np.number) or not np.isfinite(limit)
        ):
            raise InputError(f"success_cost must be a finite number, or None to end no episode, got {limit!r:.60}")
        self.futures = Futures(world.engine, world.sampler, n)
        self.elapsed = np.zeros(n, np.int64)
        self.starts = starts
        self._env: gym.Env[Any, Any] | None = None
        low, high = spec.action_space.low, spec.action_space.high
        if not rules.hold:
            low, high = np.tile(low, (self.stride, 1)), np.tile(high, (self.stride, 1))
        self.action_space = gym.spaces.Box(low, high, dtype=np.float32)
        observed: dict[str, gym.Space[Any]] = {"pixels": gym.spaces.Box(0, 255, (*spec.image_shape, 3), np.uint8)}
        self.reads_position = self.futures.agent_position(np.zeros((1, *spec.image_shape, 3), np.uint8)) is not None
        if self.reads_position:
            observed["agent_pos"] = gym.spaces.Box(-np.inf, np.inf, (c.proprio_dim,), np.float32)
        self.observation_space = gym.spaces.Dict(observed)

    def begin(self, row: int, rng: np.random.Generator, options: Mapping[str, Any] | None) -> None:
        """A new episode of a row, from ``options["obs"]`` (and ``options["history"]``) or from the starts."""
        from uva_agents.envs.checks import checked_options

        options = checked_options(options, ("obs", "history"), "a dream")
        if "obs" in options:
            obs, history = options["obs"], options.get("history")
        else:
            obs, history = self._start(rng), None
        self.futures.begin(row, self.world.prepare(obs, history=history), int(rng.integers(1 << 62)))
        self.elapsed[row] = 0

    def _start(self, rng: np.random.Generator) -> Any:
        starts = self.starts
        if starts is None:
            env_id = self.world.weights.spec.env_id
            if env_id is None:
                raise InputError(
                    "these weights name no environment to begin dreams in: give starts=, or reset(options={'obs': ...})"
                )
            import uva_agents.envs  # noqa: F401  (registers them)
            from uva_agents.envs.fitting import options_for

            self._env = self._env or gym.make(env_id, **options_for(env_id, self.world.weights, {}))
            starts = self._env
        if isinstance(starts, gym.Env):
            return starts.reset(seed=int(rng.integers(1 << 31)))[0]
        if callable(starts):
            return starts(rng)
        if not len(starts):
            raise InputError("starts is empty: give at least one observation")
        return starts[int(rng.integers(len(starts)))]

    def observations(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """Batched, of these rows."""
        pixels = np.stack([self.futures.frame(row) for row in rows])
        seen = {"pixels": pixels}
        if self.reads_position:
            seen["agent_pos"] = cast(np.ndarray, self.futures.agent_position(pixels))
        return seen

    def step(
        self, rows: list[int], actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Rewards, terminations, truncations (R,) and infos of these rows."""
        expected = (len(rows), *self.action_space.shape)
        actions = to_floats(actions, "actions")
        if actions.shape != expected:
            raise InputError(f"actions must have shape {expected}, got {actions.shape}")
        if not np.isfinite(actions).all():
            raise InputError("actions have NaN or infinity")
        actions = np.clip(actions, self.action_space.low, self.action_space.high)
        chunks = np.repeat(actions[:, None], self.stride, axis=1) if self.rules.hold else actions
        rollouts = self.futures.advance(rows, chunks)
        objective = self.rules.objective
        costs = np.concatenate([checked_costs(objective(rollout), 1, name_of(objective)) for rollout in rollouts])
        self.elapsed[rows] += self.stride
        limit = self.rules.success_cost
        success = np.zeros(len(rows), bool) if limit is None else costs <= limit
        truncated = (self.elapsed[rows] >= self.rules.horizon) & ~success
        infos = {"is_success": success, "cost": costs, "control_steps": self.elapsed[rows].copy()}
        return -costs, success, truncated, infos

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def __getstate__(self) -> dict[str, Any]:
        # The environment that starts come from is reset before every use, so another one is as good.
        return {**self.__dict__, "_env": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Dream:
        """Independent futures of the same weights, objective and starts: a tree search copies at every node."""
        for shared in (self.world, self.rules, self.starts):
            memo[id(shared)] = shared
        new = object.__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update({key: copy.deepcopy(value, memo) for key, value in self.__getstate__().items()})
        return new


def require_open(closed: bool, what: str) -> None:
    """Refuse ``what`` of a dream that was closed.

    Raises:
        ClosedError: as other environments.
    """
    if closed:
        from uva_agents.envs.lifecycle import ClosedError

        raise ClosedError(f"{what} after close(): this dream is closed for good; make another one")


class DreamEnv(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """One imagined environment. Made by :meth:`WorldModel.as_env <uva_agents.agents.WorldModel.as_env>`.

    A step is one frame of the model (4 control steps). Observations: ``pixels`` uint8 (H, W, 3), and ``agent_pos`` float32 (P,)
    as read from the frame, for weights that can. Reward: minus the objective's cost of the new frame. ``info``: ``is_success``,
    ``cost``, ``control_steps``. Copies and pickles go on exactly as the original; copies share the weights.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 3}  # noqa: RUF012  (gymnasium declares it per instance)

    def __init__(self, world: WorldModel, rules: DreamRules, *, starts: Starts | None = None) -> None:
        self._dream = _Dream(world, rules, starts, 1)
        self.spec = spec_of(world, rules, starts)
        self.action_space = self._dream.action_space
        self.observation_space = cast("gym.Space[dict[str, np.ndarray]]", self._dream.observation_space)
        self.render_mode = "rgb_array"
        self._running = self._closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode; ``options={"obs": ..., "history": ...}`` says where."""
        from uva_agents.envs.checks import checked_seed

        require_open(self._closed, "reset()")
        super().reset(seed=checked_seed(seed, "dream"))
        self._dream.begin(0, self.np_random, options)
        self._running = True
        return self._observation(), dict(_BEGUN)

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One frame further."""
        require_open(self._closed, "step()")
        if not self._running:
            raise RuntimeError("no episode is running, or it has ended: call reset() before step()")
        rewards, terminated, truncated, infos = self._dream.step([0], to_floats(action, "actions")[None])
        self._running = not (terminated[0] or truncated[0])
        info = {key: value[0].item() for key, value in infos.items()}
        return self._observation(), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> np.ndarray:
        """The newest frame."""
        require_open(self._closed, "render()")
        if not self._dream.futures.begun:
            raise RuntimeError("call reset() before render()")
        return self._dream.futures.frame(0).copy()

    def close(self) -> None:
        """Closed for good, as other environments."""
        self._closed = True
        self._dream.close()

    def _observation(self) -> dict[str, np.ndarray]:
        return {key: value[0] for key, value in self._dream.observations([0]).items()}


def spec_of(world: WorldModel, rules: DreamRules, starts: Starts | None) -> EnvSpec | None:
    """What ``gymnasium.make`` makes the same environment of; ``None`` where it cannot.

    It can for shipped weights, an objective that can be imported, and starts in the weights' own environment.
    """
    name, function = world.weights.name, rules.objective
    place = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    if starts is not None or name not in shipped_names() or "<" in place or "." in place.partition(":")[2]:
        return None
    module = sys.modules.get(place.partition(":")[0])
    if module is None or getattr(module, place.partition(":")[2], None) is not function:
        return None
    options = {"horizon": rules.horizon, "hold": rules.hold, "success_cost": rules.success_cost}
    kwargs = {"weights": name, "objective": place, **options}
    return EnvSpec("uva/Dream-v0", entry_point="uva_agents.agents.dream_entry:make_dream", kwargs=kwargs)
