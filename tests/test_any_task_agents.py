"""Weights of robots that nobody here has a simulator of: every agent and command works with them, without a further option."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

import uva_agents as uva
from tests.any_task_data import ENDS, MAKERS
from tests.test_any_task import ROBOTS, observation, small
from uva_agents.agents import UVA, InverseModel
from uva_agents.cli import main
from uva_agents.data import open_dataset
from uva_agents.data.run_data import data_of_run
from uva_agents.training.any_task import LayoutOptions, make_recipe, train
from uva_agents.training.sources import Source

WIDTHS = {"arx": 7, "joints": 6, "umi": 10, "libero": 7, "pusht": 2}
"""Numbers of an action."""


@pytest.fixture(scope="module", params=ROBOTS)
def robot(request, tmp_path_factory):
    """Its data, and weights after two steps of training: what is looked at here does not depend on how good they are."""
    root = tmp_path_factory.mktemp(request.param)
    path = MAKERS[request.param](root)
    about = LayoutOptions(control_hz=10.0 if request.param == "pusht" else None)
    recipe = small(make_recipe("nano", [Source(path)], about), steps=2)
    stage = replace(recipe.autoencoder.stage, steps=2, warmup=0, validate_every=2)
    recipe = replace(recipe, autoencoder=replace(recipe.autoencoder, stage=stage))
    weights = train(recipe, path, root / "run", options={"progress": False})
    return SimpleNamespace(
        name=request.param, path=path, weights=weights, dataset=open_dataset(path), agent=UVA.from_pretrained(weights)
    )


def test_evaluation_replays_the_held_out_episodes(robot, capsys, tmp_path):
    report = tmp_path / "report.json"
    assert main(["eval", str(robot.weights), "--json", str(report), "--quiet", "--steps", "2"]) == 0
    out = capsys.readouterr().out
    held_out = data_of_run(robot.weights).main.held_out
    assert f"uva/Recorded-v0 replays 1 held-out episode ({held_out[0]}) of {robot.path}" in out
    values = json.loads(report.read_text())
    assert values["protocol"] == "recorded" and values["env_id"] == "uva/Recorded-v0"
    assert [e["seed"] for e in values["episodes"]] == [0]
    assert 0 < values["episodes"][0]["score"] <= 1
