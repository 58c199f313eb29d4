"""Recorded windows and losses of the released code, through the data pipeline: dataset -> windows -> batch -> loss."""

import dataclasses
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.datasets import zarr_buffer
from tests.test_golden_policy import Released
from tests.test_golden_small import EXTRAS, Golden
from uva_agents.data import RELEASED_TRIM, Episodes, LatentWindows, LinearNormalizer, Variant, WindowSpec
from uva_agents.data.dataset import Extras
from uva_agents.model import Draws, Task, joint_loss, patchify
from uva_agents.training.run import RunOptions
from uva_agents.training.uva import joint_stage
from uva_agents.training.uva.clip_data import count_windows
from uva_agents.training.uva.joint_stage import JointStage
from uva_agents.training.uva.named_recipes import named
from uva_agents.training.uva.run import UVARun
from uva_agents.utils.rotations import matrix_from_rot6d, pose_matrix, rot6d_from_matrix


def recorded_windows(golden: Golden) -> tuple[LatentWindows, np.ndarray]:
    """A dataset of the recording's two samples, an episode each; and the numbers of the windows that they are.

    Rows that the recording does not have are noise: a batch that took one of them would be another.
    """
    i, past = golden.inputs, golden.model.config.history_actions
    now = 16 if past else 15  # with past actions, the released windows have one more row in front
    length, n = now + 17, 2
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(n, length, 256, 16)).astype(np.float32)
    actions = rng.uniform(-1, 1, (n, length, i["actions"].shape[-1])).astype(np.float32)
    tokens[:, now - 12 : now + 1 : 4] = patchify(i["z_cond"], 1).numpy()
    tokens[:, now + 4 : now + 17 : 4] = patchify(i["z_future"], 1).numpy()
    actions[:, now : now + 16] = i["actions"].numpy()
    if past:
        actions[:, now - 16 : now] = i["history_actions"].numpy()
    frames = np.zeros((n * length, 8, 8, 3), np.uint8)
    data = Episodes({"pixels": frames, "action": actions.reshape(n * length, -1)}, np.arange(1, n + 1) * length)
    normalizer = LinearNormalizer.from_limits({"action": (-np.ones(actions.shape[-1]), np.ones(actions.shape[-1]))})
    text = None if "text" not in i else i["text"].numpy()
    windows = LatentWindows(
        data,
        [tokens.reshape(n * length, 256, 16)],
        [Variant()],
        normalizer,
        WindowSpec(),
        proprio_key=None,
        history_actions=past,
        extras=Extras(text=text, trim=RELEASED_TRIM),
    )
    return windows, np.flatnonzero(np.isin(windows.index.now % length, [now]))


def stage_of(golden: Golden, windows: Any, chosen: np.ndarray, training: Any = None) -> JointStage:
    """The joint stage of a released recipe, on these windows in this order."""
    recipe = named("uva-libero10" if golden.model.config.text_dim else "uva-pusht")
    network = dataclasses.replace(recipe.network, text_dropout=0.0, history_action_dropout=0.0, clips=None)
    network = dataclasses.replace(network, joint=dataclasses.replace(network.joint, batch_size=len(chosen)))
    recipe = dataclasses.replace(recipe, model=golden.model.config, network=network)
    weights = dict(recipe.network.task_weights)
    stage = JointStage(recipe, network.joint, "joint", golden.model, windows, weights, None)
    windows.order = lambda *_, **__: SimpleNamespace(at=lambda _: (chosen, 0))
    stage.module.eval()
    return stage


@pytest.fixture(scope="module", params=list(EXTRAS))
def golden(request: pytest.FixtureRequest, shared: Path) -> Golden:
    return Golden(shared / "golden", request.param)


@pytest.mark.parametrize("task", list(Task))
def test_recorded_losses_come_out_of_the_data_pipeline(
    golden: Golden, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows, chosen = recorded_windows(golden)
    assert len(chosen) == 2
    stage = stage_of(golden, windows, chosen)
    monkeypatch.setattr(joint_stage, "draw_tasks", lambda n, weights, together: [task] * n)
    monkeypatch.setattr(joint_stage, "draw_mask", lambda n, **_: golden.inputs["mask"][:n])
    monkeypatch.setattr(joint_stage, "joint_loss", partial(joint_loss, draws=golden.draws(task)))
    inputs = stage.inputs(0, 0, 1)
    torch.testing.assert_close(inputs["context"].actions, golden.inputs["actions"])
    with torch.no_grad():
        total, parts = stage.module(**inputs)
    for found, recorded in ((total, "loss"), (parts["video"], "video_loss"), (parts["action"], "action_loss")):
        expected = float(golden.outputs[f"{task.value}/{recorded}"])
        assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-6), recorded


