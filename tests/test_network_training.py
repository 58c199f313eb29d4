"""Training of Diffusion Policy and the two-frame baseline: windows, recipes end to end, resumption, errors that name mistakes."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import uva_agents as uva
from tests.test_training import curve
from tests.tiny import observation, tiny_dataset, tiny_dp_config, tiny_encoder
from uva_agents.data import (
    EpochOrder,
    Field,
    FrameWindows,
    LinearNormalizer,
    WindowSpec,
    read_replay_buffer,
    write_replay_buffer,
)
from uva_agents.data.frame_windows import cut
from uva_agents.model import DiffusionPolicyNet, TwoFrameConfig
from uva_agents.model.keypoints.detector import ConvDetector
from uva_agents.training.baselines.diffusion_stage import DiffusionStage, KeypointDiffusionStage, observe_positions
from uva_agents.training.baselines.named_recipes import DIFFUSION_POLICY_RECIPES, TWO_FRAME_RECIPES
from uva_agents.training.baselines.position_augmentation import PositionAugmentation
from uva_agents.training.baselines.recipes import (
    DiffusionPolicyRecipe,
    TwoFrameRecipe,
    dp_c_nano,
    dp_t,
    two_frame_pusht,
)
from uva_agents.training.cli import add_arguments, configure
from uva_agents.training.recipe import NetworkRecipe, StageConfig
from uva_agents.training.run import RunOptions, train

STAGE = StageConfig(steps=8, batch_size=8, lr=2e-3, warmup=2, validate_every=4)


def tiny_policy_recipe(**changes: object) -> DiffusionPolicyRecipe:
    recipe = dp_c_nano()
    tiny = {"model": tiny_dp_config(), "stage": STAGE, "data": replace(recipe.data, held_out=1)}
    return replace(recipe, **(tiny | changes))


def tiny_pair_recipe(**changes: object) -> TwoFrameRecipe:
    recipe = two_frame_pusht()
    model = TwoFrameConfig(tiny_encoder(frames=2, crop=88), width=32)
    return replace(recipe, **({"model": model, "stage": STAGE, "data": replace(recipe.data, held_out=1)} | changes))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data") / "d.zarr")


def windows(data: Path, spec: WindowSpec, **options: object) -> FrameWindows:
    episodes = read_replay_buffer(data)
    limits = {k: (np.zeros(2), np.full(2, 512.0)) for k in ("action", "agent_pos")}
    return FrameWindows(episodes, episodes.arrays["pixels"], LinearNormalizer.from_limits(limits), spec, **options)


def test_a_window_holds_two_observations_and_the_actions_from_now_on(data: Path) -> None:
    episodes = read_replay_buffer(data)
    some = windows(data, WindowSpec(2, 1, 16, 0), proprio_key="agent_pos")
    assert len(some) == episodes.steps
    batch = some.batch([30, 24])  # episodes have 24 steps: the second window is the first of its episode
    assert batch.frames.shape == (2, 2, 96, 96, 3) and batch.corner is None and batch.actions.shape == (2, 16, 2)
    np.testing.assert_array_equal(batch.frames[0].numpy(), episodes.arrays["pixels"][[29, 30]])
    np.testing.assert_array_equal(batch.frames[1].numpy(), episodes.arrays["pixels"][[24, 24]])
    back = (batch.actions[0].numpy() + 1) * 256
    np.testing.assert_allclose(back, np.clip(episodes.arrays["action"][30:46], 0, 512), atol=1e-3)
    assert batch.proprio is not None
    np.testing.assert_allclose((batch.proprio[0].numpy() + 1) * 256, episodes.arrays["agent_pos"][[29, 30]], atol=1e-3)


def test_crops_lie_where_their_corners_say(data: Path) -> None:
    some = windows(data, WindowSpec(2, 1, 16, 0))
    frames = some.pixels
    rng = np.random.default_rng(0)
    for together in (True, False):
        batch = some.batch([5, 40], crop=84, rng=rng, together=together)
        assert batch.corner is not None
        corner = batch.corner.numpy().astype(int)
        assert corner.min() >= 0 and corner.max() <= 12
        for i, now in enumerate((5, 40)):
            for k in range(2):
                x, y = corner[i, k]
                assert frames is not None
                expected = frames[now - 1 + k, y : y + 84, x : x + 84]
                np.testing.assert_array_equal(batch.frames[i, k].numpy(), expected)
        assert (corner[:, 0] == corner[:, 1]).all() == together
    with pytest.raises(ValueError, match="rng="):
        some.batch([5], crop=84)
    assert cut(frames, np.array([3]), np.array([[12, 0]]), 84).shape == (1, 84, 84, 3)


def test_a_pair_never_crosses_an_episode(data: Path) -> None:
    spec = WindowSpec(n_frames=1, stride=1, action_steps=1)
    some = windows(data, spec, trim=(0, 1), frame_offsets=(0, 1))
    assert len(some) == 6 * 23
    rows = some.index.steps(np.arange(len(some)), some.frame_offsets)
    assert (rows[:, 1] - rows[:, 0] == 1).all() and not (rows[:, 1] % 24 == 0).any()


def test_a_policy_recipe_runs_end_to_end_and_its_weights_act(data: Path, tmp_path: Path) -> None:
    folder = train(tiny_policy_recipe(), RunOptions(data, tmp_path / "run", progress=False))
    assert folder is not None
    policy = uva.DiffusionPolicy.from_pretrained(folder, steps=4)
    assert policy.name == "dp-c-nano" and policy.spec.env_id == "uva/PushT-v0" and policy.execute == 8
    assert policy.sample(observation(0), n=3).shape == (3, 16, 2)
    lines = curve(tmp_path / "run" / "policy")
    last = [line for line in lines if line["kind"] == "val"][-1]
    assert last["step"] == 8 and last["windows"] == 24 and last["samples"] == 4
    for name in ("loss", "action_error", "action_error8", "best_error", "spread"):
        assert np.isfinite(last[name]) and last[name] > 0, name
    assert last["best_error"] <= last["action_error"]
    assert json.loads((folder / "config.json").read_text())["recipe"]["draws"] == 2
    # A finished run is not trained again; weights continue another run.
    assert train(tiny_policy_recipe(), RunOptions(data, tmp_path / "run", progress=False)) == folder
    again = train(
        replace(tiny_policy_recipe(), name="more"), RunOptions(data, tmp_path / "more", init=folder, progress=False)
    )
    assert again is not None


def test_a_policy_that_sees_with_a_point_reader_trains_on_its_key_points(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reader = ConvDetector(keypoints=10, widths=(16, 32), features=8, width=(16, 32))
    save_file(reader.state_dict(), tmp_path / "reader.safetensors")
    options = RunOptions(data, tmp_path / "run", detector_weights=tmp_path / "reader.safetensors", progress=False)
    folder = train(tiny_policy_recipe(), options)
    assert folder is not None
    policy = uva.DiffusionPolicy.from_pretrained(folder)
    encoder = policy.bundle.model.encoder
    assert encoder.config.crop == encoder.config.image_size  # it has seen whole images
    for name, value in reader.trunk.state_dict().items():
        torch.testing.assert_close(encoder.trunk.state_dict()[name], value.half().float())
    assert (encoder.out.weight - reader.out.weight).abs().max() > 1e-4, (
        "the layer behind the key points goes on learning"
    )
    assert policy.sample(observation(0), n=2).shape == (2, 16, 2)


def test_a_policy_that_is_told_where_things_are_keeps_the_whole_reader(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reader = ConvDetector(keypoints=3, widths=(16, 32), features=8, width=(16, 32))
    save_file(reader.state_dict(), tmp_path / "reader.safetensors")
    options = RunOptions(data, tmp_path / "run", detector_weights=tmp_path / "reader.safetensors", progress=False)
    model = tiny_dp_config(encoder=tiny_encoder(positions=3), obs_steps=1, relations=32, modes=2, max_step=(1.0, 1.0))
    augmentation = PositionAugmentation(noise=0.1, turn=True, exchange=((1, 2),))
    recipe = tiny_policy_recipe(model=model, augmentation=augmentation, mixture_prior=replace(STAGE, steps=6))
    folder = train(recipe, options)
    prior = curve(tmp_path / "run" / "guesses")
    assert prior[-1]["step"] == 6, prior
    assert folder is not None
    policy = uva.DiffusionPolicy.from_pretrained(folder)
    for name, value in policy.bundle.model.encoder.state_dict().items():
        torch.testing.assert_close(value, reader.state_dict()[name].half().float(), msg=name)
    assert policy.sample(observation(0), n=2).shape == (2, 16, 2)


def test_a_policy_learns_from_recorded_positions_without_any_picture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    arrays = {k: rng.uniform(0, 512, (60, n)).astype(np.float32) for k, n in (("action", 2), ("state", 6))}
    write_replay_buffer(tmp_path / "d.zarr", arrays, np.array([20, 40, 60]))
    save_file(
        ConvDetector(keypoints=3, widths=(16, 32), features=8, width=(16, 32)).state_dict(), tmp_path / "r.safetensors"
    )
    fields = {
        "pixels": Field("img"),
        "action": Field("action"),
        "agent_pos": Field("state", columns=slice(0, 2)),
        "keypoints": Field("state", columns=(2, 3, 4, 5)),
    }
    recipe = tiny_policy_recipe(
        model=tiny_dp_config(encoder=tiny_encoder(positions=3), obs_steps=1, relations=32, max_step=(1.0, 1.0)),
        data=replace(dp_c_nano().data, held_out=1, fields=fields),
        positions_key="keypoints",
    )
    options = RunOptions(
        tmp_path / "d.zarr", tmp_path / "run", detector_weights=tmp_path / "r.safetensors", progress=False
    )
    folder = train(recipe, options)
    assert folder is not None
    policy = uva.DiffusionPolicy.from_pretrained(folder)
    assert policy.spec.image_shape == (96, 96)
    assert policy.sample(observation(0), n=2).shape == (2, 16, 2)
    short = replace(recipe.data, fields={**fields, "keypoints": Field("state", columns=(2, 3))})
    with pytest.raises(ValueError, match="two numbers for each of the encoder's keypoints"):
        train(replace(recipe, data=short), replace(options, out=tmp_path / "other"))


def test_key_points_computed_before_are_those_of_the_frames(data: Path) -> None:
    recipe = tiny_policy_recipe()
    net = DiffusionPolicyNet(tiny_dp_config(encoder=tiny_encoder(crop=96))).eval()
    limits = {k: (np.zeros(2), np.full(2, 512.0)) for k in ("action", "agent_pos")}
    some = windows(data, WindowSpec(2, 1, 16, 0), proprio_key="agent_pos")
    stage = KeypointDiffusionStage(recipe, net, some, some, LinearNormalizer.from_limits(limits))
    inputs = stage.inputs(0, 0, 1)
    chosen = EpochOrder(len(some), 1, recipe.stage.batch_size, recipe.seed, 0, 1).at(0)[0]
    batch = some.batch(chosen)
    torch.testing.assert_close(inputs["actions"], batch.actions)
    torch.testing.assert_close(
        observe_positions(net, inputs["keypoints"], inputs["proprio"]), net.observe(batch.frames, batch.proprio)
    )


def test_a_point_reader_of_another_size_is_refused(data: Path, tmp_path: Path) -> None:
    save_file(ConvDetector(keypoints=10).state_dict(), tmp_path / "reader.safetensors")
    options = RunOptions(data, tmp_path / "run", detector_weights=tmp_path / "reader.safetensors", progress=False)
    with pytest.raises(ValueError, match="not a convolutional keypoint detector of the size"):
        train(tiny_policy_recipe(), options)
    with pytest.raises(ValueError, match="leave out --points"):
        train(tiny_pair_recipe(), options)


def test_the_two_frame_recipe_learns_to_read_actions(data: Path, tmp_path: Path) -> None:
    stage = StageConfig(steps=180, batch_size=32, lr=3e-3, warmup=5, validate_every=180, ema_max=0.9)
    model = TwoFrameConfig(tiny_encoder(frames=2, crop=88, keypoints=16, features=32), width=32)
    recipe = tiny_pair_recipe(stage=stage, model=model)
    folder = train(recipe, RunOptions(data, tmp_path / "run", progress=False))
    assert folder is not None
    last = [line for line in curve(tmp_path / "run" / "two-frame") if line["kind"] == "val"][-1]
    # An episode that it has not seen; the square's place is the action of the frame before.
    assert last["windows"] == 23 and last["action_error"] < 0.5 * last["constant_error"], last
    video = read_replay_buffer(data).arrays["pixels"][:24]
    assert uva.TwoFrameInverse.from_pretrained(folder).label(video).shape == (23, 2)


@pytest.mark.parametrize("make", [tiny_policy_recipe, tiny_pair_recipe])
def test_an_interrupted_run_continues_the_same_curve(make: object, data: Path, tmp_path: Path) -> None:
    recipe = make()  # type: ignore[operator]
    straight = train(recipe, RunOptions(data, tmp_path / "straight", progress=False))
    folder = None
    for _ in range(5):
        folder = train(recipe, RunOptions(data, tmp_path / "pieces", progress=False, stop_after=3))
        if folder is not None:
            break
    assert straight is not None and folder is not None
    (stage,) = [p.parent.name for p in (tmp_path / "pieces").glob("*/checkpoint.pt")]
    a, b = (torch.load(tmp_path / run / stage / "checkpoint.pt", weights_only=True) for run in ("straight", "pieces"))
    assert a["step"] == b["step"] == 8
    for part in ("model", "ema"):
        for name, value in a[part].items():
            torch.testing.assert_close(value, b[part][name], atol=1e-5, rtol=1e-4, msg=f"{part} {name}")
    lines = [[x for x in curve(tmp_path / run / stage) if x["kind"] == "val"] for run in ("straight", "pieces")]
    assert len(lines[0]) == len(lines[1]) == 2
    for one, other in zip(*lines, strict=True):
        assert {**one, "kind": 0} == pytest.approx({**other, "kind": 0}, rel=1e-3)


@pytest.mark.long
def test_kill_9_in_the_middle_leaves_the_same_curve(data: Path, tmp_path: Path) -> None:
    """A real process, killed without warning, then started again."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "import torch; torch.set_num_threads(1)\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from tests.test_network_training import tiny_policy_recipe\n"
        "import uva_agents.training.steps as s\n"
        "from uva_agents.training.run import RunOptions, train\n"
        "from uva_agents.training.loop import LoopOptions\n"
        "s.LoopOptions = lambda *a, **k: replace(LoopOptions(*a, **k), checkpoint_every_s=0.3)\n"
        "recipe = tiny_policy_recipe()\n"
        "recipe = replace(recipe, stage=replace(recipe.stage, steps=150, validate_every=150))\n"
        f"train(recipe, RunOptions(Path({str(data)!r}), Path(sys.argv[1]), progress=False))\n"
    )

    def start(out: Path) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-c", script, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    assert start(tmp_path / "straight").wait(timeout=600) == 0
    process = start(tmp_path / "killed")
    folder, deadline = tmp_path / "killed" / "policy", time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        log = folder / "metrics.jsonl"
        if (folder / "checkpoint.pt").exists() and log.exists() and any(x.get("step", 0) >= 50 for x in curve(folder)):
            break
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert start(tmp_path / "killed").wait(timeout=600) == 0
    curves = [
        {line["step"]: line["loss"] for line in curve(tmp_path / run / "policy") if line["kind"] == "train"}
        for run in ("straight", "killed")
    ]
    assert curves[0].keys() == curves[1].keys() == {25, 50, 75, 100, 125, 150}
    # Means that the kill cut through cover fewer steps: at most two. The others have the same batches and noise.
    off = [step for step, loss in curves[0].items() if abs(loss - curves[1][step]) > 1e-3 * loss]
    assert len(off) <= 2, off
    saved = [
        torch.load(tmp_path / run / "policy" / "checkpoint.pt", weights_only=True)["model"]
        for run in ("straight", "killed")
    ]
    for name, value in saved[0].items():
        torch.testing.assert_close(value, saved[1][name], atol=1e-4, rtol=1e-3, msg=name)


