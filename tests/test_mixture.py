"""Mixtures, UMI's relative windows, LIBERO's absolute actions."""

import numpy as np
import pytest
import torch

from tests import datasets
from uva_agents.data import (
    RELEASED_UMI_SPEC,
    Episodes,
    LatentWindows,
    LinearNormalizer,
    MixtureOrder,
    MixtureWindows,
    UmiWindows,
    Variant,
    WindowSpec,
    absolute_actions,
    absolute_poses,
    black_mirrors,
    open_dataset,
    relative_actions,
    site_rotation,
)
from uva_agents.data.mixture import BLOCK
from uva_agents.data.umi import mirror_mask
from uva_agents.utils.rotations import matrix_from_vector, pose9_from_matrix, pose_matrix


def test_a_mixture_draws_by_weight_and_every_window_before_any_again():
    order = MixtureOrder((50, 1000, 10), (1.0, 3.0, 0.0), 64, seed=4)
    drawn = np.concatenate([order.at(step)[0] for step in range(BLOCK // 64)])
    assert (drawn < 50).sum() == BLOCK // 4 and (drawn >= 1050).sum() == 0
    first = drawn[drawn < 50]
    assert sorted(first[:50]) == list(range(50)) and sorted(first[50:100]) == list(range(50))
    assert first[:50].tolist() != first[50:100].tolist()
    large = drawn[drawn >= 50]
    assert sorted(large[:1000]) == list(range(50, 1050))


def test_the_order_is_a_function_of_seed_and_step_and_ranks_split_it():
    whole = MixtureOrder((50, 70), (1, 1), 32, (1, 3), seed=1)
    again = MixtureOrder((50, 70), (1, 1), 32, (1, 3), seed=1)
    for step in (200, 3, BLOCK // 32 - 1, BLOCK // 32):  # in any order, over the edge of a block
        for a, b in zip(whole.at(step), again.at(step), strict=True):
            np.testing.assert_array_equal(a, b)
        ranks = [MixtureOrder((50, 70), (1, 1), 16, (1, 3), seed=1, rank=r, world=2).at(step) for r in range(2)]
        np.testing.assert_array_equal(np.concatenate([rank[0] for rank in ranks]), whole.at(step)[0])
    assert whole.at(0)[0].tolist() != MixtureOrder((50, 70), (1, 1), 32, (1, 3), seed=2).at(0)[0].tolist()
    windows, variants = whole.at(5)
    assert (variants[windows < 50] == 0).all() and set(variants[windows >= 50]) == {0, 1, 2}


def test_weights_that_make_no_sense_are_refused():
    for weights, message in (
        ((0, 0), "above 0"),
        ((1, -1), "0 or more"),
        ((1, 1e-9), "less than one window"),
        ((1,), "1 weights"),
    ):
        with pytest.raises(ValueError, match=message):
            MixtureOrder((5, 5), weights, 4)
    with pytest.raises(ValueError, match="no windows"):
        MixtureOrder((5, 0), (1, 1), 4)


def latent_windows(steps, value, *, actions=True, dim=7):
    rng = np.random.default_rng(steps)
    arrays = {"pixels": np.zeros((steps, 8, 8, 3), np.uint8)}
    if actions:
        arrays |= {name: rng.uniform(-1, 1, (steps, dim)).astype(np.float32) for name in ("action", "agent_pos")}
    episodes = Episodes(arrays, np.array([steps]))
    limits = {name: (-np.ones(dim), np.ones(dim)) for name in ("action", "agent_pos")}
    tokens = np.full((steps, 2, 4), value, np.float16)
    return LatentWindows(
        episodes,
        [tokens],
        [Variant()],
        LinearNormalizer.from_limits(limits),
        WindowSpec(),
        proprio_key="agent_pos" if actions else None,
        action_dim=dim,
        history_actions=True,
    )


def test_batches_of_a_mixture_come_from_the_right_dataset_in_the_order_drawn():
    a, b = latent_windows(30, 1.0), latent_windows(40, 2.0)
    mixture = MixtureWindows([a, b], [1, 1])
    assert len(mixture) == 70
    windows = np.array([3, 45, 29, 69, 0])
    batch = mixture.batch(windows)
    assert batch.history[:, 0, 0, 0].tolist() == [1, 2, 1, 2, 1]
    torch.testing.assert_close(batch.actions[1], b.batch(np.array([15])).actions[0])
    torch.testing.assert_close(batch.actions[2], a.batch(np.array([29])).actions[0])
    assert batch.has_actions.all()
    torch.testing.assert_close(mixture.batch(windows, tokens=False).actions, batch.actions)
    with pytest.raises(ValueError, match="number of actions"):
        MixtureWindows([a, latent_windows(30, 1.0, dim=2)], [1, 1])


def test_video_without_actions_says_so_and_is_trained_as_video_only():
    from types import SimpleNamespace

    from uva_agents.model.uva.config import Task
    from uva_agents.training.uva.joint_stage import without_unknown_actions

    mixture = MixtureWindows([latent_windows(30, 1.0), latent_windows(40, 2.0, actions=False)], [1, 1])
    batch = mixture.batch(np.array([3, 45, 12]))
    assert batch.has_actions is not None and batch.proprio is not None and batch.history_actions is not None
    assert batch.has_actions.tolist() == [True, False, True]
    assert (batch.actions[1] == 0).all() and batch.proprio[1].isnan().all() and batch.history_actions[1].isnan().all()
    assert batch.proprio[[0, 2]].isfinite().all()
    tasks = without_unknown_actions([Task.POLICY, Task.POLICY, Task.INVERSE], batch)
    assert tasks == [Task.POLICY, Task.VIDEO, Task.INVERSE]
    assert without_unknown_actions([Task.POLICY], SimpleNamespace(has_actions=None)) == [Task.POLICY]
    with pytest.raises(ValueError, match="pass action_dim"):
        LatentWindows(
            Episodes({"pixels": np.zeros((5, 8, 8, 3), np.uint8)}, np.array([5])),
            [np.zeros((5, 2, 4), np.float16)],
            [Variant()],
            LinearNormalizer.from_limits({}),
            WindowSpec(),
            proprio_key=None,
        )


# -- UMI -------------------------------------------------------------------------------------------


def umi_recording(side=32):
    rng = np.random.default_rng(0)
    pixels = datasets.recording(side)["pixels"]
    n = len(pixels)
    start = np.repeat(rng.normal(0, 0.3, (2, 6)), np.diff(datasets.ENDS, prepend=0), axis=0)
    return {
        "camera0_rgb": pixels,
        "robot0_eef_pos": rng.normal(0, 0.2, (n, 3)).astype(np.float32),
        "robot0_eef_rot_axis_angle": rng.normal(0, 0.8, (n, 3)).astype(np.float32),
        "robot0_gripper_width": rng.uniform(0, 0.08, (n, 1)).astype(np.float32),
        "robot0_demo_start_pose": start,
        "robot0_demo_end_pose": start,
    }


@pytest.mark.parametrize("codec", ["jpegxl", None])
def test_umi_recordings_are_read_from_a_zip(tmp_path, codec):
    stored = umi_recording()
    encoding = {}
    if codec:
        codecs = pytest.importorskip("imagecodecs.numcodecs", reason="UMI's pictures: pip install 'uva-agents[data]'")
        codecs.register_codecs(verbose=False)
        encoding = {"compressors": codecs.Jpegxl(level=99, numthreads=1), "filters": None}
    path = datasets.zarr_buffer(tmp_path / "d.zarr.zip", stored, chunk=1, **encoding)
    dataset = open_dataset(path)
    assert dataset.format == "umi" and dataset.control_hz == pytest.approx(59.94)
    error = np.abs(np.asarray(dataset.arrays["pixels"]).astype(int) - stored["camera0_rgb"])
    assert error.max() == 0 if codec is None else error.mean() < 2
    pose = np.concatenate([stored["robot0_eef_pos"], stored["robot0_eef_rot_axis_angle"]], axis=1)
    np.testing.assert_allclose(dataset.arrays["action"][:, :9], pose9_from_matrix(pose_matrix(pose)), atol=1e-6)
    np.testing.assert_array_equal(dataset.arrays["action"][:, 9:], stored["robot0_gripper_width"])


def test_umi_windows_are_every_third_row_relative_to_now(tmp_path):
    stored = umi_recording()
    path = datasets.zarr_buffer(tmp_path / "d.zarr", stored)
    windows = UmiWindows(open_dataset(path).episodes)
    assert len(windows) == 55
    batch = windows.batch(np.array([50, 20]))
    assert (
        batch.history.shape == (2, 4, 32, 32, 3)
        and batch.actions.shape == (2, 16, 10)
        and batch.proprio.shape == (2, 16, 16)
    )
    np.testing.assert_array_equal(batch.history[0], stored["camera0_rgb"][[20, 26, 38, 50]])
    np.testing.assert_array_equal(batch.future[0], stored["camera0_rgb"][[54, 54, 54, 54]])
    pose = pose_matrix(np.concatenate([stored["robot0_eef_pos"], stored["robot0_eef_rot_axis_angle"]], axis=1))
    # Row 53 is one step after row 50; the step before is row 47.
    np.testing.assert_allclose(
        batch.actions[0, 0, :9], pose9_from_matrix(np.linalg.inv(pose[50]) @ pose[53]), atol=1e-5
    )
    np.testing.assert_allclose(
        batch.proprio[0, -2, :9], pose9_from_matrix(np.linalg.inv(pose[50]) @ pose[47]), atol=1e-5
    )
    np.testing.assert_allclose(batch.proprio[0, -1, :9], [0, 0, 0, 1, 0, 0, 0, 1, 0], atol=1e-6)
    start = pose_matrix(stored["robot0_demo_start_pose"][50])
    np.testing.assert_allclose(
        batch.proprio[0, -1, 10:], pose9_from_matrix(np.linalg.inv(start) @ pose[50])[3:], atol=1e-5
    )
    back = absolute_poses(open_dataset(path).arrays["action"][50], batch.actions[0])
    np.testing.assert_allclose(back[0, :9], pose9_from_matrix(pose[53]), atol=1e-5)
    noisy = UmiWindows(open_dataset(path).episodes, start_noise=0.05)
    one, two = (noisy.batch(np.array([50]), seed=s).proprio for s in (1, 1))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - batch.proprio[:1]).max() > 1e-3 and np.array_equal(one[..., :10], batch.proprio[:1, :, :10])


def test_relative_poses_match_the_recorded_ones(shared):
    recorded = np.load(shared / "golden" / "misc.npz")
    pose = recorded["pose/pose_axis_angle"]
    action = np.concatenate([pose9_from_matrix(pose_matrix(pose)), np.zeros((32, 1))], axis=1).astype(np.float32)
    arrays = {
        "pixels": np.zeros((32, 8, 8, 3), np.uint8),
        "action": action,
        "demo_start_pose": np.repeat(recorded["pose/start"][None], 32, axis=0),
    }
    spec = WindowSpec(action_offset=1)  # every row, as recorded
    batch = UmiWindows(Episodes(arrays, np.array([32])), spec).batch(np.array([15]))
    np.testing.assert_allclose(batch.actions[0, :, :9], recorded["pose/relative_to_15_pose9"][16:32], atol=1e-4)
    np.testing.assert_allclose(batch.proprio[0, :, :9], recorded["pose/relative_to_15_pose9"][:16], atol=1e-4)
    np.testing.assert_allclose(batch.proprio[0, :, 10:], recorded["pose/rot6d_wrt_start"][:16], atol=1e-4)


def test_mirrors_are_blacked_out_on_both_sides():
    mask = mirror_mask(224, 224)
    assert np.abs(mask.astype(int) - mask[:, ::-1]).mean() < 0.01 and 0.03 < mask.mean() < 0.15
    # Corners of the left mirror in the full picture, cropped to its middle: (x - 338) / 2028 * 224.
    x, y = (np.array([500, 1400]) - [338, 0]) / 2028 * 224
    assert mask[int(y), int(x)] and not mask[112, 112] and not mask[:100].any()
    frames = np.full((2, 224, 224, 3), 200, np.uint8)
    found = black_mirrors(frames)
    assert (found[:, mask] == 0).all() and (found[:, ~mask] == 200).all() and (frames == 200).all()


def test_umi_recordings_of_two_arms_or_without_poses_are_refused(tmp_path):
    stored = umi_recording()
    path = datasets.zarr_buffer(tmp_path / "two.zarr", {**stored, "robot1_eef_pos": stored["robot0_eef_pos"]})
    with pytest.raises(ValueError, match="two arms"):
        open_dataset(path)
    del stored["robot0_gripper_width"]
    with pytest.raises(ValueError, match="lacks data/robot0_gripper_width"):
        open_dataset(datasets.zarr_buffer(tmp_path / "less.zarr", stored))
    assert RELEASED_UMI_SPEC.history.tolist() == [-36, -24, -12, 0]


# -- LIBERO ----------------------------------------------------------------------------------------


def test_absolute_actions_are_the_goals_that_changes_set():
    position = np.array([[0.1, 0.2, 0.3]] * 2)
    rotation = matrix_from_vector(np.array([[0.0, 0.0, 0.0], [np.pi, 0.0, 0.0]]))
    actions = np.array([[1.0, -0.5, 0.0, 0.0, 0.0, 1.0, -1.0], [2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
    found = absolute_actions(actions, position, rotation)
    np.testing.assert_allclose(found[0, :3], [0.15, 0.175, 0.3], atol=1e-6)
    c, s = np.cos(0.5), np.sin(0.5)
    np.testing.assert_allclose(found[0, 3:9], [c, -s, 0, s, c, 0], atol=1e-6)
    np.testing.assert_allclose(found[1], [0.15, 0.2, 0.3, 1, 0, 0, 0, -1, 0, 1], atol=1e-6)  # 2 is clipped to 1
    assert found.dtype == np.float32


def test_relative_actions_undo_absolute_ones():
    rng = np.random.default_rng(0)
    position, rotation = rng.normal(size=(50, 3)), matrix_from_vector(rng.normal(size=(50, 3)))
    actions = rng.uniform(-1, 1, (50, 7))
    actions[:, 6] = np.sign(actions[:, 6])
    found = relative_actions(absolute_actions(actions, position, rotation), position, rotation)
    np.testing.assert_allclose(found, actions, atol=1e-4)


def test_wrong_shapes_and_nan_are_refused_in_the_conversion():
    with pytest.raises(ValueError, match="absolute already"):
        absolute_actions(np.zeros((3, 10)), np.zeros((3, 3)), np.zeros((3, 3, 3)))
    with pytest.raises(ValueError, match=r"must be \(3, 3\)"):
        absolute_actions(np.zeros((3, 7)), np.zeros((2, 3)), np.zeros((3, 3, 3)))
    with pytest.raises(ValueError, match="finite"):
        absolute_actions(np.full((3, 7), np.nan), np.zeros((3, 3)), np.zeros((3, 3, 3)))
    quarter = site_rotation(np.eye(3))
    np.testing.assert_allclose(quarter @ [1.0, 0, 0], [0, -1, 0])