def test_another_row_as_now_gives_other_losses(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail."""
    windows, chosen = recorded_windows(golden)
    stage = stage_of(golden, windows, chosen + 1)
    monkeypatch.setattr(joint_stage, "draw_tasks", lambda n, weights, together: [Task.POLICY_VIDEO] * n)
    monkeypatch.setattr(joint_stage, "draw_mask", lambda n, **_: golden.inputs["mask"][:n])
    monkeypatch.setattr(joint_stage, "joint_loss", partial(joint_loss, draws=golden.draws(Task.POLICY_VIDEO)))
    with torch.no_grad():
        _, parts = stage.module(**stage.inputs(0, 0, 1))
    for name in ("video", "action"):
        expected = float(golden.outputs[f"full_dynamic_model/{name}_loss"])
        assert abs(float(parts[name]) / expected - 1) > 1e-3


def numbered_pusht(path: Path, ends: np.ndarray) -> Path:
    """PushT's format; every picture has the number of its row as its brightness, and the action says it, too."""
    rows = np.arange(ends[-1])
    img = np.broadcast_to(rows[:, None, None, None], (len(rows), 96, 96, 3)).astype(np.float32)
    action = np.stack([rows, -rows], 1).astype(np.float32)
    state = np.zeros((len(rows), 5), np.float32)
    return zarr_buffer(path, {"img": img, "state": state, "action": action}, ends=ends)


def test_recorded_windows_come_out_of_a_pusht_dataset(shared: Path, tmp_path: Path) -> None:
    recorded = np.load(shared / "golden" / "misc.npz")
    ends = recorded["sampler/episode_ends"]
    run = UVARun(named("uva-pusht"), RunOptions(numbered_pusht(tmp_path / "d.zarr", ends), tmp_path / "run"))
    run.train = np.flatnonzero(recorded["sampler/mask"])
    windows = run.train_windows
    begin, _, first, last = recorded["sampler/indices_h32_pb1_pa7"].T
    assert len(windows) == count_windows(run) == len(begin)
    batch = windows.batch(np.arange(len(begin)))
    # A row of 32 steps whose edges are filled by repetition, of which every fourth frame is seen.
    rows = np.clip(np.arange(32) - first[:, None], 0, (last - first)[:, None] - 1) + begin[:, None]
    assert batch.frames is not None and batch.frames.shape[1:] == (8, 96, 96, 3)
    np.testing.assert_array_equal(batch.frames[:, :, 5, 7, 1].numpy(), rows[:, 3::4])
    actions = run.normalizer.unnormalize("action", batch.actions)
    np.testing.assert_allclose(actions[..., 0].numpy(), rows[:, 15:31], atol=1e-3)
    assert batch.proprio is None and batch.text is None


class AsRecorded:
    """In place of an augmentation: pictures whose row is their brightness become the recorded ones, floats and not rounded."""

    identity = False

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def draw(self, count: int, **_: object) -> None:
        return None

    def apply(self, clips: torch.Tensor, draws: None) -> torch.Tensor:
        return self.images[clips[:, :, 0, 0, 0].long()]


@pytest.mark.long
@pytest.mark.parametrize("task", [Task.POLICY_VIDEO, Task.FORWARD])
def test_the_released_size_gives_the_recorded_losses_from_a_dataset_on_disk(
    shared: Path, tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mar_base and kl-f16: pictures through resizing, encoder and posterior; actions through the normaliser."""
    policy = Released(shared / "golden")
    r = {k.removeprefix(f"train_{task.value}/"): v for k, v in policy.recorded.items()}
    more = np.load(shared / "golden" / "misc.npz")["norm/action_data"][
        :200
    ]  # what the recorded normaliser was fitted to
    ends = np.array([32, 232])
    path = numbered_pusht(tmp_path / "d.zarr", ends)
    recipe = named("uva-pusht")
    run = UVARun(recipe, RunOptions(path, tmp_path / "run"))
    arrays = run.main.episodes.arrays
    limits = np.stack([policy.recorded["normalizer_fit_action_min"], policy.recorded["normalizer_fit_action_max"]])
    arrays["action"][:] = np.concatenate([policy.recorded["actions_raw"][0], more])
    arrays["action"][-2:] = limits
    run.train = np.array([0])
    run.vae, run.model = policy.vae, policy.model
    joint = dataclasses.replace(recipe.network.joint, batch_size=1)
    weights = dict(recipe.network.task_weights)
    stage = JointStage(run.recipe, joint, "joint", run.model, run.train_windows, weights, None, run.vae)
    field = torch.from_numpy(policy.recorded["image_field"]).float()
    images = F.interpolate(field, (96, 96), mode="bilinear", align_corners=False).add(0.5).clamp(0, 1)
    augmentation = AsRecorded(images)
    encoder: Any = stage.module.encoder
    stage.module.encoder = dataclasses.replace(encoder, augmentation=augmentation)
    stage.windows.order = lambda *_, **__: SimpleNamespace(
        at=lambda _: (np.flatnonzero(stage.windows.index.now == 15), 0)
    )
    noise = [torch.from_numpy(part) for part in np.split(r["noise_flat"], np.cumsum(r["draw_sizes"])[:-1])]
    posterior = noise[:2]
    monkeypatch.setattr(torch, "randn", lambda shape, **_: posterior.pop(0).view(shape))
    draws = {"video": Draws(torch.from_numpy(r["t0"]).long(), noise[2].view(1024, 16))}
    if "t1" in r:
        draws["action"] = Draws(torch.from_numpy(r["t1"]).long(), noise[3].view(16, 2))
    mask = torch.from_numpy(r["mask"]).float()[:, None].expand(-1, 4, -1)
    monkeypatch.setattr(joint_stage, "draw_tasks", lambda n, weights, together: [task] * n)
    monkeypatch.setattr(joint_stage, "draw_mask", lambda n, **_: mask)
    monkeypatch.setattr(joint_stage, "joint_loss", partial(joint_loss, draws=draws))
    inputs = stage.inputs(0, 0, 1)
    np.testing.assert_allclose(inputs["context"].actions.numpy(), r["trajectory"], atol=1e-5)
    stage.module.eval()
    with torch.no_grad():
        total, parts = stage.module(**inputs)
    assert not posterior, "the recorded noise of both posteriors is used, the future's first"
    for found, expected in zip((total, parts["video"], parts["action"]), r["losses"], strict=True):
        assert float(found) == pytest.approx(float(expected), rel=1e-4, abs=1e-6)


def test_recorded_relative_poses_come_out_of_umi_recordings(shared: Path, tmp_path: Path) -> None:
    """Every third row is a step of the recording; the rows between are noise. Now is its step 15."""
    misc = np.load(shared / "golden" / "misc.npz")
    rng = np.random.default_rng(0)
    length, now = 3 * 31 + 1, 45
    pose = rng.normal(0, 0.3, (length, 6))
    pose[::3] = misc["pose/pose_axis_angle"]
    width = rng.uniform(0, 0.08, (length, 1)).astype(np.float32)
    pictures = np.broadcast_to(np.arange(length, dtype=np.uint8)[:, None, None, None], (length, 32, 32, 3))
    arrays = {
        "camera0_rgb": np.array(pictures),
        "robot0_eef_pos": pose[:, :3].astype(np.float32),
        "robot0_eef_rot_axis_angle": pose[:, 3:].astype(np.float32),
        "robot0_gripper_width": width,
        "robot0_demo_start_pose": np.repeat(misc["pose/start"][None], length, 0),
        "robot0_demo_end_pose": pose,
    }
    path = zarr_buffer(tmp_path / "towel_folding_0.zarr", arrays, ends=np.array([length]))
    recipe = named("uva-umi-multitask")
    data = dataclasses.replace(recipe.data, held_out=0, instructions="none", instructions_of={})
    model = dataclasses.replace(recipe.model, text_dim=0)
    run = UVARun(dataclasses.replace(recipe, data=data, model=model), RunOptions(path, tmp_path / "run"))
    windows = run.train_windows
    assert len(windows) == length, "every row is a now"
    batch = windows.batch(np.array([now]))
    relative, from_start = misc["pose/relative_to_15_pose9"], misc["pose/rot6d_wrt_start"]
    steps = [3, 7, 11, 15]
    assert batch.proprio is not None and batch.proprio_target is not None and batch.frames is not None
    np.testing.assert_allclose(batch.actions[0, :, :9].numpy(), relative[16:], atol=2e-6)
    np.testing.assert_allclose(batch.actions[0, :, 9:].numpy(), width[now + 3 :: 3][:16], atol=1e-7)
    np.testing.assert_allclose(batch.proprio[0, :, :9].numpy(), relative[steps], atol=2e-6)
    np.testing.assert_allclose(batch.proprio[0, :, 9:10].numpy(), width[[3 * step for step in steps]], atol=1e-7)
    np.testing.assert_allclose(batch.proprio[0, :, 10:].numpy(), from_start[steps], atol=2e-6)
    np.testing.assert_allclose(batch.proprio_target[0].numpy(), from_start[16:], atol=2e-6)
    assert batch.frames[0, :, 0, 0, 0].tolist() == [3 * step for step in (*steps, 19, 23, 27, 31)]
    # Another history: the same poses, seen from now as before.
    drawn = windows.batch(np.array([now]), history=np.array([[-42, -30, -15, -3]]))
    assert drawn.proprio is not None and drawn.frames is not None
    np.testing.assert_allclose(drawn.proprio[0, :, :9].numpy(), relative[[1, 5, 10, 14]], atol=2e-6)
    assert drawn.frames[0, :4, 0, 0, 0].tolist() == [3, 15, 30, 42]
    # Noise on the start pose changes what is seen from there, and nothing else.
    moved = windows.batch(np.array([now]), start_noise=np.full((1, 6), 0.05))
    assert moved.proprio is not None and moved.proprio_target is not None
    torch.testing.assert_close(moved.proprio[..., :10], batch.proprio[..., :10])
    assert (moved.proprio[..., 10:] - batch.proprio[..., 10:]).abs().max() > 0.01
    first = pose_matrix(misc["pose/start"])[:3, :3]
    expected = pose_matrix(misc["pose/start"] + 0.05)[:3, :3].T @ first @ matrix_from_rot6d(from_start)
    np.testing.assert_allclose(moved.proprio_target[0].numpy(), rot6d_from_matrix(expected)[16:], atol=2e-6)
