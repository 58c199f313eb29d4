"""The ``uva`` command."""

import json
import subprocess
import sys

import pytest

from tests import toys
from uva_agents import __version__
from uva_agents.cli import COMMANDS, main
from uva_agents.commands import doctor

toys.register()


def eval_walk(*more):
    return main(["eval", "tests.toys:noisy_agent", toys.WALK, "--episodes", "3", "--quiet", *more])


def test_eval_prints_the_scores_and_writes_the_report_and_the_videos(tmp_path, capsys):
    report, videos = tmp_path / "report.json", tmp_path / "videos"
    assert eval_walk("--json", str(report), "--video", str(videos), "--n-videos", "1", "--n-envs", "2") == 0
    out = capsys.readouterr().out
    saved = json.loads(report.read_text())
    assert f"{saved['score']:.3f}" in out
    assert str(report) in out
    assert saved["agent"] == "tests.toys:noisy_agent"
    assert saved["episodes"][0]["seed"] == 100_000
    assert [p.name for p in videos.iterdir()] == ["episode_000_seed100000.mp4"]


def test_eval_takes_seed_and_protocol(tmp_path):
    report = tmp_path / "report.json"
    assert eval_walk("--json", str(report), "--seed", "7", "--protocol", "success", "--deterministic") == 0
    saved = json.loads(report.read_text())
    assert (saved["seed"], saved["protocol"], saved["deterministic"]) == (7, "success", True)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["eval", "tests.toys:noisy_agent", "uva/PushT-v9"], "did you mean uva/PushT-v0"),
        (["eval", "tests.toys:noisy_agent", toys.WALK, "--protocol", "dp-pusth"], "did you mean 'dp-pusht'"),
        (["eval", "tests.toys:nothing", toys.WALK], "cannot be imported"),
        (["eval", "no_such_module:nothing", toys.WALK], "No module named"),
        (["eval", "tests.toys:noisy_agent", toys.WALK, "--steps", "4"], "--steps applies to weights"),
        (["eval", "no-such-weights", "uva/PushT-v0"], "no-such-weights"),
        (["info", "no-such-weights"], "no-such-weights"),
    ],
)
def test_a_user_error_is_one_line_on_stderr_and_status_2(argv, message, capsys):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"uva {argv[0]}: error: ")
    assert message in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("argv", [["--debug", "info", "nope"], ["info", "nope", "--debug"]])
def test_debug_shows_the_traceback(argv):
    with pytest.raises(FileNotFoundError, match="nope"):
        main(argv)


def test_a_bug_is_not_disguised_as_a_user_error(monkeypatch):
    monkeypatch.setattr(toys, "noisy_agent", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["eval", "tests.toys:noisy_agent", toys.WALK])


def test_an_interrupted_command_says_so(monkeypatch, capsys):
    monkeypatch.setattr(toys.NoisyAgent, "stop_after", 1)
    assert eval_walk() == 130
    assert "interrupted" in capsys.readouterr().err


def test_info_lists_environments_protocols_and_weights(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for line in ("uva/PushT-v0", "dp-pusht: ", f"uva_agents {__version__}", "shipped weights"):
        assert line in out


def test_doctor_reports_that_this_installation_works(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {line[6:28].strip(): line[:4].strip() for line in lines[:-1]}
    assert {found[name] for name in ("python", "torch", "diffusers", "ffmpeg", "uva/PushT-v0")} == {"ok"}
    # What is not there may be missing; what is there has to work.
    broken = [
        line for line in lines if line[6:].startswith("uva/") and line[:4] != "  ok" and "pip install" not in line
    ]
    assert not broken


def test_doctor_fails_when_something_of_the_core_is_broken(monkeypatch, capsys):
    def broken(env_id):
        raise OSError(f"no {env_id} today")

    monkeypatch.setattr(doctor, "_step", broken)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  uva/PushT-v0" in out
    assert "OSError: no uva/PushT-v0 today" in out


def test_doctor_survives_a_broken_optional_environment(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_CORE_ENVS", ())
    monkeypatch.setattr(doctor, "_step", lambda env_id: 1 / 0)
    assert main(["doctor"]) == 0
    assert "note  uva/PushT-v0" in capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"usage: uva {command}" in capsys.readouterr().out


def test_help_lists_every_command_without_importing_any(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert __version__ in capsys.readouterr().out


def test_it_runs_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "uva_agents.cli", "--help"], capture_output=True, text=True, check=True
    )
    assert "doctor" in result.stdout
