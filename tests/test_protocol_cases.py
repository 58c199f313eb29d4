"""Protocols of several rows: every seed under every condition, a row for each in the report."""

import dataclasses
import json
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

import uva_agents
from tests import toys
from tests.toys import NoisyAgent
from uva_agents.benchmarks import PROTOCOLS, Case, EvalProtocol, get_protocol, protocol_for
from uva_agents.cli import main
from uva_agents.envs.pusht_variations import VARIATIONS

LIFTED = "uvatest/Lifted-v0"


class Lifted(toys.Walk):
    """A walk whose progress is lifted by the option ``lift``; seed 41 cannot be walked when it is."""

    def reset(self, *, seed=None, options=None):
        self.lift = (options or {}).get("lift", 0.0)
        if self.lift and seed == 41:
            raise OSError("no lift today")
        return super().reset(seed=seed)

    def _info(self):
        info = super()._info()
        coverage = min(info["coverage"] + self.lift, 1.0)
        return {"coverage": coverage, "is_success": coverage > 0.5}


RULES = EvalProtocol(
    "lifted", "", LIFTED, None, 40, None, "coverage", version=3, cases=(Case("floor"), Case("lift", {"lift": 0.6}))
)


@pytest.fixture(autouse=True)
def _registered():
    toys.register()
    gym.register(LIFTED, entry_point=Lifted)
    yield
    gym.registry.pop(LIFTED)


def run(n=6, **options):
    options = {"progress": False, "seed": 42, "protocol": RULES, **options}
    return uva_agents.evaluate(NoisyAgent(), None, n, **options)


def test_every_seed_is_run_under_every_condition_with_the_same_agent_seed():
    report = run()
    assert [(e.seed, e.case) for e in report.episodes] == [(s, c) for s in range(42, 48) for c in ("floor", "lift")]
    floor, lift = (np.array([e.best_progress for e in report.episodes if e.case == c]) for c in ("floor", "lift"))
    np.testing.assert_allclose(lift, np.minimum(floor + 0.6, 1))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_rows_do_not_depend_on_how_many_run_side_by_side(vectorization):
    assert run(n_envs=5, vectorization=vectorization).episodes == run().episodes


def test_a_row_equals_the_protocol_of_that_row_alone():
    whole, alone = run(), run(protocol=dataclasses.replace(RULES, cases=RULES.cases[1:]))
    assert [e.score for e in whole.episodes if e.case == "lift"] == [e.score for e in alone.episodes]
    row = whole.cases[1]
    assert (row.name, row.n, row.score, row.score_ci95) == ("lift", 6, alone.score, alone.score_ci95)
    assert (row.success_rate, row.success_ci95) == (alone.success_rate, alone.success_ci95)
    assert (row.already_solved, row.final_coverage) == (alone.already_solved, alone.final_coverage)
    assert alone.cases == ()
    assert whole.score == pytest.approx(np.mean([case.score for case in whole.cases]))


def test_the_interval_of_all_rows_counts_seeds_not_episodes():
    # Two rows that are copies of each other say no more than one does.
    twice = run(protocol=dataclasses.replace(RULES, cases=(Case("one"), Case("two"))))
    once = run(protocol=dataclasses.replace(RULES, cases=(Case("one"),)))
    assert twice.n == 2 * once.n
    assert twice.score_ci95 == pytest.approx(once.score_ci95)
    low, high = twice.success_ci95
    assert low < twice.success_rate < high


def test_no_success_in_any_row_still_has_an_interval():
    never = dataclasses.replace(RULES, cases=(Case("one", {"lift": -2.0}), Case("two", {"lift": -2.0})))
    report = run(protocol=never)
    assert report.success_rate == 0
    assert report.success_ci95[1] > 0.1


def test_the_summary_has_a_line_per_row_the_version_and_how_many_starts_were_solved(tmp_path):
    report = run(json_path=tmp_path / "report.json")
    text = report.summary()
    assert "protocol lifted v3" in text
    for case in report.cases:
        line = next(line for line in text.splitlines() if line.strip().startswith(case.name))
        assert f"{case.score:.3f}  [{case.score_ci95[0]:.3f}, {case.score_ci95[1]:.3f}]" in line
    assert report.cases[1].already_solved == 6
    assert f"{report.already_solved} episodes began solved" in text
    assert f"uva_agents {uva_agents.__version__}" in text
    saved = json.loads((tmp_path / "report.json").read_text())
    assert [case["name"] for case in saved["cases"]] == ["floor", "lift"]
    assert saved["protocol_version"] == 3


def test_a_failed_episode_is_counted_in_its_row():
    report = run(n=2, seed=41)
    assert [(f.seed, f.case) for f in report.failures] == [(41, "lift")]
    assert [(c.name, c.n, c.failed) for c in report.cases] == [("floor", 2, 0), ("lift", 1, 1)]
    assert "1 FAILED" in report.summary()
    alone = run(n=1, seed=41)
    assert alone.cases[1].score is None
    assert "no episode finished, 1 failed" in alone.summary()


