"""Weights of robots that nobody here has a simulator of: every agent and command works with them, without a further option."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.any_task_data import ENDS, MAKERS
from tests.serving import raw_client
from tests.test_any_task import ROBOTS, observation, small
from uva_agents.agents import UVA, InverseModel, Policy
from uva_agents.bridges.openpi import PolicyServer
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


def test_imagination_is_shown_beside_what_was_recorded(robot, capsys, tmp_path):
    assert main(["imagine", "--weights", str(robot.weights), "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "1 candidates (recorded)" in out and "PSNR" in out
    assert (tmp_path / "imagined.mp4").stat().st_size > 1000
    assert main(["imagine", "--weights", str(robot.weights), "--actions", "random", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "nobody knows what would come of these actions" in out and "PSNR" not in out


def test_a_video_is_labelled_in_the_datas_own_names(robot, tmp_path):
    frames = robot.dataset.arrays["pixels"][: ENDS[0]]
    np.save(tmp_path / "clip.npy", frames)
    words = ["label", str(tmp_path / "clip.npy"), "--weights", str(robot.weights), "--out", str(tmp_path), "--quiet"]
    assert main(words) == 0
    with (tmp_path / "actions.csv").open() as file:
        header, *rows = list(csv.reader(file))
    names = robot.dataset.names.get("action", [f"action_{i}" for i in range(WIDTHS[robot.name])])
    assert header == ["time_s", "frame", *names] and len(rows) == ENDS[0] - 1
    direct = InverseModel(robot.agent).label(frames)
    np.testing.assert_allclose(np.array(rows, float)[:, 2:], direct, rtol=1e-3, atol=1e-4)


def test_a_chunk_is_read_off_frames(robot):
    stride = robot.agent.config.frame_stride
    frames = robot.dataset.arrays["pixels"][stride : 5 * stride : stride]
    assert InverseModel(robot.agent).infer(frames).shape == (16, WIDTHS[robot.name])


def test_policy_world_model_and_planner_work_on_what_was_recorded(robot):
    from uva_agents.planners import ActionPenalty, SamplingPlanner

    obs = observation(robot.dataset, 3, robot.name)
    policy, world = robot.agent.policy(), robot.agent.world_model()
    policy.reset(seed=0)
    assert policy.act(obs) in policy.action_space
    chunks = policy.sample(obs, n=3, seed=0)
    assert chunks.shape == (3, 16, WIDTHS[robot.name])
    future = world.rollout(obs, chunks)
    assert future.frames.shape == (3, 4, *robot.dataset.arrays["pixels"].shape[1:])
    planner = SamplingPlanner(dynamics=world, objective=ActionPenalty(), proposals=policy, n_samples=3, execute=4)
    assert planner.plan(obs).actions.shape[-1] == WIDTHS[robot.name]
    assert planner.act(obs) in policy.action_space


def test_a_server_says_what_it_is_shown_and_answers(robot):
    policy = Policy(robot.agent, steps=2)
    obs = observation(robot.dataset, 3, robot.name)
    with PolicyServer(policy, port=0) as running, raw_client(running.url) as client:
        facts = client.metadata["uva"]
        told = sorted(set(robot.dataset.tasks or ())) if "task" in obs else None
        assert set(facts["names"]) == {*robot.dataset.cameras, "agent_pos", *(["task"] if told else [])}
        assert facts["instructions"] == told and facts["image_shape"] == list(obs["pixels"].shape[:2])
        assert facts["vectors"] == {"agent_pos": len(obs["agent_pos"])}
        answer = client.ask(obs)
        assert answer["actions"].shape == (16, WIDTHS[robot.name])
        missing = client.ask({name: value for name, value in obs.items() if name != "agent_pos"})
        assert "agent_pos" in missing
