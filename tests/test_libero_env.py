"""``uva/Libero10-v0``: LIBERO's tasks and starts, repeatable, restorable, clear about mistakes."""

import gc
import os
import pickle
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import uva_agents.envs

pytest.importorskip("libero", reason="uva/Libero10-v0 needs LIBERO: pip install 'uva-agents[libero]'")

from tests.libero_walks import STOVE, near, walk
from uva_agents.envs.libero import SUITES, LiberoEnv, initial_states, suite_tasks


@pytest.fixture(scope="module")
def env():
    """Without pictures, absolute poses."""
    env = LiberoEnv(
        task_id=STOVE, render_observations=False, wait_steps=2, image_size=32, render_size=32, quality="fast"
    )
    yield env
    env.close()


@pytest.fixture(scope="module")
def moving():
    """Without pictures, LIBERO's own changes."""
    env = LiberoEnv(task_id=STOVE, render_observations=False, wait_steps=2, action_mode="delta")
    yield env
    env.close()


@pytest.fixture(scope="module")
def seeing():
    env = LiberoEnv(task_id=STOVE, image_size=64, render_size=64, wait_steps=0, quality="fast")
    yield env
    env.close()


# -- gymnasium and stable-baselines3 ---------------------------------------------------------------


def test_gymnasium_and_stable_baselines3_checkers_pass():
    from gymnasium.utils.env_checker import check_env as gymnasium_check
    from stable_baselines3.common.env_checker import check_env as sb3_check

    small = {"task_id": STOVE, "render_size": 16, "wait_steps": 0, "quality": "fast"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gymnasium_check(gym.make("uva/Libero10-v0", image_size=16, **small).unwrapped)
        sb3_check(gym.make("uva/Libero10-v0", image_size=64, instruction=None, **small))
        sb3_check(
            gym.make("uva/Libero10-v0", render_observations=False, instruction=None, action_mode="delta", **small)
        )
    # Absolute actions are metres on purpose; everything else the checkers could say would be news.
    texts = [str(w.message) for w in caught if w.filename.find("checker") >= 0 or issubclass(w.category, UserWarning)]
    assert [text for text in texts if "symmetric and normalized" not in text] == []
    # As it comes, with its instruction: stable-baselines3 adds that its algorithms have no use for one.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sb3_check(gym.make("uva/Libero10-v0", image_size=64, **small))
    texts = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    assert ["Sequence observation space is not supported" in text for text in texts if "symmetric" not in text] == [
        True
    ]


def test_it_is_registered_with_the_published_step_limit():
    assert gym.spec(uva_agents.envs.LIBERO_10).max_episode_steps == LiberoEnv._max_episode_steps == 500


def test_observations_are_in_the_space_and_say_what_to_do(seeing):
    observation, info = seeing.reset(seed=0)
    assert seeing.observation_space.contains(observation)
    assert observation["task"] == "KITCHEN SCENE3 turn on the stove and put the moka pot on it"
    assert info["language"] == seeing.task_description == "turn on the stove and put the moka pot on it"
    np.testing.assert_allclose(observation["agent_pos"][:3], info["grip_position"], atol=1e-6)
    plain = LiberoEnv(task_id=STOVE, instruction="language", render_observations=False, wait_steps=0)
    assert plain.reset(seed=0)[0]["task"] == info["language"]
    plain.close()
    arrays = LiberoEnv(task_id=STOVE, instruction="info", render_observations=False, wait_steps=0)
    alone, info = arrays.reset(seed=0)
    assert set(alone) == set(arrays.observation_space.spaces) == {"agent_pos"}
    assert info["task"] == arrays.step(arrays.hold_action())[-1]["task"] == observation["task"]
    arrays.close()


# -- starts ----------------------------------------------------------------------------------------


def test_a_seed_is_a_start_whatever_came_before(env):
    def start(seed):
        env.reset(seed=seed)
        return env.get_state()

    first = start(5)
    walk(env, 3)
    other = start(6)
    assert start(5) == first and other.physics != first.physics
    assert other.places != first.places, "the stove stands somewhere else"


def test_resets_without_a_seed_differ_and_follow_from_the_last_seed(env):
    def sequence():
        env.reset(seed=5)
        return [(env.reset(), env.flat_state().tobytes())[1] for _ in range(3)]

    first = sequence()
    assert len(set(first)) == 3
    assert sequence() == first


def test_the_callers_random_numbers_are_left_alone(env):
    np.random.seed(1)
    expected = np.random.random(3)
    np.random.seed(1)
    env.reset(seed=9)
    np.testing.assert_array_equal(np.random.random(3), expected)


@pytest.mark.parametrize("suite", SUITES)
def test_every_task_of_every_suite_has_its_files_and_fixed_states(suite):
    tasks = suite_tasks(suite)
    assert len(tasks) == (90 if suite == "libero_90" else 10)
    for task in tasks:
        assert task.bddl_file.is_file()
        states = initial_states(task)
        assert len(states) == 50 and np.isfinite(states).all()
        assert not task.language[0].isupper() and task.prompt.endswith(task.language)


def test_fixed_states_are_those_of_libero_in_order_and_by_number(env):
    states = initial_states(suite_tasks("libero_10")[STOVE])
    options = {"initial_states": "fixed", "wait_steps": 0}

    def start(seed=None, **more):
        _, info = env.reset(seed=seed, options={**options, **more})
        return info["initial_state"], env.flat_state()

    for seed, expected in ((0, 0), (3, 3), (None, 4), (None, 5), (100_007, 7), (None, 8)):
        index, state = start(seed)
        assert index == expected
        np.testing.assert_array_equal(state, states[expected])
    index, state = start(initial_state=49)
    assert index == 49
    np.testing.assert_array_equal(state, states[49])
    # Where the stove stands is not in the states; a number is one start all the same.
    start(seed=3)
    first = env.get_state()
    start(seed=103)
    assert env.get_state() == first
    assert env.reset(seed=3)[1]["initial_state"] == -1, "options are for one episode"


def test_things_have_come_to_rest_when_an_episode_begins(env):
    env.reset(seed=2, options={"wait_steps": 10})
    nq = env._scene._model.nq
    objects = slice(1 + nq + 9, None)
    before = env.flat_state()
    assert np.abs(before[objects]).max() < 0.05  # metres or radians per second


# -- control ---------------------------------------------------------------------------------------


def test_the_arm_holds_still_and_goes_where_it_is_sent(env):
    _, info = env.reset(seed=1)
    held = env.hold_action()
    for _ in range(10):
        *_, info = env.step(held)
    np.testing.assert_allclose(info["grip_position"], held[:3], atol=5e-4)
    goal = held.copy()
    goal[:3] += (0.06, -0.04, 0.05)
    turn = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
    goal[3:9] = (turn @ info["grip_rotation"])[:2].ravel()
    for _ in range(40):
        *_, info = env.step(goal)
    np.testing.assert_allclose(info["grip_position"], goal[:3], atol=2e-3)
    np.testing.assert_allclose(info["grip_rotation"][:2].ravel(), goal[3:9], atol=1e-2)


def test_a_rotation_may_be_given_as_a_vector(env):
    env.reset(seed=1)
    start, held = env.get_state(), env.hold_action()
    other = LiberoEnv(task_id=STOVE, render_observations=False, action_mode="absolute_vector")
    other.set_state(start)
    turn = other.hold_action()
    assert turn.shape == (7,) and other.action_space.contains(turn)
    for action, acting in ((held, env), (turn, other)):
        action[:3] += 0.05
        for _ in range(5):
            acting.step(action)
    np.testing.assert_allclose(other.flat_state(), env.flat_state(), atol=1e-4)
    other.close()


def test_changes_move_along_their_axes(moving):
    for axis in range(3):
        _, info = moving.reset(seed=1)
        action = moving.hold_action()
        action[axis] = 0.5
        for _ in range(5):
            *_, after = moving.step(action)
        moved = after["grip_position"] - info["grip_position"]
        assert moved[axis] > 0.02 and np.abs(np.delete(moved, axis)).max() < 0.3 * moved[axis]


def test_the_gripper_closes_and_opens(env):
    observation, _ = env.reset(seed=1)
    width = [np.ptp(observation["agent_pos"][7:])]
    for command in (1.0, -1.0):
        action = env.hold_action()
        action[9] = command
        for _ in range(15):
            observation, *_ = env.step(action)
        width.append(np.ptp(observation["agent_pos"][7:]))
    assert width[0] > 0.04 and width[1] < 0.01 and width[2] > 0.07  # it begins half open


def test_success_is_what_the_task_asks_for(env):
    _, info = env.reset(seed=4)
    assert info["is_success"] is False
    sim = env._scene._env.sim
    pot = next(j for j in sim.model.joint_names if j.startswith("moka_pot_1"))
    knob = next(j for j in sim.model.joint_names if j.startswith("flat_stove_1"))
    place = sim.data.get_site_xpos("flat_stove_1_cook_region")
    pose = sim.data.get_joint_qpos(pot).copy()
    pose[:2], pose[2] = place[:2], place[2] + 0.06
    sim.data.set_joint_qpos(pot, pose)
    done = []
    for _ in range(10):
        _, reward, terminated, _, info = env.step(env.hold_action())
        done.append((reward, terminated, info["is_success"]))
    assert set(done) == {(0.0, False, False)}, "the stove is off"
    sim.data.set_joint_qpos(knob, 1.5)
    _, reward, terminated, _, info = env.step(env.hold_action())
    assert (reward, terminated, info["is_success"]) == (1.0, True, True)


# -- saving and restoring --------------------------------------------------------------------------


def test_a_restored_state_continues_bit_for_bit_here_and_elsewhere(env):
    env.reset(seed=7)
    walk(env, 3)
    state = pickle.loads(pickle.dumps(env.get_state()))
    future = walk(env, seed=1)
    env.set_state(state)
    np.testing.assert_array_equal(walk(env, seed=1), future)
    other = LiberoEnv(task_id=4, render_observations=False)  # at first of another task
    with pytest.raises(ValueError, match=r"is of the task 'KITCHEN.*reset\(options=\{'task_id'"):
        other.set_state(state)
    other.reset(options={"task_id": STOVE})
    other.set_state(state)
    assert other.task == env.task and other.get_state() == state
    np.testing.assert_array_equal(walk(other, seed=1), future)
    other.close()


def test_looking_changes_nothing(env):
    env.reset(seed=7)
    state = env.get_state()
    future = walk(env, 4)
    env.set_state(state)
    env.observe()
    assert env.get_state() == state
    np.testing.assert_array_equal(walk(env, 4), future)


def test_advance_is_a_step(env):
    env.reset(seed=7)
    state = env.get_state()
    expected = walk(env, 4)
    env.set_state(state)
    rng = np.random.default_rng(0)
    for row in expected:
        env.advance(near(env, rng))
        np.testing.assert_array_equal(env.flat_state(), row)


# -- pictures --------------------------------------------------------------------------------------


def test_pictures_are_upright_and_stay_right_when_garbage_is_collected(seeing):
    observation, _ = seeing.reset(seed=0)
    front, wrist = observation["pixels"].astype(float), observation["pixels_wrist"].astype(float)
    assert front.std() > 20 and wrist.std() > 20 and np.abs(front - wrist).mean() > 20
    # The robot and the dark cupboards are behind the light table.
    assert front[-16:].mean() > front[:16].mean() + 50
    gc.collect()
    again = seeing.get_obs()
    np.testing.assert_array_equal(again["pixels"], observation["pixels"])
    np.testing.assert_array_equal(again["pixels_wrist"], observation["pixels_wrist"])
    assert seeing.render().shape == (64, 64, 3)


def test_a_burner_that_is_on_is_red(seeing):
    seeing.reset(seed=0)
    sim = seeing._scene._env.sim
    knob = next(j for j in sim.model.joint_names if j.startswith("flat_stove_1"))

    def redness(qpos):
        sim.data.set_joint_qpos(knob, qpos)
        observation, *_ = seeing.step(seeing.hold_action())
        red, green, _ = np.moveaxis(observation["pixels"].astype(float), -1, 0)
        return (red - green > 80).sum()

    assert redness(0.0) == 0
    assert redness(1.5) > 5
    state = seeing.get_state()
    assert redness(0.0) == 0
    seeing.set_state(state)
    red, green, _ = np.moveaxis(seeing.get_obs()["pixels"].astype(float), -1, 0)
    assert (red - green > 80).sum() > 5


def test_fast_pictures_look_a_little_different(seeing):
    full = LiberoEnv(task_id=STOVE, image_size=64, render_size=64, wait_steps=0)
    a, b = (env.reset(seed=0)[0]["pixels"].astype(float) for env in (seeing, full))
    assert 0.5 < np.abs(a - b).mean() < 30
    full.close()


def test_resets_do_not_grow_memory(seeing):
    for seed in range(3):
        seeing.reset(seed=seed)
    before = _resident()
    for seed in range(20):
        seeing.reset(seed=seed)
    grown = _resident() - before
    print(f"20 resets: {grown / 1e6:.2f} MB on top of {before / 1e6:.0f} MB")
    assert grown < 10e6


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suite": "libero_11"}, "'libero_10'"),
        ({"task_id": 10}, "tasks 0 to 9"),
        ({"task_id": True}, "tasks 0 to 9"),
        ({"initial_states": "fix"}, "'random' or 'fixed'"),
        ({"action_mode": "relative"}, "action_mode"),
        ({"quality": "best"}, "'full' or 'fast'"),
        ({"instruction": "words"}, "instruction"),
        ({"image_size": 4}, "image_size"),
        ({"wait_steps": -1}, "wait_steps"),
        ({"render_mode": "human"}, "rgb_array"),
    ],
)
def test_a_wrong_argument_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        LiberoEnv(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": 3}, "did you mean 'task_id'"),
        ({"task_id": 12}, "tasks 0 to 9"),
        ({"initial_state": 50}, "0 to 49"),
        ({"initial_states": "all"}, "'random' or 'fixed'"),
    ],
)
def test_a_wrong_reset_option_is_named(env, options, message):
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)