def test_an_excerpt_of_the_demonstrations_is_learned_from(shared: Path, tmp_path: Path) -> None:
    """Three human demonstrations: within 40 steps the noise is mostly found, and samples get nearer to what was done."""
    import zarr

    from uva_agents.data import write_replay_buffer

    source = zarr.open_group(str(shared / "data" / "pusht" / "pusht_cchi_v7_replay.zarr"), mode="r")
    ends = np.asarray(source["meta/episode_ends"])[:3]  # type: ignore[arg-type]
    rows = {key: np.asarray(source[f"data/{key}"][: ends[-1]]) for key in ("img", "action", "state", "keypoint")}  # type: ignore[index]
    write_replay_buffer(tmp_path / "d.zarr", {**rows, "img": rows["img"].astype(np.uint8)}, ends)
    stage = StageConfig(steps=40, batch_size=32, lr=3e-3, warmup=2, validate_every=1, ema_max=0.8)
    recipe = tiny_policy_recipe(draws=4)
    train(
        replace(recipe, stage=replace(stage, validate_every=20)),
        RunOptions(tmp_path / "d.zarr", tmp_path / "run", progress=False),
    )
    lines = [line for line in curve(tmp_path / "run" / "policy") if line["kind"] == "val"]
    assert [line["step"] for line in lines] == [20, 40]
    # An untrained network's loss is about 1 (it predicts no noise); two places on the table are 267 px apart on average.
    assert lines[-1]["loss"] < 0.45 and lines[-1]["action_error"] < lines[0]["action_error"] < 270, lines


