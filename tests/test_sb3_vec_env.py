"""Gymnasium's vector environments, dreams above all, under stable-baselines3's algorithms."""

from functools import partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecTransposeImage

from tests.tiny import observation, tiny_bundle
from uva_agents.agents.uva import UVA
from uva_agents.agents.world_model import WorldModel
from uva_agents.bridges.sb3 import SB3Agent, SB3VecEnv, UVAFeatureVecEnv
from uva_agents.errors import InputError
from uva_agents.model import SamplerConfig


class Count(gym.Env[Any, Any]):
    """Counts its steps and adds up its actions; ends at ``length``, in every second episode by truncation."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}
    observation_space = gym.spaces.Dict({"n": gym.spaces.Box(-100, 100, (2,), np.float32)})
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length: int) -> None:
        self.length, self.episode, self.render_mode = length, 0, "rgb_array"

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        self.total = float(self.np_random.uniform()) + (options or {}).get("more", 0)
        return self._obs(), {"episode_number": self.episode}

    def step(self, action: Any) -> Any:
        assert 0 <= self.steps < self.length, "a step after the end"
        self.steps, self.total = self.steps + 1, self.total + float(action[0])
        end = self.steps == self.length
        truncated = end and self.episode % 2 == 1
        return self._obs(), self.total, end and not truncated, truncated, {"steps": self.steps, "text": "x"}

    def render(self) -> np.ndarray:
        return np.full((4, 4, 3), self.steps, np.uint8)

    def _obs(self) -> dict[str, np.ndarray]:
        return {"n": np.array([self.steps, self.total], np.float32)}


class Deaf(SyncVectorEnv):
    """Resets everything, whatever it is asked for."""

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return super().reset(seed=seed)


MAKERS = [partial(Count, n) for n in (3, 4, 6)]


def same(a: Any, b: Any) -> None:
    assert type(a) is type(b) or (np.isscalar(a) and np.isscalar(b)), (a, b)
    if isinstance(a, dict):
        assert a.keys() == b.keys(), (a, b)
        for key in a:
            same(a[key], b[key])
    else:
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_episodes_are_those_of_stable_baselines3s_own_environments_in_every_autoreset_mode(mode: AutoresetMode) -> None:
    own, ours = DummyVecEnv(MAKERS), SB3VecEnv(SyncVectorEnv(MAKERS, autoreset_mode=mode))
    for env in (own, ours):
        env.seed(3)
        env.set_options({"more": 5})
    same(dict(own.reset()), ours.reset())
    same(own.reset_infos, ours.reset_infos)
    rng, ends = np.random.default_rng(0), 0
    for _ in range(30):
        actions = rng.uniform(-1, 1, (3, 1)).astype(np.float32)
        wanted, found = own.step(actions), ours.step(actions)
        for a, b in zip(wanted, found, strict=True):
            for x, y in zip(a, b, strict=True) if isinstance(a, list) else [(a, b)]:
                same(dict(x) if isinstance(x, dict) else x, y)
        same(own.reset_infos, ours.reset_infos)
        ends += int(found[2].sum())
    assert ends > 15
    assert [image.max() for image in ours.get_images()] == [image.max() for image in own.get_images()]
    assert ours.get_attr("length") == [3, 4, 6] and ours.env_method("render", indices=[1])[0].shape == (4, 4, 3)
    ours.close()


def test_an_environment_that_resets_more_than_it_was_asked_to_is_noticed() -> None:
    env = SB3VecEnv(Deaf(MAKERS, autoreset_mode=AutoresetMode.DISABLED))
    env.reset()
    for _ in range(2):
        env.step(np.zeros((3, 1), np.float32))
    with pytest.raises(InputError, match=r"has moved others as well.*SAME_STEP"):
        env.step(np.zeros((3, 1), np.float32))


def test_what_is_no_vector_environment_is_named() -> None:
    with pytest.raises(TypeError, match="takes a gymnasium VectorEnv, got Count"):
        SB3VecEnv(Count(3))


@pytest.fixture(scope="module")
def uva() -> UVA:
    return UVA(tiny_bundle())


def quick(uva: UVA) -> WorldModel:
    return WorldModel(uva, sampler=SamplerConfig(video_steps=2))


def darkness(rollout: Any) -> Any:
    return rollout.frames.astype(float).mean() / 255


def test_ppo_trains_in_dreams_of_one_batch(uva: UVA) -> None:
    dreams = quick(uva).as_vector_env(2, darkness, horizon=16, starts=[observation(0), observation(1)])
    env = VecMonitor(SB3VecEnv(dreams))
    model = PPO(
        "MultiInputPolicy",
        env,
        n_steps=6,
        batch_size=6,
        n_epochs=1,
        device="cpu",
        seed=0,
        policy_kwargs={"net_arch": [8], "ortho_init": False, "features_extractor_kwargs": {"cnn_output_dim": 8}},
    )
    model.learn(12)
    # Episodes take four frames: one has ended in six steps, of which each was a real one.
    assert [len(model.ep_info_buffer), *{info["l"] for info in model.ep_info_buffer}] == [2, 4]
    env.seed(1)
    env.reset()
    obs: Any
    for _ in range(4):
        obs, rewards, dones, infos = env.step(np.full((2, 2), 256, np.float32))
    assert dones.all() and (rewards < 0).all()
    for i, info in enumerate(infos):
        assert info["TimeLimit.truncated"] and info["cost"] == pytest.approx(-rewards[i])
        assert not np.array_equal(info["terminal_observation"]["pixels"], obs["pixels"][i])
        assert any(np.array_equal(obs["pixels"][i], observation(k)["pixels"]) for k in (0, 1))
    env.close()


def test_dreams_that_end_alone_are_the_same_episodes_in_every_autoreset_mode(uva: UVA) -> None:
    def played(mode: AutoresetMode) -> list[Any]:
        calls = iter(range(10_000))
        dreams = quick(uva).as_vector_env(
            2,
            lambda rollout: [0.0 if next(calls) in (2, 7) else 1.0],
            horizon=12,
            success_cost=0.5,
            starts=[observation(0), observation(1)],
            autoreset_mode=mode,
        )
        env = SB3VecEnv(dreams)
        env.seed(4)
        seen: list[Any] = [env.reset()]
        for _ in range(5):
            seen += list(env.step(np.full((2, 2), 256, np.float32)))
        env.close()
        return seen

    wanted = played(AutoresetMode.SAME_STEP)
    ends = np.array(wanted[3::4])
    assert ends.any(1).sum() >= 2 and not ends.all(1).any()  # they do end alone
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
        for a, b in zip(wanted, played(mode), strict=True):
            for x, y in zip(a, b, strict=True) if isinstance(a, list) else [(a, b)]:
                same(x, y)


def test_stacked_frames_are_named_and_so_is_what_to_do(uva: UVA) -> None:
    space = gym.spaces.Dict({k: gym.spaces.Box(0, 255, v.shape, v.dtype) for k, v in observation(0).items()})

    class Still(gym.Env[Any, Any]):
        observation_space, action_space, render_mode = space, uva.policy().action_space, None

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            return observation(0), {}

    still = DummyVecEnv([Still])
    for env in (VecFrameStack(still, 4), VecFrameStack(VecTransposeImage(still), 4)):
        with pytest.raises(ValueError, match=r"VecFrameStack.*leave the stacking out"):
            SB3Agent(uva.policy()).predict(env.reset())
        with pytest.raises(ValueError, match=r"VecFrameStack.*leave the stacking out"):
            UVAFeatureVecEnv(env, uva)
