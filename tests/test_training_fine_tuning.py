"""Training goes on from weights of other sizes: what matches is kept, and what does not is named with its shape."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.test_network_training import tiny_policy_recipe
from tests.test_training import tiny_recipe
from tests.tiny import tiny_dataset, tiny_dp_bundle, tiny_weights
from uva_agents.checkpoints import save_net
from uva_agents.checkpoints.initial import continue_from
from uva_agents.model import Context, Task, UVANet, uva_nano_config
from uva_agents.training.run import RunOptions, train
from uva_agents.training.uva.pipeline import uva_steps

SIZES = {"width": 32, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}


def net(seed: int, **sizes: object) -> UVANet:
    torch.manual_seed(seed)
    made = UVANet(uva_nano_config(**(SIZES | {"action_dim": 2} | sizes)))
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.05)
    return made.eval()


def test_other_actions_keep_everything_but_their_own_layers() -> None:
    origin, other = net(0), net(1, action_dim=7)
    match = continue_from(other, origin)
    assert torch.equal(other.encoder_blocks[0].attn.qkv.weight, origin.encoder_blocks[0].attn.qkv.weight)
    assert torch.equal(other.mix.weight, origin.mix.weight)
    assert "action_proj.weight" in match.reshaped and all("action" in name for name in match.unmatched)
    assert "of another shape: action_proj.weight, 32x7 here and 32x2 there" in match.lines()
    assert not match.unused and len(match.lines()) == len(match.reshaped)


def test_a_new_input_counts_nothing_at_first() -> None:
    origin, other = net(0), net(1, proprio_dim=3, proprio_maskable=True)
    match = continue_from(other, origin)
    context = Context(history=torch.randn(2, 4, 9, 64), actions=torch.randn(2, 16, 2))
    shown = origin.visibility(Task.FORWARD, 2)
    with torch.no_grad():
        expected = origin.joint_latent(context, shown)
        for proprio in (None, torch.randn(2, other.config.proprio_steps, 3)):
            found = other.joint_latent(replace(context, proprio=proprio), shown)
            torch.testing.assert_close(found, expected)
    (line,) = [line for line in match.lines() if "mix.weight" in line]
    assert line.endswith("; its part for future, history, actions is taken over, proprio count nothing at first")
    assert "starts fresh: proprio_proj.weight, 32x3" in match.lines()


def test_an_input_that_is_gone_leaves_the_others_in_their_places() -> None:
    origin, other = net(0, proprio_dim=3, history_actions=True), net(1)
    match = continue_from(other, origin)
    kept = [i for i, group in enumerate(origin.inputs) if group.name in {g.name for g in other.inputs}]
    blocks = torch.cat([origin.mix.weight[:, 32 * i : 32 * (i + 1)] for i in kept], dim=1)
    assert torch.equal(other.mix.weight, blocks)
    assert "not used: proprio_proj.weight, 32x3" in match.lines()


def test_keypoint_networks_of_another_size_are_trained_and_others_are_kept(tmp_path: Path) -> None:
    data = tiny_dataset(tmp_path / "d.zarr")
    weights = tiny_weights(tmp_path / "weights")  # a pooled detector, and nothing that renders
    options = RunOptions(data, tmp_path / "run", init=weights, progress=False)
    names = [step.name for step in uva_steps(tiny_recipe(), options)]
    assert "keypoint dynamics" in names and "keypoint renderer" in names

    recipe = tiny_recipe()
    steps = {step.name: step for step in uva_steps(recipe, options)}
    assert hasattr(steps["keypoint detector"], "build")  # by convolutions: another one
    pooled = replace(recipe, model=replace(recipe.model, keypoint_detector="mlp"))
    steps = {step.name: step for step in uva_steps(pooled, options)}
    assert not hasattr(steps["keypoint detector"], "build")


def test_a_run_says_what_it_could_not_take(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tiny_dataset(tmp_path / "d.zarr")
    recipe = tiny_policy_recipe()
    weights = save_net(tiny_dp_bundle("transformer"), tmp_path / "other")
    with caplog.at_level(logging.WARNING):
        folder = train(recipe, RunOptions(data, tmp_path / "run", init=weights, progress=False))
    assert folder is not None
    told = caplog.text.partition("\n")[2]
    assert "starts fresh: denoiser." in told and "not used: denoiser." in told and "encoder.trunk" not in told
    caplog.clear()
    same = save_net(tiny_dp_bundle(), tmp_path / "same")
    with caplog.at_level(logging.WARNING):
        train(recipe, RunOptions(data, tmp_path / "again", init=same, progress=False, stop_after=1))
    assert "starts fresh" not in caplog.text