def test_only_the_transformer_decays_faster_than_its_encoder() -> None:
    recipe = replace(dp_t(), model=tiny_dp_config("transformer"))
    net = DiffusionPolicyNet(tiny_dp_config("transformer"))
    stage = DiffusionStage(recipe, net, None, None, None)
    groups = stage.parameter_groups(1e-3)
    assert [g["weight_decay"] for g in groups] == [1e-6, 0.0, 1e-3, 0.0]
    assert sum(len(g["params"]) for g in groups) == len(list(net.parameters()))
    plain = {id(p) for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    assert id(net.denoiser.action_pos) in plain and id(net.denoiser.memory_pos) in plain
    assert id(dict(net.denoiser.named_parameters())["decoder.layers.0.self_attn.in_proj_weight"]) not in plain


def test_published_settings_are_those_of_the_recipe() -> None:
    for name, betas, decay, warmup in (("dp-c", (0.95, 0.999), 1e-6, 500), ("dp-t", (0.9, 0.95), 1e-3, 1000)):
        recipe = DIFFUSION_POLICY_RECIPES[name]()
        s = recipe.stage
        assert (s.lr, s.betas, s.weight_decay, s.warmup, s.batch_size) == (1e-4, betas, decay, warmup, 64)
        assert (s.ema_power, s.ema_max, s.final_lr, recipe.draws) == (0.75, 0.9999, 0.0, 1)
        assert not recipe.crop_together and not recipe.model.encoder.full_coordinates


def test_recipes_are_found_by_name_and_options_that_do_not_apply_are_named() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)

    def parse(*words: str) -> NetworkRecipe:
        recipe = configure(parser.parse_args([*words, "--data", "x"]))
        assert isinstance(recipe, NetworkRecipe)
        return recipe

    for name in [*DIFFUSION_POLICY_RECIPES, *TWO_FRAME_RECIPES]:
        assert parse(name).name == name
    changed = parse("dp-c-nano", "--steps", "30", "--batch-size", "9", "--lr", "0.1", "--seed", "4")
    assert (changed.stage.steps, changed.stage.batch_size, changed.stage.lr, changed.seed) == (30, 9, 0.1, 4)
    assert changed.stage.validate_every == 30 and changed.stage.warmup == 3
    with pytest.raises(ValueError, match="dp-c-nano"):
        parse("dp-c-nana")
    with pytest.raises(ValueError, match="--joint-steps does not apply"):
        parse("dp-c-nano", "--joint-steps", "3")
    with pytest.raises(ValueError, match="several stages"):
        parse("pusht-nano", "--steps", "3")


def test_data_that_does_not_fit_is_refused(data: Path, tmp_path: Path) -> None:
    options = RunOptions(data, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="action_dim=3"):
        train(replace(tiny_policy_recipe(), model=tiny_dp_config(action_dim=3)), options)
    with pytest.raises(ValueError, match="proprio_dim=5"):
        train(replace(tiny_policy_recipe(), model=tiny_dp_config(proprio_dim=5)), options)
    with pytest.raises(ValueError, match="--vae"):
        train(tiny_policy_recipe(), replace(options, vae_weights=Path("vae.safetensors")))
    train(tiny_policy_recipe(), replace(options, stop_after=1))
    with pytest.raises(ValueError, match="another configuration"):
        train(tiny_policy_recipe(draws=1), replace(options, stop_after=1))
