"""Imagined vector environments follow gymnasium's rules, and dreams can be copied."""

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import uva_agents as uva
from tests.tiny import observation, tiny_bundle
from uva_agents.agents import Rollout
from uva_agents.agents.uva import UVA
from uva_agents.model import SamplerConfig

STARTS = [observation(i) for i in range(4)]


@pytest.fixture(scope="module")
def world() -> uva.WorldModel:
    return UVA(tiny_bundle()).world_model()


def brightness(rollout: Rollout) -> np.ndarray:
    costs: np.ndarray = rollout.frames[:, -1].mean((1, 2, 3)) / 255
    return costs


def distance(rollout: Rollout) -> np.ndarray:
    """Cost of the action alone, so that episodes end at once for some actions and not for others."""
    assert rollout.actions is not None
    far: np.ndarray = np.abs(rollout.actions[:, -1] - 256).mean(-1) / 256
    return far


def same(a: Any, b: Any) -> None:
    """Equal structures; pictures to within rounding."""
    assert type(a) is type(b) or (np.isscalar(a) and np.isscalar(b)), (type(a), type(b))
    if isinstance(a, dict):
        assert set(a) == set(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, tuple) or (isinstance(a, np.ndarray) and a.dtype == object):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif a is not None:
        assert np.asarray(a).dtype == np.asarray(b).dtype and np.shape(a) == np.shape(b)
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), atol=1.0, rtol=1e-3)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_episodes_follow_each_other_as_in_gymnasiums_vector_environments(world: uva.WorldModel, mode: Any) -> None:
    options: dict[str, Any] = dict(horizon=12, success_cost=0.1, starts=STARTS)
    ours = world.as_vector_env(3, distance, autoreset_mode=mode, **options)
    theirs = SyncVectorEnv([lambda: world.as_env(distance, **options)] * 3, autoreset_mode=mode)
    assert ours.autoreset_mode is mode and ours.metadata["autoreset_mode"] is mode
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    same(ours.reset(seed=3), theirs.reset(seed=3))
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(8):
        actions = rng.choice([256.0, 40.0], (3, 1), p=[0.3, 0.7]).repeat(2, 1).astype(np.float32)
        mine, other = ours.step(actions), theirs.step(actions)
        for a, b in zip(mine, other, strict=True):
            same(a, b)
        done = mine[2] | mine[3]
        ends += int(done.sum())
        if mode is AutoresetMode.DISABLED and done.any():
            with pytest.raises(RuntimeError, match="reset_mask"):
                ours.step(actions)
            same(ours.reset(options={"reset_mask": done}), theirs.reset(options={"reset_mask": done.copy()}))
    assert ends >= 4


def test_autoreset_modes_have_their_names_and_others_are_refused(world: uva.WorldModel) -> None:
    for name in ("same_step", "SAME_STEP", "SameStep"):
        assert world.as_vector_env(1, distance, autoreset_mode=name).autoreset_mode is AutoresetMode.SAME_STEP
    assert world.as_vector_env(1, distance).autoreset_mode is AutoresetMode.NEXT_STEP
    with pytest.raises(ValueError, match="NEXT_STEP, SAME_STEP, DISABLED"):
        world.as_vector_env(1, distance, autoreset_mode="later")


def test_reset_masks_are_checked_and_options_left_as_they_were(world: uva.WorldModel) -> None:
    env = world.as_vector_env(2, distance, autoreset_mode="disabled", starts=STARTS)
    first = {"reset_mask": np.array([True, False])}
    with pytest.raises(ValueError, match="never reset"):
        env.reset(options=first)
    env.reset(seed=0)
    env.reset(options=first)
    assert set(first) == {"reset_mask"}
    wrong = [([True, False], TypeError), (np.ones(2), TypeError), (np.ones(3, bool), ValueError)]
    for mask, error in [*wrong, (np.zeros(2, bool), ValueError)]:
        with pytest.raises(error, match="reset_mask"):
            env.reset(options={"reset_mask": mask})


@pytest.mark.parametrize("how", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
@pytest.mark.parametrize("vector", [False, True], ids=["one", "several"])
def test_a_copied_dream_goes_on_exactly_as_the_original(world: uva.WorldModel, how: Any, vector: bool) -> None:
    world = uva.WorldModel(world.weights, sampler=SamplerConfig(video_temperature=1.0))
    options: dict[str, Any] = dict(horizon=16, starts=STARTS)
    env: Any = world.as_vector_env(2, brightness, **options) if vector else world.as_env(brightness, **options)
    env.reset(seed=1)
    action = np.full(env.action_space.shape, 300, np.float32)
    env.step(action)
    twin = how(env)
    other = how(env)
    other.step(action * 0)  # of no consequence to the first two
    for _ in range(5):  # over the end of a chunk, of the episode, and into the next
        results = []
        for each in (env, twin):
            running = vector or each._running
            results.append(each.step(action) if running else each.reset())
        for a, b in zip(*results, strict=True):
            np.testing.assert_equal(a, b)
    if how is copy.deepcopy:
        assert twin._dream.world is env._dream.world  # weights are shared


def test_a_failed_step_changes_nothing(world: uva.WorldModel) -> None:
    env, calm = (world.as_env(brightness, starts=STARTS) for _ in range(2))
    action = np.full(2, 200, np.float32)
    for each in (env, calm):
        each.reset(seed=0)
    decode = world.weights.decode
    try:
        world.weights.decode = lambda *a, **k: (_ for _ in ()).throw(MemoryError())  # type: ignore[method-assign]
        with pytest.raises(MemoryError):
            env.step(action)
    finally:
        world.weights.decode = decode  # type: ignore[method-assign]
    np.testing.assert_equal(env.step(action)[0], calm.step(action)[0])


def test_a_dream_that_can_be_made_again_has_a_spec() -> None:
    world = uva.WorldModel.from_pretrained("pusht-nano", device="cpu")
    env = world.as_env(brightness, horizon=16)
    spec = env.spec
    assert spec is not None and world.as_vector_env(2, brightness, horizon=16).spec == spec
    spec = gym.envs.registration.EnvSpec.from_json(spec.to_json())
    again = gym.make(spec)
    np.testing.assert_equal(again.reset(seed=3)[0], env.reset(seed=3)[0])
    assert world.as_env(lambda rollout: 0).spec is None and world.as_env(brightness, starts=STARTS).spec is None
