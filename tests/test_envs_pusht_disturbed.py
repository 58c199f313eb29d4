"""``uva/PushTDisturbed-v0``: pictures change as asked, everything else is ``uva/PushT-v0``."""

import json
import math
import pickle

import gymnasium as gym
import numpy as np
import pytest

from tests.pusht_checks import checkers_pass, digest, digest_in_another_process, grown_after_resets
from uva_agents.envs.pusht_variations import DISTINCT, NORMAL, OBJECT_SHAPES, VARIATIONS, variation_space

ENV = "uva/PushTDisturbed-v0"
COLOURS = ("background_color", "goal_color", "agent_color", "block_color")
# Agent at the top left, block below the middle: nothing overlaps anything.
APART = [100, 80, 390, 380, 0.0]


@pytest.fixture(scope="module")
def env():
    env = gym.make(ENV)
    yield env
    env.close()


@pytest.fixture(scope="module")
def normal():
    """The undisturbed picture of ``APART``, and where in it each thing is."""
    picture = gym.make("uva/PushT-v0").reset(options={"reset_to_state": APART})[0]["pixels"]
    green = (picture == (144, 238, 144)).all(-1)
    blue = (picture[..., 2] > 200) & (picture[..., 0] < 150) & ~green
    white = (picture == 255).all(-1)
    y, x = np.mgrid[:96, :96]
    block = ~green & ~blue & ~white & (x > 4) & (x < 91) & (y > 4) & (y < 91) & (x > 55) & (y > 55)
    return picture, {"goal_color": green, "agent_color": blue, "background_color": white, "block_color": block}


def picture(env, variation, seed=0):
    return env.reset(seed=seed, options={"variation": variation, "reset_to_state": APART})[0]["pixels"]


def episode(env, options=None, seed=4, steps=12):
    """Pictures, and everything that a step returns besides, of some pushes; the last reset has no seed."""
    shown, returned = [], []
    for s in (seed, None):
        observation, info = env.reset(seed=s, options=options)
        for action in np.random.default_rng(1).uniform(150, 400, (steps, 2)).astype(np.float32):
            shown.append((observation["pixels"], env.render()))
            observation, *rest, info = env.step(action)
            info = {k: np.asarray(v).tolist() for k, v in info.items() if k != "variation"}
            returned.append((observation["agent_pos"].tolist(), *rest, info))
    return shown, returned


def same(one, two):
    return all((a == b).all() for pair in zip(one, two, strict=True) for a, b in zip(*pair, strict=True))


# -- Normal ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variation", [None, "Normal", ["Normal"], [], {}], ids=str)
def test_normal_is_pusht_bit_for_bit(env, variation):
    shown, returned = episode(env, None if variation is None else {"variation": variation}, steps=6)
    shown2, returned2 = episode(gym.make("uva/PushT-v0"), steps=6)
    assert same(shown, shown2)
    assert returned == returned2


def test_normal_colours_given_by_hand_are_pusht_too(env):
    # The drawing that variations go through draws, with the usual colours, exactly what gym-pusht draws.
    colours = {name: getattr(NORMAL, name) for name in COLOURS}
    assert same(episode(env, {"variation": colours})[0], episode(gym.make("uva/PushT-v0"))[0])


@pytest.mark.parametrize("name", [*VARIATIONS, "all"])
def test_nothing_but_the_picture_changes(env, name):
    # The second episode of each has no seed: drawing a look does not move the stream that starts come from.
    shown, returned = episode(env, {"variation": [name]}, steps=5)
    shown2, returned2 = episode(gym.make("uva/PushT-v0"), steps=5)
    assert returned == returned2
    assert all((a != b).any() for pair in zip(shown, shown2, strict=True) for a, b in zip(*pair, strict=True))


# -- each variation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COLOURS)
def test_a_colour_changes_its_thing_and_nothing_else(env, normal, name):
    before, where = normal
    after = picture(env, {name: (200, 30, 90)})
    changed = (after != before).any(-1)
    assert changed[where[name]].all()
    inside = where[name].copy()
    if name in ("goal_color", "background_color"):
        assert (after[inside] == (200, 30, 90)).all()
    for other in set(COLOURS) - {name}:
        # Edges are mixtures of the two things that meet there.
        share = (changed & where[other]).sum() / where[other].sum()
        assert share < (0.5 if name == "background_color" else 0.2), other


def test_an_object_lies_on_the_floor_and_under_everything(env, normal):
    before, where = normal
    for shape in range(len(OBJECT_SHAPES)):
        thing = {"shape": shape, "color": (250, 150, 0), "position": (256, 256), "radius": 50}
        after = picture(env, {"background_object": thing})
        changed = (after != before).any(-1)
        assert changed.any()
        y, x = np.nonzero(changed)
        assert (np.abs(x * 512 / 96 - 256) < 60).all() and (np.abs(y * 512 / 96 - 256) < 60).all()
        assert not (changed & where["goal_color"]).any()


