"""Label: read the actions off a recorded episode, and compare with those that were taken. ``python examples/read_actions.py``"""

import gymnasium as gym
import numpy as np

import uva_agents as uva

model = uva.UVA.from_pretrained("pusht-nano")
env = gym.make("uva/PushT-v0")
policy = model.policy()
obs, info = env.reset(seed=3)
policy.reset(seed=3)
frames, taken = [obs["pixels"]], []
for _ in range(40):
    action = policy.act(obs)
    obs, *_ = env.step(action)
    taken.append(action)
    frames.append(obs["pixels"])
read = model.inverse_model().label(np.stack(frames))  # (40, 2), of frames alone
error = np.linalg.norm(read - np.stack(taken), axis=1)
print(f"read off the film to {np.median(error):.1f} px in the median, on a table of 512 px")
