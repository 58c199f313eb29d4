"""Block pushing in the planar simulator, and demonstrations made there."""

import numpy as np
import pytest

from uva_agents.data import BLOCK_PUSH_FIELDS, read_replay_buffer
from uva_agents.data.collect.planar_block_push import write_planar_demonstrations
from uva_agents.envs.block_push import BlockPushEnv
from uva_agents.envs.block_push.layout import PUSHER_HIGH, PUSHER_LOW
from uva_agents.envs.block_push.planar import PlanarTables, chosen, moved, planar_demonstrations
from uva_agents.envs.block_push.pushing import PLACED, distances


def test_the_post_moves_blocks_out_of_its_way_and_these_each_other():
    here, radius = np.array([[0.3, 0.0]]), np.array([0.026])
    blocks = np.array([[[0.35, 0.0], [0.6, 0.3]]])
    at, after = moved(here, blocks, np.array([[0.4, 0.0]]), radius, parts=20)
    np.testing.assert_allclose(at, [[0.4, 0.0]])
    np.testing.assert_allclose(after, [[[0.426, 0.0], [0.6, 0.3]]], atol=1e-9)
    _, after = moved(here, np.array([[[0.35, 0.0], [0.40, 0.0]]]), np.array([[0.4, 0.0]]), radius, parts=20)
    np.testing.assert_allclose(after, [[[0.426, 0.0], [0.468, 0.0]]], atol=1e-9)
    at, _ = moved(here, blocks, np.array([[0.9, -0.9]]), radius)
    np.testing.assert_allclose(at, [[PUSHER_HIGH[0], PUSHER_LOW[1]]])


def test_most_tables_are_cleared_although_the_pusher_is_hindered():
    tables = PlanarTables(200, seed=0)
    placed = np.zeros(200, bool)
    for _ in range(250):
        tables.advance()
        gap = distances(tables.blocks, tables.squares) < PLACED
        placed |= (gap & gap[:, ::-1]).any(1)
        assert np.isfinite(tables.blocks).all()
    assert placed.mean() > 0.7


def test_a_demonstration_changes_nothing_on_the_tables():
    tables = PlanarTables(50, seed=1)
    before = tables.here.copy(), tables.blocks.copy()
    seen, targets = tables.demonstrate(np.arange(0, 50, 2), 40)
    assert seen.shape == (25, 40, 5, 2) and targets.shape == (25, 40, 2)
    np.testing.assert_array_equal(tables.here, before[0])
    np.testing.assert_array_equal(tables.blocks, before[1])
    np.testing.assert_array_equal(seen[:, 1:, 0], targets[:, :-1])  # the post goes where it is told
    assert (
        np.linalg.norm(np.diff(targets, axis=1), axis=-1).max() < 0.0465
    )  # a step, and what keeps clear of the other block


def test_from_afar_every_push_is_chosen_by_some_and_a_begun_one_by_all():
    rng = np.random.default_rng(0)
    blocks = np.tile([[0.3, -0.1], [0.5, -0.1]], (400, 1, 1))
    squares = np.tile([[0.28, 0.2], [0.52, 0.2]], (400, 1, 1))
    far = chosen(np.tile([0.4, -0.4], (400, 1)), blocks, squares, rng)
    assert np.bincount(far, minlength=4).min() > 20
    behind_red = chosen(np.tile([0.3, -0.14], (400, 1)), blocks, squares, rng)
    assert len(set(behind_red.tolist())) == 1 and behind_red[0] == 0


def test_the_same_seed_gives_the_same_demonstrations():
    first, again, other = (
        np.concatenate([a for _, a in planar_demonstrations(300, length=24, seed=s, tables=200)]) for s in (3, 3, 4)
    )
    assert first.shape == (300, 24, 2)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_planar_demonstrations_read_like_collected_ones(tmp_path):
    out = tmp_path / "planar.zarr"
    done = []
    assert (
        write_planar_demonstrations(
            out, 30, length=20, seed=5, tables=50, progress=lambda n, total: done.append((n, total))
        )
        == 600
    )
    assert done[-1] == (30, 30)
    episodes = read_replay_buffer(out, {k: v for k, v in BLOCK_PUSH_FIELDS.items() if k != "pixels"})
    assert len(episodes) == 30 and (episodes.ends - episodes.starts == 20).all()
    seen, targets = [
        np.concatenate(a) for a in zip(*planar_demonstrations(30, length=20, seed=5, tables=50), strict=True)
    ]
    np.testing.assert_array_equal(episodes.arrays["action"], targets.reshape(-1, 2))
    np.testing.assert_array_equal(episodes.arrays["agent_pos"], seen[:, :, 0].reshape(-1, 2))
    np.testing.assert_array_equal(episodes.arrays["keypoints"], seen[:, :, 1:].reshape(-1, 8))
    with pytest.raises(ValueError, match="--force"):
        write_planar_demonstrations(out, 3)
    assert write_planar_demonstrations(out, 3, tables=50, force=True) == 48
    with pytest.raises(ValueError, match="at least one"):
        write_planar_demonstrations(tmp_path / "none.zarr", 0)


def test_chunks_made_in_the_planar_simulator_solve_the_simulated_task():
    """What justifies learning from it: looked at every six steps only, from positions that are off by millimetres."""
    pytest.importorskip("pybullet", reason="uva/BlockPush-v0 needs PyBullet: pip install 'uva-agents[block-push]'")
    env, rng, tables = (
        BlockPushEnv(render_mode=None, render_observations=False),
        np.random.default_rng(0),
        PlanarTables(1, seed=0),
    )
    _, info = env.reset(seed=300_010)
    for step in range(240):
        if step % 6 == 0:
            state = info["state"]
            tables.here = state[None, 6:8]
            tables.blocks = np.array([[state[0:2], state[3:5]]]) + rng.normal(0, 0.004, (1, 2, 2))
            tables.squares = np.array([[state[10:12], state[13:15]]])
            tables.pair = chosen(tables.here, tables.blocks, tables.squares, rng)
            chunk = tables.demonstrate(np.array([0]), 16)[1][0]
        *_, over, _, info = env.step(chunk[step % 6])
        if over:
            break
    env.close()
    assert info["p2"]
