"""stable-baselines3: agents in its evaluation, dreams to train in, and UVA's joint latent as features for its algorithms.

Agents have its ``predict`` already; :class:`SB3Agent` also takes images the way its algorithms' environments give them.
:class:`~uva_agents.bridges.sb3_vec_env.SB3VecEnv` makes its ``VecEnv`` of several dreams in one batch.

What learns sees the joint latent in one of two ways:

- :class:`UVAFeatures`, a features extractor: part of the policy, so that it can be trained along; computed again for every
  gradient step;
- :class:`UVAFeatureVecEnv`, a wrapper around the environments: computed once per step, with the true history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

try:
    from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this bridge needs stable-baselines3: pip install 'uva-agents[sb3]'") from error

from uva_agents.agents.memory import Memory
from uva_agents.agents.observations import stacked, to_numpy
from uva_agents.agents.weights import Weights
from uva_agents.bridges.latents import JointLatent, Pool
from uva_agents.bridges.sb3_vec_env import SB3VecEnv
from uva_agents.checkpoints.bundle import Bundle
from uva_agents.errors import InputError

__all__ = ["SB3Agent", "SB3VecEnv", "UVAFeatureVecEnv", "UVAFeatures"]

Observations = Mapping[str, Any]
ImageRange = Literal["unit", "byte"]


class SB3Agent:
    """An agent for stable-baselines3's tools, whatever order their images are in.

    ``evaluate_policy(SB3Agent(policy), env)`` works on plain environments and on those that an algorithm wrapped
    (``model.get_env()``), whose images are channels-first. Memory is kept per environment, in the state that ``predict`` takes
    and returns.

    Args:
        agent: anything with ``predict`` that takes dict observations: a policy, a planner.
    """

    def __init__(self, agent: Any) -> None:
        if not callable(getattr(agent, "predict", None)):
            raise TypeError(f"{type(agent).__name__} has no predict(observation, state, episode_start, deterministic)")
        self.agent = agent

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """stable-baselines3's signature; ``observation`` a dict of one environment or of several."""
        if isinstance(observation, Mapping):
            observation = {k: _channels_last(v) if _is_frames(k) else v for k, v in observation.items()}
        actions, state = self.agent.predict(
            observation, state, episode_start=episode_start, deterministic=deterministic
        )
        return np.asarray(actions), state


