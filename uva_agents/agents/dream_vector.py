"""Several imagined environments in one batch of the network, as one gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from uva_agents.agents.dream import _BEGUN, DreamRules, Starts, _Dream, require_open, spec_of
from uva_agents.agents.observations import to_floats
from uva_agents.errors import InputError

if TYPE_CHECKING:
    from uva_agents.agents.world_model import WorldModel


class DreamVectorEnv(gym.vector.VectorEnv[dict[str, np.ndarray], np.ndarray, np.ndarray]):
    """Several imagined environments in one batch of the network. Made by ``WorldModel.as_vector_env``.

    Sub-environments equal :class:`~uva_agents.agents.dream.DreamEnv` with the same seed, up to rounding, and episodes follow each
    other as in ``gymnasium.vector.SyncVectorEnv``:

    - ``AutoresetMode.NEXT_STEP``: a finished one resets in the step after, whose reward is 0.
    - ``SAME_STEP``: it resets at once; ``infos["final_obs"]`` and ``infos["final_info"]`` hold the end of the episode.
    - ``DISABLED``: the caller resets it, with ``reset(options={"reset_mask": mask})``, before the next step.

    ``infos`` are gymnasium's: an array per key, and ``_key``, which rows have it.

    Args:
        world, rules, starts: as for one.
        num_envs: how many.
        autoreset_mode: one of the above, as gymnasium's value or its name.
    """

    metadata = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": 3,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        world: WorldModel,
        num_envs: int,
        rules: DreamRules,
        *,
        starts: Starts | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        if isinstance(num_envs, bool) or not isinstance(num_envs, int | np.integer):
            raise TypeError(f"num_envs must be an integer, got {type(num_envs).__name__}")
        if num_envs < 1:
            raise InputError(f"num_envs must be at least 1, got {num_envs}")
        self.autoreset_mode = _mode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.num_envs = int(num_envs)
        self._dream = _Dream(world, rules, starts, self.num_envs)
        self.spec = spec_of(world, rules, starts)
        self.single_action_space = self._dream.action_space
        self.single_observation_space = self._dream.observation_space
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.render_mode = "rgb_array"
        self._rngs = [np.random.default_rng() for _ in range(self.num_envs)]
        self._finished: np.ndarray | None = None

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin all episodes; an integer seed gives sub-environment i the seed ``seed + i``.

        Args:
            options: ``obs`` and ``history`` as for one environment; ``reset_mask``, bool (n,): only these begin anew.
        """
        require_open(self.closed, "reset()")
        n = self.num_envs
        seeds = _checked_seeds(seed, n)
        # The caller's dict is left as it is.
        rest = dict(options) if isinstance(options, dict) else options
        mask = np.ones(n, bool)
        if isinstance(rest, dict) and "reset_mask" in rest:
            mask = _checked_mask(rest.pop("reset_mask"), n)
        if self._finished is None and not mask.all():
            raise InputError("reset_mask leaves out environments that were never reset: reset all of them first")
        infos: dict[str, Any] = {}
        for i in np.flatnonzero(mask).tolist():
            if seeds[i] is not None:
                self._rngs[i] = gym.utils.seeding.np_random(seeds[i])[0]
            self._dream.begin(i, self._rngs[i], rest or None)
            infos = self._add_info(infos, _BEGUN, i)
        self._finished = np.zeros(n, bool) if self._finished is None else self._finished & ~mask
        return self._dream.observations(range(n)), infos

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One frame further in all of them, but for those that begin anew instead."""
        require_open(self.closed, "step()")
        if self._finished is None:
            raise RuntimeError("call reset() before step()")
        actions = to_floats(actions, "actions")
        if actions.ndim == 0 or len(actions) != self.num_envs:
            raise InputError(f"actions of shape {actions.shape} for {self.num_envs} environments: give one for each")
        n, beginning = self.num_envs, self._finished
        if self.autoreset_mode is AutoresetMode.DISABLED and beginning.any():
            raise RuntimeError(
                f"environments {np.flatnonzero(beginning).tolist()} have finished: reset(options={{'reset_mask': mask}}) them "
                "before step(), or choose another autoreset_mode"
            )
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            beginning = np.zeros(n, bool)
        rewards, terminated, truncated = np.zeros(n), np.zeros(n, bool), np.zeros(n, bool)
        infos_of: list[dict[str, Any]] = [dict(_BEGUN) for _ in range(n)]
        rows = np.flatnonzero(~beginning).tolist()
        if rows:
            rewards[rows], terminated[rows], truncated[rows], values = self._dream.step(rows, actions[rows])
            for at, i in enumerate(rows):
                infos_of[i] = {key: value[at].item() for key, value in values.items()}
        # After the others: a step that is refused has begun nothing.
        for i in np.flatnonzero(beginning).tolist():
            self._dream.begin(i, self._rngs[i], None)
        self._finished = terminated | truncated
        infos: dict[str, Any] = {}
        ended = np.flatnonzero(self._finished).tolist() if self.autoreset_mode is AutoresetMode.SAME_STEP else []
        last = self._dream.observations(ended) if ended else {}
        for i in range(n):
            if i in ended:
                final = {key: value[ended.index(i)] for key, value in last.items()}
                infos = self._add_info(infos, {"final_obs": final, "final_info": infos_of[i]}, i)
                self._dream.begin(i, self._rngs[i], None)
                infos_of[i] = dict(_BEGUN)
            infos = self._add_info(infos, infos_of[i], i)
        return self._dream.observations(range(n)), rewards, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...]:
        """The newest frame of each."""
        require_open(self.closed, "render()")
        if self._finished is None:
            raise RuntimeError("call reset() before render()")
        return tuple(self._dream.futures.frame(i).copy() for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """Called by gymnasium's ``close``: close the environment that starts come from."""
        self._dream.close()


def _mode(value: AutoresetMode | str) -> AutoresetMode:
    for mode in AutoresetMode:
        if value is mode or (isinstance(value, str) and value.lower() in (mode.value.lower(), mode.name.lower())):
            return mode
    names = ", ".join(mode.name for mode in AutoresetMode)
    raise InputError(f"autoreset_mode={value!r}: choose one of {names}")


def _checked_seeds(seed: Any, n: int) -> list[int | None]:
    """One for each; those after a single one."""
    from uva_agents.envs.checks import checked_seed

    if isinstance(seed, np.ndarray) and seed.ndim == 1:
        seed = seed.tolist()
    if isinstance(seed, Sequence) and not isinstance(seed, str | bytes):
        if len(seed) != n:
            raise InputError(f"{len(seed)} seeds for {n} environments")
        return [checked_seed(one, "dream") for one in seed]
    first = checked_seed(seed, "dream")
    return [None if first is None else first + i for i in range(n)]


def _checked_mask(mask: Any, n: int) -> np.ndarray:
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(
            f"options['reset_mask'] must be a numpy array of bool, got {getattr(mask, 'dtype', type(mask).__name__)}"
        )
    if mask.shape != (n,):
        raise InputError(f"options['reset_mask'] must have shape ({n},), got {mask.shape}")
    if not mask.any():
        raise InputError("options['reset_mask'] is false everywhere: nothing would be reset")
    return mask
