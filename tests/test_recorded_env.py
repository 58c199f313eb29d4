"""A dataset's recorded episodes as an environment."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check

import uva_agents as uva
from tests import datasets
from tests.any_task_data import ENDS, LENGTHS, MAKERS, pictures
from tests.env_kinds import moment
from uva_agents.checkpoints import InterfaceSpec
from uva_agents.commands.recorded import replay_for
from uva_agents.data import Episodes, Field, open_dataset
from uva_agents.data.lazy import as_lazy
from uva_agents.data.recorded_env import REPRODUCED, RecordedEnv
from uva_agents.data.run_data import RunData, RunDataset, data_of_run, write_run_data
from uva_agents.data.writers.lerobot import write_lerobot
from uva_agents.envs import RECORDED, check_env
from uva_agents.errors import DataError, InputError


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


@pytest.fixture
def arx(paths):
    env = RecordedEnv(paths["arx"])
    yield env
    env.close()


def played(env, **kwargs):
    """Observations, infos and rewards of an episode in which what was recorded is done again."""
    obs, info = env.reset(**kwargs)
    seen, infos, rewards, done = [obs], [info], [], False
    while not done:
        obs, reward, done, _, info = env.step(env.recorded_actions(1)[0])
        seen, infos, rewards = [*seen, obs], [*infos, info], [*rewards, reward]
    return seen, infos, rewards


@pytest.mark.filterwarnings("ignore:.*For Box action spaces")
@pytest.mark.parametrize("name", MAKERS)
def test_every_format_passes_the_checkers(paths, name):
    env = gym.make(RECORDED, data=str(paths[name]))
    assert check_env(env) == ()
    gymnasium_check(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("name", MAKERS)
def test_an_episode_is_what_was_recorded(paths, name):
    dataset = open_dataset(paths[name])
    env = RecordedEnv(paths[name])
    seen, infos, rewards = played(env, options={"episode": 1})
    rows = np.arange(dataset.ends[0], dataset.ends[1])
    for key in dataset.cameras:
        np.testing.assert_array_equal([obs[key] for obs in seen[:-1]], dataset.arrays[key][rows])
        np.testing.assert_array_equal(seen[-1][key], dataset.arrays[key][rows[-1]])
    np.testing.assert_array_equal([obs["agent_pos"] for obs in seen[:-1]], dataset.arrays["agent_pos"][rows])
    if dataset.tasks is not None:
        assert {obs["task"] for obs in seen} == {dataset.tasks[1]}
    acted = np.minimum(rows + dataset.action_offset, rows[-1])
    np.testing.assert_array_equal([i["recorded_action"] for i in infos[1:]], dataset.arrays["action"][acted])
    assert rewards == [0.0] * len(rows) and infos[-1]["agreement"] == 1.0 and infos[-1]["is_success"]
    assert not any(info["agreement"] or info["is_success"] for info in infos[:-1])


def test_errors_are_shares_of_the_range_and_their_mean_is_missing_from_the_agreement(arx):
    arx.reset(seed=0)
    span, done, errors = arx.action_space.high - arx.action_space.low, False, []
    before = arx.get_obs()["pixels"]
    while not done:
        recorded = arx.recorded_actions(1)[0]
        off = np.where(np.arange(7) == 0, 0.7 * span, 0).astype(np.float32) * (len(errors) % 2)
        _, reward, done, _, info = arx.step(recorded + off)
        errors.append(-reward)
        assert info["action_error"] == -reward
    np.testing.assert_allclose(errors, [0.1 * (i % 2) for i in range(LENGTHS[0])], atol=1e-6)
    assert info["agreement"] == pytest.approx(1 - np.mean(errors)) and np.mean(errors) > REPRODUCED
    assert not info["is_success"]
    assert not np.array_equal(before, arx.get_obs()["pixels"])


def test_a_rotation_that_is_written_the_other_way_is_the_same(paths, tmp_path):
    env = RecordedEnv(paths["arx"])
    env.reset(seed=0)
    action = env.recorded_actions(1)[0].astype(np.float64)
    action[3:6] *= 1 - 2 * np.pi / np.linalg.norm(action[3:6])
    assert env.step(action)[4]["action_error"] < 1e-6
    names = [f"eef.{name}" for name in ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper")]
    rows = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    arrays = {"pixels": np.zeros((8, 48, 48, 3), np.uint8), "action": rows, "agent_pos": rows}
    named = {"action": names, "agent_pos": names}
    write_lerobot(tmp_path / "q", Episodes(arrays, np.array([8])), control_hz=20, names=named)
    env = RecordedEnv(tmp_path / "q")
    env.reset(seed=0)
    assert env.step(np.where((np.arange(8) > 2) & (np.arange(8) < 7), -1, 1) * env.recorded_actions(1)[0])[1] == 0
    assert env.step(-env.recorded_actions(1)[0])[1] < -0.01


def test_consecutive_seeds_give_every_episode_before_one_comes_again(arx):
    found = [arx.reset(seed=seed)[1]["episode"] for seed in range(100_000, 100_006)]
    assert sorted(found[:3]) == [0, 1, 2] and found[3:] == found[:3]
    arx.reset(seed=5)
    drawn = [arx.reset()[1]["episode"] for _ in range(4)]
    arx.reset(seed=5)
    assert drawn == [arx.reset()[1]["episode"] for _ in range(4)]


@pytest.mark.parametrize("chosen", ["1-2", [1, 2], (2, 1)])
def test_chosen_episodes_keep_their_numbers_and_the_bounds_of_all(paths, chosen):
    env, whole = RecordedEnv(paths["arx"], episodes=chosen), RecordedEnv(paths["arx"])
    assert sorted(env.episodes) == [1, 2] and env.action_space == whole.action_space
    assert env.reset(options={"episode": 2})[0]["task"] == open_dataset(paths["arx"]).tasks[2]
    with pytest.raises(InputError, match=r"no episode 0 here, there are 1-2"):
        env.reset(options={"episode": 0})


def test_a_lower_rate_takes_every_nth_row_and_the_action_of_a_later_step(paths):
    dataset = open_dataset(paths["umi"])
    env = RecordedEnv(paths["umi"], rows_per_step=3, action_offset=1)
    seen, infos, _ = played(env, seed=0)
    rows = np.arange(0, ENDS[0], 3)
    assert len(seen) == len(rows) + 1 and env.metadata["render_fps"] == pytest.approx(dataset.control_hz / 3)
    np.testing.assert_array_equal([obs["pixels"] for obs in seen[:-1]], dataset.arrays["pixels"][rows])
    wanted = dataset.arrays["action"][np.minimum(rows + 3, ENDS[0] - 1)]
    np.testing.assert_array_equal([info["recorded_action"] for info in infos[1:]], wanted)


def test_fields_say_what_is_seen(paths):
    dataset = open_dataset(paths["arx"])
    keys = dataset.sources
    fields = {"pixels": keys["pixels_wrist"], "agent_pos": {"key": keys["agent_pos"], "columns": {"stop": 3}}}
    env = RecordedEnv(paths["arx"], fields=fields)
    obs, _ = env.reset(seed=0)
    assert set(obs) == {"pixels", "agent_pos", "task"} and obs["agent_pos"].shape == (3,)
    np.testing.assert_array_equal(obs["pixels"], dataset.arrays["pixels_wrist"][0])


def test_frames_stay_on_disk(paths):
    env = RecordedEnv(paths["arx"])
    assert all(as_lazy(env._arrays[name]) is not None for name in ("pixels", "pixels_wrist"))


def test_a_moment_can_be_gone_back_to_and_copies_go_on_alike(arx):
    arx.reset(seed=1)
    action = arx.action_space.sample()
    for _ in range(3):
        arx.step(action)
    state = arx.get_state()
    others = [copy.deepcopy(arx), pickle.loads(pickle.dumps(arx))]
    rest = [arx.step(action) for _ in range(4)]
    arx.set_state(pickle.loads(pickle.dumps(state)))
    assert moment(arx.get_state()) == moment(state)
    for env in (arx, *others):
        for one in rest:
            again = env.step(action)
            np.testing.assert_array_equal(again[0]["pixels"], one[0]["pixels"])
            assert again[1:4] == one[1:4]


def test_states_of_other_data_are_refused(arx, paths):
    arx.reset(seed=0)
    state = arx.get_state()
    other = RecordedEnv(paths["libero"])
    with pytest.raises(InputError, match="libero"):
        other.set_state(state)
    with pytest.raises(InputError, match="rows_per_step"):
        RecordedEnv(paths["arx"], rows_per_step=2).set_state(state)
    with pytest.raises(InputError, match="changed or damaged"):
        arx.set_state(type(state)(state.episode, 1, 0.0, stamp=state.stamp))


def test_after_the_end_nothing_moves(arx):
    seen = played(arx, seed=0)[0]
    obs, _, done, _, info = arx.step(arx.recorded_actions(1)[0])
    assert done and info["agreement"] == 1.0 and arx.steps_left == 0
    np.testing.assert_array_equal(obs["pixels"], seen[-1]["pixels"])
    assert len(arx.recorded_actions(5)) == 5


def test_an_instruction_in_any_letters_is_in_the_space(tmp_path):
    arrays = {"pixels": pictures(), "action": np.zeros((sum(LENGTHS), 2), np.float32)}
    arrays["action"][:, 0] = np.arange(sum(LENGTHS))
    texts = ("Öffne die Schublade!", "put it down, slowly…", "x" * 400)
    write_lerobot(tmp_path / "d", Episodes(arrays, ENDS), control_hz=10, tasks=texts)
    env = RecordedEnv(tmp_path / "d")
    for seed, text in enumerate(texts):
        obs, _ = env.reset(seed=seed)
        assert obs["task"] == text == env.task_description and env.observation_space.contains(obs)


def test_mistakes_are_named(paths, tmp_path):
    with pytest.raises(InputError, match="data=PATH"):
        RecordedEnv()
    with pytest.raises(FileNotFoundError, match="no dataset at"):
        RecordedEnv(tmp_path / "nowhere")
    with pytest.raises(InputError, match="there is no episode 7"):
        RecordedEnv(paths["arx"], episodes="7")
    with pytest.raises(InputError, match="limits"):
        RecordedEnv(paths["arx"], limits=[[0, 0], [1, 1]])
    with pytest.raises(InputError, match="rows_per_step"):
        RecordedEnv(paths["arx"], rows_per_step=0)
    path = datasets.zarr_buffer(tmp_path / "v.zarr", {"img": pictures()}, ends=ENDS)
    with pytest.raises(DataError, match="no 'action'"):
        RecordedEnv(path)
    broken = np.zeros((sum(LENGTHS), 2), np.float32)
    broken[-1] = np.nan
    path = datasets.zarr_buffer(tmp_path / "n.zarr", {"img": pictures(), "action": broken}, ends=ENDS)
    with pytest.raises(DataError, match=r"episode 2.*--episodes '!2'"):
        RecordedEnv(path)
    assert RecordedEnv(path, episodes="0-1").episodes == (0, 1)


def test_an_agent_is_evaluated_on_it(paths):
    class Repeats:
        """Knows what was recorded."""

        def predict(self, obs, state=None, episode_start=None, deterministic=False):
            return np.stack([self.env.recorded_actions(1)[0]]), state

    agent = Repeats()
    agent.env = RecordedEnv(paths["joints"])
    report = uva.evaluate(agent, agent.env, 3, seed=0, protocol="recorded", progress=False)
    assert report.score == 1.0 and report.success_rate == 1.0
    assert [e.length for e in report.episodes] == list(LENGTHS)


def test_what_a_run_trained_on_is_read_again(tmp_path):
    fields = {
        "pixels": Field("img"),
        "action": Field(("a", "b"), (0, 2), True),
        "agent_pos": Field("s", slice(None, 3)),
    }
    data = RunData(
        (RunDataset(tmp_path / "x.zarr", 2.0, (0, 2, 5), (2,), fields), RunDataset(tmp_path / "y")), 3, 1, 20.0
    )
    write_run_data(tmp_path, data)
    assert data_of_run(tmp_path / "weights") == data == data_of_run(tmp_path)
    (tmp_path / "data.json").write_text('{"format": "uva-agents/data/1", "datasets": []}')
    with pytest.raises(DataError, match=r"data\.json is damaged"):
        data_of_run(tmp_path / "weights")
    (tmp_path / "data.json").write_text('{"of": "somebody else"}')
    assert data_of_run(tmp_path / "weights") is None


# -- weights that name no environment ------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path, paths):
    """Where a weights folder and its run's ``data.json`` are, and the interface."""
    folder = tmp_path / "run" / "weights"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    data = shutil.copytree(paths["arx"], tmp_path / "recorded")
    own = {name: Field(key) for name, key in open_dataset(data).sources.items()}
    write_run_data(folder.parent, RunData((RunDataset(data, held_out=(2,), fields=own),), 1, 0, 20.0))
    env = RecordedEnv(data)
    low, high = (tuple(map(float, side)) for side in (env.action_space.low, env.action_space.high))
    spec = InterfaceSpec((48, 48), low, high, control_hz=20.0)
    return SimpleNamespace(folder=str(folder), data=data, spec=spec)


