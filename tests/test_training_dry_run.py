"""A dry run does all that comes before the first step, for every stage, and leaves nothing behind."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.test_network_training import STAGE, tiny_policy_recipe
from tests.test_released_steps import named, options, small
from tests.test_training import tiny_recipe
from tests.tiny import tiny_dataset
from uva_agents import cli
from uva_agents.benchmarks.evaluation.rollouts import EnvRollouts
from uva_agents.data import write_replay_buffer
from uva_agents.errors import InputError, MachineError
from uva_agents.training.baselines.diffusion_stage import DiffusionStage
from uva_agents.training.loop import StageLoop
from uva_agents.training.rehearsal import rehearse
from uva_agents.training.run import RunOptions, train
from uva_agents.training.selection import EarlyStopping, Rollouts, Selection


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data") / "d.zarr")


def test_every_stage_takes_one_batch_and_nothing_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr(StageLoop, "_optimise", lambda self: pytest.fail("something was trained"))
    recipe = tiny_recipe()
    found = rehearse(recipe, RunOptions(data, tmp_path / "run"))
    assert [stage.stage for stage in found.stages] == ["vae", "points", "dynamics", "writer", "video", "joint"]
    assert [stage.steps for stage in found.stages] == [6, 6, 6, 6, 4, 8]
    assert all(s.batch_size == 8 and s.parameters > 0 and s.activations > 0 and s.seconds > 0 for s in found.stages)
    assert not (tmp_path / "run").exists() and not list(scratch.glob("uva*"))
    # Frames; nine tokens of 64 numbers of two bytes for each, in two variants, as they come and standardised; the checkpoints.
    frames = 6 * 24
    data_written = frames * 96 * 96 * 3 + frames * 9 * 64 * 2 * 2 * 2
    checkpoints = [stage.checkpoint for stage in found.stages]
    assert found.disk == data_written + sum(checkpoints) + max(checkpoints)


@pytest.mark.parametrize("name", ["uva-libero10", "uva-umi-multitask"])
def test_released_recipes_can_be_tried(name: str, tmp_path: Path) -> None:
    """Instructions, a second camera, frames that are encoded in the training step, a video network of its own."""
    recipe = small(named(name))
    given = options(recipe, tmp_path)
    found = rehearse(recipe, given)
    assert [stage.stage for stage in found.stages] == ["video", "joint"]
    assert "under a minute" in found.lines()[0] and not (tmp_path / "run").exists()


def test_what_a_run_writes_is_what_the_dry_run_said(data: Path, tmp_path: Path) -> None:
    recipe, options = tiny_policy_recipe(), RunOptions(data, tmp_path / "run", progress=False)
    (stage,) = rehearse(recipe, options).stages
    train(recipe, options)
    assert (tmp_path / "run/policy/checkpoint.pt").stat().st_size == pytest.approx(stage.checkpoint, abs=300_000)


def test_the_activations_are_those_of_a_batch(data: Path, tmp_path: Path) -> None:
    sizes = []
    for batch_size in (4, 16):
        recipe = tiny_policy_recipe(stage=replace(STAGE, batch_size=batch_size))
        sizes.append(rehearse(recipe, RunOptions(data, tmp_path / "run")).stages[0].activations)
    assert 3.5 < sizes[1] / sizes[0] < 4.5


def test_a_dry_run_of_a_run_that_was_begun_leaves_it_as_it_is(data: Path, tmp_path: Path) -> None:
    recipe, options = tiny_policy_recipe(), RunOptions(data, tmp_path / "run", progress=False)
    train(recipe, replace(options, stop_after=3))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    rehearse(recipe, options)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    with pytest.raises(ValueError, match="belongs to another configuration"):
        rehearse(replace(recipe, seed=3), options)


def test_weights_are_tried_in_the_environment(data: Path, tmp_path: Path) -> None:
    def options(env_id: str, metric: str) -> RunOptions:
        evaluator = EnvRollouts(env_id, 1, tmp_path / "run/rollouts", protocol="success")
        selection = Selection(Rollouts(evaluator), EarlyStopping(metric, 2, higher=False))
        return RunOptions(data, tmp_path / "run", selection=selection)

    found = rehearse(tiny_policy_recipe(), options("uva/PushT-v0", "action_error"))
    assert any(line.startswith("best weights: by the success rate in uva/PushT-v0") for line in found.lines())
    with pytest.raises(InputError, match="the agent acts in Box"):
        rehearse(tiny_policy_recipe(), options("Pendulum-v1", "action_error"))
    with pytest.raises(InputError, match="no metric is called 'action_errer'"):
        rehearse(tiny_policy_recipe(), options("uva/PushT-v0", "action_errer"))
    assert not (tmp_path / "run").exists()


def test_memory_and_disk_that_are_too_small_are_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = DiffusionStage.inputs

    def hungry(self: DiffusionStage, step: int, rank: int, world: int) -> dict[str, torch.Tensor]:
        if self.config.batch_size > 3:
            raise MemoryError
        return inputs(self, step, rank, world)

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionStage, "inputs", hungry)
        with pytest.raises(MachineError, match=r"not enough for batches of 8 .*; 2 fit: --batch-size 2"):
            rehearse(tiny_policy_recipe(), RunOptions(data, tmp_path / "run"))
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    full = [tmp_path]
    usage = lambda path: SimpleNamespace(free=1000 if Path(path) in full else 1 << 40)  # noqa: E731
    monkeypatch.setattr("shutil.disk_usage", usage)
    with pytest.raises(MachineError, match=r"the run writes .* and 1\.0 KB are free there"):
        rehearse(tiny_policy_recipe(), RunOptions(data, tmp_path / "run"))
    full[:] = [scratch, *scratch.glob("*")]  # that temporary files have little room does not matter
    rehearse(tiny_policy_recipe(), RunOptions(data, tmp_path / "run"))


def test_data_that_does_not_fit_is_named(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 48
    arrays = {
        "img": rng.integers(0, 255, (n, 96, 96, 3), dtype=np.uint8),
        "state": rng.random((n, 5)).astype(np.float32),
        "action": rng.random((n, 3)).astype(np.float32),
    }
    write_replay_buffer(tmp_path / "three.zarr", arrays, np.array([24, 48]))
    with pytest.raises(InputError, match="3 numbers where recipe 'dp-c-nano' has action_dim=2"):
        rehearse(tiny_policy_recipe(), RunOptions(tmp_path / "three.zarr", tmp_path / "run"))


def test_the_command_prints_what_it_found(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uva_agents.training.cli.configure", lambda args, sources: tiny_policy_recipe())
    words = ["train", "dp-c-nano", "--data", str(data), "--out", str(tmp_path / "run"), "--dry-run"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "stage policy: 8 steps of 8" in out and "memory: " in out and "disk: " in out
    assert not (tmp_path / "run").exists()
