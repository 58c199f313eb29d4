"""Episodes, readers, windows, augmentation and the latent cache."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from uva_agents.data import (
    RELEASED_TRIM,
    Episodes,
    EpochOrder,
    LatentWindows,
    LinearNormalizer,
    Variant,
    WindowIndex,
    WindowSpec,
    apply_variant,
    held_out_split,
    read_replay_buffer,
    released_validation_split,
    standard_variants,
    write_replay_buffer,
)


def arrays(steps: int = 30, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "img": rng.integers(0, 256, (steps, 32, 32, 3), dtype=np.uint8),
        "state": rng.uniform(0, 512, (steps, 5)).astype(np.float32),
        "action": rng.uniform(0, 512, (steps, 2)).astype(np.float32),
        "keypoint": rng.uniform(0, 512, (steps, 9, 2)).astype(np.float32),
    }


def episodes(ends: tuple[int, ...] = (12, 30)) -> Episodes:
    a = arrays(ends[-1])
    return Episodes(
        {
            "pixels": a["img"],
            "action": a["action"],
            "agent_pos": a["state"][:, :2],
            "keypoints": a["keypoint"].reshape(-1, 18),
        },
        np.array(ends),
    )


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_replay_buffers_of_both_zarr_formats_read_back(tmp_path: Path, zarr_format: int) -> None:
    a = arrays()
    write_replay_buffer(tmp_path / "d.zarr", a, np.array([12, 30]), zarr_format=zarr_format)
    read = read_replay_buffer(tmp_path / "d.zarr")
    np.testing.assert_array_equal(read.arrays["pixels"], a["img"])
    np.testing.assert_array_equal(read.arrays["agent_pos"], a["state"][:, :2])
    assert read.arrays["keypoints"].shape == (30, 18) and len(read) == 2


def test_float_pixels_are_accepted_in_0_255_and_in_0_1_only(tmp_path: Path) -> None:
    a = arrays()
    write_replay_buffer(tmp_path / "f.zarr", {**a, "img": a["img"].astype(np.float32)}, np.array([30]))
    np.testing.assert_array_equal(read_replay_buffer(tmp_path / "f.zarr").arrays["pixels"], a["img"])
    write_replay_buffer(tmp_path / "g.zarr", {**a, "img": a["img"].astype(np.float32) / 255}, np.array([30]))
    np.testing.assert_array_equal(read_replay_buffer(tmp_path / "g.zarr").arrays["pixels"], a["img"])
    write_replay_buffer(tmp_path / "h.zarr", {**a, "img": a["img"].astype(np.float32) * 2}, np.array([30]))
    with pytest.raises(ValueError, match=r"\[0, 255\]"):
        read_replay_buffer(tmp_path / "h.zarr")


def test_a_dataset_with_nan_names_key_step_and_episode(tmp_path: Path) -> None:
    a = arrays()
    a["action"][20, 1] = np.nan
    write_replay_buffer(tmp_path / "d.zarr", a, np.array([12, 30]))
    with pytest.raises(ValueError, match=r"'action' has NaN.*step 20 \(episode 1\)"):
        read_replay_buffer(tmp_path / "d.zarr")


def test_empty_missing_foreign_and_incomplete_datasets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no dataset at"):
        read_replay_buffer(tmp_path / "nowhere.zarr")
    (tmp_path / "plain").mkdir()
    with pytest.raises(ValueError, match="not a zarr group"):
        read_replay_buffer(tmp_path / "plain")
    a = arrays(0)
    write_replay_buffer(tmp_path / "empty.zarr", a, np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="empty"):
        read_replay_buffer(tmp_path / "empty.zarr")
    a = arrays()
    del a["action"]
    a["actions"] = arrays()["action"]
    write_replay_buffer(tmp_path / "other.zarr", a, np.array([30]))
    with pytest.raises(ValueError, match=r"no data/action .*actions"):
        read_replay_buffer(tmp_path / "other.zarr")


def test_missing_and_damaged_chunks_are_errors_not_zeros(tmp_path: Path) -> None:
    for kind in ("missing", "damaged"):
        path = tmp_path / f"{kind}.zarr"
        write_replay_buffer(path, arrays(), np.array([30]), zarr_format=2)
        chunk = path / "data" / "img" / "0.0.0.0"
        if kind == "missing":
            chunk.unlink()
        else:
            chunk.write_bytes(chunk.read_bytes()[:100])
        with pytest.raises(ValueError, match="img"):
            read_replay_buffer(path)


def test_bad_episode_ends_are_refused() -> None:
    a = {"action": np.zeros((10, 2), np.float32)}
    for ends in ([5, 5, 10], [4, 9], [12]):
        with pytest.raises(ValueError, match="episode_ends"):
            Episodes(a, np.array(ends))


def test_windows_replicate_edges_and_never_cross_episodes() -> None:
    data = episodes((12, 30))
    spec = WindowSpec()
    index = WindowIndex(data, spec)
    assert len(index) == 30
    everything = np.arange(30)
    for offsets in (spec.history, spec.future, spec.actions):
        rows = index.steps(everything, offsets)
        assert (rows[:12] < 12).all() and (rows[12:] >= 12).all() and (rows < 30).all()
    assert index.steps(np.array([13]), spec.history).tolist() == [[12, 12, 12, 13]]
    assert index.steps(np.array([20]), spec.history).tolist() == [[12, 12, 16, 20]]
    assert index.steps(np.array([20]), spec.future).tolist() == [[24, 28, 29, 29]]
    # The first action of a chunk is the one taken at the current observation.
    assert index.steps(np.array([0]), spec.actions)[0, :3].tolist() == [0, 1, 2]


def test_held_out_episodes_depend_on_the_seed_alone() -> None:
    train, held = held_out_split(206, 10, seed=42)
    assert len(set(train) | set(held)) == 206 and len(held) == 10
    assert held.tolist() == held_out_split(206, 10, seed=42)[1].tolist()
    assert held.tolist() != held_out_split(206, 10, seed=43)[1].tolist()
    with pytest.raises(ValueError, match="at least one"):
        held_out_split(5, 5)


def test_the_mirror_is_its_own_inverse_and_keeps_pixels_and_points_together() -> None:
    data = episodes()
    image = np.zeros((30, 32, 32, 3), np.uint8)
    image[:, 5, 20] = 255  # row 5, column 20: the point (20.5, 5.5) * 16 in a 512 world
    point = np.tile(np.array([[20.5 * 16, 5.5 * 16]], np.float32), (30, 1))
    data = Episodes({**data.arrays, "pixels": image, "agent_pos": point}, data.ends)
    once = apply_variant(data, Variant(mirror=True), world_size=512)
    x, y = once.arrays["agent_pos"][0] / 16
    assert once.arrays["pixels"][0, int(y), int(x)].tolist() == [255] * 3
    twice = apply_variant(once, Variant(mirror=True), world_size=512)
    np.testing.assert_array_equal(twice.arrays["pixels"], image)
    np.testing.assert_allclose(twice.arrays["action"], data.arrays["action"], rtol=1e-5)


def test_shifts_move_frames_positions_and_actions_together() -> None:
    data = episodes()
    variant = Variant(max_shift=3, seed=7)
    moved = apply_variant(data, variant, world_size=512)
    (dx, dy) = variant.shifts(2)[0]
    assert (dx, dy) != (0, 0)
    np.testing.assert_allclose(moved.arrays["action"][0] - data.arrays["action"][0], np.array([dx, dy]) * 16, atol=1e-3)
    inside = moved.arrays["pixels"][0, 8:24, 8:24]
    np.testing.assert_array_equal(inside, data.arrays["pixels"][0, 8 - dy : 24 - dy, 8 - dx : 24 - dx])


def test_the_mirror_maps_the_pusht_world_onto_itself(shared: Path) -> None:
    """Rendering a mirrored state gives the mirrored picture, goal and all."""
    import gymnasium as gym

    import uva_agents  # noqa: F401

    env = gym.make("uva/PushT-v0")
    raw: Any = env.unwrapped
    obs, info = env.reset(seed=0, options={"reset_to_state": [120.0, 300.0, 330.0, 200.0, 0.7]})
    a = obs["pixels"].astype(int)
    (x, y), (bx, by, angle) = info["pos_agent"], info["block_pose"]
    raw.agent.position = (512 - y, 512 - x)
    raw.block.angle = np.pi / 2 - angle
    raw.block.position = (512 - by, 512 - bx)
    raw.space.reindex_shapes_for_body(raw.block)
    raw.space.step(1e-6)  # drawing uses positions that a step caches
    b = raw.get_obs()["pixels"].astype(int)
    difference = np.abs(a[::-1, ::-1].transpose(1, 0, 2) - b)
    # Rasterisation rounds edges differently on the two sides; nothing else may change.
    assert (difference.max(-1) > 40).mean() < 0.01
    env.close()


def test_batches_are_normalised_windows_of_the_right_variant() -> None:
    data = episodes()
    tokens = [np.full((30, 1, 64), i, np.float16) for i in range(2)]
    limits = {k: (np.zeros(d), np.full(d, 512.0)) for k, d in (("action", 2), ("agent_pos", 2), ("keypoints", 18))}
    windows = LatentWindows(
        data,
        tokens,
        standard_variants(2),
        LinearNormalizer.from_limits(limits),
        WindowSpec(),
        frame_state_keys=("agent_pos", "keypoints"),
    )
    batch = windows.batch(np.array([3, 3]), np.array([0, 1]))
    assert (
        batch.history.shape == (2, 4, 1, 64)
        and batch.frame_state is not None
        and batch.frame_state.shape == (2, 2, 4, 20)
    )
    assert (batch.history[0] == 0).all() and (batch.future[1] == 1).all()
    expected = data.arrays["action"][3:12] / 256 - 1
    np.testing.assert_allclose(batch.actions[0, :9].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(batch.actions[1, :9].numpy(), -expected[:, ::-1], atol=1e-5)  # mirrored
    torch.testing.assert_close(batch.actions[0, 9:], batch.actions[0, 8].expand(7, 2))  # the end repeats


def test_normalisation_matches_the_recorded_one(shared: Path) -> None:
    recorded = np.load(shared / "golden" / "misc.npz")
    normalizer = LinearNormalizer.fit({"action": recorded["norm/action_data"]})
    np.testing.assert_allclose(
        normalizer.scale["action"], recorded["norm/pusht_state/params_dict.action.scale"], rtol=1e-5
    )
    np.testing.assert_allclose(
        normalizer.offset["action"], recorded["norm/pusht_state/params_dict.action.offset"], rtol=1e-5, atol=1e-6
    )
    value = torch.rand(5, 2) * 400
    torch.testing.assert_close(
        normalizer.unnormalize("action", normalizer.normalize("action", value)), value, atol=1e-3, rtol=0
    )
    constant = LinearNormalizer.fit({"x": np.full((4, 1), 3.0)})
    assert float(constant.normalize("x", torch.tensor([3.0]))) == 0.0


def test_epoch_order_covers_every_window_once_and_splits_between_ranks() -> None:
    ranks = [EpochOrder(64, 3, 8, seed=1, rank=r, world=2) for r in range(2)]
    seen = np.concatenate([o.at(step)[0] for o in ranks for step in range(4)])
    assert sorted(seen) == list(range(64))
    assert ranks[0].at(1)[0].tolist() == EpochOrder(64, 3, 8, seed=1, rank=0, world=2).at(1)[0].tolist()


def test_with_fewer_windows_than_a_batch_epochs_follow_one_another_within_it() -> None:
    ranks = [EpochOrder(5, 3, 4, seed=1, rank=r, world=2) for r in range(2)]
    windows, variants = (np.concatenate([o.at(step)[i] for step in range(5) for o in ranks]) for i in range(2))
    assert len(windows) == 40
    for epoch in range(8):
        own = slice(5 * epoch, 5 * epoch + 5)
        assert sorted(windows[own]) == list(range(5)), "each window once before one comes again"
        by_window = np.random.default_rng([1, epoch])
        by_window.permutation(5)
        assert variants[own].tolist() == by_window.integers(0, 3, 5)[windows[own]].tolist()
    with pytest.raises(ValueError, match="no window"):
        EpochOrder(0, 1, 8)


def test_windows_and_validation_episodes_of_the_released_code_can_be_had(shared: Path) -> None:
    recorded = np.load(shared / "golden" / "misc.npz")
    ends = recorded["sampler/episode_ends"]
    data = Episodes(
        {"pixels": np.zeros((ends[-1], 8, 8, 3), np.uint8), "action": np.zeros((ends[-1], 2), np.float32)}, ends
    )
    index = WindowIndex(data, WindowSpec(), np.flatnonzero(recorded["sampler/mask"]), RELEASED_TRIM)
    begin, _, first, last = recorded["sampler/indices_h32_pb1_pa7"].T
    np.testing.assert_array_equal(index.now, begin - first + 15)
    # A row of 32, its edges filled by repetition: the frames at 3, 7, ... 31.
    for i in (0, 1, 40, len(index) - 1):
        row = np.clip(np.arange(32) - first[i], 0, last[i] - first[i] - 1) + begin[i]
        np.testing.assert_array_equal(index.steps(np.array([i]), index.spec.history)[0], row[3:16:4])
        np.testing.assert_array_equal(index.steps(np.array([i]), index.spec.future)[0], row[19::4])
        np.testing.assert_array_equal(index.steps(np.array([i]), index.spec.actions)[0], row[15:31])
        # With actions as history a row has one more step in front; they come right before those to predict.
        np.testing.assert_array_equal(index.steps(np.array([i]), index.spec.history_actions)[0][1:], row[:15])
    for n in (206, 247, 500):
        mask = recorded[f"sampler/val_mask_{n}_0.02_seed42"]
        np.testing.assert_array_equal(released_validation_split(n)[1], np.flatnonzero(mask))
        np.testing.assert_array_equal(released_validation_split(n)[0], np.flatnonzero(~mask))


def test_action_and_history_offsets_match_the_recording(shared: Path) -> None:
    recorded = np.load(shared / "golden" / "misc.npz")
    ramp = {name: recorded[f"traj/{name}"].reshape(-1) for name in ("shift", "noshift_future")}
    np.testing.assert_array_equal(WindowSpec().actions + 15, ramp["shift"])
    np.testing.assert_array_equal(WindowSpec(action_offset=1).actions + 15, ramp["noshift_future"])
    # Rows of 33 steps, in which now is step 16.
    for name, offset in (("shift", 0), ("noshift", 1)):
        spec = WindowSpec(action_offset=offset)
        np.testing.assert_array_equal(spec.actions + 16, recorded[f"traj/hist33_{name}_future"].reshape(-1))
        np.testing.assert_array_equal(spec.history_actions + 16, recorded[f"traj/hist33_{name}_history"].reshape(-1))
    np.testing.assert_array_equal(WindowSpec().history + 15, recorded["frames/eval_indices_T16"])
    np.testing.assert_array_equal(
        np.concatenate([WindowSpec().history, WindowSpec().future]) + 15, recorded["frames/train_indices_T32"]
    )
    choices = WindowSpec().history_choices() + 15
    assert len(choices) == recorded["frames/n_combinations_different_history_freq"]
    np.testing.assert_array_equal(choices[:8], recorded["frames/first_combinations"])


def test_batches_bring_the_actions_before_now_and_any_history_that_is_asked_for() -> None:
    data = episodes()
    tokens = np.arange(30, dtype=np.float16).repeat(64).reshape(30, 1, 64)
    limits = {k: (np.zeros(2), np.full(2, 512.0)) for k in ("action", "agent_pos")}
    normalizer = LinearNormalizer.from_limits(limits)
    windows = LatentWindows(data, [tokens], standard_variants(1), normalizer, WindowSpec(), history_actions=True)
    batch = windows.batch(np.array([8]), history=np.array([-15, -2, -2, 0]))
    assert batch.history[0, :, 0, 0].tolist() == [0, 6, 6, 8]
    assert batch.history_actions is not None and batch.proprio is not None
    expected = data.arrays["action"][np.arange(-8, 8).clip(0)] / 256 - 1
    np.testing.assert_allclose(batch.history_actions[0].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(batch.proprio[0].numpy(), data.arrays["agent_pos"][[0, 6, 6, 8]] / 256 - 1, atol=1e-5)