def test_weights_without_an_environment_are_tried_on_what_their_training_held_out(weights):
    found = replay_for(weights.folder, weights.spec, {})
    assert found.episodes == (2,) and "1 held-out episode (2) of" in found.sentence
    env = gym.make(RECORDED, **json.loads(json.dumps(found.kwargs)))
    assert env.action_space == weights.spec.action_space
    assert set(env.reset(seed=0)[0]) == {"pixels", "pixels_wrist", "agent_pos", "task"}


def test_a_dataset_that_is_gone_is_an_error_until_somebody_says_where_it_is(weights, tmp_path):
    moved = (tmp_path / "elsewhere").mkdir() or weights.data.rename(tmp_path / "elsewhere" / "recorded")
    with pytest.raises(InputError, match=r"is gone: .*recorded.*--env-arg data=PATH"):
        replay_for(weights.folder, weights.spec, {})
    assert replay_for(weights.folder, weights.spec, {"data": str(moved)}).episodes == (2,)
    assert replay_for(weights.folder, weights.spec, {"data": str(moved), "episodes": "0-1"}).episodes == (0, 1)
    other = moved.rename(tmp_path / "other")
    assert "3 episodes (0-2)" in replay_for(weights.folder, weights.spec, {"data": str(other)}).sentence
    with pytest.raises(InputError, match="no dataset at"):
        replay_for(weights.folder, weights.spec, {"data": str(moved)})


