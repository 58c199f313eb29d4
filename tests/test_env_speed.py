"""``uva bench env-speed``."""

import json

import gymnasium as gym
import pytest

from uva_agents.benchmarks.speed import env_speed
from uva_agents.cli import main
from uva_agents.envs import BLOCK_PUSH, PUSHT, TOOL_HANG


def test_every_registered_environment_is_found():
    assert {PUSHT, BLOCK_PUSH, TOOL_HANG} <= set(env_speed.registered())
    assert all(name.startswith("uva/") for name in env_speed.registered())


def test_a_row_is_printed_and_written_with_hardware_and_versions(tmp_path, capsys):
    path = tmp_path / "speed.json"
    assert main(["bench", "env-speed", "--env", PUSHT, "--seconds", "0.05", "--resets", "1", "--json", str(path)]) == 0
    saved = json.loads(path.read_text())
    (row,) = saved["rows"]
    assert row["env_id"] == PUSHT and row["setting"] == "default" and row["pictures"] == [[96, 96, 3]]
    assert row["steps"] >= 1 and row["steps_per_s"] > 1 and row["error"] is None
    assert "numpy" in saved["versions"] and saved["hardware"]
    assert PUSHT in capsys.readouterr().out


class Slow(gym.Env):
    """Ends after three steps; counts."""

    observation_space = action_space = gym.spaces.Box(-1, 1, (1,))
    made = 0

    def __init__(self, quality="full"):
        if quality == "fast":
            raise RuntimeError("no such quality here")
        type(self).made += 1

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self.action_space.sample(), {}

    def step(self, action):
        self.steps += 1
        assert self.steps <= 3, "stepped after the end"
        return self.action_space.sample(), 0.0, self.steps == 3, False, {}


class Missing(Slow):
    def __init__(self):
        raise ImportError("needs what is not there: pip install 'uva-agents[toolhang]'")


@pytest.fixture
def toys(monkeypatch):
    for name, entry in (("uva/Slow-v0", Slow), ("uva/Missing-v0", Missing)):
        monkeypatch.setitem(gym.registry, name, gym.envs.registration.EnvSpec(name, entry_point=entry))


def test_settings_that_a_class_does_not_take_are_left_out_and_errors_become_rows(toys):
    rows = list(env_speed.speeds("uva/Slow-v0", seconds=0.01, resets=2))
    assert [(r.setting, r.error) for r in rows] == [
        ("default", None),
        ("fast", "RuntimeError: no such quality here"),
    ]
    assert rows[0].steps >= 1 and rows[0].resets == 2


def test_a_missing_extra_is_one_row_that_names_it(toys, capsys):
    assert env_speed.main(["--env", "uva/Missing-v0", "--seconds", "0.01"]) == 1
    assert capsys.readouterr().out.count("not measured: needs what is not there") == 1
    with pytest.raises(gym.error.NameNotFound, match="Slow"):
        env_speed.main(["--env", "uva/Slwo-v0"])
