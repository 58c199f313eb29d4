"""The arm's simulated twin, behind its safety layer. ``python examples/drive_the_twin.py``; needs the extra ``arx``."""

import gymnasium as gym
import numpy as np

import uva_agents as uva  # noqa: F401  (registers the environments)

env = gym.make("uva/ArxX5-v0", task="reach", action_mode="absolute_vector")  # simulated time: as fast as it goes
obs, info = env.reset(seed=0)
begin = obs["agent_pos"].copy()  # position, rotation vector, gripper: (7,)
for step in range(20):
    action = begin.copy()
    action[2] += 0.02 * (1 - np.cos(step / 5))  # up by up to 4 cm, and down again
    obs, reward, terminated, truncated, info = env.step(action.astype(np.float32))
print(f"the tool is {1e3 * (obs['agent_pos'][2] - begin[2]):.0f} mm above where it began")
env.close()