def test_weights_that_nobody_knows_the_data_of_ask_for_some(weights, paths):
    (Path(weights.folder).parent / "data.json").unlink()
    with pytest.raises(InputError, match=r"no data.json .*give an environment \(ENV.*--env-arg data=PATH"):
        replay_for(weights.folder, weights.spec, {})
    spec = replace(weights.spec, control_hz=20.0)
    assert replay_for(weights.folder, spec, {"data": str(paths["umi"]), "limits": [0, 1]}).kwargs["rows_per_step"] == 3


def test_training_writes_numbers_as_the_dataset_counts_them(paths, tmp_path):
    from uva_agents.training.any_task import LayoutOptions, make_recipe
    from uva_agents.training.data_file import write_data
    from uva_agents.training.sources import Source, open_sources

    source = Source(paths["umi"], episodes="1-2")
    recipe = make_recipe("nano", [source], LayoutOptions())
    parts = open_sources([source], recipe, recipe.data.arrays)
    write_data(tmp_path, recipe.data, parts, np.array([1]), every=2)
    found = data_of_run(tmp_path / "weights")
    assert found.main.path == paths["umi"].resolve() and found.main.episodes == (1, 2) and found.main.held_out == (2,)
    assert found.rows_per_step == 2 * recipe.data.rows_per_step == 6
    dataset = open_dataset(paths["umi"], fields=found.main.fields)
    np.testing.assert_array_equal(dataset.arrays["action"], open_dataset(paths["umi"]).arrays["action"])
