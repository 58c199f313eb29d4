"""From the arm to the arm: collect, train, drive, record, train again. The commands are those of the tutorial."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from uva_agents.agents import UVA
from uva_agents.data import open_dataset

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "train_any_task.md"


def commands() -> list[str]:
    section = PAGE.read_text(encoding="utf-8").partition("## From the arm to the arm")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return block.group(1).strip().splitlines()


def test_the_tutorial_closes_the_circle_in_four_commands():
    lines = commands()
    assert [line.split()[:2] for line in lines] == [["uva", "data"], ["uva", "train"], ["uva", "run"], ["uva", "train"]]


@pytest.mark.long
def test_what_is_collected_trains_drives_the_twin_and_what_that_records_trains_again(tmp_path):
    import shlex

    for line in commands():
        words = [sys.executable, "-m", "uva_agents.cli", *shlex.split(line)[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    recorded = open_dataset(tmp_path / "recorded")
    assert recorded.format == "lerobot" and recorded.names["action"][0] == "eef.x" and len(recorded) == 1
    weights = UVA.from_pretrained(tmp_path / "runs/recorded/weights", device="cpu")
    obs = {name: np.asarray(recorded.arrays[name][3]) for name in (*recorded.cameras, "agent_pos")}
    policy = weights.policy()
    policy.reset(seed=0)
    action = policy.act(obs)
    assert policy.action_space.contains(action)
