"""What every PushT environment has to stand, and recorded frames to compare with."""

import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import uva_agents.envs  # noqa: F401  (registers)


def read_recording(shared, name, n):
    """States (n, 5) and frames (n, 96, 96, 3), evenly spaced over the recording."""
    import zarr

    data: Any = zarr.open_group(str(shared / "data" / "pusht" / f"{name}.zarr"), mode="r")["data"]
    rows = np.linspace(0, data["state"].shape[0] - 1, n).astype(int)
    # A chunk holds many frames: neighbours in the file are read together.
    return np.stack([data["state"][i] for i in rows]), np.stack([data["img"][i] for i in rows]).astype(np.float32)


def checkers_pass(env_id, **kwargs):
    """gymnasium's and stable-baselines3's, with no complaint except about actions in pixels."""
    from gymnasium.utils.env_checker import check_env as gymnasium_check
    from stable_baselines3.common.env_checker import check_env as sb3_check

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gymnasium_check(gym.make(env_id, render_mode="rgb_array", **kwargs).unwrapped)
        sb3_check(gym.make(env_id, render_mode="rgb_array", **kwargs))
    assert all("symmetric and normalized" in str(w.message) for w in caught), [str(w.message) for w in caught]


def digest(env_id, options=None):
    """Of everything that a few seeded episodes show."""
    env, found = gym.make(env_id), hashlib.sha256()
    rng = np.random.default_rng(0)
    for seed in (0, 100_003, None):
        observation, info = env.reset(seed=seed, options=options)
        assert info["is_success"] is False
        for _ in range(8):
            found.update(observation["pixels"].tobytes() + observation["agent_pos"].tobytes())
            observation, reward, *_, info = env.step(rng.uniform(100, 400, 2).astype(np.float32))
            assert isinstance(info["is_success"], bool)
            found.update(repr((reward, info["coverage"], info["goal_pose"].tolist())).encode())
    env.close()
    return found.hexdigest()


def digest_in_another_process(env_id, options=None):
    """:func:`digest` in a new interpreter, with another hash seed."""
    code = f"import json; from tests.pusht_checks import digest; print(digest({env_id!r}, json.loads({json.dumps(options)!r})))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def grown_after_resets(env_id, options=None, resets=20):
    """Bytes by which the process grows over 20 resets with a few steps each, after some to warm up; then it is closed."""
    env = gym.make(env_id)

    def episode(seed):
        env.reset(seed=seed, options=options)
        for _ in range(3):
            env.step(np.array([200.0, 200.0], np.float32))

    for seed in range(10):
        episode(seed)
    before = _resident()
    for seed in range(resets):
        episode(seed)
    grown = _resident() - before
    env.close()
    env.close()  # twice does no harm
    return grown


def _resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
