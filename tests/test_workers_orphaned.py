"""Workers whose parent was killed end, whatever they are doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.conftest import REPOSITORY

PARENT = """
import multiprocessing as mp, sys, time
from uva_agents.utils import workers
workers._LOOK_S = 0.1

def serve(connection):
    workers.end_with_parent()
    connection.send(b"x" * 10)
    {work}

if __name__ == "__main__":
    context, kept = mp.get_context("{method}"), []
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs,), daemon=True)
        process.start()
        kept.append((ours, process))
    for ours, _ in kept:
        ours.recv()
    print(*(process.pid for _, process in kept), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    ("method", "work"),
    [
        ("fork", "connection.send(b'x' * 50_000_000)"),  # nobody takes it, and the pipe does not break
        ("forkserver", "connection.send(b'x' * 50_000_000)"),
    ],
)
def test_workers_do_not_outlive_a_parent_that_was_killed(method, work, tmp_path):
    (tmp_path / "parent.py").write_text(PARENT.format(method=method, work=work))
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert parent.stdout is not None
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    time.sleep(0.5)
    assert all(child.is_running() for child in children)  # as long as the parent lives
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    for child in alive:
        child.kill()
    assert not alive
