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
from uva_agents.agents import UVA, InverseModel, Policy
from uva_agents.bridges.openpi import PolicyServer
from uva_agents.cli import main
from uva_agents.data import convert_dataset, open_dataset
from uva_agents.data.recorded_env import RecordedEnv
from uva_agents.data.run_data import data_of_run
from uva_agents.training.any_task import LayoutOptions, make_recipe, train
from uva_agents.training.sources import Source

WIDTHS = {"arx": 7, "joints": 6, "umi": 10, "libero": 7, "pusht": 2}
"""Numbers of an action."""


def brief(recipe):
    """The recipe with a small network, two steps to each stage."""
    m, network = recipe.model, recipe.network
    video_head, action_head = replace(m.video_head, width=32, depth=1), replace(m.action_head, width=32, depth=1)
    model = replace(
        m, width=32, heads=4, encoder_depth=1, decoder_depth=1, video_head=video_head, action_head=action_head
    )
    stages = [recipe.autoencoder.stage, network.video, network.joint]
    stages = [replace(stage, steps=2, batch_size=8, warmup=0, validate_every=2) for stage in stages]
    return replace(
        recipe,
        model=model,
        network=replace(network, video=stages[1], joint=stages[2]),
        autoencoder=replace(recipe.autoencoder, stage=stages[0]),
        augmentation=replace(recipe.augmentation, variants=1),
    )


def seen(robot):
    """An observation of the robot's, some steps into an episode."""
    env = RecordedEnv(robot.path)
    env.reset(options={"episode": 1})
    for _ in range(3):
        obs = env.step(env.recorded_actions(1)[0])[0]
    return obs


@pytest.fixture(scope="module", params=MAKERS)
def robot(request, tmp_path_factory):
    """Its data, and weights after two steps of training: what is looked at here does not depend on how good they are."""
    root = tmp_path_factory.mktemp(request.param)
    path = MAKERS[request.param](root)
    about = LayoutOptions(control_hz=10.0 if request.param == "pusht" else None)
    weights = train(brief(make_recipe("nano", [Source(path)], about)), path, root / "run", options={"progress": False})
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

    obs = seen(robot)
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
    obs = seen(robot)
    with PolicyServer(policy, port=0) as running, raw_client(running.url) as client:
        facts = client.metadata["uva"]
        texts = set(robot.dataset.tasks or ())
        told = sorted(texts) if len(texts) > 1 else None  # a single one says nothing
        assert set(facts["names"]) == {*robot.dataset.cameras, "agent_pos", *(["task"] if told else [])}
        assert facts["instructions"] == told and facts["image_shape"] == list(obs["pixels"].shape[:2])
        assert facts["vectors"] == {"agent_pos": len(obs["agent_pos"])}
        answer = client.ask(obs)
        assert answer["actions"].shape == (16, WIDTHS[robot.name])
        missing = client.ask({name: value for name, value in obs.items() if name != "agent_pos"})
        assert "agent_pos" in missing


def test_held_out_metrics_are_measured_also_on_the_data_in_another_format(robot, capsys, tmp_path):
    sizes = ["--actions", "3", "--videos", "4"]
    words = ["bench", "heldout", "--weights", str(robot.weights), *sizes, "--data"]
    assert main([*words, str(robot.path), "--out", str(tmp_path / "a")]) == 0
    first = json.loads((tmp_path / "a" / "heldout.json").read_text())["metrics"]
    held_out = data_of_run(robot.weights).main.held_out
    assert f"episodes {held_out[0]} of 3 in" in capsys.readouterr().out
    assert 0 < first["policy_error_percent"] < 100 and first["forward_psnr_db"] > 0
    converted = tmp_path / "converted.zarr"
    convert_dataset(robot.dataset, converted, to="zarr")
    assert main([*words, str(converted), "--out", str(tmp_path / "b")]) == 0
    again = json.loads((tmp_path / "b" / "heldout.json").read_text())["metrics"]
    assert again == pytest.approx(first, rel=1e-3)


def test_a_run_in_real_time_is_on_what_was_recorded(robot, capsys):
    if robot.name not in ("joints", "umi"):
        pytest.skip("in real time: one robot for each way is enough")
    # Poses of a tool are what the arm takes: there the environment has to be named.
    named = ["uva/Recorded-v0"] if robot.name == "umi" else []
    slow = [
        "--rate",
        "5",
        "--env-arg",
        "control_hz=5",
        "--length",
        "2",
    ]  # a chunk is there in time on a busy machine, too
    status = main(["run", str(robot.weights), *named, "--steps", "1", "--now", *slow])
    out, err = capsys.readouterr()
    assert status == 0, err
    assert "nothing moves: uva/Recorded-v0 replays 1 held-out episode" in out and "agreement" in out
