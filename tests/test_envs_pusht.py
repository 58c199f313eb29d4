"""``uva/PushT-v0``: equal to the original environment, restorable, and clear about mistakes."""

import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check

import uva_agents.envs

SEEDS = (0, 3, 100_000, 100_001, 100_007)


@pytest.fixture(scope="module")
def env():
    env = gym.make("uva/PushT-v0")
    yield env
    env.close()


@pytest.fixture(scope="module")
def recorded(shared):
    return np.load(shared / "golden" / "pusht_env.npz")


def pose(info):
    return np.concatenate([info["pos_agent"], info["block_pose"]])


def physics(env):
    """Everything that moves, and what is not shown: velocities."""
    e = env.unwrapped
    return np.array([*e.agent.position, *e.agent.velocity, *e.block.position, e.block.angle, *e.block.velocity])


def pushes(env, rng, n):
    """Targets that keep the finger in contact with the block."""
    actions = []
    for _ in range(n):
        action = np.clip(np.array(env.unwrapped.block.position) + rng.normal(0, 60, 2), 0, 512)
        env.unwrapped.step(action)
        actions.append(action)
    return actions


# -- the original environment ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_initial_states_equal_the_recorded_ones(env, recorded, seed):
    _, info = env.reset(seed=seed)
    np.testing.assert_array_equal(pose(info), recorded[f"seed{seed}/init"])


