"""The trainer: stages run end to end, learn, resume after a kill with the same curve, and refuse foreign checkpoints."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import tiny_dataset
from uva_agents.checkpoints import load_bundle
from uva_agents.checkpoints.tensor_files import load_tensors
from uva_agents.data import read_replay_buffer
from uva_agents.model import Context, Task, UVANet
from uva_agents.training.ema import EMA
from uva_agents.training.keypoints.detector_stage import DetectorStage
from uva_agents.training.optimisation import learning_rate
from uva_agents.training.recipe import StageConfig
from uva_agents.training.run import RunOptions, make_normalizer, train
from uva_agents.training.uva.recipes import Augmentation, AutoencoderTraining, UVARecipe, World, pusht_nano


def tiny_recipe() -> UVARecipe:
    recipe = pusht_nano()
    assert recipe.keypoints is not None
    stage = StageConfig(steps=6, batch_size=8, lr=2e-3, warmup=2, validate_every=3)
    return replace(
        recipe,
        model=replace(recipe.model, width=32, heads=2, encoder_depth=1, decoder_depth=1),
        data=replace(recipe.data, held_out=1),
        augmentation=replace(recipe.augmentation, variants=2),
        autoencoder=AutoencoderTraining(stage),
        keypoints=replace(recipe.keypoints, detector=stage, dynamics=stage, renderer=stage),
        network=replace(recipe.network, video=replace(stage, steps=4), joint=replace(stage, steps=8)),
    )


def curve(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "steps_per_s"} for line in lines]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data") / "d.zarr")


def test_a_recipe_runs_end_to_end_and_its_weights_load(data: Path, tmp_path: Path) -> None:
    folder = train(tiny_recipe(), RunOptions(data, tmp_path / "run", progress=False))
    assert folder is not None
    bundle = load_bundle(folder)
    assert bundle.name == "pusht-nano" and bundle.spec.action_high == (512.0, 512.0)
    last = curve(tmp_path / "run" / "joint")[-1]
    for name in (
        "policy_error_px",
        "inverse_error_px",
        "forward_psnr_db",
        "copy_psnr_db",
        "video_psnr_db",
        "video8_psnr_db",
    ):
        assert np.isfinite(last[name]), name
    assert (tmp_path / "run" / "joint" / "futures.png").exists()
    # A finished run is not trained again.
    again = train(tiny_recipe(), RunOptions(data, tmp_path / "run", progress=False))
    assert again == folder


@pytest.mark.long
def test_past_actions_and_varied_history_train_and_an_unknown_past_is_no_action(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    recipe = replace(recipe, network=replace(recipe.network, varied_history=True))
    recipe = replace(recipe, model=replace(recipe.model, history_actions=True))
    folder = train(recipe, RunOptions(data, tmp_path / "run", progress=False))
    assert folder is not None
    model = load_bundle(folder).model
    history = torch.randn(2, 4, 9, 64, generator=torch.Generator().manual_seed(0))
    past = torch.rand(2, 16, 2, generator=torch.Generator().manual_seed(1))
    visibility = model.visibility(Task.POLICY, 2)

    def z(actions: torch.Tensor | None) -> torch.Tensor:
        with torch.no_grad():
            return model.joint_latent(Context(history=history, history_actions=actions), visibility)

    torch.testing.assert_close(z(torch.full_like(past, float("nan"))), z(None))
    assert not torch.allclose(z(past), z(None), atol=1e-4)


@pytest.mark.long
def test_an_interrupted_run_continues_the_same_curve(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    straight = train(recipe, RunOptions(data, tmp_path / "straight", progress=False))
    folder = None
    for _ in range(20):
        folder = train(recipe, RunOptions(data, tmp_path / "pieces", progress=False, stop_after=3))
        if folder is not None:
            break
    assert straight is not None and folder is not None
    for stage in ("vae", "points", "dynamics", "writer", "video", "joint"):
        a = torch.load(tmp_path / "straight" / stage / "checkpoint.pt", weights_only=True)
        b = torch.load(tmp_path / "pieces" / stage / "checkpoint.pt", weights_only=True)
        for name, value in a["model"].items():
            # Sums round differently from one process layout to another, no more than that.
            torch.testing.assert_close(value, b["model"][name], atol=1e-3, rtol=1e-3, msg=f"{stage} {name}")
        runs = [
            [line for line in curve(tmp_path / run / stage) if line["kind"] == "val"] for run in ("straight", "pieces")
        ]
        assert len(runs[0]) == len(runs[1]) > 0
        for one, other in zip(*runs, strict=True):
            numbers = [{k: v for k, v in line.items() if k != "kind"} for line in (one, other)]
            assert numbers[0] == pytest.approx(numbers[1], rel=1e-2)


@pytest.mark.slow
def test_kill_9_in_the_middle_loses_at_most_the_last_checkpoint_interval(data: Path, tmp_path: Path) -> None:
    """A real process, killed without warning; the curve it leaves equals that of an undisturbed run."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "import torch; torch.set_num_threads(1)\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from tests.test_training import tiny_recipe\n"
        "import uva_agents.training.steps as s\n"
        "from uva_agents.training.run import RunOptions, train\n"
        "from uva_agents.training.loop import LoopOptions\n"
        "s.LoopOptions = lambda *a, **k: replace(LoopOptions(*a, **k), checkpoint_every_s=0.3)\n"
        "recipe = tiny_recipe()\n"
        "joint = replace(recipe.network.joint, steps=60, validate_every=60)\n"
        "recipe = recipe.with_stage('joint', joint)\n"
        f"train(recipe, RunOptions(Path({str(data)!r}), Path(sys.argv[1]), progress=False))\n"
    )

    def start(out: Path) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-c", script, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    process = start(tmp_path / "killed")
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        log = tmp_path / "killed" / "joint" / "metrics.jsonl"
        if log.exists() and any(line.get("step", 0) >= 15 for line in curve(tmp_path / "killed" / "joint")):
            break
        time.sleep(0.05)
    assert process.poll() is None, "the run ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / "killed" / "joint" / "checkpoint.pt").exists()
    # The undisturbed run has the same stages before.
    shutil.copytree(tmp_path / "killed", tmp_path / "straight")
    shutil.rmtree(tmp_path / "straight" / "joint")
    for run in ("straight", "killed"):
        assert start(tmp_path / run).wait(timeout=240) == 0
    final = [
        torch.load(tmp_path / run / "joint" / "checkpoint.pt", weights_only=True)["step"]
        for run in ("straight", "killed")
    ]
    assert final == [60, 60]
    curves = [
        {line["step"]: line["loss"] for line in curve(tmp_path / run / "joint") if "loss" in line}
        for run in ("straight", "killed")
    ]
    assert curves[0].keys() == curves[1].keys()
    # Same batches, same noise: the losses agree far more closely than two runs with different ones would (0.1 and more).
    # Means that a kill cut through cover fewer steps, so two of them may be off.
    off = [step for step, loss in curves[0].items() if abs(loss - curves[1][step]) > 0.02 * loss]
    assert len(off) <= 2, off


