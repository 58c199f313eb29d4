"""Environments in a world model: real gymnasium environments whose frames are the model's."""

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import uva_agents as uva
from tests.tiny import observation, tiny_bundle
from uva_agents.agents import Rollout
from uva_agents.agents.uva import UVA
from uva_agents.envs.lifecycle import ClosedError
from uva_agents.errors import InputError
from uva_agents.model import SamplerConfig
from uva_agents.planners import SamplingPlanner


@pytest.fixture(scope="module")
def world() -> uva.WorldModel:
    return UVA(tiny_bundle()).world_model()


def darkness(rollout: Rollout) -> np.ndarray:
    """Cost: mean brightness of the newest frame."""
    assert rollout.frames.shape[:2] == (1, 1) and rollout.now is not None
    costs: np.ndarray = rollout.frames[:, -1].mean((1, 2, 3)) / 255
    return costs


def test_a_dream_is_a_gymnasium_environment(world: uva.WorldModel) -> None:
    env = world.as_env(darkness, horizon=16, starts=[observation(0), observation(3)])
    check_env(env, skip_render_check=True)
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    sb3.check_env(env)


def test_after_whole_chunks_a_dream_is_the_rollout_of_its_actions(world: uva.WorldModel) -> None:
    world = uva.WorldModel(world.weights, sampler=SamplerConfig(video_temperature=0.0))
    env = world.as_env(darkness, horizon=64, hold=False)
    obs = observation(2)
    first, info = env.reset(seed=0, options={"obs": obs})
    np.testing.assert_array_equal(first["pixels"], obs["pixels"])
    assert info["is_success"] is False
    assert env.action_space.shape == (4, 2)
    actions = np.random.default_rng(0).uniform(0, 512, (32, 2)).astype(np.float32)
    expected = world.rollout(obs, actions).frames[0]
    for i in range(8):
        seen, reward, terminated, truncated, info = env.step(actions[4 * i : 4 * i + 4])
        assert info["control_steps"] == 4 * (i + 1) and not terminated and not truncated
        assert reward == pytest.approx(-float(seen["pixels"].mean()) / 255)
        if i in (3, 7):  # within a chunk, what is done later may shine through
            np.testing.assert_allclose(seen["pixels"].astype(int), expected[i].astype(int), atol=1)


def test_a_dream_is_copied_with_its_moment_and_takes_no_notice_of_other_libraries_options(
    world: uva.WorldModel,
) -> None:
    env = world.as_env(darkness, horizon=64)
    env.reset(seed=3, options={"obs": observation(1), "lerobot_new_rollout": True})
    env.step(env.action_space.sample())
    others = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    action = env.action_space.sample()
    seen = env.step(action)[0]["pixels"]
    for other in others:
        np.testing.assert_array_equal(other.step(action)[0]["pixels"], seen)


def test_a_held_action_counts_for_every_control_step_of_a_frame(world: uva.WorldModel) -> None:
    held, each = (world.as_env(darkness, hold=hold) for hold in (True, False))
    for env in (held, each):
        env.reset(seed=1, options={"obs": observation(1)})
    action = np.array([100.0, 400.0], np.float32)
    a, b = held.step(action)[0], each.step(np.tile(action, (4, 1)))[0]
    np.testing.assert_array_equal(a["pixels"], b["pixels"])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_side_by_side_dreams_equal_single_ones(world: uva.WorldModel, temperature: float) -> None:
    world = uva.WorldModel(world.weights, sampler=SamplerConfig(video_temperature=temperature))
    starts = [observation(i) for i in range(5)]
    many = world.as_vector_env(3, darkness, horizon=20, starts=starts)
    singles = [world.as_env(darkness, horizon=20, starts=starts) for _ in range(3)]
    rng = np.random.default_rng(0)
    together, _ = many.reset(seed=7)
    alone = [env.reset(seed=7 + i)[0] for i, env in enumerate(singles)]
    for _ in range(14):  # two truncations, one step of reset after each
        for i in range(3):
            assert abs(together["pixels"][i].astype(int) - alone[i]["pixels"].astype(int)).max() <= 1
        actions = rng.uniform(0, 512, (3, 2)).astype(np.float32)
        together, rewards, _, truncated, _ = many.step(actions)
        for i, env in enumerate(singles):
            if env.unwrapped._running:  # type: ignore[attr-defined]
                alone[i], reward, _, cut, _ = env.step(actions[i])
                assert cut == truncated[i] and reward == pytest.approx(float(rewards[i]), abs=1e-2)
            else:
                alone[i], _ = env.reset()
                assert rewards[i] == 0 and not truncated[i]


