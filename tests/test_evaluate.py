"""``uva_agents.evaluate``."""

import dataclasses
import json
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import uva_agents
from tests import toys
from tests.conftest import REPOSITORY
from tests.evaluations import by_hand, essentials, run
from tests.toys import WALK, NoisyAgent
from uva_agents.benchmarks import EvalProtocol, EvaluationError, get_protocol

# -- which episodes are run ------------------------------------------------------------------------


@pytest.mark.parametrize("n_envs", [1, 2, 3, 5, 11, 40])
def test_rows_of_unequal_length_equal_the_single_runs_bit_for_bit(n_envs):
    report = run(n_envs=n_envs)
    assert len({e.length for e in report.episodes}) > 3
    assert essentials(report) == by_hand(11)


@pytest.mark.parametrize("n_envs", [1, 3])
def test_environments_in_processes_give_the_same(n_envs):
    assert essentials(run(n_envs=n_envs, vectorization="async")) == by_hand(11)


def test_pusht_gives_the_same_side_by_side():
    rules = dataclasses.replace(get_protocol("dp-pusht"), max_steps=6)

    class Follower(NoisyAgent):
        action_space = gym.spaces.Box(0.0, 512.0, (2,), np.float32)

        def predict(self, observation, state, episode_start=None, deterministic=False):
            small, state = super().predict(observation, state)
            return np.clip(observation["agent_pos"] + 100 * small, 0, 512), state

    reports = [
        uva_agents.evaluate(Follower(), "uva/PushT-v0", 3, n_envs=n, protocol=rules, progress=False) for n in (1, 2)
    ]
    assert reports[0].episodes == reports[1].episodes
    assert [e.length for e in reports[0].episodes] == [6, 6, 6]


def test_deterministic_reaches_the_agent():
    assert essentials(run(deterministic=True)) == by_hand(11, deterministic=True)
    assert essentials(run(deterministic=True)) != essentials(run())


# -- what is reported ------------------------------------------------------------------------------


def test_scores_rates_and_intervals_follow_from_the_episodes():
    report, expected = run(), by_hand(11)
    scores = [min(best / 0.95, 1.0) for _, _, best, _, _ in expected]
    assert [e.score for e in report.episodes] == pytest.approx(scores)
    assert report.score == pytest.approx(np.mean(scores))
    assert report.success_rate == pytest.approx(np.mean([s for *_, s in expected]))
    assert report.final_coverage == pytest.approx(np.mean([last for *_, last, _ in expected]))
    for value, (low, high) in ((report.score, report.score_ci95), (report.success_rate, report.success_ci95)):
        assert low < value < high


def test_best_coverage_counts_steps_not_the_start():
    agent = NoisyAgent()
    agent.predict = lambda observation, state, **_: (np.full((len(state), 1), -1.0, np.float32), state)
    report = run(agent)
    assert all(e.best_progress < 0.3 for e in report.episodes)
    assert {e.best_progress for e in report.episodes if e.best_progress == 0.0} == {0.0}


def test_episodes_that_begin_solved_are_counted():
    class Solved(toys.Walk):
        def reset(self, *, seed=None, options=None):
            observation, info = super().reset(seed=seed)
            return observation, {**info, "is_success": seed % 2 == 0}

    gym.register("uvatest/Solved-v0", entry_point=Solved)
    report = uva_agents.evaluate(NoisyAgent(), "uvatest/Solved-v0", 5, seed=40, progress=False)
    assert report.already_solved == 3
    others = [e.success for e in report.episodes if e.seed % 2]
    assert report.unsolved_success_rate == np.mean(others)
    assert f"3 episodes began solved; success rate of the other 2: {np.mean(others):.3f}" in report.summary()
    gym.registry.pop("uvatest/Solved-v0")


def test_latency_separates_new_chunks_from_queued_actions():
    report = run(n_envs=2)
    latency = report.latency
    assert latency.batch_size == 2
    assert 0 < latency.replan_calls < latency.calls
    assert 0 < latency.p50_s <= latency.p95_s


