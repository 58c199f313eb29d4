"""Act: the shipped policy in PushT for one short episode. ``python examples/act.py``"""

import gymnasium as gym

import uva_agents as uva

env = gym.make("uva/PushT-v0", max_episode_steps=100)
policy = uva.Policy.from_pretrained("pusht-nano")

obs, info = env.reset(seed=100_000)
policy.reset(seed=100_000)
best = 0.0
done = False
while not done:
    obs, reward, terminated, truncated, info = env.step(policy.act(obs))
    best = max(best, info["coverage"])
    done = terminated or truncated
print(f"best coverage {best:.2f}, success: {info['is_success']}")
