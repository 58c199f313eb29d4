"""The space of an instruction, in gymnasium's tools and in stable-baselines3's."""

import pickle
import warnings
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from uva_agents.envs.words import Words


class Told(gym.Env):
    """One number, and what to do about it."""

    def __init__(self, text="pick up the mug"):
        self.text = text
        self.observation_space = gym.spaces.Dict({"x": gym.spaces.Box(0, 1, (2,), np.float32), "task": Words()})
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"x": self.np_random.random(2, np.float32), "task": self.text}, {}

    def step(self, action):
        return {"x": self.np_random.random(2, np.float32), "task": self.text}, 0.0, False, False, {}


def test_it_holds_strings_and_nothing_else():
    space = Words(20)
    assert space.contains("pick up the mug")
    assert not space.contains("")
    assert not space.contains("x" * 21)
    assert not space.contains("naïve")
    assert not space.contains(("p", "i"))
    assert not space.contains(np.array("pick"))
    space.seed(3)
    first = [space.sample() for _ in range(5)]
    space.seed(3)
    assert first == [space.sample() for _ in range(5)]
    assert all(type(text) is str and space.contains(text) for text in first)
    assert space.from_jsonable(space.to_jsonable(first)) == first
    assert pickle.loads(pickle.dumps(space)) == space == Words(20) != Words(21)
    assert repr(space).startswith("Text(")


def test_it_flattens_as_text_does():
    space = Words(20)
    flat = gym.spaces.flatten(space, "pick up")
    assert gym.spaces.unflatten(space, flat) == "pick up"
    assert gym.spaces.flatten_space(space).contains(flat)


@pytest.mark.parametrize("kind", [gym.vector.SyncVectorEnv, partial(gym.vector.AsyncVectorEnv, shared_memory=False)])
def test_gymnasium_s_vectorised_environments_give_the_strings(kind):
    env = kind([lambda: Told("one"), lambda: Told("number two")])
    obs, _ = env.reset(seed=0)
    assert obs["task"] == ("one", "number two")
    obs, *_ = env.step(np.zeros((2, 1), np.float32))
    assert obs["task"] == ("one", "number two")
    assert env.observation_space.contains(obs)
    env.close()


def test_shared_memory_is_refused_since_gymnasium_would_never_read_what_is_written():
    with pytest.raises(ValueError, match="shared_memory=False"):
        gym.vector.AsyncVectorEnv([Told, Told])


def test_checkers_pass_and_stable_baselines3_says_what_it_cannot_use():
    from gymnasium.utils.env_checker import check_env as gymnasium_check
    from stable_baselines3.common.env_checker import check_env as sb3_check

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gymnasium_check(Told(), skip_render_check=True)
        assert [str(w.message) for w in caught] == []
        sb3_check(Told())
    assert ["Sequence observation space is not supported" in str(w.message) for w in caught] == [True]


def test_stable_baselines3_s_vectorised_environments_give_arrays_of_strings():
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    for kind in (DummyVecEnv, SubprocVecEnv):
        env = kind([lambda: Told("one"), lambda: Told("number two")])
        batches: list[Any] = [env.reset(), env.step(np.zeros((2, 1), np.float32))[0]]
        for obs in batches:
            assert list(obs["task"]) == ["one", "number two"]
            assert obs["x"].shape == (2, 2)
        env.close()