class UVAFeatures(BaseFeaturesExtractor):
    """UVA's joint latent as a features extractor of a ``MultiInputPolicy``.

    >>> PPO("MultiInputPolicy", env, policy_kwargs={              # doctest: +SKIP
    ...     "features_extractor_class": UVAFeatures,
    ...     "features_extractor_kwargs": {"weights": "pusht-nano", "pool": "action"}})

    **Observations**: what the weights take (``pixels``, ``agent_pos``, ...). ``pixels`` may be (H, W, 3) or, as
    stable-baselines3 makes them, (3, H, W) scaled to [0, 1]. Other keys are ignored.

    **History**: stable-baselines3 hands a features extractor one observation, without the ones before it. Of a single frame,
    the network sees the first frame of an episode at every step: it knows where things are, not how they move. To show it
    more, stack: ``gymnasium.wrappers.FrameStackObservation(env, n, padding_type="reset")`` gives every key a leading time axis,
    ``pixels`` (n, H, W, 3), and the frames that the network looks at are taken from it (``history_offsets`` of the weights:
    now and 4, 8 and 12 steps ago with ``pusht-nano``, so n = 13 for all of them). Buffers then hold n frames per step.
    :class:`UVAFeatureVecEnv` keeps history without that.

    **Weights**: frozen by default. They are then no part of the policy: not in its optimiser, and not in its saved file, which
    knows their fingerprint and refuses others. All policies of a process share one copy. With ``frozen=False`` the transformer
    is trained along and saved (the autoencoder stays as it is); the initialisation of stable-baselines3, which would wipe out
    what was learnt, leaves it alone.

    Args:
        observation_space: given by stable-baselines3.
        weights: a shipped name, a weights folder or a released ``.ckpt`` file; found again by this name when the policy is loaded.
        pool: see :data:`~uva_agents.bridges.latents.Pool`.
        frozen: keep the weights as they are.
        device: of frozen weights; those that are trained follow the policy.
        image_range: of images that arrive as floats: ``"unit"`` for [0, 1], ``"byte"`` for [0, 255], which they are where
            the policy has ``normalize_images=False``. By default unit for single images and byte for stacks, which is what
            stable-baselines3 makes of them.

    Raises:
        TypeError, ValueError: an observation space that the weights cannot read.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        *,
        weights: str | Path = "pusht-nano",
        pool: Pool = "action",
        frozen: bool = True,
        device: str = "auto",
        image_range: ImageRange | None = None,
    ) -> None:
        if image_range not in (None, "unit", "byte"):
            raise ValueError(f'image_range={image_range!r}: choose "unit" for [0, 1] or "byte" for [0, 255]')
        uva = _shared(str(weights), device) if frozen else Weights.from_pretrained(weights, device="cpu")
        latent = JointLatent(uva, pool)
        super().__init__(observation_space, latent.size)
        self.frozen = frozen
        self._latent = latent
        self._layout = _Layout(latent.weights.bundle, observation_space)
        self._unit = self._layout.stack is None if image_range is None else image_range == "unit"
        self._keep = latent.encoder.frames_kept
        if not frozen:
            # Registered, hence trained, saved and moved with the policy.
            self.model = uva.net.requires_grad_(True)
            if self.model.guide is not None:
                self.model.guide.detector.requires_grad_(False)

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Dict of (B, ...) -> features (B, features_dim)."""
        encoder = self._latent.encoder
        steps = self._layout.time_steps({k: self._numpy(k, observations[k]) for k in self._layout.keys}, self._keep)
        memories = [Memory(0)] * len(next(iter(steps[0].values())))
        for step in steps:
            frames = encoder.read(step)
            memories = [encoder.observe(memory, frames, i) for i, memory in enumerate(memories)]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features, _ = self._latent(memories)
        return features.to(observations[self._layout.keys[0]].device)

    def _numpy(self, key: str, value: Tensor) -> np.ndarray:
        array: np.ndarray = to_numpy(value)
        if not _is_frames(key) or array.dtype == np.uint8:
            return array
        top = float(array.max(initial=0.0))
        if not array.min(initial=0.0) >= 0 or not np.isfinite(top):  # NaN would become black
            raise InputError(f"{key!r} has values that no image has: below 0, NaN or infinity")
        if self._unit and top > 1.0:
            raise ValueError(
                f"{key!r} goes up to {top:g}, and images in [0, 1] were expected: with normalize_images=False give "
                'features_extractor_kwargs={"image_range": "byte"}'
            )
        if not self._unit and 0.0 < top <= 1.0 and (array % 1.0).any():
            raise ValueError(
                f"{key!r} goes up to {top:g} only, and images in [0, 255] were expected: leave image_range out"
            )
        # Rounding undoes the division by 255 exactly: features are those of the frames themselves.
        frames: np.ndarray = np.rint(array * 255.0 if self._unit else array).astype(np.uint8)
        return frames

    def train(self, mode: bool = True) -> UVAFeatures:
        """Stays in evaluation mode: dropout would change the probabilities that PPO compares before and after a step."""
        super().train(False)
        return self

    def apply(self, fn: Callable[[torch.nn.Module], None]) -> UVAFeatures:
        """Nothing: this is how stable-baselines3 initialises a policy's layers, and these have been trained."""
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> UVAFeatures:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not self.frozen:
            self._latent.weights.bundle.to(
                self._latent.weights.device
            )  # the autoencoder goes where the transformer went
        return self

    def get_extra_state(self) -> str:
        """Which frozen weights these are: saved with the policy."""
        return self._latent.weights.fingerprint if self.frozen else ""

    def set_extra_state(self, state: Any) -> None:
        """Refuse a policy that was trained on other weights.

        Raises:
            ValueError: naming both.
        """
        own = self.get_extra_state()
        if state != own:
            raise ValueError(
                f"this policy was trained on features of other weights (fingerprint {state or 'none'}, here {own or 'none'}): "
                "give it the weights that it was trained with, with the same frozen="
            )


