"""Gymnasium environments, registered under ``uva/`` on import. Nothing in this package imports torch."""

import gymnasium as gym

PUSHT = "uva/PushT-v0"

# Entry points are strings: registering costs nothing, and pygame and pymunk load only when an environment is made.
if PUSHT not in gym.registry:
    gym.register(PUSHT, entry_point="uva_agents.envs.pusht:PushTEnv", max_episode_steps=300)

__all__ = ["PUSHT"]