@pytest.mark.parametrize("seed", SEEDS)
def test_trajectories_rewards_and_frames_equal_the_recorded_ones(env, recorded, seed):
    # Exact equality, pictures included: seen with pygame 2.6.1 and opencv 4.14, recorded with opencv 5.0.
    observation, info = env.reset(seed=seed)
    frames, states, rewards, dones = {0: observation["pixels"]}, [], [], []
    for t, action in enumerate(recorded[f"seed{seed}/actions"], start=1):
        observation, reward, terminated, _, info = env.step(action)
        frames[t] = observation["pixels"]
        states.append(np.concatenate([pose(info), info["vel_agent"]]))
        rewards.append(reward)
        dones.append(terminated)
    np.testing.assert_array_equal(states, recorded[f"seed{seed}/states"])
    np.testing.assert_array_equal(rewards, recorded[f"seed{seed}/reward"])
    np.testing.assert_array_equal(dones, recorded[f"seed{seed}/done"])
    shown = np.stack([frames[t] for t in (0, 1, 21, 80)]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(shown, recorded[f"seed{seed}/images_u8"])


def test_rewards_do_not_differ_between_environments_in_the_last_bit(recorded):
    # The episode in which the order of the block's two bars shows in the sum of their areas.
    for _ in range(6):
        new_env = gym.make("uva/PushT-v0").unwrapped
        new_env.reset(seed=3)
        rewards = [new_env.step(action)[1] for action in recorded["seed3/actions"]]
        np.testing.assert_array_equal(rewards, recorded["seed3/reward"])


def test_rewards_near_the_goal_equal_the_recorded_ones(env, recorded):
    env.reset(seed=0)
    block = env.unwrapped.block
    for block_pose, reward in zip(recorded["reward/block_pose"], recorded["reward/reward"], strict=True):
        block.angle = block_pose[2]
        block.position = tuple(block_pose[:2])
        coverage = env.unwrapped._get_info()["coverage"]
        assert min(coverage / 0.95, 1.0) == pytest.approx(reward, abs=1e-9)


# -- gymnasium and stable-baselines3 ---------------------------------------------------------------


def test_gymnasium_and_stable_baselines3_checkers_pass():
    from stable_baselines3.common.env_checker import check_env as sb3_check

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gymnasium_check(gym.make("uva/PushT-v0", render_mode="rgb_array").unwrapped)
        sb3_check(gym.make("uva/PushT-v0", render_mode="rgb_array"))
    # Actions are pixels on purpose; everything else the checkers could say would be news.
    assert all("symmetric and normalized" in str(w.message) for w in caught)


def test_observations_are_as_declared(env):
    observation, _ = env.reset(seed=1)
    assert observation["pixels"].shape == (96, 96, 3)
    assert observation["pixels"].dtype == np.uint8
    assert observation["agent_pos"].dtype == np.float32
    assert env.observation_space.contains(observation)
    np.testing.assert_allclose(observation["agent_pos"], env.unwrapped.agent.position)


def test_the_finger_stays_in_the_observation_space_whatever_the_targets(env):
    rng = np.random.default_rng(0)
    env.reset(seed=2)
    for _ in range(60):
        observation, *_ = env.unwrapped.step(rng.choice([-1e6, 0.0, 512.0, 1e6], size=2))
        assert env.observation_space["agent_pos"].contains(observation["agent_pos"])
        np.testing.assert_allclose(observation["agent_pos"], env.unwrapped.agent.position, atol=1e-3)


def test_success_coverage_and_poses_are_reported_on_reset_and_step(env):
    _, at_reset = env.reset(seed=0)
    *_, at_step = env.step(np.array([256.0, 256.0], np.float32))
    for info in (at_reset, at_step):
        assert info["is_success"] is False
        assert 0 <= info["coverage"] <= info["max_coverage"] <= 1
        assert info["block_pose"].shape == info["goal_pose"].shape == (3,)


def test_a_start_on_the_goal_is_a_success_from_the_first_info(env):
    # The block turns about its centre of mass after it was placed; this start undoes that for the goal's angle.
    goal, cog = np.array([256.0, 256.0]), np.array([0.0, 45.0])
    turned = np.array([[np.cos(np.pi / 4), -np.sin(np.pi / 4)], [np.sin(np.pi / 4), np.cos(np.pi / 4)]]) @ cog
    start = [50.0, 50.0, *(goal + turned - cog), np.pi / 4]
    _, info = env.reset(options={"reset_to_state": start})
    assert info["is_success"]
    assert info["coverage"] > 0.99
    _, reward, terminated, _, info = env.step(np.array([50.0, 50.0], np.float32))
    assert (reward, terminated, info["is_success"]) == (1.0, True, True)


def test_max_coverage_is_the_best_since_the_reset(env):
    _, info = env.reset(seed=100_007)
    rng, seen = np.random.default_rng(1), [info["coverage"]]
    for _ in range(40):
        target = np.clip(np.array(env.unwrapped.block.position) + rng.normal(0, 60, 2), 0, 512)
        *_, info = env.unwrapped.step(target)
        seen.append(info["coverage"])
        assert info["max_coverage"] == max(seen)
    assert len(set(seen)) > 3  # the block moved
    _, info = env.reset(seed=100_007)
    assert info["max_coverage"] == seen[0]


def test_resets_without_a_seed_differ_and_follow_from_the_last_seed(env):
    def sequence():
        env.reset(seed=5)
        return [tuple(pose(env.reset()[1])) for _ in range(3)]

    first = sequence()
    assert len(set(first)) == 3
    assert sequence() == first


def test_episodes_are_truncated_after_300_steps(env):
    env.reset(seed=0)
    flags = [env.step(np.array([20.0, 20.0], np.float32))[2:4] for _ in range(300)]
    assert flags[-1] == (False, True)
    assert not any(truncated for _, truncated in flags[:-1])


def test_render_gives_pictures_of_the_asked_size_and_shows_the_target():
    env = gym.make("uva/PushT-v0", render_mode="rgb_array", render_size=128)
    env.reset(seed=0)
    before = env.render()
    assert before.shape == (128, 128, 3)
    env.step(np.array([400.0, 100.0], np.float32))
    red = (env.render() == (255, 0, 0)).all(axis=-1)
    assert red[20:30, 95:105].any()  # row 100 / 4, column 400 / 4
    assert not (before == (255, 0, 0)).all(axis=-1).any()


def test_it_describes_its_task(env):
    base = env.unwrapped
    assert base.task == "pusht"
    assert "T-shaped" in base.task_description
    assert base._max_episode_steps == gym.spec(uva_agents.envs.PUSHT).max_episode_steps


# -- saving and restoring --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_restored_episode_continues_bit_for_bit(env, seed):
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    pushes(env, rng, 25)
    saved = env.unwrapped.get_state()
    at_save = physics(env)
    original = []
    for action in (continuation := rng.uniform(100, 400, (25, 2))):
        observation, reward, *_, info = env.unwrapped.step(action)
        original.append((observation, reward, info, physics(env)))
    assert np.abs(physics(env) - at_save).max() > 1  # something happened

    other = gym.make("uva/PushT-v0").unwrapped
    for restored in (env.unwrapped, other):
        restored.set_state(pickle.loads(pickle.dumps(saved)))
        np.testing.assert_array_equal(physics(restored), at_save)
        for action, (observation, reward, info, moving) in zip(continuation, original, strict=True):
            observation2, reward2, *_, info2 = restored.step(action)
            np.testing.assert_array_equal(physics(restored), moving)
            np.testing.assert_array_equal(observation2["pixels"], observation["pixels"])
            assert reward2 == reward
            assert info2["max_coverage"] == info["max_coverage"]


def test_a_state_is_a_value_that_later_steps_do_not_change(env):
    env.reset(seed=3)
    saved = env.unwrapped.get_state()
    pushes(env, np.random.default_rng(0), 5)
    assert saved.actions == ()
    assert len(env.unwrapped.get_state().actions) == 5
    assert hash(saved) == hash(pickle.loads(pickle.dumps(saved)))


def test_going_forward_to_a_state_equals_replaying_it_from_the_start(env):
    env.reset(seed=4)
    pushes(env, np.random.default_rng(0), 8)
    earlier = env.unwrapped.get_state()
    pushes(env, np.random.default_rng(1), 8)
    late, expected = env.unwrapped.get_state(), physics(env)
    env.unwrapped.set_state(earlier)
    env.unwrapped.set_state(late)
    np.testing.assert_array_equal(physics(env), expected)


def test_a_state_of_another_kind_is_refused(env):
    with pytest.raises(TypeError, match="PushTState, not ndarray"):
        env.unwrapped.set_state(np.zeros(5))


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(3), r"shape \(2,\).*got \(3,\)"),
        (np.zeros((16, 2)), "one step at a time"),
        (np.array([np.nan, 1.0]), "NaN or infinity"),
        (np.array([1.0, np.inf]), "NaN or infinity"),
    ],
    ids=["three numbers", "a chunk", "nan", "inf"],
)
def test_a_bad_action_is_named(env, action, message):
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.unwrapped.step(action)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset_to_stat": [1] * 5}, "unknown reset option 'reset_to_stat'"),
        ({"reset_to_state": [1, 2, 3]}, "five finite numbers"),
        ({"reset_to_state": [1, 2, 3, 4, np.nan]}, "five finite numbers"),
        ({"reset_to_state": [1, 2, 3, 600, 0]}, r"\[0, 512\]"),
    ],
    ids=["misspelt", "too short", "nan", "outside"],
)
def test_a_bad_reset_option_is_named(env, options, message):
    with pytest.raises(ValueError, match=message):
        env.unwrapped.reset(options=options)


def test_a_seed_out_of_range_is_named(env):
    with pytest.raises(ValueError, match="out of range"):
        env.unwrapped.reset(seed=2**32)


def test_stepping_or_saving_before_the_first_reset_is_named():
    new_env = gym.make("uva/PushT-v0").unwrapped
    with pytest.raises(RuntimeError, match=r"call env\.reset"):
        new_env.step(np.zeros(2))
    with pytest.raises(RuntimeError, match=r"call env\.reset"):
        new_env.get_state()


def test_a_window_is_not_offered():
    with pytest.raises(ValueError, match="rgb_array"):
        uva_agents.envs.pusht.PushTEnv(render_mode="human")
