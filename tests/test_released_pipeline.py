"""What released recipes draw and hand to the network, batch by batch."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.released_data import ENDS, WRITERS, pictures, rotations, smooth, tiny_clip
from tests.test_released_steps import few_validated, options, small  # noqa: F401
from uva_agents.checkpoints.tensor_files import load_tensors
from uva_agents.data import absolute_actions
from uva_agents.data.umi import mirror_mask
from uva_agents.model import VAE, Task, UVANet
from uva_agents.training.run import RunOptions, train
from uva_agents.training.sources import Source
from uva_agents.training.uva.clip_data import count_windows
from uva_agents.training.uva.joint_stage import JointStage
from uva_agents.training.uva.named_recipes import named
from uva_agents.training.uva.recipes import UVARecipe
from uva_agents.training.uva.run import UVARun
from uva_agents.training.uva.video_network import begin_video_with, take_over_video, video_network
from uva_agents.utils.rotations import matrix_from_vector


def run_of(name: str, folder: Path, **training: object) -> UVARun:
    """A run whose autoencoder and network are small and random."""
    recipe = small(named(name))
    recipe = dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, **training))
    (folder / "data").mkdir()
    paths = WRITERS[name](folder / "data")
    clip = tiny_clip(folder / "clip") if recipe.data.instructions == "clip" else None
    data = paths[0] if len(paths) == 1 else tuple(Source(path) for path in paths)
    run = UVARun(recipe, RunOptions(data, folder / "run", text_encoder=clip))
    torch.manual_seed(0)
    run.set_autoencoder(VAE(recipe.model.vae), torch.device("cpu"))
    run.start_network()
    return run


def stage_of(run: UVARun, name: str = "joint") -> JointStage:
    training = run.recipe.network
    config = training.joint if name == "joint" else training.video
    weights = dict(training.task_weights) if name == "joint" else {Task.VIDEO: 1.0}
    model = run.model if name == "joint" else run.video_model
    return JointStage(run.recipe, config, name, model, run.mixture, weights, None, run.vae)


def inputs_at(stage: JointStage, step: int, rank: int = 0, world: int = 1) -> dict[str, Any]:
    torch.manual_seed(step)  # as the loop does, from (seed, stage, step, rank)
    return stage.inputs(step, rank, world)


def same(a: Any, b: Any) -> bool:
    """Whether two values that steps are made of are the same, bit for bit."""
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) and not a.is_floating_point() else (
        torch.equal(a.nan_to_num(7), b.nan_to_num(7)) if isinstance(a, torch.Tensor) else a == b
    )  # fmt: skip


@pytest.fixture(scope="module")
def umi(tmp_path_factory: pytest.TempPathFactory) -> UVARun:
    return run_of("uva-umi-multitask", tmp_path_factory.mktemp("umi"))


def test_a_batch_of_umi_has_one_task_and_one_masked_share_and_is_repeated_bit_for_bit(umi: UVARun) -> None:
    stage = stage_of(umi)
    tasks, counts = set(), set()
    for step in range(12):
        inputs = inputs_at(stage, step)
        shown = inputs["visibility"]
        kinds = set(zip(shown.video_loss.tolist(), shown.action_loss.tolist(), strict=True))
        assert len(kinds) == 1 and kinds <= {(False, True), (True, True)}, "policy, or policy and video"
        tasks |= kinds
        if (True, True) in kinds:
            assert (shown.future_mask == shown.future_mask[:, :1]).all(), "the same positions in all frames of a sample"
            assert len(set(shown.future_mask[:, 0].sum(-1).tolist())) == 1
            counts.add(int(shown.future_mask[0, 0].sum()))
        again = inputs_at(stage, step)
        assert all(same(inputs[key], again[key]) for key in inputs)
    assert len(tasks) == 2 and len(counts) > 1


def test_umi_draws_histories_noise_and_augmentation_for_every_sample(umi: UVARun) -> None:
    stage = stage_of(umi)
    one, other = inputs_at(stage, 0)["clips"], inputs_at(stage, 0, rank=1, world=2)["clips"]
    assert one.frames.shape == (3, 8, 48, 48, 3) and one.frames.dtype == torch.uint8 and one.wrist_frames is None
    assert not torch.equal(one.draws.factors, other.draws.factors), "another process, other samples"
    drawn = [stage._drawn_for_windows(step, 0, 1) for step in range(50)]
    histories = np.concatenate([one["history"] for one in drawn])
    assert len(np.unique(histories, axis=0)) > 100 and (histories[:, -1] != 0).any()
    noise = np.concatenate([one["start_noise"] for one in drawn])
    assert noise.shape == (150, 6) and noise.std() == pytest.approx(0.05, rel=0.1)


def test_umi_datasets_are_drawn_from_by_windows_with_their_instructions_and_without_mirrors(umi: UVARun) -> None:
    windows = umi.mixture
    assert len(windows) == count_windows(umi) == sum(len(part) for part in windows.parts)  # type: ignore[union-attr]
    sizes = np.array([len(part) for part in windows.parts])  # type: ignore[union-attr]
    np.testing.assert_allclose(np.array(windows.weights) / sum(windows.weights), sizes / sizes.sum())  # type: ignore[union-attr]
    assert all(len(part.index) == 158 - length for part, length in zip(windows.parts, held_out(umi), strict=True))  # type: ignore[union-attr]
    assert umi.texts is not None and umi.texts.dim == 512
    assert len({vectors[0].tobytes() for vectors in umi.texts.vectors}) == 3
    mirrors = mirror_mask(48, 48)
    cup, towel = (np.asarray(part.episodes.arrays["pixels"]) for part in (umi.main, umi.others[0]))
    assert (cup[:, mirrors] == 0).all() and (cup[:, ~mirrors] == pictures(48, 0)[:, ~mirrors]).all()
    np.testing.assert_array_equal(towel, pictures(48, 1))


def held_out(run: UVARun) -> list[int]:
    """Rows of the held-out episode of each dataset: of 4 episodes, a share of 0.25 is one, the same one."""
    lengths = np.diff(ENDS, prepend=0)
    return [int(lengths[run.held_out].sum())] * 3


def test_toolhang_sees_both_cameras_and_sixteen_steps_of_proprioception_and_predicts_the_next(tmp_path: Path) -> None:
    run = run_of("uva-toolhang", tmp_path)
    windows = run.train_windows
    batch = windows.batch(np.array([0, 5]))
    assert batch.wrist_frames is not None and batch.wrist_frames.shape == batch.frames.shape == (2, 8, 48, 48, 3)  # type: ignore[union-attr]
    rows = windows.index.now[[0, 5]]
    stored = np.concatenate([smooth(3, 1, 0.3), quaternions(), smooth(2, 5, 0.04)], 1)
    proprio = run.normalizer.unnormalize("agent_pos", batch.proprio).numpy()
    target = run.normalizer.unnormalize("agent_pos", batch.proprio_target).numpy()
    past = np.maximum(rows[:, None] + np.arange(-15, 1), windows.index.first[[0, 5], None])
    np.testing.assert_allclose(proprio, stored[past], atol=1e-5)
    last = windows.index.last[[0, 5], None]
    np.testing.assert_allclose(target, stored[np.minimum(rows[:, None] + np.arange(1, 17), last)], atol=1e-5)
    np.testing.assert_allclose(batch.proprio[..., 3:7].numpy(), proprio[..., 3:7], atol=1e-6)  # quaternions stay
    actions = run.normalizer.unnormalize("action", batch.actions).numpy()
    wanted = np.minimum(rows[:, None] + np.arange(16), last)
    np.testing.assert_allclose(actions[..., :3], smooth(3, 1, 0.3)[wanted], atol=1e-5)
    np.testing.assert_allclose(batch.actions[..., 3:9].numpy(), rotations(smooth(3, 2, 0.8))[wanted], atol=1e-5)
    np.testing.assert_allclose(batch.actions[..., 9].numpy(), np.sign(smooth(1, 3))[wanted][..., 0])
    assert float(batch.actions[..., :3].abs().max()) <= 1 + 1e-5


def quaternions() -> np.ndarray:
    hand = smooth(7, 4)[:, :4]
    return hand / np.linalg.norm(hand, axis=1, keepdims=True)


def test_libero_learns_the_goals_that_changes_set_from_the_pose_before(tmp_path: Path) -> None:
    """LIBERO records what is seen after each row's action; the first action of a window is that of 'now', as released."""
    run = run_of("uva-libero10", tmp_path)
    windows = run.train_windows
    chosen = np.arange(0, len(windows), 7)
    batch = windows.batch(chosen)
    pose = np.concatenate([smooth(3, 1, 0.3), smooth(3, 2, 0.8)], 1).astype(np.float32).astype(np.float64)
    changes = np.concatenate([smooth(6, 3, 0.5), np.sign(smooth(1, 4))], 1).astype(np.float32)
    rows = windows.index.steps(chosen, np.arange(16))
    before = np.maximum(rows - 1, windows.index.first[chosen][:, None])
    goals = absolute_actions(changes[rows], pose[before][..., :3], matrix_from_vector(pose[before][..., 3:]))
    found = run.normalizer.unnormalize("action", batch.actions).numpy()
    np.testing.assert_allclose(found, goals, atol=1e-5)
    np.testing.assert_allclose(batch.actions[..., 3:].numpy(), goals[..., 3:], atol=1e-5)
    assert batch.text is not None and batch.text.shape[1] == 512
    assert not bool(stage_of(run).module.model.config.proprio_dim)


