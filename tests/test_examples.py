"""Every example runs as it stands, and says what it found."""

import importlib.util
import os
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NEEDS = {"ppo_in_a_dream": "stable_baselines3", "serve_and_ask": "websockets", "drive_the_twin": "mujoco"}
ARGUMENTS = {"ppo_in_a_dream": ["32"], "imagine": ["imagined.mp4"]}
SHORT = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "ppo_from_uva_features")


@pytest.mark.parametrize("name", SHORT)
def test_an_example_runs(name, tmp_path, monkeypatch, capsys):
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *ARGUMENTS.get(name, [])])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.strip()
    if name == "imagine":
        assert os.path.getsize("imagined.mp4") > 1000


def test_examples_are_short():
    for name in SHORT:
        assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 60, name
