"""All ten tasks of LIBERO-10 and its protocols."""

import dataclasses
import json

import gymnasium as gym
import numpy as np
import pytest

import uva_agents
from uva_agents.benchmarks import PROTOCOLS, get_protocol, protocol_for
from uva_agents.cli import main

pytest.importorskip("libero", reason="uva/Libero10-v0 needs LIBERO: pip install 'uva-agents[libero]'")

from uva_agents.envs.libero import LiberoEnv, suite_tasks

TASKS = suite_tasks("libero_10")


@pytest.mark.long
@pytest.mark.parametrize("task_id", range(10))
def test_a_hundred_random_steps_and_their_replay(task_id):
    env = LiberoEnv(task_id=task_id, image_size=16, render_size=16, render_observations=False)
    rng = np.random.default_rng(task_id)
    _, info = env.reset(seed=100_000 + task_id)
    assert info["is_success"] is False and info["task_id"] == task_id
    start, actions = env.get_state(), []
    for t in range(100):
        # Half of them anywhere, half near where the arm began, where there are things to touch.
        if t % 2:
            action = rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        else:
            action = env.hold_action()
            action[:9] += rng.uniform(-0.2, 0.2, 9)
        actions.append(action)
    states = []
    for action in actions:
        observation, _, _, truncated, info = env.step(action)
        assert env.observation_space.contains(observation) and not truncated
        states.append(env.flat_state())
    assert np.isfinite(states).all()
    env.set_state(start)
    for action, state in zip(actions, states, strict=True):
        env.step(action)
        np.testing.assert_array_equal(env.flat_state(), state)
    pictures = env.observe()
    assert pictures["pixels"].std() > 15 and pictures["pixels_wrist"].std() > 5
    env.reset(options={"initial_state": 17})
    env.close()


# -- protocols ---------------------------------------------------------------------------------------


class Holder:
    """Holds the arm where ``agent_pos`` says it is; remembers what it was shown."""

    def __init__(self):
        self.action_space = gym.make("uva/Libero10-v0").action_space
        self.tasks = []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.tasks += list(observation["task"])
        n = len(observation["agent_pos"])
        rows = np.tile(np.array([0, 0, 0, 0, 1, 0, 1, 0, 0, -1], np.float32), (n, 1))  # pointing down
        rows[:, :3] = observation["agent_pos"][:, :3]
        return rows, state


@pytest.mark.parametrize(("name", "seed", "wait"), [("libero10-uva", 100_000, 0), ("libero10-fixed", 0, 10)])
def test_protocols_have_a_row_per_task(name, seed, wait):
    rules = get_protocol(name)
    assert (rules.env_id, rules.max_steps, rules.first_seed, rules.version) == ("uva/Libero10-v0", 500, seed, 1)
    assert rules.progress_key == "is_success" and rules.score(True) == 1.0 and rules.score(False) == 0.0
    assert [case.options["task_id"] for case in rules.cases] == list(range(10))
    assert {case.options["initial_states"] for case in rules.cases} == {name.split("-")[1].replace("uva", "random")}
    assert {case.options["wait_steps"] for case in rules.cases} == {wait}
    # Rows are called after what their tasks are about.
    for case, task in zip(rules.cases, TASKS, strict=True):
        for word in set(case.name.split("-")[1:]) - {"mugs", "plates", "pots", "close", "on"}:
            assert word in task.language, (case.name, task.language)


def test_the_usual_protocol_is_that_of_the_paper():
    assert protocol_for("uva/Libero10-v0").name == "libero10-uva"


def test_fixed_states_are_run_in_order_and_reported_per_task(tmp_path, monkeypatch, capsys):
    rules = PROTOCOLS["libero10-fixed"]
    cases = tuple(
        dataclasses.replace(case, options={**case.options, "wait_steps": 0})
        for case in (rules.cases[2], rules.cases[8])
    )
    monkeypatch.setitem(PROTOCOLS, rules.name, dataclasses.replace(rules, max_steps=2, cases=cases))
    agent, path = Holder(), tmp_path / "report.json"
    report = uva_agents.evaluate(
        agent,
        protocol="libero10-fixed",
        n_episodes=2,
        seed=0,
        env_kwargs={"render_observations": False},
        json_path=path,
        progress=False,
    )
    assert [(e.seed, e.case) for e in report.episodes] == [(s, c.name) for s in (0, 1) for c in cases]
    assert report.failures == () and report.score == 0.0 and report.already_solved == 0
    assert [(c.name, c.n, c.score) for c in report.cases] == [(c.name, 2, 0.0) for c in cases]
    assert set(agent.tasks) == {TASKS[2].prompt, TASKS[8].prompt}
    saved = json.loads(path.read_text())
    assert (saved["protocol"], saved["protocol_version"]) == ("libero10-fixed", 1)


@pytest.mark.parametrize("name", ["libero10-uva", "libero10-fixed"])
def test_a_policy_for_something_else_is_told_so(name, capsys):
    with pytest.raises(ValueError, match="it was made for another environment"):
        uva_agents.evaluate(
            uva_agents.Policy.from_pretrained("pusht-nano"), protocol=name, n_episodes=1, progress=False
        )
    assert main(["eval", "pusht-nano", "--protocol", name, "--episodes", "1", "--quiet"]) == 2
    assert "made for another environment" in capsys.readouterr().err


def test_an_agent_without_bounds_leaves_them_to_the_environment(monkeypatch):
    rules = PROTOCOLS["libero10-uva"]
    monkeypatch.setitem(PROTOCOLS, rules.name, dataclasses.replace(rules, max_steps=1, cases=rules.cases[2:3]))
    agent = Holder()
    agent.action_space = gym.spaces.Box(-np.inf, np.inf, (10,))
    report = uva_agents.evaluate(
        agent, protocol=rules.name, n_episodes=1, env_kwargs={"render_observations": False}, progress=False
    )
    assert report.n == 1
    agent.action_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    with pytest.raises(ValueError, match="another environment"):
        uva_agents.evaluate(agent, protocol=rules.name, n_episodes=1, progress=False)