def test_the_video_stage_trains_a_network_of_its_own_that_the_next_one_begins_with(tmp_path: Path) -> None:
    run = run_of("uva-toolhang", tmp_path)
    video = run.video_model
    assert video is not run.model
    names = set(video.state_dict())
    assert not any(name.startswith(("action_head", "proprio", "wrist")) for name in names)
    stage = stage_of(run, "video")
    inputs = inputs_at(stage, 0)
    loss, parts = stage.module(**inputs)
    loss.backward()
    assert not parts["action"].item() and parts["video"].item() > 0
    with torch.no_grad():
        for parameter in video.parameters():
            parameter.fill_(0.125)
    take_over_video(run)
    state = run.model.state_dict()
    shapes = UVANet(run.recipe.video_model).state_dict()
    for name, value in state.items():
        taken = name in shapes and shapes[name].shape == value.shape
        assert bool((value == 0.125).all()) == taken, name
    assert state["mix.weight"].shape[1] == 6 * 32, "what mixes the inputs begins anew where there are more of them"
    assert run.video_model is run.model


def test_a_run_that_goes_on_from_weights_begins_its_video_stage_with_them(tmp_path: Path) -> None:
    first = run_of("uva-pusht", tmp_path)
    with torch.no_grad():
        for parameter in first.model.parameters():
            parameter.fill_(0.25)
    begin_video_with(first)
    assert first.video_model is not first.model
    assert all(bool((p == 0.25).all()) for p in first.video_model.parameters())
    without = dataclasses.replace(first.recipe.network, video=dataclasses.replace(first.recipe.network.video, steps=0))
    assert video_network(dataclasses.replace(first.recipe, network=without), first.model) is first.model


