"""Imagine: four futures of one moment, as a film. ``python examples/imagine.py [FILE.mp4]``"""

import sys

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np

import uva_agents as uva

path = sys.argv[1] if len(sys.argv) > 1 else "imagined.mp4"
model = uva.UVA.from_pretrained("pusht-nano")
env = gym.make("uva/PushT-v0")
obs, info = env.reset(seed=0)
chunks = model.policy().sample(obs, n=4, seed=0)  # (4, 16, 2)
rollout = model.world_model().rollout(obs, chunks, seed=0)  # frames (4, 4, 96, 96, 3)
with imageio.get_writer(path, fps=2, macro_block_size=1) as film:
    for moment in range(rollout.frames.shape[1]):
        film.append_data(np.concatenate(rollout.frames[:, moment], axis=1))
print(f"{path}: four futures side by side, {', '.join(map(str, rollout.frame_steps))} steps ahead")
