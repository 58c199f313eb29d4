"""The ``uva`` command."""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests import toys
from tests.conftest import REPOSITORY
from uva_agents import __version__, errors
from uva_agents.causes import cause_of
from uva_agents.cli import COMMANDS, main
from uva_agents.commands import doctor, evaluate, serve

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


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("1/0"), TypeError("no"), KeyError("x"), RuntimeError("r"), AttributeError("a"), IndexError("i")],
)
def test_a_bug_shows_its_traceback_and_how_to_report_it(error, monkeypatch, capsys):
    def broken(*args, **options):
        raise error

    monkeypatch.setattr(evaluate, "evaluate", broken)
    assert eval_walk("--seed", "7") == 70
    err = capsys.readouterr().err
    assert "Traceback" in err and type(error).__name__ in err and "in broken" in err
    assert "uva doctor" in err.splitlines()[-1]
    assert f"uva eval tests.toys:noisy_agent {toys.WALK} --episodes 3 --quiet --seed 7" in err.splitlines()[-1]
    with pytest.raises(type(error)):
        eval_walk("--debug")


def test_only_a_reader_of_standard_output_that_has_left_ends_a_command_well(monkeypatch, capsys):
    def broken(*args, **options):
        raise BrokenPipeError(32, "Broken pipe", "a camera")

    monkeypatch.setattr(evaluate, "evaluate", broken)
    assert eval_walk() == 4
    assert "error: a camera: Broken pipe" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize(("where", "status"), [(">&-", 0), ("| head -c 1 > /dev/null", 0)])
def test_a_standard_output_that_is_closed_ends_no_command(where, status):
    command = f"set -o pipefail; {sys.executable} -c 'from uva_agents.cli import main; exit(main([\"info\"]))' {where}"
    done = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, "")