def test_an_interrupted_evaluation_continues_row_by_row_and_with_more_episodes(tmp_path):
    path, agent = tmp_path / "report.json", NoisyAgent()
    agent.stop_after = 20
    with pytest.raises(KeyboardInterrupt):
        uva_agents.evaluate(agent, None, 4, protocol=RULES, seed=42, json_path=path, progress=False)
    report = run(json_path=path)
    assert report.resumed > 0
    assert report.episodes == run().episodes


def test_another_version_does_not_continue_it(tmp_path):
    path, agent = tmp_path / "report.json", NoisyAgent()
    agent.stop_after = 20
    with pytest.raises(KeyboardInterrupt):
        uva_agents.evaluate(agent, None, 4, protocol=RULES, seed=42, json_path=path, progress=False)
    assert run(json_path=path, protocol=dataclasses.replace(RULES, version=4)).resumed == 0


def test_a_protocol_for_any_environment_needs_one():
    agent = NoisyAgent()
    with pytest.raises(ValueError, match="'success' fits any environment: say which one"):
        uva_agents.evaluate(agent, None, 1, protocol="success", progress=False)
    with pytest.raises(ValueError, match="names no environment: say which one"):
        uva_agents.evaluate(agent, None, 1, progress=False)


def test_weights_are_evaluated_in_the_environment_that_they_name_with_its_protocol():
    agent = NoisyAgent()
    agent.spec = SimpleNamespace(env_id=toys.WALK)  # type: ignore[attr-defined]
    for protocol in (None, "success"):
        report = uva_agents.evaluate(agent, None, 2, protocol=protocol, progress=False)
        assert (report.env_id, report.protocol, report.n) == (toys.WALK, "success", 2)
    with pytest.raises(ValueError, match="uva/PushT-v0 takes"):  # what a protocol is for comes first
        uva_agents.evaluate(agent, None, 1, protocol="dp-pusht", progress=False)


# -- the PushT protocols -----------------------------------------------------------------------------


def test_every_protocol_has_a_version_and_its_environment_exists():
    for protocol in PROTOCOLS.values():
        assert protocol.version >= 1
        assert protocol.title == f"{protocol.name} v{protocol.version}"
        if protocol.env_id is not None:
            gym.spec(protocol.env_id)


def test_disturbed_protocols_ask_for_the_variations_that_there_are():
    everything = get_protocol("pusht-disturbed-all").cases
    assert {c.name for c in everything} == {"Normal", *VARIATIONS}
    published = [c.name for c in get_protocol("pusht-disturbed").cases]
    assert published == ["Normal", "background_color", "background_object", "goal_color"]
    env = gym.make("uva/PushTDisturbed-v0")
    for case in everything:
        shown = set(env.reset(seed=0, options=dict(case.options))[1]["variation"])
        assert shown == ({case.name} if case.name != "Normal" else set())
        if case.name != "Normal":
            assert get_protocol(f"pusht-disturbed/{case.name}").cases == (case,)


@pytest.mark.parametrize(
    ("env_id", "name"),
    [
        ("uva/PushTMulti-v0", "pusht-m"),
        ("uva_agents:uva/PushTDisturbed-v0", "pusht-disturbed"),
        ("uva/PushT-v0", "dp-pusht"),
        ("other/Env-v0", "success"),
        ("", "success"),
    ],
)
def test_an_environment_has_its_usual_protocol(env_id, name):
    assert protocol_for(env_id).name == name


def still():
    """An agent that stays where it is, in any PushT."""

    class Still:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return observation["agent_pos"], state

    return Still()


@pytest.mark.parametrize(("name", "rows"), [("pusht-m", 0), ("pusht-disturbed", 4), ("pusht-disturbed/noise", 0)])
def test_uva_eval_runs_them_by_name_without_an_environment(tmp_path, capsys, monkeypatch, name, rows):
    monkeypatch.setitem(PROTOCOLS, name, dataclasses.replace(PROTOCOLS[name], max_steps=3))
    path = tmp_path / "report.json"
    argv = ["eval", "tests.test_protocol_cases:still", "--protocol", name, "--episodes", "2", "--quiet"]
    assert main([*argv, "--json", str(path)]) == 0
    saved = json.loads(path.read_text())
    assert (saved["protocol"], saved["env_id"]) == (name, PROTOCOLS[name].env_id)
    assert len(saved["cases"]) == rows
    assert saved["n"] == 2 * max(rows, 1)
    out = capsys.readouterr().out
    for row in saved["cases"]:
        assert row["name"] in out and row["n"] == 2
