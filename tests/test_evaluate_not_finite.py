"""Episodes in which numbers are not finite, environments that are made already, and latencies without the first call."""

import dataclasses
import json
import time
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

import uva_agents
from tests import toys
from tests.evaluations import by_hand, essentials, run
from tests.toys import WALK, NoisyAgent
from uva_agents.benchmarks import EvaluationError
from uva_agents.benchmarks.evaluation.episode_loop import EpisodeVideos
from uva_agents.benchmarks.evaluation.journal import Journal
from uva_agents.benchmarks.evaluation.report import EpisodeRecord, Latency
from uva_agents.errors import InputError, NotFiniteError
from uva_agents.utils.results import UnwrittenError

BAD = (42, 45, 46, 50)
"""Seeds whose episodes meet something that the network cannot bear."""


class Sick(NoisyAgent):
    """Raises, as a network does that is asked for a batch, when it meets one of the ``bad`` seeds at their second step or later."""

    def __init__(self, bad=BAD):
        super().__init__()
        self.bad = bad

    def predict(self, observation, state, episode_start=None, deterministic=False):
        for seed, draws in zip(state.seeds, state.draws, strict=True):
            if seed in self.bad and draws >= 1:
                raise NotFiniteError(f"the action head of toy gave NaN for {{seed {seed}}}")
        return super().predict(observation, state, episode_start, deterministic)


class Silent(NoisyAgent):
    """The same, but it returns NaN for those rows and says nothing."""

    def predict(self, observation, state, episode_start=None, deterministic=False):
        sick = [s in BAD and d >= 1 for s, d in zip(state.seeds, state.draws, strict=True)]
        actions, state = super().predict(observation, state, episode_start, deterministic)
        return np.where(np.array(sick)[:, None], np.float32(np.nan), actions), state


@pytest.mark.parametrize("agent", [Sick, Silent])
@pytest.mark.parametrize("n_envs", [1, 2, 3, 4, 11])
def test_a_network_that_is_not_finite_costs_those_episodes_and_changes_no_other(agent, n_envs):
    report = run(agent(), n_envs=n_envs)
    assert [(f.seed, f.step) for f in report.failures] == [(seed, 1) for seed in BAD]
    assert essentials(report) == [r for r in by_hand(11) if r[0] not in BAD]
    reasons = {f.error for f in report.failures}
    assert len(reasons) == len(BAD)
    if agent is Sick:
        assert report.failures[0].error == (
            "NotFiniteError at step 1 of the episode with seed 42: the action head of toy gave NaN for {seed 42}"
        )
    else:
        assert "NaN or infinity at step 1 of the episode with seed 42" in report.failures[0].error
    assert "4 of 11 episodes FAILED" in report.summary() and "seed 42" in report.summary()


def test_an_agent_whose_memory_is_its_own_loses_the_episodes_that_were_asked_for_together():
    starts = sorted(float(toys.Walk().reset(seed=s)[0]["agent_pos"][0]) for s in range(40, 51))

    class Opaque:
        worst = (starts[-1] + starts[-2]) / 2

        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            if observation["agent_pos"].max() > self.worst:
                raise NotFiniteError("NaN")
            return np.full((len(observation["agent_pos"]), 1), -0.1, np.float32), None

    one, three = run(Opaque()), run(Opaque(), n_envs=3)
    assert len(one.failures) == 1 and one.n == 10
    assert {f.seed for f in one.failures} <= {f.seed for f in three.failures} and 1 <= len(three.failures) <= 3


@pytest.mark.parametrize("agent", [Sick, Silent])
def test_where_every_episode_fails_so_the_evaluation_is_an_error_with_the_reason(agent):
    with pytest.raises(EvaluationError, match=r"no episode finished.*step 1 of the episode with seed 42"):
        run(agent(), n=1, seed=42)


def test_any_other_error_of_the_agent_ends_the_evaluation_and_keeps_its_type():
    agent = NoisyAgent()
    agent.predict = lambda observation, state, **_: {}["missing"]
    with pytest.raises(KeyError, match="missing") as caught:
        run(agent)
    assert "predict()" in caught.value.__notes__[0]


@pytest.mark.parametrize("what", ["coverage", "reward"])
def test_an_environment_whose_numbers_are_not_finite_costs_the_episode(what):
    class Broken(toys.Walk):
        def step(self, action):
            observation, reward, terminated, truncated, info = super().step(action)
            if self._seed == 41:
                reward, info = (np.inf, info) if what == "reward" else (reward, {**info, "coverage": np.nan})
            return observation, reward, terminated, truncated, info

    gym.register("uvatest/Broken-v0", entry_point=Broken)
    report = uva_agents.evaluate(NoisyAgent(), "uvatest/Broken-v0", 3, seed=40, protocol="dp-pusht", progress=False)
    gym.registry.pop("uvatest/Broken-v0")
    assert [(f.seed, f.step) for f in report.failures] == [(41, 1)]
    assert ("nan as info['coverage']" if what == "coverage" else "inf as the reward") in report.failures[0].error


