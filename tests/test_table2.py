"""Table II on the twin of the arm: agents that do not look bound it, weights are asked under every look."""

import importlib.util
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest

if importlib.util.find_spec("mujoco") is None:
    pytest.skip("the twin needs MuJoCo: pip install 'uva-agents[arx]'", allow_module_level=True)

from uva_agents.benchmarks import PROTOCOLS, protocol_for
from uva_agents.benchmarks.paper import table2
from uva_agents.benchmarks.paper.arx_agents import RandomAgent
from uva_agents.benchmarks.paper.table2 import Table2Row
from uva_agents.envs.arx_x5.tasks.tasks import TASKS
from uva_agents.envs.arx_x5.twin.appearance_draws import KINDS, LOOKS
from uva_agents.envs.fitting import options_for


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR)


class Still:
    """Weights, as far as the table is concerned; notes what it is shown."""

    identity = "abc"
    spec = SimpleNamespace(image_shape=(24, 24), control_hz=10.0, wrist_shape=(24, 24), action_low=(0.0,) * 10)

    def __init__(self):
        self.seen = []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        for i in range(len(observation["agent_pos"])):
            self.seen.append((str(observation["task"][i]), np.array(observation["pixels"][i])))
        assert observation["pixels_wrist"].shape[1:] == (24, 24, 3)
        action = np.array([0.3, 0, 0.2, 0, -1, 0, -0.8, 0, -0.6, 0.08], np.float32)
        return np.broadcast_to(action, (len(observation["agent_pos"]), 10)), None


def test_the_rows_are_the_looks_and_tasks_of_the_environment():
    assert protocol_for("uva/ArxX5-v0").name == "arx-x5"
    assert (set(TASKS), KINDS) == ({case.options["task"] for case in PROTOCOLS["arx-x5"].cases}, table2.ARX_CHANGES)
    unseen = [case.options["looks"] for case in PROTOCOLS["arx-x5-unseen"].cases if case.options["task"] == "cup"]
    assert {"plain", "varied", *unseen} == set(LOOKS) and len({*unseen}) == len(unseen)


def test_the_script_reaches_a_random_agent_does_not_and_a_second_run_takes_what_is_there(tmp_path, capsys, monkeypatch):
    words = ["--agents", "scripted", "random", "--tasks", "reach", "--episodes", "2", "--limit-s", "4"]
    assert table2.main([*words, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    table = {row["agent"]: row for row in json.loads((tmp_path / "table2.json").read_text())["table"]}
    assert table["scripted"]["successes"] == 2 and table["random"]["successes"] == 0
    assert table["scripted"]["interval"] == [pytest.approx(0.342, abs=1e-3), 1.0]
    assert "1.00 [0.34, 1.00]" in shown and "unseen light" in shown and "does not look" in shown
    monkeypatch.setattr(table2, "evaluate", None)
    assert table2.main([*words, "--out", str(tmp_path)]) == 0
    assert "1.00 [0.34, 1.00]" in capsys.readouterr().out


def test_weights_see_every_look_of_the_same_episode_with_its_instruction(tmp_path, monkeypatch):
    agent = Still()
    monkeypatch.setattr(table2, "load_policy", lambda name, device: agent)
    words = [
        "--agents",
        "weights/mine",
        "--rows",
        "in distribution",
        "table",
        "all",
        "--episodes",
        "1",
        "--limit-s",
        "0.1",
    ]
    assert table2.main([*words, "--workers", "1", "--out", str(tmp_path)]) == 0
    assert {task for task, _ in agent.seen} == {"reach the green ball", "put the blue cup on the white saucer"}
    assert len(agent.seen) == 6
    assert len({pixels.tobytes() for _, pixels in agent.seen}) == 6
    rows = json.loads((tmp_path / "table2.json").read_text())["table"]
    assert [(row["task"], row["row"], row["n"]) for row in rows] == [
        (task, row, 1) for task in ("reach", "cup") for row in ("in distribution", "table", "all")
    ]
    report = json.loads((tmp_path / "weights_mine.json").read_text())
    assert (
        report["env_kwargs"]["cameras"] == {"pixels": "outside", "pixels_wrist": "wrist"}
        and report["protocol"] == "table2"
    )


def test_options_of_the_environment_are_those_of_the_weights_but_for_what_is_given():
    spec = SimpleNamespace(image_shape=(96, 96), control_hz=10.0, wrist_shape=None, action_low=(0.0,) * 7)
    agent, arm = SimpleNamespace(spec=spec), "uva_agents:uva/ArxX5-v0"
    found = options_for(arm, agent, {"control_hz": 20.0})
    assert found == {
        "cameras": {"pixels": "wrist"},
        "action_mode": "absolute_vector",
        "control_hz": 20.0,
        "image_size": (96, 96),
        "instruction": True,
    }
    spec.wrist_shape = (96, 96)
    assert options_for(arm, agent, {})["cameras"] == {"pixels": "outside", "pixels_wrist": "wrist"}
    spec.cameras = ("wrist", "outside")
    assert options_for(arm, agent, {})["cameras"] == {"pixels": "wrist", "pixels_wrist": "outside"}
    spec.cameras = ()
    spec.wrist_key = "pixels_outside"
    assert options_for(arm, agent, {})["cameras"] == {"pixels": "wrist", "pixels_outside": "outside"}
    spec.wrist_shape, spec.cameras = None, ("outside",)
    assert options_for(arm, agent, {})["cameras"] == {"pixels": "outside"}
    assert "cameras" not in options_for(arm, agent, {"outside": True})
    assert "instruction" not in options_for(arm, agent, {"driver": "arx5"}), "an arm does not know its task"
    for other, name in ((object(), arm), (agent, "uva/PushT-v0"), (agent, "nobody/Knows-v0")):
        assert options_for(name, other, {"a": 1}) == {"a": 1}


def test_random_actions_depend_on_seed_and_step_alone():
    import gymnasium as gym

    agent = RandomAgent(gym.spaces.Box(-1, 1, (3,)))
    one = agent.initial_state(1, seed=[5])
    two = agent.initial_state(2, seed=[4, 5])
    for _ in range(3):
        first, one = agent.predict(None, one)
        both, two = agent.predict(None, two)
        np.testing.assert_array_equal(first[0], both[1])
    two = two.restarted(np.array([True, False]), [5, 0])
    np.testing.assert_array_equal(
        agent.predict(None, two)[0][0], agent.predict(None, agent.initial_state(1, seed=[5]))[0][0]
    )


def test_rows_that_broke_are_told():
    rows = [Table2Row("a", "null", "cup", "in distribution", 0, 0, 3), Table2Row("a", "null", "cup", "light", 4, 1, 1)]
    text = "\n".join(table2.lines(rows, ["a"], ["in distribution", "light"]))
    assert "3 FAILED" in text and "0.25" in text and "1 FAILED" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "0"], "must be above 0"),
        (["--agents", "random", "random"], "twice"),
    ],
)
def test_settings_that_make_no_sense_are_named(tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        table2.main([*words, "--out", str(tmp_path)])