def test_rows_may_finish_at_different_times(world: uva.WorldModel) -> None:
    calls = iter(range(10_000))
    env = world.as_vector_env(2, lambda rollout: [0.0 if next(calls) == 2 else 1.0], horizon=16, success_cost=0.5)
    env.reset(seed=0, options={"obs": observation(0)})
    actions = np.full((2, 2), 256, np.float32)
    env.step(actions)
    _, _, terminated, _, infos = env.step(actions)
    assert terminated.tolist() == [True, False] and infos["is_success"].tolist() == [True, False]
    env._dream.starts = [observation(1)]
    _, rewards, _, _, infos = env.step(actions)
    assert rewards.tolist() == [0.0, -1.0] and infos["control_steps"].tolist() == [0, 12]
    _, _, terminated, truncated, infos = env.step(actions)
    assert infos["control_steps"].tolist() == [4, 16] and truncated.tolist() == [False, True] and not terminated.any()


def test_without_starts_dreams_begin_in_the_environment_of_the_weights() -> None:
    world = uva.WorldModel.from_pretrained("pusht-nano")
    env = world.as_env(darkness)
    obs, _ = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(obs["pixels"], again["pixels"])
    assert not np.array_equal(obs["pixels"], env.reset(seed=4)[0]["pixels"])
    start, _ = gym.make("uva/PushT-v0").reset(seed=5)
    read, _ = env.reset(options={"obs": start})
    np.testing.assert_allclose(read["agent_pos"], start["agent_pos"], atol=40)  # read off the frame
    env.close()


def test_mistakes_are_named(world: uva.WorldModel) -> None:
    with pytest.raises(ValueError, match="multiple of the frame stride 4"):
        world.as_env(darkness, horizon=10)
    env = world.as_env(darkness)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="unknown reset option"):
        env.reset(options={"observation": observation(0)})
    env.reset(options={"obs": observation(0)})
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="NaN"):
        env.step(np.array([np.nan, 0], np.float32))
    broken = world.as_env(lambda rollout: [np.inf])
    broken.reset(options={"obs": observation(0)})
    with pytest.raises(ValueError, match="not finite"):
        broken.step(np.zeros(2, np.float32))


NO_COSTS: dict[str, Any] = {
    "nothing": None,
    "text": ["a"],
    "digits": ["1"],
    "several": np.zeros(5),
    "a table": np.zeros((1, 3)),
    "none": np.zeros(0),
    "bool": np.array([True]),
    "complex": np.array([1 + 2j]),
    "masked": np.ma.masked_all(1),
    "objects": np.array([10**400], object),
    "infinity": np.array([-np.inf]),
    "NaN": torch.tensor([float("nan")]),
}


@pytest.mark.parametrize("told", NO_COSTS.values(), ids=NO_COSTS)
def test_what_is_no_cost_is_refused_in_dreams_as_in_plans(world: uva.WorldModel, told: Any) -> None:
    def goal(rollout: Rollout) -> Any:
        return told

    env = world.as_env(goal, starts=[observation(0)])
    env.reset(seed=0)
    planner = SamplingPlanner(dynamics=world, objective=goal, n_samples=1)
    for call in (lambda: env.step(np.zeros(2, np.float32)), lambda: planner.plan(observation(0))):
        with pytest.raises(InputError, match="goal"):
            call()