@pytest.mark.slow
def test_two_processes_train_one_network_together(data: Path, tmp_path: Path) -> None:
    """With torchrun, as on several GPUs. Both see half of every step, and there is one curve and one set of weights."""
    script = tmp_path / "train.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "import torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from tests.test_training import tiny_recipe\n"
        "from uva_agents.training.run import RunOptions, train\n"
        f"folder = train(tiny_recipe(), RunOptions(Path({str(data)!r}), Path({str(tmp_path / 'run')!r}), progress=False))\n"
        "print('weights:', folder)\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        launch, capture_output=True, text=True, timeout=400, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("weights:")) == [
        f"weights: {tmp_path / 'run' / 'weights'}",
        "weights: None",
    ]
    # Each process draws half of a step's windows; one of them writes.
    steps = [line["step"] for line in curve(tmp_path / "run" / "joint") if line["kind"] == "val"]
    assert len(steps) == len(set(steps)) > 0
    load_bundle(tmp_path / "run" / "weights")


def test_points_may_be_read_by_convolutions_and_run_down_the_picture_first(data: Path, tmp_path: Path) -> None:
    """What block pushing needs: another reader, the other order of axes, no augmentation, millimetres, limits per axis."""
    recipe = tiny_recipe()
    limits = {"action": (0.0, 512.0), "agent_pos": ((0.0, 0.0), (512.0, 500.0)), "keypoints": (0.0, 512.0)}
    recipe = replace(
        recipe,
        model=replace(recipe.model, keypoint_detector="conv", keypoint_axes="yx"),
        data=replace(recipe.data, limits=limits, env_id="uva/BlockPush-v0", execute=6),
        world=World(size=512.0, unit="mm", unit_scale=1000.0),
        augmentation=Augmentation(variants=1, mirror=False, max_shift=0),
    )
    folder = train(recipe, RunOptions(data, tmp_path / "run", progress=False))
    assert folder is not None
    bundle = load_bundle(folder)
    assert (bundle.spec.env_id, bundle.spec.execute) == ("uva/BlockPush-v0", 6)
    last = curve(tmp_path / "run" / "joint")[-1]
    # Untrained, an action is wrong by a good part of the 512 units, each of which is a thousand of what is reported.
    assert 10_000 < last["policy_error_mm"] < 512_000 and np.isfinite(last["frame_state_mm"])
    assert "points_mm" in curve(tmp_path / "run" / "points")[-1]
    reader = load_tensors(tmp_path / "run" / "points" / "reader.safetensors")  # for other runs
    torch.testing.assert_close(bundle.model.guide.detector.state_dict(), reader, rtol=1e-3, atol=1e-3)
    assert "others_mm" in curve(tmp_path / "run" / "dynamics")[-1]
    centres = bundle.model.guide.renderer.get_buffer("centres")
    np.testing.assert_allclose(centres[1, :2], (-2 / 3, 0), atol=1e-6)  # second token: top row, middle column


