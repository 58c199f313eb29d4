"""The baselines on recordings of robots nobody here has met."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

import uva_agents as uva
from tests.any_task_data import MAKERS
from uva_agents.agents import DiffusionPolicy, TwoFrameInverse
from uva_agents.data import open_dataset
from uva_agents.data.conventions import RelativePoses
from uva_agents.errors import InputError
from uva_agents.training.any_task import LayoutOptions, make_recipe
from uva_agents.training.cli import add_arguments, run
from uva_agents.training.layout import find_layout, without_proprio
from uva_agents.training.recipe import Changes
from uva_agents.training.saved_recipes import read_recipe
from uva_agents.training.uva.sizes import OptionalInputs


def trained(tmp_path, robot, baseline, *words):
    path = MAKERS[robot](tmp_path)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    out = tmp_path / "run"
    given = ["--data", str(path), "--steps", "2", "--batch-size", "4", "--out", str(out), "--quiet", *words]
    assert run(parser.parse_args([baseline, *given])) == 0
    return open_dataset(path), out / "weights"


@pytest.mark.parametrize(("robot", "width"), [("arx", 7), ("umi", 10)])
def test_diffusion_policy_acts_in_the_robots_own_poses(tmp_path, robot, width):
    dataset, weights = trained(tmp_path, robot, "diffusion-policy")
    policy = DiffusionPolicy.from_pretrained(weights)
    obs = {name: np.asarray(dataset.arrays[name][5]) for name in ("pixels", "agent_pos")}
    policy.reset(seed=0)
    action = policy.act(obs)
    assert action.shape == (width,) and policy.action_space.contains(action)
    if robot == "umi":  # from where the tool is: elsewhere, the same chunk leads elsewhere
        moved = {**obs, "agent_pos": obs["agent_pos"] + np.float32([0.1, *[0] * 9])}
        chunks = [DiffusionPolicy.from_pretrained(weights).sample(o, seed=1)[0] for o in (obs, moved)]
        assert policy.spec.needs_pose and not np.allclose(*chunks)


def test_the_two_frame_network_puts_relative_poses_together(tmp_path):
    dataset, weights = trained(tmp_path, "umi", "two-frame")
    inverse = TwoFrameInverse.from_pretrained(weights)
    video = np.asarray(dataset.arrays["pixels"][:11])
    actions = inverse.label(video)
    assert actions.shape == (10, 10)
    (relative,) = inverse.bundle.spec.action_transforms
    assert isinstance(relative, RelativePoses)
    first = inverse.infer(video[[0, 4]])
    np.testing.assert_allclose(actions[:4], first, atol=1e-5)
    # The second pair goes on from the pose that the first one ends in.
    again = inverse.infer(video[[4, 8]])
    end = relative.pose_after(first[-1])
    expected = end[:3] + np.array([end[3:6], end[6:9], np.cross(end[3:6], end[6:9])]) @ again[0, :3]
    np.testing.assert_allclose(actions[4, :3], expected, atol=1e-4)


def test_proprioception_that_actions_start_from_cannot_be_left_out(tmp_path):
    layout = find_layout(open_dataset(MAKERS["umi"](tmp_path)))
    with pytest.raises(InputError, match="cannot be left out"):
        without_proprio(layout)
    joints = find_layout(open_dataset(MAKERS["joints"](tmp_path)))
    assert without_proprio(joints).proprio_key is None and "agent_pos" not in without_proprio(joints).fields


def test_python_trains_a_baseline_on_any_layout_as_the_command_does(tmp_path):
    dataset, weights = trained(tmp_path, "joints", "diffusion-policy", "--name", "same", "--no-proprio")
    path = dataset.path
    folder = uva.train(
        "diffusion-policy",
        path,
        tmp_path / "python",
        steps=2,
        name="same",
        changes=Changes(batch_size=4),
        about=LayoutOptions(proprio=False),
        options={"progress": False},
    )
    assert folder is not None
    assert read_recipe(tmp_path / "run" / "recipe.json") == read_recipe(tmp_path / "python" / "recipe.json")
    assert (folder / "model.safetensors").read_bytes() == (weights / "model.safetensors").read_bytes()


def test_a_recipe_of_a_baseline_has_its_name_in_python_too():
    changes = Changes(steps=3)
    recipe = make_recipe("two-frame-pusht", [], LayoutOptions(), changes=changes)
    assert recipe.name == "two-frame-pusht" and recipe.stage.steps == 3  # type: ignore[attr-defined]
    assert make_recipe(recipe, [], LayoutOptions(fields={"pixels": "img"})) == recipe


@pytest.mark.parametrize(
    ("recipe", "about", "inputs", "message"),
    [
        ("dp-c-nano", LayoutOptions(control_hz=5.0), None, "--hz goes with a network size or a baseline"),
        ("pusht-nano", LayoutOptions(proprio=False), None, "--no-proprio goes with a network size or a baseline"),
        ("pusht-nano", LayoutOptions(), OptionalInputs(predict_wrist=True), "--predict-wrist goes with a network size"),
        (
            "two-frame",
            LayoutOptions(),
            OptionalInputs(history_actions=True),
            "--history-actions .* not with a baseline",
        ),
        ("two-fram", LayoutOptions(), None, "did you mean two-frame"),
    ],
)
def test_what_a_recipe_has_no_use_for_is_refused(recipe, about, inputs, message):
    with pytest.raises(InputError, match=message):
        make_recipe(recipe, [], about, inputs=inputs)
