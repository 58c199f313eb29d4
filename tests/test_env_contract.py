"""What every registered environment keeps to: seeds, success flags, memory, a clean end. A new one joins by being registered."""

import hashlib
import json
import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.env_kinds import HEAVY, IDS, cases, make, resident

WARM_UP, RESETS = 20, 20
ROOM, HEAVY_ROOM = 4.0, 20.0
"""MiB that a process may grow by over RESETS, after as many to warm up. Measured: 0 to 1. One PushT window surface
(512 x 512 x 4 bytes) kept per reset would be 20, and a robosuite model that is not freed is tens of MiB per reset. What is smaller
than a fifth of a MiB per reset is not found: allocators give pages back late."""


def digest(env_id: str, steps: int = 6) -> str:
    """Of everything that two seeded episodes show."""
    env, found = gym.make(env_id), hashlib.sha256()
    env.action_space.seed(0)
    for seed in (0, 12):
        obs, info = env.reset(seed=seed)
        for _ in range(steps):
            for key in sorted(obs):
                value = obs[key]
                found.update(value.encode() if isinstance(value, str) else np.ascontiguousarray(value).tobytes())
            obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
            found.update(repr((float(reward), bool(terminated), bool(truncated), bool(info["is_success"]))).encode())
    env.close()
    return found.hexdigest()


def test_there_are_environments_to_test():
    assert {"uva/PushT-v0", "uva/PushTMulti-v0", "uva/PushTDisturbed-v0", "uva/PushTGoal-v0", "uva/BlockPush-v0"} <= {
        *IDS
    }


@pytest.mark.parametrize("env_id", cases())
def test_success_is_told_on_reset_and_step_and_twenty_resets_do_not_grow_memory(env_id):
    env = make(env_id)
    env.action_space.seed(0)

    def episode(seed: int) -> None:
        obs, info = env.reset(seed=seed)
        assert isinstance(info["is_success"], bool)
        assert env.observation_space.contains(obs)
        for _ in range(3):
            obs, reward, _, _, info = env.step(env.action_space.sample())
            assert isinstance(info["is_success"], bool) and np.isfinite(float(reward))
        assert env.observation_space.contains(obs)

    for seed in range(WARM_UP):  # caches and pools fill
        episode(seed)
    before = resident()
    for seed in range(RESETS):
        episode(seed)
    grown = (resident() - before) / 2**20
    env.close()
    env.close()  # twice does no harm
    allowed = HEAVY_ROOM if any(part in env_id for part in HEAVY) else ROOM
    assert grown < allowed, f"{grown:.1f} MiB in {RESETS} resets"


@pytest.mark.parametrize("env_id", cases())
def test_the_same_seed_gives_the_same_episode_in_another_process(env_id):
    make(env_id).close()
    code = f"import sys; from tests.test_env_contract import digest; print('digest', digest({json.dumps(env_id)}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}  # another order of sets and dicts
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert other.returncode == 0, other.stderr[-2000:]
    assert f"digest {digest(env_id)}" in other.stdout


@pytest.mark.parametrize("env_id", cases())
def test_a_process_that_closes_its_environment_ends_well_and_quietly(env_id):
    make(env_id).close()
    code = (
        f"import gymnasium as gym, uva_agents.envs\nenv = gym.make({json.dumps(env_id)})\nenv.reset(seed=0)\n"
        "env.step(env.action_space.sample())\nenv.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr[-2000:]
