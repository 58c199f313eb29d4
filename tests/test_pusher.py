"""The feedback demonstrator of block pushing, and episodes that begin after a disturbance."""

import dataclasses

import numpy as np
import pytest

from uva_agents.data.collect.block_push import BlockPushPlan, collect_block_push, record_block_push
from uva_agents.envs.block_push import BlockPushEnv, Pusher, order_of_seed
from uva_agents.envs.block_push.layout import PUSHER_START


@pytest.fixture
def env():
    pytest.importorskip("pybullet", reason="uva/BlockPush-v0 needs PyBullet: pip install 'uva-agents[block-push]'")
    env = BlockPushEnv(render_mode=None, render_observations=False)
    yield env
    env.close()


def state(block=(0.4, 0.0), here=(0.4, -0.3), other=(0.6, 0.4)):
    """Red block, pusher, green block; squares at (0.28, 0.2) and (0.52, 0.2)."""
    return np.array([*block, 0.0, *other, 0.0, *here, *here, 0.28, 0.2, 0.0, 0.52, 0.2, 0.0])


@pytest.mark.parametrize("seed", [300_000, 300_001, 300_002])
def test_it_places_both_blocks(env, seed):
    _, info = env.reset(seed=seed)
    pusher = Pusher(order_of_seed(seed), seed=seed)
    for _ in range(200):
        *_, terminated, _, info = env.step(pusher.act(info["state"]))
        if terminated:
            break
    assert info["p2"]


def test_it_comes_back_to_a_block_that_it_was_moved_away_from(env):
    _, info = env.reset(seed=300_003)
    pusher = Pusher(order_of_seed(300_003), seed=3)
    for t in range(250):
        # Beyond the block, where whoever repeats what it saw in demonstrations goes on without it.
        action = pusher.act(info["state"]) if not 25 <= t < 35 else info["state"][8:10] + np.array([0.0, 0.03])
        *_, terminated, _, info = env.step(action)
        if terminated:
            break
    assert info["p2"]


def test_from_the_wrong_side_it_goes_round_the_block():
    pusher, here = Pusher(0, noise=0.0), np.array([0.39, 0.07])
    block, square = np.array([0.4, 0.0]), np.array([0.28, 0.2])
    forward = (square - block) / np.linalg.norm(square - block)
    offs = []
    for _ in range(20):
        here = pusher.act(state(tuple(block), tuple(here)))
        off = np.arccos((block - here) @ forward / np.linalg.norm(block - here))
        if off < 0.1:
            break
        # Post and half a block's diagonal: nothing was touched until it was nearly behind the block.
        assert off < 0.55 or np.linalg.norm(here - block) > 0.044
        offs.append(off)
    assert off < 0.1 and offs == sorted(offs, reverse=True)
    for _ in range(5):
        here = pusher.act(state(tuple(block), tuple(here)))
    assert np.linalg.norm(here - block) < 0.02  # a block that could move would have


def test_what_it_does_changes_little_with_where_things_are():
    rng, pusher = np.random.default_rng(0), Pusher(0, noise=0.0)
    steps = []
    for _ in range(300):
        here = np.array([0.4, 0.0]) + rng.normal(0, 0.06, 2)
        moved = here + rng.normal(0, 0.0005, 2)
        a, b = (pusher.act(state(here=tuple(p))) - p for p in (here, moved))
        steps.append(np.linalg.norm(a - b))
    assert np.mean(np.array(steps) > 0.005) < 0.03  # only where both ways round are equally long


def test_a_block_that_is_placed_gives_way_to_the_other_until_something_moves_it():
    pusher = Pusher(0, noise=0.0)
    assert pusher.act(state(block=(0.28, 0.18), here=(0.28, 0.1), other=(0.4, -0.2)))[1] < 0.1
    assert pusher.block == 1
    pusher.act(state(block=(0.4, 0.0), here=(0.4, -0.05), other=(0.4, -0.4)))
    assert pusher.block == 0


