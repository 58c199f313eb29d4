"""With several datasets, held-out numbers are of each one's own held-out episodes, and of each task's where tasks are told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.test_training import tiny_recipe
from tests.tiny import tiny_dataset
from uva_agents.data import read_replay_buffer, write_replay_buffer
from uva_agents.model import VAE
from uva_agents.training.run import RunOptions
from uva_agents.training.sources import Part, Source
from uva_agents.training.uva.held_out import further_splits
from uva_agents.training.uva.latents_step import LatentsStep
from uva_agents.training.uva.run import UVARun
from uva_agents.training.uva.stand_ins import stand_in_keypoints
from uva_agents.training.uva.validation import Validator, task_name


def opened(tmp_path: Path, *sources: Source) -> UVARun:
    """A run with an untrained network, one latent standing for all."""
    recipe = tiny_recipe()
    run = UVARun(replace(recipe, data=replace(recipe.data, held_out=2)), RunOptions(sources, tmp_path / "run"))
    torch.manual_seed(0)
    run.set_autoencoder(VAE(recipe.model.vae), torch.device("cpu"))
    LatentsStep(run).rehearse()
    run.start_network()
    stand_in_keypoints(run)
    return run


@pytest.fixture
def run(tmp_path: Path) -> UVARun:
    """Twelve episodes; other twelve and four of the same kind; twelve of video alone."""
    for name, episodes in (("main", 12), ("other", 12), ("few", 4)):
        tiny_dataset(tmp_path / f"{name}.zarr", episodes=episodes)
    main = read_replay_buffer(tmp_path / "main.zarr")
    (tmp_path / "film").mkdir()
    write_replay_buffer(tmp_path / "film/other.zarr", {"img": main.arrays["pixels"]}, main.ends)
    names = ("main.zarr", "other.zarr", "few.zarr", "film/other.zarr")
    return opened(tmp_path, *(Source(tmp_path / name) for name in names))


def small(validator: Validator) -> Validator:
    others = {name: replace(other, n_actions=4, n_videos=2) for name, other in validator.others.items()}
    return replace(validator, n_actions=4, n_videos=2, others=others)


def test_every_dataset_that_is_large_enough_is_measured_under_its_name(run: UVARun) -> None:
    metrics = small(run.validator).run(run.model.eval())
    assert np.isfinite(list(metrics.values())).all()
    groups = {name.rpartition("/")[0] for name in metrics}
    assert groups == {
        "",
        "other.zarr",
        "other.zarr 2",
    }  # two of one name; a dataset of four episodes is trained on whole
    assert "other.zarr/policy_error_px" in metrics and "other.zarr/forward_psnr_db" in metrics
    assert "other.zarr 2/video_psnr_db" in metrics and "other.zarr 2/policy_error_px" not in metrics
    of_video = replace(small(run.validator), video_only=True).run(run.model)
    assert not any("error" in name for name in of_video) and "other.zarr/video_psnr_db" in of_video


def test_what_is_held_out_of_a_dataset_is_not_trained_on(run: UVARun) -> None:
    assert [len(held_out) for _, held_out in run.more_splits] == [1, 0, 1]
    for windows, (train, held_out) in zip(run.mixture.parts[1:], run.more_splits, strict=True):
        assert set(windows.index.episode.tolist()) == set(train.tolist())
        assert not set(train.tolist()) & set(held_out.tolist())
    (other, _) = run.validator.others.values()
    assert set(other.windows.index.episode.tolist()) == set(run.more_splits[0][1].tolist())


def test_a_run_that_holds_more_out_is_another_run(run: UVARun) -> None:
    before = run.key()
    run.more_splits = [(np.arange(12), np.arange(0)) for _ in run.others]
    assert run.key() != before


def test_a_dataset_of_few_episodes_is_not_held_out_from() -> None:
    parts = [Part(episodes=range(n), weight=1.0) for n in (1, 9, 10, 95)]
    assert [len(held_out) for _, held_out in further_splits(parts, 4)] == [0, 0, 1, 4]


def test_errors_are_told_by_task(run: UVARun) -> None:
    tasks = tuple("lift" if i % 2 else "push/pull" for i in range(12))
    validator = replace(small(run.validator), tasks=tasks, others={}, n_actions=24)
    metrics = validator.run(run.model.eval())
    told = {tasks[i] for i in run.held_out}
    names = {name.rpartition("/")[0] for name in metrics} - {""}
    assert names == {task_name(task) for task in told}
    if len(told) == 2:
        means = [metrics[f"{task}/policy_error_px"] for task in ("lift", "push pull")]
        assert min(means) <= metrics["policy_error_px"] <= max(means)
    alone = replace(validator, tasks=("lift",) * 12).run(run.model)
    assert not any("/" in name for name in alone)
