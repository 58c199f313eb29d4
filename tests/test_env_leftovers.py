"""What environments leave behind, which is nothing; and environments in other processes."""

import gc
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading

import pytest

from tests.conftest import REPOSITORY
from tests.env_kinds import HEAVY, IDS, make, resident


@pytest.mark.parametrize(
    ("env_id", "cycles"),
    [("uva/PushT-v0", 60), ("uva/BlockPush-v0", 4), ("uva/ArxX5-v0", 4)]
    + [
        pytest.param(env_id, n, marks=pytest.mark.long)
        for env_id, n in [(i, 200) for i in IDS if not any(h in i for h in HEAVY)]
        + [("uva/ToolHang-v0", 60), ("uva/Libero10-v0", 20)]
    ],
)
def test_nothing_outlives_an_environment(env_id, cycles, tmp_path, monkeypatch):
    """Threads, files, processes, OpenGL contexts, simulations, temporary folders and memory, over many lives.

    Memory: that of OpenGL and MuJoCo comes and goes by 50 MiB; a quarter of a MiB for each life is less than any simulation has.
    """

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def life(seed: int) -> None:
        env = make(env_id)
        env.reset(seed=seed)
        env.step(env.action_space.sample())
        env.render()
        if seed % 5:
            env.close()
        else:  # only forgotten
            del env
            gc.collect()

    for seed in range(3):  # caches and pools fill
        life(seed)
    before, memory = left_behind(), resident()
    for seed in range(cycles):
        life(seed)
    assert left_behind() == before
    if cycles >= 20:
        grown = (resident() - memory) / 2**20
        draws = any(part in env_id for part in ("ArxX5", *HEAVY))
        assert grown < (80.0 if draws else 12.0) + 0.25 * cycles, f"{grown:.1f} MiB in {cycles} lives"


def left_behind() -> dict[str, int]:
    """What this process has, in numbers."""
    found = {
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
        "processes": len(multiprocessing.active_children()),
        "folders": len(os.listdir(tempfile.gettempdir())),
    }
    if "pybullet" in sys.modules:
        bullet = sys.modules["pybullet"]
        found["simulations"] = sum(bool(bullet.getConnectionInfo(n)["isConnected"]) for n in range(64))
    if "mujoco.egl" in sys.modules:
        found["contexts"] = sum(type(thing).__name__ in ("GLContext", "EGLGLContext") for thing in gc.get_objects())
    return found


PROCESSES = """
import multiprocessing, sys
import gymnasium as gym, numpy as np
import uva_agents.envs

def shown(envs):
    envs.reset(seed=3)
    return np.stack(envs.render()).sum(), envs.step(envs.action_space.sample())[0]["pixels"].sum()

def main(env_id):
    options = {"instruction": "info"} if "Libero" in env_id else {}
    for context in ("fork", "spawn", "forkserver"):  # nothing is drawn here before the fork
        make = lambda: gym.make("uva_agents.envs:" + env_id, render_mode="rgb_array", **options)
        envs = gym.vector.AsyncVectorEnv([make] * 2, context=context)
        envs.action_space.seed(0)
        print(env_id, context, *shown(envs))
        envs.close()

if __name__ == "__main__":
    main(sys.argv[1])
"""


@pytest.mark.parametrize("env_id", [pytest.param(n, marks=pytest.mark.long) for n in IDS])
def test_vector_environments_in_processes_of_every_kind_show_the_same(env_id, tmp_path):
    make(env_id).close()
    program = tmp_path / "program.py"
    program.write_text(PROCESSES, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program), env_id],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split()[2:] for line in done.stdout.splitlines() if line.startswith(env_id)]
    assert len(lines) == 3 and lines[0] == lines[1] == lines[2]