def test_the_agent_may_count_more_than_other_points_in_the_training_of_the_reader(data: Path) -> None:
    recipe = tiny_recipe()
    assert recipe.keypoints is not None
    recipe = replace(recipe, keypoints=replace(recipe.keypoints, agent_weight=9.0))
    recipe = replace(recipe, model=replace(recipe.model, proprio_keypoints=1))
    episodes = read_replay_buffer(data)
    reader = UVANet(recipe.model).guide.detector
    stage = DetectorStage(recipe, reader, episodes, episodes, make_normalizer(recipe.data, episodes))
    images = torch.zeros(2, 3, *stage.moved.reduced(np.arange(1)).shape[1:3])
    read = stage.module.detector.read_reduced(images).detach()  # type: ignore[union-attr,operator]

    def loss(first: int, last: int) -> float:
        wrong = torch.zeros(2, read.shape[1])
        wrong[:, first:last] = 1.0
        return stage.module(images, read + wrong)[0].item()

    others = read.shape[1] // 2 - 1
    assert loss(0, 2) == pytest.approx(9 * loss(2, 4), rel=1e-5)
    assert loss(0, 2) + others * loss(2, 4) == pytest.approx(1.0, rel=1e-5)


def test_training_overfits_one_batch(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    joint = replace(recipe.network.joint, steps=150, warmup=10, batch_size=32, validate_every=1000)
    recipe = recipe.with_stage("joint", joint)
    recipe = replace(recipe, model=replace(recipe.model, keypoint_detector="mlp"))
    train(recipe, RunOptions(data, tmp_path / "run", progress=False))
    losses = [line["action"] for line in curve(tmp_path / "run" / "joint") if line["kind"] == "train"]
    assert losses[-1] < 0.6 * losses[0]


def test_a_checkpoint_of_another_configuration_or_a_damaged_one_is_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tiny_recipe(), RunOptions(data, out, progress=False, stop_after=2))
    recipe = tiny_recipe()
    assert recipe.autoencoder is not None
    other = replace(recipe, autoencoder=replace(recipe.autoencoder, kl_weight=0.5))
    with pytest.raises(ValueError, match="another configuration"):
        train(other, RunOptions(data, out, progress=False, stop_after=2))
    path = out / "vae" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        train(tiny_recipe(), RunOptions(data, out, progress=False, stop_after=2))


def test_the_learning_rate_warms_up_and_ends_low() -> None:
    config = StageConfig(steps=100, batch_size=1, lr=1.0, warmup=10, final_lr=0.01)
    rates = [learning_rate(config, s) for s in range(101)]
    assert (
        rates[0] == 0
        and rates[1] == pytest.approx(0.1)
        and rates[10] == pytest.approx(1.0)
        and rates[100] == pytest.approx(0.01)
    )
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_the_learning_rate_matches_the_released_schedule(shared: Path) -> None:
    recorded = np.load(shared / "golden" / "misc.npz")["lr/cosine_warmup1000_total10000"]
    config = StageConfig(steps=10_000, batch_size=1, lr=1e-4, warmup=1000, final_lr=0.0)
    rates = [learning_rate(config, step) for step in range(0, 10_001, 50)]
    np.testing.assert_allclose(rates, recorded, atol=1e-12)


def test_ema_decay_matches_the_recorded_schedule(shared: Path) -> None:
    recorded = np.load(shared / "golden" / "misc.npz")
    ema = EMA(torch.nn.Linear(1, 1), power=0.75, maximum=0.9999, delay=1)
    for n, decay in zip(recorded["ema/step"], recorded["ema/decay"], strict=True):
        assert ema.decay(int(n)) == pytest.approx(float(decay), abs=1e-6)
    # Without the delay the same sequence begins one update earlier.
    sooner = EMA(torch.nn.Linear(1, 1), power=0.75, maximum=0.9999)
    assert [sooner.decay(n) for n in range(20)] == [ema.decay(n + 1) for n in range(20)]


def test_unknown_recipes_name_the_close_ones() -> None:
    from uva_agents.training.cli import add_arguments, configure

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(ValueError, match="pusht-nano"):
        configure(parser.parse_args(["pusht-nan", "--data", "x"]))
    changed = configure(parser.parse_args(["pusht-nano", "--data", "x", "--joint-steps", "7", "--batch-size", "9"]))
    network = changed.network
    assert (network.joint.steps, network.joint.batch_size, changed.autoencoder.stage.batch_size) == (7, 9, 64)