def test_a_killed_run_repeats_augmentation_and_latents_and_ends_in_the_same_weights(tmp_path: Path) -> None:
    recipe = small(named("uva-pusht"))
    stages = {name: dataclasses.replace(recipe.stage(name).shortened(4), batch_size=2) for name in ("video", "joint")}  # type: ignore[union-attr]
    recipe = dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, **stages))
    given = options(recipe, tmp_path)
    whole = train(recipe, given)
    parts = dataclasses.replace(given, out=tmp_path / "parts")
    folder = None
    for _ in range(4):
        folder = folder or train(recipe, dataclasses.replace(parts, stop_after=3))
    assert whole is not None and folder is not None
    a, b = (load_tensors(path / "model.safetensors") for path in (whole, folder))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_recipes_that_encode_in_the_step_refuse_what_needs_latents_before(tmp_path: Path) -> None:
    recipe: UVARecipe = named("uva-pusht")
    for changes, name in (
        ({"model": dataclasses.replace(recipe.model, standardize=True)}, "standardize"),
        ({"network": dataclasses.replace(recipe.network, history_dropout=0.1)}, "history_dropout"),
        ({"augmentation": dataclasses.replace(recipe.augmentation, variants=2)}, "variants"),
    ):
        with pytest.raises(ValueError, match=f"not with .*{name}"):
            dataclasses.replace(recipe, **changes)
