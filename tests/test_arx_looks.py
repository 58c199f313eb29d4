"""Looks of the twin, its cameras and instructions: what is seen differs, what happens does not."""

import copy
import importlib.util
import logging
import pickle

import gymnasium as gym
import numpy as np
import pytest

if importlib.util.find_spec("mujoco") is None:
    pytest.skip("the twin needs MuJoCo: pip install 'uva-agents[arx]'", allow_module_level=True)

from gymnasium.utils.env_checker import check_env as gymnasium_check

from tests.test_arx_twin_env import IdleDriver
from uva_agents.envs import check_env
from uva_agents.envs.arx_x5.env import ArxX5Env
from uva_agents.envs.arx_x5.twin.appearance import PLAIN
from uva_agents.envs.arx_x5.twin.appearance_draws import KINDS, LOOKS, draw_appearance
from uva_agents.errors import InputError

OPTIONS = {"image_size": 32, "cameras": "outside,wrist", "instruction": True, "control_hz": 10}


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR)


@pytest.fixture(scope="module")
def env():
    found = ArxX5Env(looks="varied", **OPTIONS)
    yield found
    found.close()


def colours(look):
    """By what has them; "top" is the table's, whatever it is made of."""
    return {"top" if name == look.table else name: colour for name, colour in look.colours}


def seen(env, looks, seed=0, steps=3, task="cup"):
    """Pictures and positions of some steps of the script."""
    obs, _ = env.reset(seed=seed, options={"looks": looks, "task": task})
    rows = [obs]
    for action, _ in zip(env.demonstration(), range(steps), strict=False):
        rows.append(env.step(action)[0])
    return {key: np.array([row[key] for row in rows]) for key in ("pixels", "pixels_wrist", "agent_pos")}


def test_a_look_changes_pictures_and_nothing_else(env):
    found = {name: seen(env, name) for name in LOOKS}
    for name, rows in found.items():
        np.testing.assert_array_equal(rows["agent_pos"], found["plain"]["agent_pos"])
        for other in LOOKS:
            same = np.array_equal(rows["pixels"], found[other]["pixels"])
            assert same == (name == other), (name, other)
    again = seen(env, "varied")
    assert all(np.array_equal(again[key], found["varied"][key]) for key in again)
    assert not np.array_equal(seen(env, "varied", seed=1)["pixels"], again["pixels"])


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_is_unseen_and_the_rest_is_as_in_the_varied_look_of_the_same_seed(kind):
    changed = {
        "table": {"top", "floor"},
        "objects": {"cup", "china", "target", "block"},
        "distractors": set(),
        "light": set(),
        "gripper": {"finger", "shell", "motor"},
    }[kind]
    for seed in range(5):
        varied, unseen, all_unseen = (draw_appearance(name, seed) for name in ("varied", f"unseen-{kind}", "unseen"))
        differ = {name for name, colour in colours(varied).items() if colours(unseen)[name] != colour}
        assert differ == changed
        assert (varied.table != unseen.table) == (kind == "table")
        assert (varied.lamps != unseen.lamps) == (kind == "light") == (varied.headlight != unseen.headlight)
        assert (varied.distractors != unseen.distractors) == (kind == "distractors")
        assert varied.cameras == unseen.cameras == all_unseen.cameras
        assert all(colours(all_unseen)[name] == colours(unseen)[name] for name in changed)


def test_what_is_unseen_is_never_drawn_for_training():
    varied, unseen = ([draw_appearance(name, seed) for seed in range(300)] for name in ("varied", "unseen"))
    assert not {look.table for look in varied} & {look.table for look in unseen}
    shapes = [{thing.shape for look in looks for thing in look.distractors} for looks in (varied, unseen)]
    assert shapes[0] and shapes[1] and not shapes[0] & shapes[1]

    def gap(name):
        """Distance in colour between the two sets, nearest to nearest."""
        first, second = (np.array([colours(look)[name] for look in looks]) for looks in (varied, unseen))
        return np.linalg.norm(first[:, None] - second[None], axis=-1).min()

    for name in ("top", "cup", "target", "finger"):
        assert gap(name) > 0.02, name
    brightness = [[look.lamps[0].diffuse[1] for look in looks] for looks in (varied, unseen)]
    assert min(brightness[0]) > 0.35 and not any(0.35 < value < 0.5 for value in brightness[1])


def test_plain_after_another_look_is_plain_as_built(env):
    plant = env._session.driver.twin.plant
    fresh = ArxX5Env(**OPTIONS)
    fresh.reset(seed=3)
    env.reset(seed=3, options={"looks": "unseen"})
    assert plant.appearance != PLAIN
    obs, _ = env.reset(seed=3, options={"looks": "plain"})
    for key, value in fresh.get_obs().items():
        np.testing.assert_array_equal(obs[key], value)
    fresh.close()