def test_light_falls_off_away_from_where_it_comes_from(env, normal):
    before, _ = normal
    after = picture(env, {"lighting": {"brightness": 0.9, "direction": 0.0, "falloff": 0.5}})  # from the right
    row = after[10, 5:90].mean(-1)
    assert (np.diff(row.astype(float)) >= 0).all()
    assert row[-1] > 0.85 * 255 and row[0] < 0.55 * 255
    gain = after / np.maximum(before, 1)
    assert np.ptp(gain[:, 40]) < 0.03  # the same for every colour and along the other axis


def test_a_camera_shift_moves_the_whole_picture_and_the_drawn_target(env, normal):
    before, _ = normal
    after = picture(env, {"camera_shift": (32, -16)})  # 6 pixels of 96 to the right, 3 up
    np.testing.assert_array_equal(after[2:90, 8:94], before[5:93, 2:88])
    env.step(np.array([400.0, 100.0], np.float32))
    red = (env.render() == (255, 0, 0)).all(-1)
    y, x = (c.mean() for c in np.nonzero(red))
    assert (x, y) == (pytest.approx(432, abs=3), pytest.approx(84, abs=3))


def test_noise_has_the_asked_strength_and_is_new_at_every_step_but_not_at_every_look(env, normal):
    _, where = normal
    after = picture(env, {"noise": 20, "background_color": (128, 128, 128)})
    assert (after[where["background_color"]].astype(float)).std() == pytest.approx(20, rel=0.1)
    np.testing.assert_array_equal(env.unwrapped.get_obs()["pixels"], after)
    stay = np.array(APART[:2], np.float32)
    later = env.step(stay)[0]["pixels"]
    assert (later != after).mean() > 0.5
    assert (picture(env, {"noise": 20, "background_color": (128, 128, 128)}, seed=1) != after).mean() > 0.5


def test_pictures_stay_upright_rgb_of_the_right_size(env):
    shown = env.reset(seed=0, options={"variation": {"agent_color": "orange"}, "reset_to_state": APART})[0]["pixels"]
    assert shown.dtype == np.uint8 and shown.shape == (96, 96, 3)
    red, _, blue = shown[15, 18].tolist()  # the agent: x 100, y 80
    assert red == 255 and blue < 30


# -- drawing values --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIATIONS)
def test_drawn_values_follow_from_the_seed_and_differ_between_seeds(env, name):
    def drawn(seed):
        return env.reset(seed=seed, options={"variation": [name]})[1]["variation"]

    values = [drawn(seed) for seed in range(4)]
    assert all(set(v) == {name} for v in values)
    assert len({repr(v) for v in values}) == 4
    assert values == [drawn(seed) for seed in range(4)]


def test_resets_without_a_seed_go_on_drawing(env):
    env.reset(seed=0, options={"variation": "goal_color"})
    more = [repr(env.reset(options={"variation": "goal_color"})[1]["variation"]) for _ in range(3)]
    assert len(set(more)) == 3
    env.reset(seed=0)
    assert [repr(env.reset(options={"variation": "goal_color"})[1]["variation"]) for _ in range(3)] == more


def test_drawn_things_can_be_told_apart(env):
    for seed in range(12):
        env.reset(seed=seed, options={"variation": "all"})
        look = env.unwrapped._appearance
        colours = [getattr(look, name) for name in COLOURS] + [look.background_object.color]
        assert min(math.dist(a, b) for i, a in enumerate(colours) for b in colours[:i]) >= DISTINCT
        assert all(math.dist(getattr(look, name), getattr(NORMAL, name)) >= DISTINCT for name in COLOURS)


def test_samples_of_the_space_and_reported_values_can_be_given_back(env):
    space = env.unwrapped.variation_space
    assert isinstance(space, gym.spaces.Dict) and set(space) == set(VARIATIONS)
    space.seed(3)
    for _ in range(5):
        sample = space.sample()
        shown, info = env.reset(seed=1, options={"variation": sample})
        again, _ = env.reset(seed=1, options={"variation": json.loads(json.dumps(info["variation"]))})
        np.testing.assert_array_equal(shown["pixels"], again["pixels"])
        assert info["variation"]["goal_color"] == tuple(sample["goal_color"].tolist())


def test_values_and_draws_can_be_mixed(env):
    _, info = env.reset(seed=0, options={"variation": {"goal_color": "red", "noise": None}})
    assert info["variation"]["goal_color"] == (255, 0, 0)
    assert 8 <= info["variation"]["noise"] <= 40


