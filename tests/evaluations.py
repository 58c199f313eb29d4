"""Evaluations of a toy, and the same episodes by hand."""

import gymnasium as gym

import uva_agents
from tests import toys
from tests.toys import WALK, NoisyAgent

toys.register()


def run(agent=None, n=11, **options):
    options = {"progress": False, "seed": 40, "protocol": "dp-pusht", **options}
    return uva_agents.evaluate(agent or NoisyAgent(), WALK, n, **options)


def by_hand(n, seed=40, deterministic=False):
    """The same episodes, one after another, written out."""
    records = []
    for s in range(seed, seed + n):
        env, agent = gym.make(WALK), NoisyAgent()
        (obs, _), state, done, coverages = env.reset(seed=s), agent.initial_state(1, seed=[s]), False, []
        while not done:
            actions, state = agent.predict({"agent_pos": obs["agent_pos"][None]}, state, deterministic=deterministic)
            obs, _, terminated, truncated, info = env.step(actions[0])
            done = terminated or truncated
            coverages.append(info["coverage"])
        records.append((s, len(coverages), max(coverages), coverages[-1], max(coverages) > 0.5))
    return records


def essentials(report):
    return [(e.seed, e.length, e.best_progress, e.final_progress, e.success) for e in report.episodes]