def test_a_state_brings_its_look_and_its_task_along(env):
    obs, _ = env.reset(seed=5, options={"looks": "unseen-table"})
    state = pickle.loads(pickle.dumps(env.get_state()))
    action = env.hold_action()
    after = env.step(action)[0]
    env.reset(seed=6, options={"looks": "plain", "task": "cup"})
    env.set_state(state)
    np.testing.assert_array_equal(env.get_obs()["pixels"], obs["pixels"])
    np.testing.assert_array_equal(env.step(action)[0]["pixels"], after["pixels"])
    env.reset(seed=5, options={"task": "reach", "looks": "varied"})
    twin = copy.deepcopy(env)
    assert twin.task == "reach" and twin.get_obs()["task"] == "reach the green ball"
    np.testing.assert_array_equal(twin.get_obs()["pixels_wrist"], env.get_obs()["pixels_wrist"])
    other = env.get_state()
    twin.reset(seed=0)
    assert twin.task == "cup", "an option is for one episode"
    with pytest.raises(InputError, match=r"of the task 'reach with X5'.*reset\(options=\{'task'"):
        twin.set_state(other)
    twin.close()


def test_checkers_pass_and_observations_are_in_the_space():
    made = gym.make("uva/ArxX5-v0", looks="varied", **OPTIONS)
    # The safety layer takes NaN, and holds the arm.
    assert {violation.rule for violation in check_env(made)} <= {"an action that is not finite is refused"}
    gymnasium_check(made.unwrapped, skip_render_check=True)
    obs, info = made.reset(seed=1, options={"task": "reach"})
    assert obs in made.observation_space and obs["task"] == "reach the green ball" and info["is_success"] is False
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_environments_side_by_side_give_words_and_pictures(vectorization):
    more = {"vector_kwargs": {"shared_memory": False, "context": "spawn"}} if vectorization == "async" else {}
    many = gym.make_vec("uva/ArxX5-v0", num_envs=2, vectorization_mode=vectorization, looks="varied", **OPTIONS, **more)
    obs, _ = many.reset(seed=[1, 2])
    assert list(obs["task"]) == ["put the blue cup on the white saucer"] * 2
    assert obs["pixels"].shape == obs["pixels_wrist"].shape == (2, 32, 32, 3)
    assert not np.array_equal(obs["pixels"][0], obs["pixels"][1])
    many.close()


def test_cameras_have_the_keys_that_are_asked_for():
    keys = {
        "wrist": {"pixels"},
        "outside": {"pixels"},
        ("wrist", "outside"): {"pixels", "pixels_outside"},
        "outside,wrist": {"pixels", "pixels_wrist"},
    }
    pictures = {}
    for cameras, expected in keys.items():
        made = ArxX5Env(image_size=16, cameras=cameras)
        obs, _ = made.reset(seed=0)
        assert {key for key in obs if key.startswith("pixels")} == expected
        pictures[cameras] = obs
        made.close()
    np.testing.assert_array_equal(pictures["outside,wrist"]["pixels_wrist"], pictures["wrist"]["pixels"])
    np.testing.assert_array_equal(pictures[("wrist", "outside")]["pixels_outside"], pictures["outside"]["pixels"])
    mask = np.zeros((16, 16), bool)
    mask[:4] = True
    swapped = ArxX5Env(image_size=16, cameras={"pixels": "wrist", "pixels_wrist": "outside"}, image_mask=mask)
    obs, _ = swapped.reset(seed=0)
    assert not obs["pixels"][:4].any() and obs["pixels_wrist"][:4].any(), "the wrist camera has the mask"
    np.testing.assert_array_equal(obs["pixels_wrist"], pictures["outside"]["pixels"])
    swapped.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"looks": "unsee"}, "did you mean 'unseen'"),
        ({"cameras": "wrist,wrist"}, "no camera is there twice"),
        ({"cameras": "top"}, "cameras='top' is unknown"),
        ({"cameras": ()}, "'pixels' comes first"),
        ({"cameras": {"pixels_wrist": "wrist"}}, "'pixels' comes first"),
        ({"cameras": {"pixels": "wrist", "rgb": "outside"}}, "begin with 'pixels'"),
        ({"cameras": "wrist", "outside": True}, "do not go together"),
        ({"instruction": "où?"}, "letters, digits"),
        ({"instruction": 1}, "True or False"),
    ],
)
def test_options_that_make_no_sense_are_named(options, message):
    with pytest.raises(InputError, match=message):
        ArxX5Env(**options)


def test_an_arm_itself_has_no_looks_and_its_instruction_is_said_in_words():
    with pytest.raises(InputError, match="an arm looks as it looks"):
        ArxX5Env(driver=IdleDriver(), model="X5", looks="varied", render_observations=False)
    with pytest.raises(InputError, match="say in words"):
        ArxX5Env(driver=IdleDriver(), model="X5", instruction=True, render_observations=False)


def test_reset_options_of_the_twin_are_checked(env):
    with pytest.raises(InputError, match="task must be one of"):
        env.reset(options={"task": "cups"})
    with pytest.raises(InputError, match="looks='dark' is unknown"):
        env.reset(options={"looks": "dark"})
