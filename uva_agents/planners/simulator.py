"""The true simulator as dynamics: an upper bound through the same code, and planning without any network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.agents.rollout import Rollout, frame_indices
from uva_agents.envs.protocol import Restorable, Skippable


@dataclass(frozen=True)
class SimulatorStart:
    """Where candidates start: the simulator's state, and its frame where there is one."""

    state: Any
    now: np.ndarray | None


class SimulatorModel:
    """Tries candidates in an environment and puts it back to where it was, also after an error.

    Candidates start from where the environment is now; or from ``obs["state"]``, where the observation has what ``get_state()``
    returned (then the environment here may be another copy than the one that is acted in, and one serves many).

    The environment's own class (below gymnasium's wrappers) must have ``get_state()`` and ``set_state(state)``. If it also has
    ``advance(action)``, a step that draws nothing, and ``get_obs()``, only the frames that are looked at are drawn. Otherwise it is
    stepped, and a candidate that ends the episode keeps its last frame.

    It pickles and deep-copies with its environment, where that does (``uva/...`` in simulation do): a copy has one of its own.

    Args:
        env: the environment.
        frame_stride: control steps between the frames of a future; by default 4, as the shipped weights have it.
        image_key: of the observation's picture, uint8 (H, W, 3). An observation that is an array is the picture itself.

    Raises:
        TypeError: the environment lacks ``get_state`` or ``set_state``.
    """

    one_environment = True
    lookback = 0

    def __init__(self, env: gym.Env[Any, Any], *, frame_stride: int = 4, image_key: str = "pixels") -> None:
        base: Any = env.unwrapped
        if not isinstance(base, Restorable):
            missing = [name for name in ("get_state", "set_state") if not hasattr(base, name)]
            raise TypeError(
                f"{type(base).__name__} has no {' and no '.join(f'{m}()' for m in missing)}: planning in a simulator needs "
                "one that can be put back; use an environment that offers both, or a WorldModel"
            )
        if frame_stride < 1:
            raise ValueError(f"frame_stride must be at least 1, got {frame_stride}")
        space = env.action_space
        if not isinstance(space, gym.spaces.Box):
            raise TypeError(f"planning needs a Box as action space, got {space}")
        self.env = env
        self.action_space = space
        self.frame_stride = frame_stride
        self._base: Any = base
        self._image_key = image_key

    @property
    def identity(self) -> dict[str, Any]:
        """What it simulates, as JSON values."""
        spec = self.env.spec
        shown = {} if self._image_key == "pixels" else {"image_key": self._image_key}
        name = type(self._base).__name__ if spec is None else spec.id
        return {"simulator": name, "frame_stride": self.frame_stride, **shown}

    def prepare(self, obs: Any, *, history: Any | None = None) -> SimulatorStart:
        """Where the candidates will start; the history is in the simulator's state already."""
        state = obs["state"] if isinstance(obs, Mapping) and "state" in obs else self._base.get_state()
        return SimulatorStart(state, self._picture_in(obs))

    def rollout(
        self,
        obs: Any,
        actions: Any,
        *,
        history: Any | None = None,
        frames: Sequence[int] | None = None,
        decode: bool = True,
    ) -> Rollout:
        """What happens if these actions are taken.

        Args:
            obs: one observation, or what :meth:`prepare` made of it.
            actions: (S, T, A) or (T, A); T a multiple of ``frame_stride``.
            history: not needed.
            frames: which frames of the future are wanted: indices, negative ones from the end; ``None`` means all. Nothing is
                simulated beyond the last.
            decode: false leaves out the pictures; ``states`` are there in any case.

        Raises:
            ValueError: actions of the wrong shape, not finite or outside the action space; an environment without ``pixels``.
        """
        plans = self._checked(actions)
        start = obs if isinstance(obs, SimulatorStart) else self.prepare(obs)
        all_steps = np.arange(1, plans.shape[1] // self.frame_stride + 1) * self.frame_stride
        wanted = all_steps[frame_indices(frames, len(all_steps))]
        before = self._base.get_state()
        try:
            futures = [self._try(start.state, plan, wanted.tolist(), decode) for plan in plans]
        finally:
            self._base.set_state(before)
        pictures = [np.stack(pixels) for _, pixels in futures if pixels]
        # Without pictures, the shape still tells the number of candidates.
        shape = (0, 0, 3) if start.now is None else start.now.shape
        return Rollout(
            frames=np.stack(pictures) if pictures else np.empty((len(plans), 0, *shape), np.uint8),
            latents=None,
            frame_steps=wanted,
            actions=plans,
            all_steps=all_steps,
            now=start.now,
            states=tuple(tuple(states) for states, _ in futures),
        )

    def _try(self, state: Any, plan: np.ndarray, wanted: list[int], decode: bool) -> tuple[list[Any], list[np.ndarray]]:
        """States and pictures at the wanted steps."""
        states: list[Any] = []
        pixels: list[np.ndarray] = []
        self._base.set_state(state)
        skips = isinstance(self._base, Skippable)
        obs, over = None, False
        for step in range(1, (wanted[-1] if wanted else 0) + 1):
            if skips:
                self._base.advance(plan[step - 1])
            elif not over:
                obs, _, over, _, _ = self._base.step(plan[step - 1])
            if step in wanted:
                states.append(self._base.get_state())
                if decode:
                    pixels.append(self._picture(self._base.get_obs() if skips else obs))
        return states, pixels

    def _picture(self, obs: Any) -> np.ndarray:
        picture = self._picture_in(obs)
        if picture is None:
            raise ValueError(
                f"{type(self._base).__name__} shows no {self._image_key!r}: make it with image observations, name their "
                "key with image_key=, or judge states (StateCost)"
            )
        return picture.copy()

    def _picture_in(self, obs: Any) -> np.ndarray | None:
        if isinstance(obs, Mapping):
            return np.asarray(obs[self._image_key]) if self._image_key in obs else None
        shown = isinstance(obs, np.ndarray) and obs.ndim == 3 and obs.dtype == np.uint8
        return obs if shown else None

    def _checked(self, actions: Any) -> np.ndarray:
        """(S, T, A) float32."""
        space = self.action_space
        plans = np.asarray(actions, dtype=np.float32)
        plans = plans[None] if plans.ndim == len(space.shape) + 1 else plans
        if (
            plans.ndim != 3
            or plans.shape[2:] != space.shape
            or not plans.shape[1]
            or plans.shape[1] % self.frame_stride
        ):
            size = ", ".join(map(str, space.shape))
            raise ValueError(
                f"actions must be (S, T, {size}) with T a multiple of the frame stride {self.frame_stride}, got {plans.shape}"
            )
        if not np.isfinite(plans).all():
            raise ValueError("actions have NaN or infinity")
        slack = 1e-3 * np.where(np.isfinite(space.high - space.low), space.high - space.low, 0.0)
        outside = (plans < space.low - slack) | (plans > space.high + slack)
        if outside.any():
            raise ValueError(
                f"actions must be inside {space}, but {plans[outside][0]:g} is outside: clip them, or undo their normalisation"
            )
        return np.clip(plans, space.low, space.high)