WRONG = [
    ("reward", "1"),
    ("reward", None),
    ("reward", 1 + 2j),
    ("reward", np.ones(2)),
    ("reward", np.ma.masked),
    ("terminated", None),
    ("terminated", "no"),
    ("truncated", float("nan")),
    ("truncated", 2),
    ("info", None),
    ("coverage", "1"),
    ("coverage", None),
    ("coverage", np.zeros(3)),
    ("coverage", 1j),
    ("is_success", "no"),
    ("is_success", float("nan")),
    ("is_success", {"task": False}),
    ("agent_pos", np.ma.masked_all(1, np.float32)),
]


def test_an_environment_whose_values_mean_nothing_costs_the_episode_and_is_named_with_the_key():
    class Odd(toys.Walk):
        def step(self, action):
            observation, reward, terminated, truncated, info = super().step(action)
            step_result = {"reward": reward, "terminated": terminated, "truncated": truncated, "info": info}
            if self._seed - 40 < len(WRONG):
                key, value = WRONG[self._seed - 40]
                {"coverage": info, "is_success": info, "agent_pos": observation}.get(key, step_result)[key] = value
            return observation, *step_result.values()

    gym.register("uvatest/Odd-v0", entry_point=Odd)
    report = uva_agents.evaluate(
        NoisyAgent(), "uvatest/Odd-v0", len(WRONG) + 1, seed=40, protocol="dp-pusht", progress=False
    )
    gym.registry.pop("uvatest/Odd-v0")
    failures = {f.seed - 40: f.error for f in report.failures}
    assert [e.seed for e in report.episodes] == [40 + len(WRONG)]
    for i, (key, _) in enumerate(WRONG):
        assert "uvatest/Odd-v0: it gave" in failures[i] and key in failures[i], (key, failures[i])


def test_numbers_and_flags_of_other_kinds_count_as_what_they_are():
    class Arrays(toys.Walk):
        def step(self, action):
            observation, reward, terminated, truncated, info = super().step(action)
            info = {"coverage": np.array([info["coverage"]]), "is_success": np.float32(info["is_success"])}
            return observation, np.array(reward), np.array(terminated), int(truncated), info

    assert essentials(run_in(Arrays())) == by_hand(11)


@pytest.mark.parametrize("value", [np.ma.masked_all((1, 1)), np.full((1, 1), 1j), np.full((1, 1), None)])
def test_actions_that_are_masked_or_no_real_numbers_end_the_evaluation(value):
    class Agent:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return value, state

    with pytest.raises(InputError, match="predict"):
        run(Agent(), n=1)


def test_what_an_environment_was_made_with_does_not_keep_a_report_from_being_written(tmp_path):
    report = run(
        n=2, env_kwargs={"breaks": {float("inf"), 3}, "killed": (float("nan"),)}, json_path=tmp_path / "r.json"
    )
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["env_kwargs"]["killed"] == ["nan"]
    assert report.n == 2


# -- environments that are made already ------------------------------------------------------------


def test_an_environment_that_is_made_is_used_as_it_is_and_stays_open():
    env = gym.make(WALK, breaks=[43])
    closed = []
    env.unwrapped.close = lambda: closed.append(True)
    report = run_in(env)
    assert report.env_id == WALK and report.env_kwargs == {"breaks": [43]}
    assert essentials(report) == [r for r in by_hand(11) if r[0] != 43]
    assert [f.seed for f in report.failures] == [43]
    assert not closed and env.reset(seed=1)


def test_an_environment_that_is_not_registered_or_wrapped_is_taken_too():
    class Longer(gym.Wrapper):
        pass

    assert essentials(run_in(toys.Walk())) == by_hand(11)
    assert essentials(run_in(Longer(toys.Walk()))) == by_hand(11)
    assert run_in(toys.Walk(), n=1).env_id == "Walk"


def test_the_protocols_step_limit_holds_in_it_and_a_shorter_one_of_its_own_is_noted():
    rules = dataclasses.replace(uva_agents.benchmarks.get_protocol("dp-pusht"), max_steps=4)
    assert {e.length for e in run_in(toys.Walk(), protocol=rules).episodes} == {3, 4}
    short = run_in(gym.make(WALK, max_episode_steps=3))
    assert {e.length for e in short.episodes} == {3}
    assert any("limit of 3 steps is below the protocol's 300" in note for note in short.notes)


def test_its_videos_need_pictures(tmp_path):
    with pytest.raises(InputError, match="render_mode='rgb_array'"):
        run_in(toys.Walk(), n_videos=1, video_dir=tmp_path)
    run_in(toys.Walk(render_mode="rgb_array"), n=1, n_videos=1, video_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        (lambda: toys.Walk(), {"n_envs": 2}, "cannot run side by side with itself"),
        (lambda: toys.Walk(), {"workers": 1}, "cannot run side by side with itself"),
        (lambda: toys.Walk(), {"env_kwargs": {"breaks": []}}, "this one is made"),
        (
            lambda: gym.make_vec(WALK, num_envs=2, vectorization_mode="sync"),
            {},
            "SyncVectorEnv is several environments",
        ),
        (lambda: SimpleNamespace(num_envs=2), {}, "several environments"),
        (lambda: toys.Walk, {}, "what gymnasium.make returns, not <class"),
        (lambda: 3, {}, "not 3"),
        (lambda: gym.spec(WALK), {}, "gymnasium id"),
    ],
)
def test_what_is_not_one_environment_is_refused(environment, options, message):
    with pytest.raises(InputError, match=message):
        run_in(environment(), **options)