def test_a_wrong_seed_is_named(env):
    with pytest.raises(ValueError, match="2\\*\\*32"):
        env.reset(seed=2**32)


def test_wrong_actions_are_named(env, moving):
    env.reset(seed=0)
    moving.reset(seed=0)
    with pytest.raises(ValueError, match="'absolute_vector' or 'delta'"):
        env.step(np.zeros(7))
    with pytest.raises(ValueError, match="'absolute'"):
        moving.step(np.zeros(10))
    with pytest.raises(ValueError, match="one step at a time"):
        env.step(np.zeros((8, 10)))
    with pytest.raises(ValueError, match="NaN"):
        env.step(np.full(10, np.nan))
    with pytest.raises(ValueError, match="zero or parallel"):
        env.step(np.zeros(10))


def test_nothing_works_before_a_reset_and_states_go_to_environments_of_their_suite():
    new_env = LiberoEnv(task_id=STOVE, render_observations=False, wait_steps=0)
    for call in (
        new_env.get_obs,
        new_env.render,
        new_env.get_state,
        new_env.hold_action,
        lambda: new_env.step(np.zeros(10)),
    ):
        with pytest.raises(RuntimeError, match=r"reset\(\)"):
            call()
    new_env.reset(seed=0)
    state = new_env.get_state()
    new_env.close()
    new_env.close()
    new_env = LiberoEnv(task_id=STOVE, render_observations=False, wait_steps=0)
    new_env.set_state(state)
    assert new_env.get_state() == state
    with pytest.raises(TypeError, match="LiberoState"):
        new_env.set_state(state.physics)
    other = LiberoEnv(suite="libero_goal")
    with pytest.raises(ValueError, match="is of the task 'KITCHEN"):
        other.set_state(state)
    new_env.close()
