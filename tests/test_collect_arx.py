"""Collecting demonstrations of the simulated arm."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import zarr

from uva_agents.cli import main
from uva_agents.data import open_dataset
from uva_agents.data.collect.arx_x5 import ArxX5Plan, collect_arx_x5

PLAN = ArxX5Plan(episodes=2, seed=7, tasks=("reach",), image_size=32, cameras=("wrist",), looks="plain", disturbed=0.0)


@pytest.fixture(autouse=True)
def _mujoco():
    # Not imported here: the environment says first how MuJoCo shall draw.
    if importlib.util.find_spec("mujoco") is None:
        pytest.skip("the twin needs mujoco: pip install 'uva-agents[arx]'")


def test_recorded_actions_lead_again_to_what_was_recorded(tmp_path):
    from uva_agents.envs.arx_x5.env import ArxX5Env

    found = collect_arx_x5(tmp_path / "reach.zarr", PLAN)
    assert found.successes == found.written == 2 and not found.failures
    root = zarr.open_group(str(tmp_path / "reach.zarr"), mode="r")
    assert root["meta/seed"][:].tolist() == [7, 8] and root["meta/success"][:].all()
    dataset = open_dataset(tmp_path / "reach.zarr")
    assert dataset.control_hz == 20 and len(dataset.ends) == 2
    env = ArxX5Env(render_mode=None, task="reach", image_size=32)
    obs, _ = env.reset(seed=8)
    terminated = False
    for t in range(dataset.ends[0], dataset.ends[1]):
        np.testing.assert_array_equal(obs["agent_pos"], root["data/agent_pos"][t])
        np.testing.assert_array_equal(obs["pixels"], root["data/img"][t])
        obs, _, terminated, *_ = env.step(root["data/action"][t])
    assert terminated
    env.close()


def test_both_tasks_take_turns_with_their_instructions_and_both_cameras(tmp_path):
    from uva_agents.envs.arx_x5.env import ArxX5Env

    plan = ArxX5Plan(episodes=2, seed=3, control_hz=10.0, image_size=16, max_steps=5, disturbed=1.0)
    found = collect_arx_x5(tmp_path / "both.zarr", plan, workers=2)
    assert found.written == 2 and found.successes == 0, "they were cut short"
    dataset = open_dataset(tmp_path / "both.zarr")
    assert dataset.tasks == ("reach the green ball", "put the blue cup on the white saucer")
    assert dataset.cameras == ("pixels", "pixels_wrist") and dataset.control_hz == 10
    names, units = dataset.names, dataset.beside["attributes/units"]
    for key in ("action", "agent_pos"):
        assert len(names[key]) == len(units[key]) == dataset.arrays[key].shape[1]
    assert dict(zip(names["agent_pos"], units["agent_pos"], strict=True))["eef.rx"] == "rad"
    assert names["agent_pos"][-1] == "eef.gripper" and units["agent_pos"][-1] == "m"
    assert dataset.beside["meta/disturbed"].all()
    from uva_agents.training.layout import find_layout

    layout = find_layout(dataset)
    assert (layout.env_id, layout.cameras) == ("uva/ArxX5-v0", ("outside", "wrist"))
    only = open_dataset(tmp_path / "both.zarr", fields={"pixels": "img_wrist"})
    assert find_layout(only).cameras[0] == "wrist"
    env = ArxX5Env(**dataset.beside["attributes/env_kwargs"], looks="varied")
    for row, (seed, task) in enumerate(((3, "reach"), (4, "cup"))):
        obs, _ = env.reset(seed=seed, options={"task": task})
        start = dataset.starts[row]
        assert obs["task"] == dataset.tasks[row]
        for key in ("pixels", "pixels_wrist", "agent_pos"):
            np.testing.assert_array_equal(obs[key], dataset.arrays[key][start])
    env.close()


def test_names_of_numbers_survive_conversions_and_those_that_do_not_fit_are_told(tmp_path):
    from uva_agents.data import convert_dataset

    collect_arx_x5(tmp_path / "a.zarr", dataclasses.replace(PLAN, episodes=1, max_steps=4))
    first = open_dataset(tmp_path / "a.zarr")
    convert_dataset(first, tmp_path / "l", to="lerobot")
    convert_dataset(open_dataset(tmp_path / "l"), tmp_path / "b.zarr", to="zarr")
    for path in ("l", "b.zarr"):
        again = open_dataset(tmp_path / path)
        assert {key: again.names[key] for key in first.names} == first.names
    root = zarr.open_group(str(tmp_path / "b.zarr"), mode="r+")
    root.attrs["names"] = {"action": ["x", "y"]}
    odd = open_dataset(tmp_path / "b.zarr")
    assert not odd.names and any("a name for each number" in note for note in odd.notes)


def test_a_disturbed_episode_records_the_good_actions_and_goes_elsewhere():
    from uva_agents.data.collect.arx_x5 import record_arx_x5

    plan = dataclasses.replace(PLAN, image_size=8, control_hz=10.0)
    calm, pushed = (record_arx_x5(dataclasses.replace(plan, disturbed=share), 0) for share in (0.0, 1.0))
    steps = min(len(calm["action"]), len(pushed["action"]))
    assert calm["success"] and pushed["success"] and pushed["disturbed"] and not calm["disturbed"] and steps > 8
    np.testing.assert_array_equal(calm["action"][:steps], pushed["action"][:steps])
    aside = np.linalg.norm((calm["agent_pos"][:steps] - pushed["agent_pos"][:steps])[:, :3], axis=1)
    assert aside[0] == 0 and aside.max() > 0.005 and aside[-1] < 0.02


def test_the_command_collects_and_counts(tmp_path, capsys):
    words = ["data", "collect", "arx-x5", str(tmp_path / "a.zarr"), "--task", "reach", "--image-size", "16", "--quiet"]
    assert main([*words, "--episodes", "1", "--action-mode", "joints"]) == 0
    assert "success in 1 (100.0%)" in capsys.readouterr().out
    assert (tmp_path / "a_sheet.png").stat().st_size > 1000
    assert zarr.open_group(str(tmp_path / "a.zarr"), mode="r")["data/action"].shape[1] == 7
    assert main([*words, "--episodes", "1"]) != 0
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 0}, "at least one"),
        ({"tasks": ("cups",)}, "unknown"),
        ({"tasks": ("cup", "cup")}, "none twice"),
        ({"cameras": ("top",)}, "unknown"),
        ({"looks": "unseen"}, "for tests"),
        ({"disturbed": 1.5}, "share"),
        ({"action_mode": "relative"}, "absolute_vector"),
        ({"image_size": 0}, "image_size"),
        ({"max_steps": 0}, "max_steps"),
        ({"seed": -1}, "out of range"),
    ],
)
def test_settings_that_make_no_sense_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PLAN, **change)