def test_the_report_is_complete_json(tmp_path):
    report = run(n_envs=2, json_path=tmp_path / "deep" / "report.json")
    saved = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert saved == json.loads(report.to_json())
    assert saved["score"] == report.score
    assert [e["seed"] for e in saved["episodes"]] == list(range(40, 51))
    assert {"python", "numpy", "gymnasium", "uva_agents"} <= set(saved["versions"])
    assert "cores" in saved["hardware"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["report.json"]


def test_the_summary_says_what_people_quote():
    report = run()
    text = report.summary()
    assert f"score           {report.score:.3f}" in text
    assert "success rate" in text
    assert "final coverage" in text
    assert "protocol dp-pusht is defined for uva/PushT-v0" in text


def test_an_agent_that_executes_another_number_of_actions_is_noted():
    agent = NoisyAgent()
    agent.execute = 4
    assert any("executes 4 actions of a chunk, the protocol 8" in note for note in run(agent, 2).notes)


def test_the_protocol_sets_the_step_limit():
    rules = dataclasses.replace(get_protocol("dp-pusht"), max_steps=4)
    assert {e.length for e in run(protocol=rules).episodes} == {3, 4}


def test_the_success_protocol_scores_success():
    report = run(protocol="success")
    assert report.score == report.success_rate == pytest.approx(np.mean([s for *_, s in by_hand(11)]))


# -- other agents ----------------------------------------------------------------------------------


def test_a_plain_predict_gets_state_and_episode_starts_as_stable_baselines3_passes_them():
    class Recurrent:
        """Counts its own steps per row, and restarts the count where it is told to."""

        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            count = np.zeros(len(episode_start)) if state is None else state
            count = np.where(episode_start, 0, count) + 1
            return np.stack([count / 10]).T.astype(np.float32), count

    one, many = run(Recurrent()), run(Recurrent(), n_envs=4)
    assert essentials(one) == essentials(many)
    start = np.random.default_rng(40).uniform(0, 0.3)  # gymnasium seeds a default_rng
    steps = one.episodes[0].length
    assert one.episodes[0].final_progress == pytest.approx(start + 0.2 * sum(range(1, steps + 1)) / 10, abs=1e-6)


def test_a_stable_baselines3_model_can_be_evaluated():
    from stable_baselines3 import PPO

    model = PPO("MultiInputPolicy", gym.make(WALK), n_steps=8, batch_size=8, device="cpu", seed=0)
    report = run(model, 5, n_envs=2, deterministic=True)
    assert report.n == 5
    assert report.agent == "PPO"
    assert essentials(run(model, 5, n_envs=2)) == essentials(run(model, 5, n_envs=2))


# -- things that go wrong --------------------------------------------------------------------------


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_an_environment_that_raises_costs_that_episode_only(vectorization, n_envs):
    report = run(n_envs=n_envs, vectorization=vectorization, env_kwargs={"breaks": [42, 47], "broken_resets": [44]})
    assert [(f.seed, f.step) for f in report.failures] == [(42, 2), (44, 0), (47, 2)]
    assert "ZeroDivisionError: the simulator blew up" in report.failures[0].error
    assert "OSError: the camera is unplugged" in report.failures[1].error
    assert essentials(report) == [r for r in by_hand(11) if r[0] not in (42, 44, 47)]
    assert "FAILED episode 2 (seed 42) at step 2" in report.summary()


def test_a_process_that_dies_costs_that_episode_only():
    report = run(n_envs=2, vectorization="async", env_kwargs={"exits": [43]})
    assert [(f.seed, f.step) for f in report.failures] == [(43, 2)]
    assert "process died (exit code 3)" in report.failures[0].error
    assert essentials(report) == [r for r in by_hand(11) if r[0] != 43]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_that_is_killed_in_mid_episode_costs_that_episode_only(workers, tmp_path):
    path = tmp_path / "report.json"
    report = run(workers=workers, env_kwargs={"killed": [43, 48]}, json_path=path)
    assert [(f.seed, f.step) for f in report.failures] == [(43, 2), (48, 2)]
    assert "process died (exit code -9)" in report.failures[0].error
    assert essentials(report) == [r for r in by_hand(11) if r[0] not in (43, 48)]
    assert report.n == 9 and report.workers == workers
    assert [f["seed"] for f in json.loads(path.read_text())["failures"]] == [43, 48]


def test_a_worker_killed_from_outside_while_the_agent_thinks_costs_that_episode_only():
    class Saboteur(NoisyAgent):
        def predict(self, *args, **options):
            if self.calls == 4:
                victim = sorted(mp.active_children(), key=lambda process: process.pid or 0)[0]
                os.kill(victim.pid, signal.SIGKILL)
                victim.join()
            return super().predict(*args, **options)

    report = run(Saboteur(), workers=2)
    (failure,) = report.failures
    assert "exit code -9" in failure.error
    assert essentials(report) == [r for r in by_hand(11) if r[0] != failure.seed]


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_give_the_same_as_one_process(workers):
    report = run(workers=workers)
    assert essentials(report) == by_hand(11)
    assert (report.workers, report.n_envs) == (workers, workers)
    assert f"{workers} worker processes" in report.summary()
    assert run(n=2).workers == 0


def test_workers_end_with_the_evaluation_and_when_it_is_killed(tmp_path, monkeypatch):
    run(n=3, workers=3)
    assert not mp.active_children()
    code = (
        "import os, multiprocessing as mp, uva_agents.utils.workers as w, uva_agents, signal\n"
        "from tests import toys; toys.register()\n"
        "w._LOOK_S = 0.1\n"
        "class Stops(toys.NoisyAgent):\n"
        "    def predict(self, *args, **options):\n"
        "        print(*[p.pid for p in mp.active_children()], flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "uva_agents.evaluate(Stops(), toys.WALK, 9, seed=1, workers=3, progress=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [int(pid) for pid in done.stdout.split()]
    assert len(left) == 3
    deadline = time.monotonic() + 20
    while any(map(runs, left)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(runs, left))


def runs(pid):
    """Whether there is such a process, and it is more than an entry that nobody has collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_no_episode_at_all_is_an_error():
    with pytest.raises(EvaluationError, match=r"no episode finished.*the camera is unplugged"):
        run(n=2, env_kwargs={"broken_resets": [40, 41]})


def test_an_environment_that_cannot_be_made_is_named():
    with pytest.raises(EvaluationError, match=r"Walk-v0 cannot be made: TypeError.*no_such_argument"):
        run(env_kwargs={"no_such_argument": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n_episodes=0"),
        ({"n_envs": 0}, "n_envs=0"),
        ({"workers": 0}, "workers=0"),
        ({"workers": 2, "n_envs": 3}, "each worker runs one environment"),
        ({"vectorization": "threads"}, '"sync" or "async"'),
        ({"n_videos": 1}, "without video_dir"),
        ({"protocol": "dp-push"}, "did you mean 'dp-pusht'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_argument_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_an_unknown_environment_names_the_close_ones():
    with pytest.raises(ValueError, match=r"no environment called 'uva/PushT-v1'; did you mean uva/PushT-v0"):
        uva_agents.evaluate(NoisyAgent(), "uva/PushT-v1", 1)


def test_an_agent_for_another_action_space_is_refused():
    with pytest.raises(ValueError, match="made for another environment"):
        uva_agents.evaluate(NoisyAgent(), "uva/PushT-v0", 1, progress=False)


@pytest.mark.parametrize(
    ("env_id", "high", "good"),
    [(None, 300, True), ("uva/PushT-v0", 300, True), ("uva/PushT-v0", 600, False), ("x", 300, False)],
)
def test_weights_whose_bounds_are_those_of_recordings_act_within_the_environments(env_id, high, good):
    from types import SimpleNamespace

    from uva_agents.benchmarks.evaluation.runner import _check_action_space

    own = gym.spaces.Box(np.float32(100), np.float32(high), (2,))
    agent = SimpleNamespace(action_space=own, spec=SimpleNamespace(env_id=env_id))
    space = gym.spaces.Box(np.float32(0), np.float32(512), (2,))
    if good:
        _check_action_space(agent, space, "uva_agents:uva/PushT-v0")
    else:
        with pytest.raises(ValueError, match="made for another environment"):
            _check_action_space(agent, space, "uva_agents:uva/PushT-v0")


def test_something_without_predict_is_refused():
    with pytest.raises(TypeError, match="function cannot be evaluated: it has no predict"):
        run(lambda observation: 0)


def test_an_agent_that_never_gives_finite_actions_is_an_error_with_the_reason_and_no_score():
    agent = NoisyAgent()
    agent.predict = lambda observation, state, **_: (np.full((len(state), 1), np.nan), state)
    with pytest.raises(EvaluationError, match="NaN or infinity at step 0 of the episode with seed 40") as caught:
        run(agent)
    assert caught.value.exit_status == 1


def test_a_wrong_number_of_actions_is_named():
    agent = NoisyAgent()
    agent.predict = lambda observation, state, **_: (np.zeros((1, 1)), state)
    with pytest.raises(ValueError, match=r"3 observations and returned actions of shape \(1, 1\)"):
        run(agent, n_envs=3)


def test_an_info_without_the_scored_key_is_named():
    rules = EvalProtocol("mine", "", None, None, 0, None, progress_key="progress")
    with pytest.raises(ValueError, match=r"scores info\['progress'\], which this environment does not report"):
        run(protocol=rules)
