"""``uva/PushTMulti-v0``: the mark moves between episodes, is seen in the picture only, and counts where it is."""

import math
import pickle

import gymnasium as gym
import numpy as np
import pytest

from tests.pusht_checks import checkers_pass, digest, digest_in_another_process, grown_after_resets, read_recording
from uva_agents.envs.pusht_multi import REACH, checked_goal
from uva_agents.envs.pusht_values import GOAL

ENV = "uva/PushTMulti-v0"
OTHER = (356.0, 356.0, math.pi / 4)


@pytest.fixture(scope="module")
def env():
    env = gym.make(ENV)
    yield env
    env.close()


def goal_of(info):
    return tuple(info["goal_pose"].tolist())


def on(goal):
    """A start with the block on ``goal``: undoes that the block turns about its centre of mass after it was placed."""
    x, y, angle = goal
    return [50.0, 50.0, x - 45 * math.sin(angle), y + 45 * math.cos(angle) - 45, angle]


# -- frames ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "goal"), [("pusht_cchi_v7_replay", GOAL), ("pusht_keypoint_x356_y356", OTHER)])
def test_frames_of_recorded_states_equal_the_recorded_frames(env, shared, name, goal):
    states, frames = read_recording(shared, name, 40)
    env.reset(seed=0, options={"goal_pose": goal})
    drawn = np.stack([env.unwrapped.draw_state(state) for state in states])
    apart = np.abs(drawn - frames).mean((1, 2, 3))
    assert apart.mean() < 0.15  # 0.08 and 0.06 measured over 60 frames; the rest is another pygame's edges
    assert apart.max() < 0.5
    env.reset(seed=0, options={"goal_pose": OTHER if goal == GOAL else GOAL})
    assert np.abs(env.unwrapped.draw_state(states[0]) - frames[0]).mean() > 0.5  # the mark is what makes them equal


def test_frames_of_pusht_equal_the_recorded_frames(shared):
    states, frames = read_recording(shared, "pusht_cchi_v7_replay", 20)
    base = gym.make("uva/PushT-v0").unwrapped
    drawn = np.stack([base.draw_state(state) for state in states])  # before any reset
    assert np.abs(drawn - frames).mean() < 0.15


def test_drawing_a_recorded_state_leaves_the_episode_alone(env):
    def episode(look):
        env.reset(seed=3)
        seen = []
        for action in np.random.default_rng(0).uniform(100, 400, (12, 2)):
            if look:
                env.unwrapped.draw_state([100, 100, 300, 300, 1.0])
            observation, reward, *_ = env.unwrapped.step(action)
            seen.append((observation["pixels"].tobytes(), reward, *env.unwrapped.block.position))
        return seen

    assert episode(True) == episode(False)


def test_pictures_are_upright_rgb(env):
    observation, _ = env.reset(seed=0, options={"goal_pose": (400, 100, 0), "reset_to_state": [60, 450, 200, 300, 0]})
    for picture in (observation["pixels"], env.render()):

        def at(x, y, picture=picture):
            return picture[int(y / 512 * len(picture)), int(x / 512 * len(picture))].tolist()

        assert at(400, 115) == [144, 238, 144]  # green, where the mark's bar is: x to the right, y down
        assert at(60, 450)[2] > at(60, 450)[0] + 100  # the blue finger, and blue is last


# -- goals -----------------------------------------------------------------------------------------


def test_marks_are_drawn_from_the_released_ranges(env):
    goals = np.array([goal_of(env.reset(seed=s)[1]) for s in range(60)])
    assert len(np.unique(goals, axis=0)) == 60
    assert (np.abs(goals[:, :2] - 256) <= REACH).all()
    assert (goals[:, 2] >= 0).all() and (goals[:, 2] < 2 * math.pi).all()
    low, high = goals.min(0), goals.max(0)
    assert (low < [180, 180, 0.6]).all() and (high > [332, 332, 5.7]).all()  # and they fill them


def test_a_mark_depends_on_the_seed_alone_and_not_on_numpys_global_generator(env):
    np.random.seed(0)
    first = [goal_of(env.reset(seed=s)[1]) for s in (5, 6)]
    np.random.seed(1)
    assert [goal_of(gym.make(ENV).reset(seed=s)[1]) for s in (5, 6)] == first


def test_starts_are_those_of_pusht(env):
    fixed = gym.make("uva/PushT-v0")
    for seed in (0, 100_000):
        ours, theirs = env.reset(seed=seed)[1], fixed.reset(seed=seed)[1]
        np.testing.assert_array_equal(ours["block_pose"], theirs["block_pose"])
        np.testing.assert_array_equal(ours["pos_agent"], theirs["pos_agent"])


def test_resets_without_a_seed_differ_and_follow_from_the_last_seed(env):
    def sequence():
        env.reset(seed=5)
        return [goal_of(env.reset()[1]) for _ in range(3)]

    first = sequence()
    assert len(set(first)) == 3
    assert sequence() == first


