"""``uva/BlockPush-v0``: success, saving and restoring, pictures, clear about mistakes."""

import math
import pickle
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check

import uva_agents.envs

pytest.importorskip("pybullet", reason="uva/BlockPush-v0 needs PyBullet: pip install 'uva-agents[block-push]'")

from uva_agents.envs.block_push import ASSIGNMENTS, BlockPushEnv, Layout, Oracle, layout_of_seed, order_of_seed
from uva_agents.envs.block_push.camera import CAMERAS, WORKSPACE
from uva_agents.envs.block_push.layout import parse_assignment
from uva_agents.envs.block_push.score import Score, advance

HERE = (0.3, -0.4)


@pytest.fixture(scope="module")
def env():
    """Without pictures."""
    env = BlockPushEnv(render_observations=False)
    yield env
    env.close()


@pytest.fixture(scope="module")
def seeing():
    env = BlockPushEnv()
    yield env
    env.close()


def put(env, red=None, green=None):
    """Move blocks, at rest, to points on the table."""
    scene = env._scene
    for body, point in zip(scene._blocks, (red, green), strict=True):
        if point is not None:
            scene.client.resetBasePositionAndOrientation(body, [*point, 0.019], [0, 0, 0, 1])


def squares(env):
    """Centre of the green and the red square."""
    (gx, gy, _), (rx, ry, _) = env._layout.squares
    return (gx, gy), (rx, ry)


# -- gymnasium and stable-baselines3 ---------------------------------------------------------------


def test_gymnasium_and_stable_baselines3_checkers_pass():
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gymnasium_check(gym.make("uva/BlockPush-v0", image_size=16, render_size=16).unwrapped)
        sb3.check_env(gym.make("uva/BlockPush-v0", image_size=64))
        sb3.check_env(gym.make("uva/BlockPush-v0", action_mode="relative", render_observations=False))
    # Actions are metres on purpose; everything else the checkers could say would be news.
    texts = [str(w.message) for w in caught if "symmetric and normalized" not in str(w.message)]
    assert texts == []


def test_it_is_registered_with_the_published_step_limit(env):
    assert gym.spec(uva_agents.envs.BLOCK_PUSH).max_episode_steps == env._max_episode_steps == 350
    assert env.task == "block_push"
    wrapped = gym.make("uva/BlockPush-v0", render_observations=False, max_episode_steps=5)
    wrapped.reset(seed=0)
    assert [wrapped.step(np.array(HERE, np.float32))[3] for _ in range(5)] == [False] * 4 + [True]
    wrapped.close()


def test_the_same_seed_and_actions_give_the_same_episode_whatever_came_before(env):
    def episode():
        _, info = env.reset(seed=3)
        states = [info["state"]]
        for action in np.random.default_rng(0).uniform([0.25, -0.35], [0.5, 0.0], (12, 2)):
            states.append(env.step(action)[-1]["state"])
        return np.array(states)

    first = episode()
    env.reset(seed=8)
    for _ in range(5):
        env.step((0.4, 0.0))
    np.testing.assert_array_equal(episode(), first)


def test_resets_without_a_seed_differ_and_follow_from_the_last_seed(env):
    def sequence():
        env.reset(seed=5)
        return [tuple(env.reset()[1]["state"]) for _ in range(3)]

    first = sequence()
    assert len(set(first)) == 3
    assert sequence() == first


def test_relative_and_absolute_actions_move_the_same_target(env):
    other = BlockPushEnv(action_mode="relative", render_observations=False)
    env.reset(seed=2)
    other.reset(seed=2)
    for target, change in [((0.33, -0.4), (0.03, 0)), ((0.33, -0.38), (0, 0.02)), ((0.15, -0.38), (-0.5, 0))]:
        a, b = env.step(target)[-1]["state"], other.step(change)[-1]["state"]
        np.testing.assert_allclose(a, b, atol=1e-9)
        np.testing.assert_allclose(a[8:10], target, atol=1e-9)
    other.close()


def test_targets_outside_the_box_are_clipped_to_it(env):
    env.reset(seed=2)
    observation, *_, info = env.step((9.0, -9.0))
    np.testing.assert_array_equal(info["state"][8:10], [0.70, -0.50])
    assert env.observation_space.contains(observation)


# -- success and scores ----------------------------------------------------------------------------


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_an_assignment_is_success_for_that_block_in_that_square_only(env, assignment):
    for placed in ASSIGNMENTS:
        _, info = env.reset(seed=6, options={"assignment": assignment})
        assert info["assignment"] == env.assignment == assignment
        assert info["is_success"] is False
        block, square = parse_assignment(placed)
        put(env, **{("red", "green")[block]: squares(env)[square]})
        _, reward, terminated, _, info = env.step(HERE)
        assert info["is_success"] is terminated is (placed == assignment)
        assert reward == float(placed == assignment)
        assert info["block_distances"][placed] < 0.01
        assert info["published_reward"] == 0.49 and info["p1"] and not info["p2"]
    env.reset(seed=6)
    assert env.assignment is None