def test_a_token_on_the_command_line_does_not_go_into_a_report(monkeypatch, capsys):
    monkeypatch.setattr(serve, "run", lambda args: 1 / 0)
    assert main(["serve", "pusht-nano", "--token", "swordfish"]) == 70
    assert "swordfish" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (errors.InputError("wrong"), 2, "wrong"),
        (ValueError("also\n  wrong"), 2, "also wrong"),
        (FileNotFoundError(2, "No such file or directory", "a.npz"), 2, "a.npz: No such file or directory"),
        (errors.DataError("torn"), 3, "torn"),
        (errors.WeightsError("odd"), 3, "odd"),
        (errors.NotFiniteError("NaN"), 3, "NaN"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), 3, "utf-8"),
        (errors.MachineError("no GPU"), 4, "no GPU"),
        (PermissionError(13, "Permission denied", "x/y"), 4, "x/y: Permission denied"),
        (IsADirectoryError(21, "Is a directory", "x"), 4, "x: Is a directory"),
        (NotADirectoryError(20, "Not a directory", "x"), 4, "x: Not a directory"),
        (FileExistsError(17, "File exists", "x"), 4, "x: File exists"),
        (OSError(28, "No space left on device"), 4, "No space left on device"),
        (OSError(24, "Too many open files"), 4, "Too many open files"),
        (TimeoutError("slow"), 4, "slow"),
        (ConnectionRefusedError(111, "Connection refused"), 4, "Connection refused"),
        (MemoryError(), 4, "the memory is not enough"),
        (torch.OutOfMemoryError("2 GiB wanted"), 4, "the memory is not enough: 2 GiB wanted"),
        (ModuleNotFoundError("No module named 'h5py'", name="h5py"), 4, "pip install 'uva-agents[data]'"),
        (ModuleNotFoundError("No module named 'tqdm'", name="tqdm"), 4, "tqdm is not installed"),
        (ImportError("libGL.so.1: cannot open"), 4, "libGL.so.1"),
        (gym.error.NameNotFound("no such environment"), 2, "no such environment"),
        (gym.error.DependencyNotInstalled("pygame"), 4, "pygame"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_by_its_cause_is_one_line_and_a_status(error, status, line, monkeypatch, capsys):
    def broken(*args, **options):
        raise error

    monkeypatch.setattr(evaluate, "evaluate", broken)
    assert eval_walk() == status
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("uva eval: error: ") and line in err
    assert "Errno" not in err


def test_a_module_of_this_package_that_is_missing_is_no_fault_of_the_machine(monkeypatch, capsys):
    error = ModuleNotFoundError("No module named 'uva_agents.x'", name="uva_agents.x")
    assert cause_of(error) is None and cause_of(ImportError("cannot import name", name="uva_agents.benchmarks")) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "tests.test_cli:raises failed: ZeroDivisionError: division by zero (test_cli.py, line"),
        ("needs_arguments", "needs arguments (missing a required argument: 'weights')"),
        ("NUMBER", "is no function that makes an agent but int"),
        ("not_an_agent", "object cannot be evaluated: it has no predict"),
        ("leaves", "tests.test_cli:leaves failed: SystemExit: 0 (test_cli.py, line"),
        ("leaves_in_predict", "leaves_in_predict failed in predict(): SystemExit: 0 (test_cli.py, line"),
        ("pipe_broke", "tests.test_cli:pipe_broke failed: BrokenPipeError: another pipe (test_cli.py, line"),
        ("pipe_broke_in_predict", "pipe_broke_in_predict failed in predict(): BrokenPipeError: another pipe"),
        ("wrong_in_predict", "wrong_in_predict failed in predict(): KeyError: 'pixels' (test_cli.py, line"),
    ],
)
def test_an_entry_point_that_is_no_agent_is_named(name, message, capsys):
    assert main(["eval", f"tests.test_cli:{name}", toys.WALK, "--episodes", "1", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err


def raises():
    return 1 / 0


def leaves():
    sys.exit(0)


def pipe_broke():
    raise BrokenPipeError("another pipe")


def leaves_in_predict():
    agent = toys.NoisyAgent()
    agent.predict = lambda *_, **__: leaves()
    return agent


def pipe_broke_in_predict():
    agent = toys.NoisyAgent()
    agent.predict = lambda *_, **__: pipe_broke()
    return agent


def needs_arguments(weights):
    return weights


def not_an_agent():
    return object()


def wrong_in_predict():
    agent = toys.NoisyAgent()
    agent.predict = lambda observation, state, **_: observation["pixels"]
    return agent


NUMBER = 3


class Blind(gym.Env):
    """Takes PushT's actions and shows nothing."""

    observation_space = gym.spaces.Dict({"agent_pos": gym.spaces.Box(0, 512, (2,), np.float32)})
    action_space = gym.spaces.Box(0.0, 512.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        return {"agent_pos": np.zeros(2, np.float32)}, {}

    def step(self, action):
        return {"agent_pos": np.zeros(2, np.float32)}, 0.0, True, False, {"coverage": 0.0, "is_success": False}


if "uvatest/Blind-v0" not in gym.registry:
    gym.register("uvatest/Blind-v0", entry_point=Blind)


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (["eval", "pusht-nano", "uvatest/Blind-v0", "--quiet"], 2, "the observation has no 'pixels'"),
        (["eval", "pusht-nano", "no_such_module:uva/PushT-v0"], 2, "No module named 'no_such_module'"),
        (["eval", "ws://127.0.0.1:99999", toys.WALK], 2, "Port out of range"),
        (["eval", "ws://:80", toys.WALK], 2, "ws://HOST:PORT"),
        (["eval", "tests.toys:noisy_agent", toys.WALK, "--seed", "-5", "--quiet"], 2, "seed=-5: at least 0"),
        (["imagine", "--after", "-4"], 2, "--after -4: at least 0"),
        (["imagine", "--env", "uva/PushTT-v0"], 2, "PushTT"),
        (["bench", "env-speed", "--env", "uva/PushTT-v0"], 2, "PushTT"),
    ],
)
def test_what_is_asked_for_and_is_not_there_is_named(argv, status, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == status
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err


@pytest.mark.parametrize(
    "argv",
    [
        ["eval", "no-such-weights", "uva/PushT-v0", "--json", "FILE/report.json"],
        ["eval", "no-such-weights", "uva/PushT-v0", "--json", "FOLDER"],
        ["eval", "no-such-weights", "uva/PushT-v0", "--video", "FILE"],
        ["demo", "--agent", "no-such-weights", "--out", "FILE"],
        ["imagine", "--weights", "no-such-weights", "--out", "FILE/deeper"],
        ["train", "pusht-nano", "--data", "no-such-data", "--out", "FILE"],
        ["data", "planar", "FILE/pushes.zarr"],
        ["data", "sketch", "FILE/pushes.zarr"],
        *(
            ["bench", name, "--json", where]
            for name in ("latency", "throughput", "planning", "env-speed", "data-loading")
            for where in ("FOLDER", "FILE/x")
        ),
        ["bench", "block-push-replay", "--data", "no-such-data", "--json", "FOLDER"],
        ["bench", "heldout", "--data", "no-such-data", "--out", "FILE"],
        ["bench", "fidelity", "--data", "no-such-data", "--out", "FILE"],
        ["bench", "table6", "--data", "no-such-data", "--out", "FILE"],
        ["bench", "guidance", "--world", "no-such-weights", "--out", "FILE"],
        ["bench", "table5", "--out", "FILE"],
    ],
    ids=" ".join,
)
def test_a_target_that_cannot_be_written_is_refused_before_the_work(argv, tmp_path, capsys):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    places = {"FILE": str(tmp_path / "file"), "FOLDER": str(tmp_path / "folder")}
    words = [
        next((word.replace(key, place) for key, place in places.items() if word.startswith(key)), word) for word in argv
    ]
    assert main(words) == 4
    captured = capsys.readouterr()
    assert captured.err.strip().count("\n") == 0 and str(tmp_path) in captured.err
    assert "is a folder" in captured.err or "is a file, not a folder" in captured.err
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine" and not list((tmp_path / "folder").iterdir())


def test_episodes_that_failed_end_with_status_1_and_are_in_summary_and_report(tmp_path, capsys):
    report = tmp_path / "report.json"
    assert eval_walk("--json", str(report), "--env-arg", "breaks=[100001]") == 1
    out = capsys.readouterr().out
    assert "1 of 3 episodes FAILED" in out and "FAILED episode 1 (seed 100001)" in out
    assert [f["seed"] for f in json.loads(report.read_text(encoding="utf-8"))["failures"]] == [100001]


def test_a_report_that_cannot_be_written_at_the_end_is_printed_and_saved_elsewhere(tmp_path, capsys, monkeypatch):
    report, elsewhere = tmp_path / "wanted" / "report.json", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    full = disk_full(report.parent)
    monkeypatch.setattr(os, "fsync", full)
    full.begins_after = 1  # the journal's first line
    assert eval_walk("--json", str(report)) == 4
    captured = capsys.readouterr()
    assert "score" in captured.out and "success rate" in captured.out
    assert captured.err.count("\n") == 1 and "No space left on device" in captured.err
    (saved,) = elsewhere.rglob("report.json")
    assert str(saved.parent) in captured.err
    assert len(json.loads(saved.read_text(encoding="utf-8"))["episodes"]) == 3
    journal = report.with_suffix(".partial.jsonl")
    assert (
        len(journal.read_text(encoding="utf-8").splitlines()) == 4
    )  # what was worked for is still there, to continue from
    monkeypatch.undo()
    assert eval_walk("--json", str(report)) == 0
    assert json.loads(report.read_text(encoding="utf-8"))["resumed"] == 3 and not journal.exists()


def test_a_report_that_fits_nowhere_is_printed_whole(tmp_path, capsys, monkeypatch):
    report = tmp_path / "report.json"
    full = disk_full(Path("/"))
    monkeypatch.setattr(os, "fsync", full)
    full.begins_after = 1
    assert eval_walk("--json", str(report)) == 4
    out = capsys.readouterr().out
    assert len(json.loads(out[out.index("\n{\n") :])["episodes"]) == 3


def disk_full(folder):
    """``os.fsync`` of a disk that fills up: files below ``folder`` fail from some call on."""

    def fsync(handle):
        if not os.readlink(f"/proc/self/fd/{handle}").startswith(str(folder)):
            return
        fsync.calls += 1
        if fsync.calls > fsync.begins_after:
            raise OSError(28, "No space left on device")

    fsync.calls = fsync.begins_after = 0
    return fsync


def test_sigterm_ends_an_evaluation_cleanly(tmp_path):
    code = (
        "import os, signal, sys; from tests import toys; from uva_agents.cli import main\n"
        "class Stops(toys.NoisyAgent):\n"
        "    def predict(self, *args, **options):\n"
        "        if self.calls == 12: os.kill(os.getpid(), signal.SIGTERM)\n"
        "        return super().predict(*args, **options)\n"
        "toys.register(); toys.noisy_agent = Stops\n"
        "sys.exit(main(['eval', 'tests.toys:noisy_agent', *sys.argv[1:]]))"
    )
    words = [toys.WALK, "--quiet", "--workers", "2", "--video", str(tmp_path / "v"), "--json", str(tmp_path / "r.json")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (143, "uva eval: terminated\n")
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert "r.partial.jsonl" in names and not any(name.startswith(".") for name in names)


def test_the_answer_to_sigterm_is_put_back_and_not_given_to_children():
    before = signal.getsignal(signal.SIGTERM)
    assert main(["info"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_that_lacks_a_character_ends_no_command(encoding, monkeypatch):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    # An accent, a name that is no UTF-8, and a progress bar.
    monkeypatch.setattr(evaluate, "load_agent", lambda *args, **options: toys.NoisyAgent())
    assert main(["eval", "na\xefve-\u2192-\udcff", toys.WALK, "--episodes", "2"]) == 0
    out.flush(), err.flush()
    assert b"success rate" in out.buffer.getvalue() and b"2/2" in err.buffer.getvalue()


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