class UVAFeatureVecEnv(VecEnvWrapper):
    """Environments whose observations are features: UVA's joint latent with the history as the weights were trained on it.

    Every frame is encoded once, and the latent is computed once per step, not once per gradient step; replay buffers hold
    vectors. Each environment has its own history, which begins anew with every episode, as in a :class:`~uva_agents.Policy`.
    ``info["terminal_observation"]`` holds features, too.

    >>> env = UVAFeatureVecEnv(make_vec_env("uva/PushT-v0", 8), "pusht-nano")       # doctest: +SKIP
    >>> PPO("MlpPolicy", env)                                                       # doctest: +SKIP

    Args:
        venv: environments with dict observations.
        weights: a shipped name, a weights folder, a released ``.ckpt`` file, or loaded weights.
        pool: see :data:`~uva_agents.bridges.latents.Pool`.
        device: of the weights.
        batch_size: environments computed together. With 1, an environment's features do not depend on how many run beside
            it, to the last bit.

    Raises:
        TypeError, ValueError: an observation space that the weights cannot read.
    """

    def __init__(
        self,
        venv: VecEnv,
        weights: str | Path | Weights = "pusht-nano",
        *,
        pool: Pool = "action",
        device: str = "auto",
        batch_size: int = 64,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.weights = weights if isinstance(weights, Weights) else _shared(str(weights), device)
        self._latent = JointLatent(self.weights, pool)
        self._layout = _Layout(self.weights.bundle, venv.observation_space)
        if self._layout.stack is not None:
            raise ValueError("these environments stack their frames already: leave that out, history is kept here")
        super().__init__(venv, gym.spaces.Box(-np.inf, np.inf, (self._latent.size,), np.float32))
        self._batch_size = batch_size
        self._memories: list[Memory] = []

    def reset(self) -> np.ndarray:
        """(n, features) of the first observations."""
        self._memories = [Memory(0)] * self.num_envs
        return self._features(self.venv.reset(), list(range(self.num_envs)))

    def step_wait(self) -> VecEnvStepReturn:
        """Features, rewards, dones and infos."""
        observations, rewards, dones, infos = self.venv.step_wait()
        ended = [i for i in range(self.num_envs) if dones[i]]
        if ended:
            # The last observation of an episode belongs to its history; what the environments show is the next one's first.
            last = [infos[i]["terminal_observation"] for i in ended]
            stacked = {k: np.stack([np.asarray(obs[k]) for obs in last]) for k in last[0]}
            for i, row in zip(ended, self._features(stacked, ended), strict=True):
                infos[i]["terminal_observation"] = row
                self._memories[i] = Memory(0)
        return self._features(observations, list(range(self.num_envs))), rewards, dones, infos

    @torch.no_grad()
    def _features(self, observations: VecEnvObs, rows: list[int]) -> np.ndarray:
        """(len(rows), features); row k of the observations belongs to environment ``rows[k]``, whose memory goes on."""
        values = cast(Observations, observations)
        (step,) = self._layout.time_steps({k: to_numpy(values[k], repr(k)) for k in self._layout.keys}, 1)
        frames = self._latent.encoder.read(step)
        memories = [self._latent.encoder.observe(self._memories[i], frames, k) for k, i in enumerate(rows)]
        parts = []
        for begin in range(0, len(rows), self._batch_size):
            batch = slice(begin, begin + self._batch_size)
            features, memories[batch] = self._latent(memories[batch])
            parts.append(features.float().cpu().numpy())
        for i, memory in zip(rows, memories, strict=True):
            self._memories[i] = memory
        return np.concatenate(parts)


class _Layout:
    """What an observation space holds of what the weights take, and in which order.

    Attributes:
        keys: of the space, that the weights read.
        stack: length of the leading time axis, where there is one.
    """

    def __init__(self, bundle: Bundle, space: gym.Space[Any]) -> None:
        if not isinstance(space, gym.spaces.Dict):
            raise TypeError(f"UVA sees dict observations with 'pixels', and this space is {space}")
        spec, config = bundle.spec, bundle.model.config
        needed: dict[str, tuple[int, ...]] = {"pixels": (*spec.image_shape, 3)}
        if spec.proprio_key is not None and (size := spec.proprio_size(config.proprio_dim)):
            needed[spec.proprio_key] = (size,)
        if spec.wrist_shape is not None:
            needed[spec.wrist_key] = (*spec.wrist_shape, 3)
        if missing := [k for k in needed if k not in space.spaces]:
            raise ValueError(f"the observation space has {sorted(space.spaces)}; these weights also need {missing}")
        shapes = {k: space[k].shape or () for k in needed}
        self.stack = shapes["pixels"][0] if len(shapes["pixels"]) == 4 else None
        lead = () if self.stack is None else (self.stack,)
        self._first = set()
        for key, shape in needed.items():
            images = space[key]
            if isinstance(images, gym.spaces.Box) and is_image_space(images) and is_image_space_channels_first(images):
                self._first.add(key)
                shape = (shape[2], shape[0], shape[1])
            if shapes[key] != (*lead, *shape):
                raise ValueError(
                    f"observation space: {key!r} is {shapes[key]}, and these weights take {(*lead, *shape)}"
                    + (stacked(shapes[key]) if _is_frames(key) and not lead else "")
                    + ("; stack all keys or none" if lead else "")
                )
        self.keys = [*needed, *(k for k in ("task_embedding",) if k in space.spaces and config.text_dim)]

    def time_steps(self, observations: Mapping[str, np.ndarray], keep: int) -> list[dict[str, np.ndarray]]:
        """Batches of the newest ``keep`` time steps, oldest first, images with channels last."""
        arrays = {k: np.moveaxis(v, -3, -1) if k in self._first else v for k, v in observations.items()}
        if self.stack is None:
            return [arrays]
        return [{k: v[:, t] for k, v in arrays.items()} for t in range(max(0, self.stack - keep), self.stack)]


@lru_cache(maxsize=4)
def _shared(weights: str, device: str) -> Weights:
    """One copy per process: an actor, a critic and its target see the same features."""
    return Weights.from_pretrained(weights, device=device)


def _is_frames(key: str) -> bool:
    return key.startswith("pixels")


def _channels_last(images: Any) -> np.ndarray:
    """(..., 3, H, W) -> (..., H, W, 3); anything else as it is."""
    value: np.ndarray = to_numpy(images)
    first = value.ndim in (3, 4) and value.shape[-3] == 3 and value.shape[-1] != 3
    return np.moveaxis(value, -3, -1) if first else value