@pytest.mark.parametrize("crossed", [False, True])
def test_without_assignment_both_blocks_in_different_squares_are_success(env, crossed):
    env.reset(seed=6)
    green, red = squares(env)
    first, second = (green, red) if crossed else (red, green)
    put(env, red=first)
    _, reward, terminated, _, info = env.step(HERE)
    assert (reward, terminated, info["score"], info["p1"], info["p2"]) == (0.49, False, 0.49, True, False)
    assert env.step(HERE)[1] == 0.0  # a pair pays once
    put(env, red=first, green=second)
    _, reward, terminated, _, info = env.step(HERE)
    assert (reward, terminated, info["is_success"], info["p2"]) == (0.51, True, True, True)
    assert info["score"] == pytest.approx(1.0)
    assert info["entered"]["R-G" if crossed else "R-R"] == 1
    assert info["entered"]["G-R" if crossed else "G-G"] == 3
    assert info["entered"]["R-R" if crossed else "R-G"] == -1


def test_two_blocks_in_one_square_are_no_success(env):
    env.reset(seed=6)
    (x, y), _ = squares(env)
    put(env, red=(x - 0.022, y), green=(x + 0.022, y))
    _, reward, terminated, _, info = env.step(HERE)
    assert not terminated and not info["is_success"] and not info["p2"]
    assert reward == pytest.approx(0.98)  # two pairs at once


def test_leaving_a_square_loses_success_but_not_the_score(env):
    env.reset(seed=6, options={"assignment": "G-R"})
    put(env, green=squares(env)[1])
    assert env.step(HERE)[-1]["is_success"]
    put(env, green=(0.4, -0.1))
    info = env.step(HERE)[-1]
    assert not info["is_success"] and info["p1"]


def test_a_score_is_a_value():
    near = ((0.01, 0.3), (0.3, 0.3))
    empty = Score()
    once, reward = advance(empty, near)
    twice, again = advance(once, near)
    assert (reward, again, empty.entered[0][0], once.entered[0][0], twice.entered[0][0]) == (0.49, 0.0, -1, 1, 1)
    assert hash(once) == hash(advance(empty, near)[0])


# -- saving and restoring --------------------------------------------------------------------------


def test_a_restored_episode_continues_bit_for_bit_in_any_environment(env):
    _, info = env.reset(seed=0)
    oracle = Oracle(order_of_seed(0))
    for _ in range(18):  # into the first push: contacts carry over
        *_, info = env.step(oracle.act(info["state"]))
    saved, at_save = env.get_state(), info
    original, actions = [], []
    for _ in range(12):
        actions.append(oracle.act(info["state"]))
        *_, info = env.step(actions[-1])
        original.append(info)
    assert np.abs(original[-1]["state"] - at_save["state"])[[0, 1, 3, 4]].max() > 0.02
    other = BlockPushEnv(render_observations=False)
    other.reset(seed=9, options={"assignment": "R-G"})
    for _ in range(3):
        other.step((0.5, 0.1))
    for target in (env, other, other):  # the second time from the cache
        target.set_state(pickle.loads(pickle.dumps(saved)))
        assert target.assignment is None
        for action, expected in zip(actions, original, strict=True):
            *_, info = target.step(action)
            np.testing.assert_array_equal(info["state"], expected["state"])
            assert info["score"] == expected["score"] and info["entered"] == expected["entered"]
    other.close()


def test_advancing_is_stepping_without_a_look(env):
    env.reset(seed=5)
    saved = env.get_state()
    for _ in range(6):
        obs, *_ = env.step([0.4, 0.0])
    env.set_state(saved)
    for _ in range(6):
        assert env.advance([0.4, 0.0]) is None
    np.testing.assert_array_equal(env.get_obs()["agent_pos"], obs["agent_pos"])
    with pytest.raises(ValueError, match="shape"):
        env.advance([0.4])


def test_pictures_of_a_restored_moment_are_the_same(seeing):
    seeing.reset(seed=1)
    shown = seeing.step((0.33, -0.35))[0]["pixels"]
    saved = seeing.get_state()
    seeing.reset(seed=2)
    assert (seeing.observe()["pixels"] != shown).any()
    seeing.set_state(saved)
    np.testing.assert_array_equal(seeing.observe()["pixels"], shown)


def test_a_state_of_another_kind_is_refused(env):
    with pytest.raises(TypeError, match="BlockPushState, not ndarray"):
        env.set_state(np.zeros(5))


# -- pictures --------------------------------------------------------------------------------------


