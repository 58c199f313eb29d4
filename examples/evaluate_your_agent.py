"""Evaluate anything that has stable-baselines3's predict(). ``python examples/evaluate_your_agent.py``"""

import numpy as np

import uva_agents as uva


class TowardsTheMiddle:
    """An agent of ten lines: always pushes towards the middle of the table."""

    name = "towards the middle"

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        """Actions (n, 2) for a batch of observations, (2,) for one."""
        position = np.asarray(observation["agent_pos"], np.float32)
        return position + 0.2 * (np.float32(256.0) - position), state


report = uva.evaluate(TowardsTheMiddle(), "uva/PushT-v0", n_episodes=2, seed=100_000, progress=False)
print(report.summary())
