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
    env = ArxX5Env(render_mode=None, tasks=("reach",), image_size=32, cameras=("wrist",), looks="plain", disturbed=0.0)
    obs, _ = env.reset(seed=8)
    terminated = False
    for t in range(dataset.ends[0], dataset.ends[1]):
        np.testing.assert_array_equal(obs["agent_pos"], root["data/agent_pos"][t])
        np.testing.assert_array_equal(obs["pixels"], root["data/img"][t])
        obs, _, terminated, *_ = env.step(root["data/action"][t])
    assert terminated
    env.close()


def test_the_command_collects_and_counts(tmp_path, capsys):
    words = ["data", "collect", "arx-x5", str(tmp_path / "a.zarr"), "--task", "reach", "--image-size", "16", "--quiet"]
    assert main([*words, "--episodes", "1", "--action-mode", "joints"]) == 0
    assert "success in 1 (100.0%)" in capsys.readouterr().out
    assert zarr.open_group(str(tmp_path / "a.zarr"), mode="r")["data/action"].shape[1] == 7
    assert main([*words, "--episodes", "1"]) != 0
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 0}, "at least one"),
        ({"tasks": ("cups",)}, "unknown"),
        ({"action_mode": "relative"}, "absolute_vector"),
        ({"image_size": 0}, "image_size"),
        ({"max_steps": 0}, "max_steps"),
        ({"seed": -1}, "out of range"),
    ],
)
def test_settings_that_make_no_sense_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PLAN, **change)