def of_colour(pixels, channel):
    """Mask of pixels in which red (0) or green (1) stands out."""
    rgb = pixels.astype(int)
    return rgb[..., channel] > rgb[..., [c for c in range(3) if c != channel]].max(axis=-1) + 60


@pytest.mark.parametrize("camera", sorted(CAMERAS))
def test_blocks_and_squares_are_where_the_camera_projects_them(camera):
    env = BlockPushEnv(camera=camera, image_size=(192, 256), render_size=64)
    for seed in (0, 5):
        observation, info = env.reset(seed=seed)
        for channel, at, square in ((0, 0, 13), (1, 3, 10)):
            mask = of_colour(observation["pixels"], channel)
            assert 50 < mask.sum() < 6000
            x, y = info["state"][at : at + 2]
            column, row = CAMERAS[camera].project((x, y, 0.03))
            assert mask[int(row * 192), int(column * 256)]
            # The middle of a border of the square: 5.5 cm from its centre.
            x, y, yaw = info["state"][square : square + 3]
            column, row = CAMERAS[camera].project((x + 0.055 * math.cos(yaw), y + 0.055 * math.sin(yaw), 0.0205))
            assert mask[int(row * 192) - 1 : int(row * 192) + 2, int(column * 256) - 1 : int(column * 256) + 2].any()
    assert env.render().shape == (64, round(64 * CAMERAS[camera].width / CAMERAS[camera].height), 3)
    env.close()


def test_a_pushed_block_moves_in_the_picture_and_nothing_else_does(seeing):
    before = seeing.reset(seed=3)[0]["pixels"]
    assert before.shape == (96, 96, 3) and before.dtype == np.uint8
    red = of_colour(before, 0).sum()
    put(seeing, red=(0.35, 0.05))
    after = seeing.observe()["pixels"]
    assert of_colour(after, 0).sum() == pytest.approx(red, rel=0.3)
    column, row = WORKSPACE.project((0.35, 0.05, 0.03))
    assert of_colour(after, 0)[int(row * 96), int(column * 96)]
    np.testing.assert_array_equal(of_colour(after, 1), of_colour(before, 1))


def test_pictures_can_be_left_out_and_asked_for(env):
    observation, _ = env.reset(seed=0)
    assert set(observation) == set(env.observation_space.spaces) == {"agent_pos"}
    assert env.observe()["pixels"].shape == (96, 96, 3)


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"render_mode": "human"}, "rgb_array"),
        ({"assignment": "R-B"}, "assignment='R-B' is unknown.*'R-R'"),
        ({"action_mode": "delta"}, "'absolute' or 'relative'"),
        ({"camera": "top"}, "camera='top' is unknown.*'workspace'"),
        ({"image_size": 4}, "at least 8 pixels"),
        ({"image_size": (96, 4)}, "at least 8 pixels"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_option_is_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        BlockPushEnv(**kwargs)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(3), r"shape \(2,\).*got \(3,\)"),
        (np.zeros((16, 2)), "one step at a time"),
        (np.array([np.nan, 0.0]), "NaN or infinity"),
    ],
    ids=["three numbers", "a chunk", "nan"],
)
def test_a_bad_action_is_named(env, action, message):
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(action)


def test_a_bad_reset_is_named(env):
    with pytest.raises(ValueError, match="unknown reset option 'asignment'"):
        env.reset(options={"asignment": "R-R"})
    with pytest.raises(ValueError, match="assignment='RR' is unknown"):
        env.reset(options={"assignment": "RR"})
    with pytest.raises(ValueError, match="out of range"):
        env.reset(seed=2**32)


def test_anything_before_the_first_reset_is_named():
    new_env = BlockPushEnv(render_observations=False)
    for call in (lambda: new_env.step(HERE), new_env.get_state, new_env.render, new_env.observe):
        with pytest.raises(RuntimeError, match=r"call env\.reset"):
            call()
    new_env.close()
    new_env.close()  # twice does no harm


def test_a_bad_oracle_is_named():
    with pytest.raises(ValueError, match="order=4"):
        Oracle(4)
    with pytest.raises(ValueError, match="noise=-1"):
        Oracle(0, noise=-1)


def test_without_pybullet_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pybullet", None)
    with pytest.raises(ImportError, match=r"pip install 'uva-agents\[block-push\]'"):
        gym.make("uva/BlockPush-v0")


def test_layouts_keep_their_distances():
    for seed in range(200):
        layout = layout_of_seed(10_000 + seed)
        assert isinstance(layout, Layout)
        (ax, ay, _), (bx, by, _) = layout.blocks
        assert abs(ax - bx) > 0.10 and all(-0.35 <= y <= -0.05 for y in (ay, by))
        assert abs(layout.squares[0][0] - layout.squares[1][0]) > 0.12
