"""A gymnasium vector environment as stable-baselines3's ``VecEnv``: several dreams in one batch, for its algorithms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

try:
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this bridge needs stable-baselines3: pip install 'uva-agents[sb3]'") from error

from uva_agents.errors import InputError


class SB3VecEnv(VecEnv):
    """Any gymnasium ``VectorEnv`` for stable-baselines3, which resets an episode in the step that ends it.

    >>> env = SB3VecEnv(world.as_vector_env(16, cost))              # doctest: +SKIP
    >>> PPO("MultiInputPolicy", env).learn(10_000)                  # doctest: +SKIP

    ``info["terminal_observation"]`` is what an ended episode showed last, and ``info["TimeLimit.truncated"]`` says that it ended
    by its length. Environments in any of gymnasium's autoreset modes are taken:

    - ``SAME_STEP`` resets by itself;
    - ``DISABLED`` and ``NEXT_STEP`` are reset here, by ``reset(options={"reset_mask": ...})``. ``NEXT_STEP`` environments that do
      not know it can still be used as long as all their episodes end together; when one ends alone, an error says so.

    Args:
        env: sub-environments share an observation space and an action space.

    Raises:
        TypeError: not a vector environment.
        InputError: at a step, an episode that ended cannot be reset without moving the others.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        if not isinstance(env, gym.vector.VectorEnv):
            raise TypeError(f"SB3VecEnv takes a gymnasium VectorEnv, got {type(env).__name__}")
        self.env = env
        self.mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self._actions: np.ndarray | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        """Observations (n, ...) of new episodes."""
        seeds: Any = None if all(seed is None for seed in self._seeds) else [_seed(seed) for seed in self._seeds]
        if any(options != self._options[0] for options in self._options):
            raise InputError("environments in one batch are reset with the same options: give all the same")
        options = {"options": dict(self._options[0])} if self._options[0] else {}
        obs, infos = self.env.reset(seed=seeds, **options)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [row(infos, i) for i in range(self.num_envs)]
        first: VecEnvObs = _copied(obs)
        return first

    def step_async(self, actions: np.ndarray) -> None:
        """Actions (n, ...) of the step that ``step_wait`` takes."""
        self._actions = np.asarray(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Observations, rewards float32 (n,), dones (n,) and one info per environment."""
        obs, rewards, terminated, truncated, infos = self.env.step(self._actions)
        seen = _copied(obs)
        done = np.asarray(terminated, bool) | np.asarray(truncated, bool)
        per_env = [row(infos, i) for i in range(self.num_envs)]
        for i, info in enumerate(per_env):
            info["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        if done.any():
            seen = self._reset_ended(seen, done, per_env)
        return seen, np.asarray(rewards, np.float32), done, per_env

    def _reset_ended(self, seen: Any, done: np.ndarray, per_env: list[dict[str, Any]]) -> Any:
        """Observations after the reset; ``per_env`` gets what the ended episodes showed last."""
        ended = np.flatnonzero(done)
        if self.mode == AutoresetMode.SAME_STEP:
            for i in ended:
                if "final_obs" not in per_env[i]:
                    raise InputError(f"{self.env} resets in the same step, and gives no 'final_obs' of ended episodes")
                final = per_env[i].pop("final_info", None)
                # What is beside it in the info belongs to the episode that has begun.
                self.reset_infos[i] = {
                    k: v for k, v in per_env[i].items() if k not in ("final_obs", "TimeLimit.truncated")
                }
                last = _copied(per_env[i].pop("final_obs"))
                kept = {"TimeLimit.truncated": per_env[i]["TimeLimit.truncated"], "terminal_observation": last}
                per_env[i] = {**(final if isinstance(final, Mapping) else per_env[i]), **kept}
            return seen
        for i in ended:
            per_env[i]["terminal_observation"] = _picked(seen, i)
        restarted, infos = self._restarted(done)
        if not _same(seen, restarted, ~done):
            raise InputError(
                f"{type(self.env).__name__} was asked to reset the episodes that ended, and has moved others as well: it does not "
                "know reset(options={'reset_mask': ...}); make it with autoreset_mode=AutoresetMode.SAME_STEP"
            )
        for i in ended:
            self.reset_infos[i] = row(infos, int(i))
        return _merged(seen, restarted, done)

    def _restarted(self, done: np.ndarray) -> tuple[Any, Mapping[str, Any]]:
        """Observations in which the ended episodes have begun anew; the others have not moved."""
        if self.mode == AutoresetMode.NEXT_STEP and done.all():
            obs, _, _, _, infos = self.env.step(self._actions)  # by itself, whatever the actions
            return obs, infos
        try:
            return self.env.reset(options={"reset_mask": done.copy()})
        except (TypeError, ValueError, KeyError) as error:
            raise InputError(
                f"an episode of {type(self.env).__name__} ended before the others, and it cannot be reset alone ({error}): "
                "make it with autoreset_mode=AutoresetMode.SAME_STEP"
            ) from error

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One picture per environment, where they are rendered."""
        images: Any = self.env.render()
        return [None] * self.num_envs if images is None else list(images)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of each environment: those that a batch does not have by itself are the same for all."""
        if isinstance(self.env.unwrapped, gym.vector.SyncVectorEnv | gym.vector.AsyncVectorEnv):
            values = self.env.unwrapped.get_attr(attr_name)
            return [values[i] for i in self._get_indices(indices)]
        return [getattr(self.env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of all environments."""
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise InputError("environments in one batch share their attributes: set all of them")
        if isinstance(self.env.unwrapped, gym.vector.SyncVectorEnv | gym.vector.AsyncVectorEnv):
            self.env.unwrapped.set_attr(attr_name, value)
        else:
            setattr(self.env.unwrapped, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of all environments."""
        if isinstance(self.env.unwrapped, gym.vector.SyncVectorEnv | gym.vector.AsyncVectorEnv):
            values = self.env.unwrapped.call(method_name, *method_args, **method_kwargs)
            return [values[i] for i in self._get_indices(indices)]
        raise InputError(
            f"{type(self.env.unwrapped).__name__} is one batch: its environments have no {method_name}() each"
        )

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Never: what is wrapped is inside of the batch."""
        return [False for _ in self._get_indices(indices)]


def row(infos: Mapping[str, Any], i: int) -> dict[str, Any]:
    """The info of environment ``i``, out of gymnasium's arrays: ``_key`` says for whom ``key`` is set."""
    found: dict[str, Any] = {}
    for key, value in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        mask = infos.get(f"_{key}")
        if mask is not None and not np.asarray(mask)[i]:
            continue
        if isinstance(value, Mapping):
            # gymnasium batches dicts, too; single observations stay dicts, one per environment.
            found[key] = row(value, i)
        else:
            one = value[i] if isinstance(value, np.ndarray | list | tuple) else value
            found[key] = one.item() if isinstance(one, np.generic) else one
    return found


def _seed(seed: int | None) -> int | None:
    return None if seed is None else int(seed)


def _copied(obs: Any) -> Any:
    """Environments write the next observation where this one is."""
    if isinstance(obs, Mapping):
        return {key: np.array(value) for key, value in obs.items()}
    return np.array(obs)


def _picked(obs: Any, i: int) -> Any:
    return {key: np.array(value[i]) for key, value in obs.items()} if isinstance(obs, Mapping) else np.array(obs[i])


def _same(a: Any, b: Any, mask: np.ndarray) -> bool:
    """Whether two batches of observations agree where ``mask`` is true."""
    pairs = [(a[key], b[key]) for key in a] if isinstance(a, Mapping) else [(a, b)]
    return all(np.array_equal(x[mask], np.asarray(y)[mask], equal_nan=x.dtype.kind == "f") for x, y in pairs)


def _merged(old: Any, new: Any, mask: np.ndarray) -> Any:
    """``new`` where ``mask`` is true."""

    def one(a: np.ndarray, b: Any) -> np.ndarray:
        a[mask] = np.asarray(b)[mask]
        return a

    return {key: one(old[key], new[key]) for key in old} if isinstance(old, Mapping) else one(old, new)
