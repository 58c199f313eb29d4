"""Processes forked after inference on several threads: they compute, or refuse at once; they never hang."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

BEFORE = """
import multiprocessing, os, sys, warnings
import numpy as np, torch
torch.set_num_threads(2)
import uva_agents as uva
from uva_agents.agents.policy import Policy
from uva_agents.errors import MachineError
pid = os.fork()
if pid == 0:  # nothing was computed yet: nothing is cut off
    torch.ones(1000, 1000) @ torch.ones(1000, 1000)
    os._exit(0 if torch.get_num_threads() == 2 else 1)
assert os.waitpid(pid, 0)[1] == 0
policy = uva.Policy.from_pretrained("pusht-nano", device="cpu", steps=2)
obs = {"pixels": np.full((96, 96, 3), 200, np.uint8), "agent_pos": np.array([100, 100], np.float32)}
def decide():
    policy.reset(seed=0)
    return policy.act(obs)
here = decide()
assert torch.get_num_threads() == 2
"""


def run(code: str, timeout: float = 200.0) -> str:
    """Output of a fresh process that computes on two threads and forks; a child that hangs is killed with it."""
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    script = textwrap.dedent(BEFORE) + textwrap.dedent(code)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            out, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            out, _ = process.communicate()
            pytest.fail(f"it hangs, after:\n{out}")
    assert process.returncode == 0, out
    return out


def test_forked_processes_of_all_kinds_decide_as_their_parent_does():
    """os.fork, multiprocessing, torch's DataLoader, and gymnasium's AsyncVectorEnv of dreams, one after the other; several
    threads, which would hang there, are refused. One process for all of it: importing torch takes seconds."""
    out = run(
        """
        pid = os.fork()
        if pid == 0:
            os._exit(0 if np.array_equal(decide(), here) and torch.get_num_threads() == 1 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        print("fork")

        pid = os.fork()
        if pid == 0:
            torch.set_num_threads(2)  # which would hang
            try:
                decide()
            except MachineError as error:
                os._exit(0 if "set_num_threads(2)" in str(error) and "'spawn' or 'forkserver'" in str(error) else 1)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        print("refusal")

        context = multiprocessing.get_context("fork")
        with context.Pool(2) as pool:
            for action in [pool.apply_async(decide) for _ in range(4)]:
                assert np.array_equal(action.get(60), here)
        print("multiprocessing")

        class Decisions(torch.utils.data.Dataset):
            def __len__(self):
                return 4
            def __getitem__(self, i):
                return decide()
        for batch in torch.utils.data.DataLoader(Decisions(), num_workers=2, multiprocessing_context="fork"):
            assert np.array_equal(batch.numpy()[0], here)
        print("DataLoader")

        import gymnasium as gym
        world = uva.WorldModel(policy.weights)
        make = lambda: world.as_env(lambda rollout: rollout.frames.mean((1, 2, 3, 4)), horizon=8, starts=[obs])
        alone = make()
        first, _ = alone.reset(seed=0)
        second, *_ = alone.step(np.full(2, 200, np.float32))
        envs = gym.vector.AsyncVectorEnv([make, make], context="fork")
        many, _ = envs.reset(seed=0)
        assert np.array_equal(many["pixels"][0], first["pixels"])
        for _ in range(4):
            after, *_ = envs.step(np.full((2, 2), 200, np.float32))
        envs.close(terminate=True)
        print("AsyncVectorEnv")

        assert torch.get_num_threads() == 2 and np.array_equal(decide(), here)
        """
    )
    assert out.split() == ["fork", "refusal", "multiprocessing", "DataLoader", "AsyncVectorEnv"]
