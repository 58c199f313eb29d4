"""Serve a policy, and drive an environment through the socket. ``python examples/serve_and_ask.py``; needs the extra ``serve``."""

import gymnasium as gym

import uva_agents as uva
from uva_agents.bridges.openpi import PolicyServer, RemotePolicy

# In practice these are two computers: `uva serve pusht-nano --port 8000` on the one with the network.
with PolicyServer(uva.Policy.from_pretrained("pusht-nano"), port=0) as server:
    policy = RemotePolicy(server.url)
    env = gym.make("uva/PushT-v0", max_episode_steps=20)
    obs, info = env.reset(seed=0)
    policy.reset(seed=0)
    done = False
    while not done:
        obs, reward, terminated, truncated, info = env.step(policy.act(obs))
        done = terminated or truncated
    policy.close()
print(f"coverage {info['coverage']:.2f} after 20 steps that were decided behind {server.url}")