def test_deciding_anew_takes_the_nearest_push_or_what_is_left() -> None:
    pusher = Pusher(0, noise=0.0)
    assert pusher.block == 0
    near_green = state(block=(0.4, 0.0), other=(0.6, 0.0), here=(0.62, -0.06))
    pusher.decide(near_green)
    assert pusher.block == 1
    # Straight behind it as seen from the second square, so that is where it goes.
    towards = pusher.act(near_green) - near_green[8:10]
    wanted = near_green[13:15] - near_green[3:5]
    assert towards @ wanted > 0.9 * np.linalg.norm(towards) * np.linalg.norm(wanted)
    placed = state(block=(0.52, 0.19), other=(0.6, 0.0), here=(0.5, 0.15))
    pusher.decide(placed)
    assert pusher.block == 1  # the red one lies in a square, however near
    pusher.decide(state(block=(0.4, 0.0), other=(0.28, 0.19), here=(0.28, 0.15)))
    assert pusher.block == 0


def test_the_noise_follows_from_its_seed():
    first, same, other = (Pusher(0, seed=s).act(state()) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0


def test_a_bad_pusher_is_named():
    with pytest.raises(ValueError, match="order=4"):
        Pusher(4)
    with pytest.raises(ValueError, match="not negative"):
        Pusher(0, noise=-1)


def test_a_disturbed_episode_begins_where_the_disturbance_left_it(env):
    plan = BlockPushPlan(episodes=1, seed=8, image_size=16, max_steps=3, demonstrator="pusher", noise=0.002)
    undisturbed = record_block_push(plan, 0)
    np.testing.assert_allclose(undisturbed["state"][0, :2], PUSHER_START, atol=3e-3)
    shifted = dataclasses.replace(plan, disturbed=1.0)
    first, again = record_block_push(shifted, 0), record_block_push(shifted, 0)
    assert np.linalg.norm(first["state"][0, :2] - PUSHER_START) > 0.02
    np.testing.assert_array_equal(first["state"], again["state"])
    assert first["img"].shape == (4, 16, 16, 3)


def test_a_disturbance_after_which_nothing_is_left_to_do_is_left_out(env):
    plan = BlockPushPlan(
        episodes=1, seed=7, image_size=16, max_steps=3, demonstrator="pusher", noise=0.002, disturbed=1.0
    )
    np.testing.assert_allclose(record_block_push(plan, 0)["state"][0, :2], PUSHER_START, atol=3e-3)


class Sideways:
    """Wherever it is, it drives 2 cm to the right a step."""

    def sample(self, obs, n, *, seed=None):
        assert obs["pixels"].shape == (96, 96, 3) and n == 1
        here = obs["agent_pos"]
        return (here + np.arange(1, 17)[:, None] * np.array([0.0, 0.02], np.float32))[None]


def test_a_policy_drives_until_the_demonstrator_takes_over(env):
    plan = BlockPushPlan(
        episodes=1, seed=8, image_size=0, max_steps=3, demonstrator="pusher", disturbed=1.0, policy="sideways"
    )
    episode = record_block_push(plan, 0, Sideways())
    assert "img" not in episode and episode["state"].shape == (4, 16)
    shoved = record_block_push(dataclasses.replace(plan, policy=None), 0)
    assert episode["state"][0, 1] > shoved["state"][0, 1]
    np.testing.assert_array_equal(record_block_push(plan, 0, Sideways())["state"], episode["state"])


def test_a_plan_and_its_policy_belong_together(tmp_path):
    plan = BlockPushPlan(episodes=1, demonstrator="pusher", disturbed=1.0, policy="x")
    with pytest.raises(ValueError, match="belong together"):
        collect_block_push(tmp_path / "d.zarr", plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"demonstrator": "human"}, "'oracle' or 'pusher'"),
        ({"disturbed": 1.5}, r"\[0, 1\]"),
        ({"disturbed": 0.5, "replay": "x.zarr"}, "recorded"),
        ({"policy": "x"}, "disturbed above 0"),
        ({"image_size": -1}, "0 for no pictures"),
    ],
)
def test_plans_that_make_no_sense_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        BlockPushPlan(**{"episodes": 1, **change})