def run_in(env, n=11, **options):
    return uva_agents.evaluate(
        NoisyAgent(), env, n, **{"seed": 40, "progress": False, "protocol": "dp-pusht", **options}
    )


# -- latency ---------------------------------------------------------------------------------------


def test_what_the_first_call_loads_is_in_no_latency_and_nothing_is_drawn_for_it():
    class Lazy(NoisyAgent):
        def predict(self, *args, **options):
            if self.calls == 0:
                time.sleep(0.5)
            return super().predict(*args, **options)

    agent = Lazy()
    report = run(agent, n=5)
    assert essentials(report) == by_hand(5)
    latency = report.latency
    assert latency.first_s >= 0.5 and latency.p95_s < 0.5 and latency.replan_p95_s < 0.5
    assert latency.calls == agent.calls - 1 == sum(e.length for e in report.episodes) - 1
    assert "first predict" in report.summary() and "loading included" in report.summary()


def test_latency_of_a_single_call_is_that_call():
    assert Latency.of([2.0], [True], 1) == Latency(1, 1, 2.0, 2.0, 1, 2.0, 2.0, 2.0)
    assert Latency.of([9.0, 1.0], None, 3) == Latency(3, 1, 1.0, 1.0, first_s=9.0)
    assert Latency.of([], [], 1) is None


# -- disks -----------------------------------------------------------------------------------------


def test_a_journal_that_cannot_be_written_any_more_costs_no_episode(tmp_path, monkeypatch):
    class Full:
        """A file of a disk that is full after two episodes."""

        def __init__(self, file):
            self.file, self.left = file, 2

        def write(self, text):
            self.left -= 1
            if self.left < 0:
                raise OSError(28, "No space left on device")
            self.file.write(text)

        def flush(self):
            self.file.flush()

        def close(self):
            self.file.close()

    opened = Journal.__init__

    def full(self, *args, **options):
        opened(self, *args, **options)
        self._file = Full(self._file)

    monkeypatch.setattr(Journal, "__init__", full)
    with pytest.warns(UserWarning, match=r"cannot be written any more \(No space left on device\)") as caught:
        report = run(json_path=tmp_path / "report.json")
    assert len(caught) == 1
    assert essentials(report) == by_hand(11)
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_report_whose_folder_became_a_file_is_elsewhere_and_in_the_error(tmp_path, monkeypatch):
    import tempfile

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    folder = tmp_path / "reports"

    class Mover(NoisyAgent):
        def predict(self, *args, **options):
            if self.calls == 5:
                folder.rename(tmp_path / "moved")
                folder.write_text("", encoding="utf-8")
            return super().predict(*args, **options)

    with pytest.raises(UnwrittenError, match="is a file, not a folder") as caught:
        run(Mover(), json_path=folder / "report.json")
    assert essentials(caught.value.result) == by_hand(11)
    assert caught.value.saved is not None and (caught.value.saved / "report.json").is_file()
    assert len((tmp_path / "moved" / "report.partial.jsonl").read_text(encoding="utf-8").splitlines()) == 12


def test_a_folder_that_vanished_is_made_again(tmp_path):
    import shutil

    class Remover(NoisyAgent):
        def predict(self, *args, **options):
            if self.calls == 5:
                shutil.rmtree(tmp_path / "reports")
            return super().predict(*args, **options)

    run(Remover(), json_path=tmp_path / "reports" / "report.json")
    assert (tmp_path / "reports" / "report.json").is_file()


def test_a_video_that_cannot_be_written_is_noted_and_costs_no_episode(tmp_path, monkeypatch):
    from uva_agents.benchmarks.evaluation.video import VideoFile

    def full(self, frame):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VideoFile, "add", full)
    report = run(n=3, video_dir=tmp_path, n_videos=2)
    assert essentials(report) == by_hand(3)
    assert sum("No space left on device" in note for note in report.notes) == 2
    assert not list(tmp_path.iterdir())
    assert EpisodeVideos(None, 3, 10.0).open(0, 1) is None


def test_a_line_that_is_no_record_is_dropped_from_a_journal(tmp_path):
    path = tmp_path / "j.jsonl"
    record = EpisodeRecord(0, 40, 3, 0.5, False, False, 0.5, 0.5, 1.0)
    for bad in ("3", "[]", '{"index": 1}', '{"unknown": 2}', "null"):
        path.write_text('{"a": 1}\n' + json.dumps(dataclasses.asdict(record)) + f"\n{bad}\n", encoding="utf-8")
        with pytest.warns(UserWarning, match="1 of 2 lines is damaged"):
            journal = Journal(path, {"a": 1}, EpisodeRecord)
        journal.close()
        assert journal.records == [record]
