"""An autoencoder that is trained to keep what decides on actions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.any_task_data import MAKERS
from tests.any_task_training import small
from uva_agents.checkpoints import load_bundle
from uva_agents.errors import InputError
from uva_agents.training.any_task import LayoutOptions, make_recipe, train
from uva_agents.training.run import RunOptions
from uva_agents.training.sources import Source
from uva_agents.training.uva.action_regressor import ActionFrames, ActionRegressor
from uva_agents.training.uva.run import UVARun


def recipe_of(path, **autoencoder):
    made = small(make_recipe("nano", [Source(path)], LayoutOptions()), steps=2, batch_size=4)
    stage = replace(made.autoencoder.stage, steps=3, batch_size=6, validate_every=3)
    return replace(made, autoencoder=replace(made.autoencoder, stage=stage, **autoencoder))


def test_windows_come_with_the_frames_of_now_of_every_camera(tmp_path):
    path = MAKERS["joints"](tmp_path)
    video = MAKERS["joints"](tmp_path / "more")
    recipe = recipe_of(path, action_weight=10.0)
    run = UVARun(recipe, RunOptions((Source(path), Source(video)), tmp_path / "run", progress=False))
    frames = ActionFrames(run)
    drawn = frames.draw(3, 16, seed=1)
    again = frames.draw(3, 16, seed=1)
    np.testing.assert_array_equal(drawn.frames, again.frames)
    assert drawn.frames.shape[:2] == (2, 16) and drawn.frames.dtype == np.uint8
    assert drawn.known.shape == (16, recipe.model.proprio_dim + recipe.model.text_dim)
    # The two datasets have the same recordings: a window of the second one is found in the first.
    first, second = frames.cameras
    pictures = np.asarray(first[0])
    normalizer, data = run.normalizer, run.main.episodes.arrays
    for window in range(16):
        same = np.flatnonzero((pictures == drawn.frames[0, window]).all((1, 2, 3)))
        rows = [row for row in same if (np.asarray(first[1][row]) == drawn.frames[1, window]).all()]
        actions = normalizer.normalize("action", torch.from_numpy(np.asarray(data["action"], np.float32)[rows]))
        assert any(torch.allclose(one, drawn.actions[window, 0]) for one in actions)
    assert len(second) == 2 and drawn.has_actions.all()


def test_samples_of_video_alone_teach_no_actions():
    regressor = ActionRegressor(4, cameras=1, known=0, steps=2, action_dim=1)
    latents, known, actions = torch.randn(1, 3, 4), torch.zeros(3, 0), torch.zeros(3, 2, 1)
    has = torch.tensor([True, False, True])
    error = regressor.error(latents, known, actions, has)
    torch.testing.assert_close(
        regressor.error(latents, known, torch.where(has[:, None, None], actions, 9.0), has), error
    )
    assert regressor.error(latents, known, actions, torch.zeros(3, dtype=torch.bool)).item() == 0.0


def test_a_run_resumes_and_keeps_the_autoencoder_alone(tmp_path):
    path = MAKERS["joints"](tmp_path)
    recipe = recipe_of(path, action_weight=10.0)
    folder = train(recipe, path, tmp_path / "run", options={"progress": False})
    before = load_bundle(folder).vae.state_dict()
    assert not any("regressor" in name for name in before)
    saved = torch.load(tmp_path / "run" / "vae" / "checkpoint.pt", weights_only=True)
    assert any(name.startswith("regressor.") for name in saved["model"])
    assert train(recipe, path, tmp_path / "run", options={"progress": False}) == folder
    after = load_bundle(folder).vae.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_mirrored_pictures_are_refused(tmp_path):
    path = MAKERS["joints"](tmp_path)
    recipe = recipe_of(path, action_weight=10.0)
    mirrored = replace(recipe, augmentation=replace(recipe.augmentation, mirror=True))
    run = UVARun(mirrored, RunOptions(path, tmp_path / "run", progress=False))
    with pytest.raises(InputError, match=r"autoencoder\.action_weight does not go with augmentation\.mirror"):
        ActionFrames(run)


def test_what_decides_on_an_action_stays_in_the_latents_though_reconstruction_would_leave_it_out():
    """One pixel of a noisy picture says which way to go."""
    from uva_agents.model import VAE
    from uva_agents.model.vae import nano_vae_config
    from uva_agents.training.uva.vae_stage import VAEModule

    def learned(weight):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        vae = VAE(replace(nano_vae_config(), channels=16, z_channels=4))
        regressor = ActionRegressor(4 * 4, cameras=1, known=0, steps=1, action_dim=1)
        module = VAEModule(vae, 0.01, regressor=regressor, action_weight=weight)
        # Without a weight the encoder learns to rebuild alone, and the regressor what it can read off that.
        groups = [{"params": vae.parameters()}, {"params": regressor.parameters()}]
        optimizer = torch.optim.AdamW(groups, lr=3e-3)
        for _ in range(150):
            images = torch.rand(32, 3, 32, 32, generator=generator) * 2 - 1
            way = torch.randint(0, 2, (32,), generator=generator).float() * 2 - 1
            images[:, :, 9:11, 21:23] = way.view(-1, 1, 1, 1)
            actions = way.view(-1, 1, 1)
            optimizer.zero_grad()
            loss, parts = module(images, torch.zeros(32, 0), actions, torch.ones(32, dtype=torch.bool))
            if not weight:
                latents = vae.posterior(images).mean.flatten(1)[None].detach()
                loss = loss + regressor.error(latents, torch.zeros(32, 0), actions, torch.ones(32, dtype=torch.bool))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 100.0)
            optimizer.step()
        return float(parts["action"])

    assert learned(1000.0) < 0.2 < learned(0.0)