def test_the_constructors_variation_holds_where_a_reset_does_not_say():
    env = gym.make(ENV, variation=["noise"])
    assert set(env.reset(seed=0)[1]["variation"]) == {"noise"}
    assert set(env.reset(options={"variation": ["lighting"]})[1]["variation"]) == {"lighting"}
    assert env.reset(options={"variation": []})[1]["variation"] == {}
    assert set(env.reset()[1]["variation"]) == {"noise"}


@pytest.mark.parametrize(
    ("variation", "message"),
    [
        (["gaol_color"], "no variation called 'gaol_color'; did you mean 'goal_color'"),
        ("xyz", "there are agent_color"),
        (["Normal", "noise"], "'Normal' stands alone"),
        ({"goal_color": (1, 2)}, "takes 3 whole numbers from 0 to 255"),
        ({"goal_color": (1, 2, 300)}, "takes 3 whole numbers from 0 to 255"),
        ({"goal_color": (0.5, 0.5, 0.5)}, "takes 3 whole numbers"),
        ({"goal_color": "greenish"}, "is no colour"),
        ({"noise": 1000}, "takes a number from 8 to 40"),
        ({"noise": float("nan")}, "takes a number"),
        ({"camera_shift": (0, 100)}, "takes 2 whole numbers from -40 to 40"),
        ({"lighting": {"brightness": 1.0}}, "exactly .*direction.*got .'brightness'"),
        ({"lighting": 3}, "is a dict with exactly"),
        ({"background_object": {"shape": "blob", "color": "red", "position": (99, 99), "radius": 30}}, "choose circle"),
    ],
    ids=str,
)
def test_a_bad_variation_is_named(env, variation, message):
    with pytest.raises(ValueError, match=message):
        env.reset(options={"variation": variation})
    with pytest.raises(ValueError, match=message):
        gym.make(ENV, variation=variation)


def test_something_that_is_no_variation_at_all_is_named(env):
    with pytest.raises(TypeError, match="not int"):
        env.reset(options={"variation": 3})
    with pytest.raises(ValueError, match=r"did you mean 'variation'"):
        env.reset(options={"variations": ["noise"]})


def test_the_space_itself_takes_its_samples():
    space = variation_space()
    assert space.contains(space.sample())


# -- as an environment -----------------------------------------------------------------------------


@pytest.mark.parametrize("variation", ["Normal", "all"])
def test_a_restored_episode_continues_bit_for_bit_noise_included(env, variation):
    env.reset(seed=8, options={"variation": variation})
    actions = np.random.default_rng(0).uniform(100, 400, (16, 2))
    for action in actions[:8]:
        env.unwrapped.advance(action)
    saved = pickle.loads(pickle.dumps(env.unwrapped.get_state()))
    expected = [env.unwrapped.step(action) for action in actions[8:]]
    env.reset(seed=9)
    for restored in (env.unwrapped, gym.make(ENV).unwrapped):
        restored.set_state(saved)
        for action, (observation, reward, _, _, info) in zip(actions[8:], expected, strict=True):
            observation2, reward2, _, _, info2 = restored.step(action)
            np.testing.assert_array_equal(observation2["pixels"], observation["pixels"])
            assert (reward2, info2["variation"]) == (reward, info["variation"])


def test_states_of_pusht_are_refused_and_refused_there(env):
    plain = gym.make("uva/PushT-v0").unwrapped
    plain.reset(seed=3)
    env.reset(seed=3, options={"variation": "all"})
    with pytest.raises(ValueError, match=r"gym\.make\('uva/PushTDisturbed-v0'\)"):
        plain.set_state(env.unwrapped.get_state())
    with pytest.raises(ValueError, match=r"gym\.make\('uva/PushT-v0'\)"):
        env.unwrapped.set_state(plain.get_state())


def test_gymnasium_and_stable_baselines3_checkers_pass():
    checkers_pass(ENV, variation="all")


def test_it_is_deterministic_under_a_seed_across_processes():
    options = {"variation": ["all"]}
    assert digest(ENV, options) == digest_in_another_process(ENV, options)


def test_resets_do_not_grow_memory_and_it_closes():
    assert grown_after_resets(ENV, {"variation": "all"}) < 3e6


def test_a_state_pickled_under_the_class_s_earlier_name_is_restored(env):
    env = env.unwrapped
    env.reset(seed=7, options={"variation": ["goal_color", "noise"]})
    state, picture = env.get_state(), env.get_obs()["pixels"]
    pickled = pickle.dumps(state, protocol=2)
    earlier = pickled.replace(b"\nAppearance\n", b"\nLook\n")
    assert earlier != pickled
    env.reset(seed=8)
    env.set_state(pickle.loads(earlier))
    np.testing.assert_array_equal(env.get_obs()["pixels"], picture)
