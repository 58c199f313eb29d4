"""Reinforcement learning inside the world model. ``python examples/ppo_in_a_dream.py [STEPS]``; needs the extra ``sb3``."""

import sys

import numpy as np
from gymnasium.wrappers import RescaleAction
from stable_baselines3 import PPO

import uva_agents as uva

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2000


def cost(rollout):
    """Of the newest imagined frame: how dark its upper half is."""
    return (rollout.frames[:, -1, :48] < 128).mean((1, 2, 3))


dream = uva.WorldModel.from_pretrained("pusht-nano").as_env(cost, horizon=32)
env = RescaleAction(dream, np.float32(-1.0), np.float32(1.0))
agent = PPO("MultiInputPolicy", env, n_steps=32, batch_size=16, n_epochs=2, device="cpu")
agent.learn(steps)
print(f"{agent.num_timesteps} steps, all of them imagined")
