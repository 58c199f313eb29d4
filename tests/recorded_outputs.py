"""What the shipped weights decide and imagine, recorded once: whoever moves code sees here that nothing else has changed.

python -m tests.recorded_outputs tests/recorded_outputs.npz     # record anew, where the numbers were meant to change
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np

import uva_agents as uva

FILE = Path(__file__).with_suffix(".npz")
SEEDS = range(20)


def pusht() -> Iterator[tuple[str, np.ndarray]]:
    """Chunks (20, 16, 2), the last imagined frame of each (20, 96, 96, 3), and the actions read off it (20, 16, 2)."""
    model = uva.UVA.from_pretrained("pusht-nano")
    policy, world, inverse = model.policy(), model.world_model(), model.inverse_model()
    env = gym.make("uva/PushT-v0")
    chunks, frames, acts, read = [], [], [], []
    for seed in SEEDS:
        obs, _ = env.reset(seed=seed)
        policy.reset(seed=seed)
        acts.append(policy.act(obs))
        chunks.append(policy.sample(obs, n=1, seed=seed))
        rollout = world.rollout(obs, chunks[-1], seed=seed)
        frames.append(rollout.frames[0, -1])
        read.append(inverse.infer(rollout.frames)[0])
    env.close()
    yield "pusht_act", np.stack(acts)
    yield "pusht_sample", np.concatenate(chunks)
    yield "pusht_frames", np.stack(frames)
    yield "pusht_read", np.stack(read)


def block_push() -> Iterator[tuple[str, np.ndarray]]:
    """The proposing policy's chunks (20, 16, 2), and the last imagined frame of each."""
    policy = uva.DiffusionPolicy.from_pretrained("dp-c-block-push")
    world = uva.WorldModel.from_pretrained("block-push-nano")
    env = gym.make("uva/BlockPush-v0", assignment="R-G")
    chunks, frames = [], []
    for seed in SEEDS:
        obs, _ = env.reset(seed=seed)
        chunks.append(policy.sample(obs, n=1, seed=seed))
        frames.append(world.rollout(obs, chunks[-1], seed=seed).frames[0, -1])
    env.close()
    yield "block_push_sample", np.concatenate(chunks)
    yield "block_push_frames", np.stack(frames)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    np.savez_compressed(sys.argv[1], **dict(pusht()), **dict(block_push()))