def test_a_given_mark_holds_for_one_episode(env):
    assert goal_of(env.reset(seed=1, options={"goal_pose": OTHER})[1]) == OTHER
    *_, info = env.step(np.array([100.0, 100.0], np.float32))
    assert goal_of(info) == OTHER
    assert goal_of(env.reset(seed=1)[1]) != OTHER


def test_marks_can_be_drawn_from_a_list():
    env = gym.make(ENV, goals=[GOAL, OTHER])
    assert {goal_of(env.reset(seed=s)[1]) for s in range(12)} == {GOAL, OTHER}


def test_success_coverage_and_reward_are_relative_to_the_mark(env):
    _, info = env.reset(options={"goal_pose": OTHER, "reset_to_state": on(OTHER)})
    assert info["is_success"] is True and info["coverage"] > 0.99
    _, reward, terminated, _, info = env.step(np.array([50.0, 50.0], np.float32))
    assert (reward, terminated, info["is_success"]) == (1.0, True, True)
    _, info = env.reset(options={"goal_pose": OTHER, "reset_to_state": on(GOAL)})
    assert info["is_success"] is False and info["coverage"] < 0.5


def test_only_the_picture_shows_the_mark(env):
    one, _ = env.reset(seed=0, options={"goal_pose": GOAL})
    two, _ = env.reset(seed=0, options={"goal_pose": OTHER})
    assert set(one) == {"pixels", "agent_pos"}
    np.testing.assert_array_equal(one["agent_pos"], two["agent_pos"])
    assert (one["pixels"] != two["pixels"]).any()
    assert env.observation_space == gym.make("uva/PushT-v0").observation_space
    assert env.action_space == gym.make("uva/PushT-v0").action_space


@pytest.mark.parametrize(
    ("goal", "message"),
    [((1, 2), "three finite numbers"), ((256, 256, np.nan), "three finite"), ((60, 256, 0), "walls are at 5 and 506")],
    ids=["two numbers", "nan", "in a wall"],
)
def test_a_bad_mark_is_named(env, goal, message):
    with pytest.raises(ValueError, match=message):
        env.reset(options={"goal_pose": goal})
    with pytest.raises(ValueError, match=message):
        gym.make(ENV, goals=[goal])


def test_every_mark_that_can_be_drawn_is_allowed():
    for x in (256 - REACH, 256 + REACH):
        for y in (256 - REACH, 256 + REACH):
            for angle in np.linspace(0, 2 * np.pi, 50):
                checked_goal((x, y, angle))


def test_mistakes_name_what_the_environment_knows(env):
    with pytest.raises(ValueError, match=r"'goal_pos': uva/PushTMulti-v0 knows .* did you mean 'goal_pose'"):
        env.reset(options={"goal_pos": OTHER})
    with pytest.raises(ValueError, match="goals is empty"):
        gym.make(ENV, goals=[])


# -- as an environment -----------------------------------------------------------------------------


def test_a_restored_episode_continues_bit_for_bit_mark_included(env):
    env.reset(seed=8)
    actions = np.random.default_rng(0).uniform(100, 400, (24, 2))
    for action in actions[:12]:
        env.unwrapped.advance(action)
    saved = pickle.loads(pickle.dumps(env.unwrapped.get_state()))
    expected = [env.unwrapped.step(action) for action in actions[12:]]
    env.reset(seed=9)
    for restored in (env.unwrapped, gym.make(ENV).unwrapped):
        restored.set_state(saved)
        for action, (observation, reward, terminated, _, info) in zip(actions[12:], expected, strict=True):
            observation2, reward2, terminated2, _, info2 = restored.step(action)
            np.testing.assert_array_equal(observation2["pixels"], observation["pixels"])
            assert (reward2, terminated2, goal_of(info2)) == (reward, terminated, goal_of(info))
            assert info2["max_coverage"] == info["max_coverage"]


def test_states_of_pusht_are_refused_and_refused_there(env):
    env.reset(seed=8)
    with pytest.raises(ValueError, match=r"gym\.make\('uva/PushTMulti-v0'\)"):
        gym.make("uva/PushT-v0").unwrapped.set_state(env.unwrapped.get_state())
    with pytest.raises(ValueError, match=r"gym\.make\('uva/PushT-v0'\)"):
        env.unwrapped.set_state(_pusht_state())


def _pusht_state():
    base = gym.make("uva/PushT-v0").unwrapped
    base.reset(seed=0)
    return base.get_state()


def test_gymnasium_and_stable_baselines3_checkers_pass():
    checkers_pass(ENV)


def test_it_is_deterministic_under_a_seed_across_processes():
    assert digest(ENV) == digest_in_another_process(ENV)


def test_resets_do_not_grow_memory_and_it_closes():
    assert grown_after_resets(ENV) < 3e6