def test_a_cost_is_a_number_or_an_array_or_tensor_of_one(world: uva.WorldModel) -> None:
    for told in (3, 3.0, [3.0], np.array([3]), np.float32(3), torch.tensor([3.0], requires_grad=True)):
        env = world.as_env(lambda rollout, told=told: told, starts=[observation(0)])
        env.reset(seed=0)
        assert env.step(np.zeros(2, np.float32))[1] == -3.0


def test_what_an_objective_writes_changes_nothing(world: uva.WorldModel) -> None:
    def scribbling(rollout: Rollout) -> np.ndarray:
        assert rollout.now is not None and rollout.actions is not None
        for value in (rollout.frames, rollout.now, rollout.actions, rollout.latents):
            value[...] = 0
        return np.zeros(1)

    seen = []
    for objective in (scribbling, lambda rollout: np.zeros(1)):
        env = world.as_env(objective, starts=[observation(0)])
        first, _ = env.reset(seed=0)
        seen.append([first, *(env.step(np.full(2, 300, np.float32))[0] for _ in range(5))])
    for one, other in zip(*seen, strict=True):
        np.testing.assert_array_equal(one["pixels"], other["pixels"])


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), "x", True, np.zeros(2)])
def test_a_cost_of_success_is_a_finite_number(world: uva.WorldModel, limit: Any) -> None:
    with pytest.raises(InputError, match="success_cost"):
        world.as_env(darkness, success_cost=limit)


def test_closed_is_closed_and_an_ended_episode_has_ended(world: uva.WorldModel) -> None:
    action = np.zeros(2, np.float32)
    env = world.as_env(darkness, starts=[observation(0)], horizon=4)
    env.reset(seed=0)
    assert env.step(action)[3]
    with pytest.raises(RuntimeError, match=r"has ended: call reset\(\)"):
        env.step(action)
    vector = world.as_vector_env(2, darkness, starts=[observation(0)])
    for dream in (env, vector):
        dream.reset(seed=0)
        dream.close()
        for call in (dream.reset, dream.render, lambda dream=dream: dream.step(action)):
            with pytest.raises(ClosedError, match=r"after close\(\): this dream is closed"):
                call()


@pytest.mark.parametrize("seed", [-1, 1.5, True, "ab", [1.5, 2], [True, 1], [1]])
def test_seeds_that_are_none_are_named(world: uva.WorldModel, seed: Any) -> None:
    for env in (
        world.as_env(darkness, starts=[observation(0)]),
        world.as_vector_env(2, darkness, starts=[observation(0)]),
    ):
        with pytest.raises(InputError, match="seed"):
            env.reset(seed=seed)


@pytest.mark.long
def test_ppo_learns_in_a_dream(world: uva.WorldModel) -> None:
    """A bandit in disguise: the cost is the distance of the action to a place, so a few thousand steps must show."""
    ppo = pytest.importorskip("stable_baselines3").PPO
    torch.manual_seed(0)

    def distance(rollout: Rollout) -> np.ndarray:
        assert rollout.actions is not None
        far: np.ndarray = np.abs(rollout.actions[:, -1] - (400.0, 100.0)).mean(-1) / 256
        return far

    small = gym.wrappers.TransformObservation(
        gym.wrappers.RescaleAction(world.as_env(distance, horizon=16, starts=[observation(0)]), -1.0, 1.0),
        lambda obs: obs["pixels"][::12, ::12, 0].astype(np.float32).ravel() / 255,
        gym.spaces.Box(0, 1, (64,), np.float32),
    )
    model = ppo("MlpPolicy", small, n_steps=128, batch_size=64, n_epochs=8, learning_rate=3e-3, seed=0, device="cpu")
    rewards: list[float] = []
    model.learn(2048, callback=lambda scope, _: rewards.append(float(np.mean(scope["rewards"]))) or True)
    early, late = np.mean(rewards[:256]), np.mean(rewards[-256:])
    assert late > early + 0.2 * abs(early), (early, late)
