"""The block-pushing weights that ship: what they imagine happens in the simulator; and what all shipped weights weigh."""

from typing import Any

import numpy as np
import pytest

import uva_agents as uva
from uva_agents.benchmarks.paper.recordings import BLOCK_PUSH
from uva_agents.checkpoints import resolve, shipped_names


def test_all_weights_together_stay_small() -> None:
    sizes = {name: sum(p.stat().st_size for p in resolve(name).glob("*.safetensors")) for name in shipped_names()}
    assert sum(sizes.values()) < 60e6, sizes
    for name in shipped_names():
        card = (resolve(name) / "README.md").read_text().lower()
        for word in ("fp16", "held", "licence", "limits"):
            assert word in card, f"{name}: {word}"


@pytest.fixture(scope="module")
def pushes() -> list[dict[str, Any]]:
    """Moments before a demonstrator's push, what it then does, and where the blocks are 16 steps later."""
    pytest.importorskip("pybullet", reason="uva/BlockPush-v0 needs PyBullet: pip install 'uva-agents[block-push]'")
    from uva_agents.envs.block_push import BlockPushEnv, Pusher, order_of_seed

    env, found = BlockPushEnv(render_mode=None), []
    for seed in (910_000, 910_001, 910_002):
        obs, info = env.reset(seed=seed)
        pusher = Pusher(order_of_seed(seed), seed=seed)
        seen, actions, blocks = [obs], [], [info["state"][[0, 1, 3, 4]].reshape(2, 2)]
        for _ in range(56):
            action = pusher.act(info["state"]).astype(np.float32)
            obs, *_, info = env.step(action)
            seen.append(obs)
            actions.append(info["state"][8:10].astype(np.float32))
            blocks.append(info["state"][[0, 1, 3, 4]].reshape(2, 2))
        for now in (16, 24, 32, 40):
            past = seen[now - 12 : now]
            found.append(
                {
                    "obs": seen[now],
                    "history": {key: np.stack([o[key] for o in past]) for key in past[0]},
                    "actions": np.stack(actions[now : now + 16]),
                    "now": blocks[now],
                    "then": blocks[now + 16],
                }
            )
    env.close()
    return found


def test_imagined_blocks_go_where_the_simulators_go(pushes: list[dict[str, Any]]) -> None:
    world = uva.WorldModel.from_pretrained("block-push-nano")
    imagined, still = [], []
    for push in pushes:
        frames = world.rollout(push["obs"], push["actions"], history=push["history"]).frames[0, -1:]
        where, seen = BLOCK_PUSH.locate(frames)
        moved = np.linalg.norm(push["then"] - push["now"], axis=-1)
        for block in np.flatnonzero(seen[0] & (moved > 0.02)):
            imagined.append(np.linalg.norm(where[0, block] - push["then"][block]))
            still.append(moved[block])
    assert len(still) >= 6 and np.mean(still) > 0.05
    # The card says 8 mm on held-out episodes, where standing still is off by 150.
    assert np.mean(imagined) < 0.35 * np.mean(still), (np.round(imagined, 3), np.round(still, 3))


def test_actions_are_read_off_pictures_of_pushes(pushes: list[dict[str, Any]]) -> None:
    inverse = uva.InverseModel.from_pretrained("block-push-nano")
    errors, lazy = [], []
    world = uva.WorldModel.from_pretrained("block-push-nano")
    for push in pushes[::3]:
        frames = world.rollout(push["obs"], push["actions"], history=push["history"]).frames[0]
        errors.append(np.linalg.norm(inverse.infer(frames) - push["actions"], axis=-1).mean())
        lazy.append(np.linalg.norm(push["actions"].mean(0) - push["actions"], axis=-1).mean())
    assert np.mean(errors) < 0.6 * np.mean(lazy), (errors, lazy)


def test_points_are_where_the_blocks_go(pushes: list[dict[str, Any]]) -> None:
    world = uva.WorldModel.from_pretrained("block-push-nano")
    errors, still = [], []
    for push in pushes:
        points = world.rollout(push["obs"], push["actions"], history=push["history"], steps=0, decode=False).keypoints
        assert points is not None and points.shape == (1, 4, 5, 2)
        errors.append(np.linalg.norm(points[0, -1, 1:3] - push["then"], axis=-1))
        still.append(np.linalg.norm(push["now"] - push["then"], axis=-1))
    assert np.mean(errors) < 0.25 * np.mean(still), (np.mean(errors), np.mean(still))


def test_the_policy_that_proposes_places_blocks() -> None:
    pytest.importorskip("pybullet", reason="uva/BlockPush-v0 needs PyBullet: pip install 'uva-agents[block-push]'")
    policy = uva.DiffusionPolicy.from_pretrained("dp-c-block-push")
    # It solves two in three, which ones hangs on the last bit of every push; one that has learnt nothing never gets there.
    report = uva.evaluate(policy, "uva/BlockPush-v0", 6, seed=200_000, protocol="success", progress=False)
    assert report.score > 0
