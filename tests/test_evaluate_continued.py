"""An evaluation that was interrupted, continued, filmed."""

import pytest

from tests.evaluations import by_hand, essentials, run
from tests.toys import NoisyAgent


def interrupted(path, after, **options):
    agent = NoisyAgent()
    agent.stop_after = after
    with pytest.raises(KeyboardInterrupt):
        run(agent, json_path=path, **options)


@pytest.mark.parametrize("n_envs", [1, 3])
def test_an_interrupted_evaluation_continues_where_it_was(tmp_path, n_envs):
    path = tmp_path / "report.json"
    interrupted(path, 20, n_envs=n_envs)
    journal = tmp_path / "report.partial.jsonl"
    finished = len(journal.read_text().splitlines()) - 1
    assert 0 < finished < 11
    assert not path.exists()

    agent = NoisyAgent()
    report = run(agent, json_path=path, n_envs=n_envs)
    assert report.resumed == finished
    assert essentials(report) == by_hand(11)
    whole = NoisyAgent()
    run(whole, n_envs=n_envs)
    assert agent.calls < whole.calls
    assert path.exists()
    assert not journal.exists()


def test_a_line_torn_by_the_kill_is_dropped(tmp_path):
    path, journal = tmp_path / "report.json", tmp_path / "report.partial.jsonl"
    interrupted(path, 20)
    finished = len(journal.read_text().splitlines()) - 1
    journal.write_text(journal.read_text()[:-10])
    interrupted(path, 1)  # and killed once more, before anything new was finished
    report = run(json_path=path)
    assert report.resumed == finished - 1
    assert essentials(report) == by_hand(11)


@pytest.mark.parametrize(
    "other",
    [{"seed": 41}, {"deterministic": True}, {"env_kwargs": {"breaks": [45]}}, {"protocol": "success"}, {"label": "b"}],
    ids=lambda value: next(iter(value)),
)
def test_other_settings_do_not_continue_it(tmp_path, other):
    path = tmp_path / "report.json"
    interrupted(path, 20)
    with pytest.warns(UserWarning, match=r"kept in .*report\.partial\.1\.jsonl"):
        assert run(json_path=path, **other).resumed == 0


def test_other_weights_do_not_continue_it(tmp_path):
    path = tmp_path / "report.json"
    interrupted(path, 20)
    agent = NoisyAgent()
    agent.identity = {"weights": "abc"}
    with pytest.warns(UserWarning, match="identity None, not"):
        assert run(agent, json_path=path).resumed == 0


@pytest.mark.parametrize("n_envs", [1, 2])
def test_side_by_side_or_with_videos_it_is_still_the_same_evaluation(tmp_path, n_envs):
    path = tmp_path / "report.json"
    interrupted(path, 20)
    report = run(json_path=path, n_envs=n_envs, vectorization="async", video_dir=tmp_path, n_videos=1)
    assert report.resumed > 0
    assert essentials(report) == by_hand(11)


def test_more_episodes_continue_it(tmp_path):
    path = tmp_path / "report.json"
    interrupted(path, 20, n=6)
    report = run(json_path=path)
    assert report.resumed > 0
    assert essentials(report) == by_hand(11)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_the_first_episodes_are_filmed_from_reset_to_last_step(tmp_path, vectorization):
    import imageio.v3 as imageio

    report = run(n=5, n_envs=2, video_dir=tmp_path, n_videos=2, vectorization=vectorization)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["episode_000_seed40.mp4", "episode_001_seed41.mp4"]
    for episode, path in zip(report.episodes, sorted(tmp_path.iterdir()), strict=False):
        frames = imageio.imread(path)
        assert frames.shape == (episode.length + 1, 32, 48, 3)
        assert frames[-1].mean() == pytest.approx(255 * episode.final_progress, abs=6)


def test_no_half_written_video_is_left_behind(tmp_path):
    agent = NoisyAgent()
    agent.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(agent, video_dir=tmp_path, n_videos=1)
    assert list(tmp_path.iterdir()) == []


def test_progress_goes_to_stderr_with_the_mean_score(capsys):
    report = run(n=3, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3/3" in captured.err
    assert f"{report.score:.3f}" in captured.err
