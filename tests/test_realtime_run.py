"""Running episodes: the operator's keys, the view, the command, the benchmark."""

import importlib.util
import io
import os
import pty
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.ideal_arm import IdealArm, Timed, Virtual, chunk
from uva_agents.benchmarks.speed import realtime as benchmark
from uva_agents.cli import main
from uva_agents.errors import MachineError
from uva_agents.realtime import (
    ActionLayout,
    ChunkSchedule,
    Command,
    Controls,
    Loop,
    LoopSettings,
    OperatorSession,
    ScheduleSettings,
    View,
    controls,
    keyboard,
    open_recording,
)
from uva_agents.realtime.replay import approach

LAYOUT = ActionLayout(((3, "vector"),))


def session(*, interactive=True, answer=chunk, length_s=1.0):
    clock = Virtual()
    arm = IdealArm(clock)
    worker = Timed(clock, answer, lambda request: 0.1)
    view = View("test", console=Console(file=io.StringIO()))
    settings = LoopSettings(length_s=length_s, on_error="stop")
    loop = Loop(arm, worker, ChunkSchedule(ScheduleSettings(), LAYOUT), settings, say=view.say, watch=view.watch)
    resets = []

    def reset(seed, *, home=False, release_stop=False):
        resets.append((seed, home, release_stop))

    return OperatorSession(loop, reset, view, interactive=interactive), resets, arm, view


def press(run, *commands):
    """Commands that arrive one after another, each when somebody waits for it."""
    left = list(commands)
    run.controls.take = lambda: left.pop(0) if left else None
    run.controls.clear = lambda: None


def test_nothing_moves_before_the_operator_says_so():
    run, resets, arm, _ = session()
    press(run, Command.QUIT)
    assert run.run(3) == [] and resets == [] and arm.commands == []


def test_the_operator_starts_stops_drops_and_homes():
    run, resets, _, _ = session()
    # Start, drop it at once; start again, stop it; home; start and let it run; quit.
    press(
        *(run, Command.START, Command.DROP, Command.START, Command.STOP, Command.HOME, Command.START),
        *([None] * 30),
        Command.QUIT,
    )
    ends = [episode.end for episode in run.run(3)]
    assert ends == ["dropped", "stopped", "length"] or ends == ["dropped", "stopped", "quit"]
    assert resets[:4] == [(0, False, False), (0, False, False), (1, True, False), (1, False, False)]


def test_an_emergency_stop_is_released_by_the_next_start_only():
    def answer(request: Any) -> Any:
        run.controls.give(Command.EMERGENCY)
        return chunk(request)

    run: Any
    run, resets, arm, _ = session(answer=answer)
    press(run, Command.START, *([None] * 8), Command.START, *([None] * 8), Command.QUIT)
    assert [episode.end for episode in run.run(3)] == ["emergency", "emergency"] and len(arm.stops) >= 2
    assert resets == [(0, False, False), (1, False, True)]


def test_without_a_keyboard_episodes_follow_each_other_until_one_fails():
    run, resets, _, _ = session(interactive=False)
    assert [episode.end for episode in run.run(3, seed=5)] == ["length"] * 3
    assert [seed for seed, *_ in resets] == [5, 6, 7]
    run, *_ = session(interactive=False, answer=lambda request: 1 / 0)
    assert [episode.end for episode in run.run(3)] == ["error"]


def test_an_emergency_stop_does_not_wait_for_the_loop():
    stopped = []
    asked = Controls(lambda: stopped.append(True))
    asked.give(Command.EMERGENCY)
    assert stopped == [True] and asked.emergency.is_set()
    asked.clear()
    assert asked.take() is Command.EMERGENCY  # nobody forgets it by the way


def test_the_view_shows_what_an_operator_has_to_know():
    run, _, _, view = session(interactive=False)
    for _ in range(3):
        view.say("slowed: asked for faster than allowed")
    run.run(1)
    screen = Console(file=io.StringIO(), width=160)
    screen.print(view.render())
    text = screen.file.getvalue()
    for wanted in ("20/20 Hz", "interventions", "latency p50/p95", "(x3)", "episode 1 of 1", "length after 1.0 s"):
        assert wanted.replace("20/20", "") in text
    view.keys = True
    screen.print(view.render())
    assert "EMERGENCY STOP" in screen.file.getvalue()


KEYS = """
import sys, time
from uva_agents.realtime import Controls, keyboard
controls = Controls(lambda: print("stopped", flush=True))
with keyboard(controls) as there:
    print("ready" if there else "no terminal", flush=True)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        command = controls.take()
        if command is not None:
            print(command, flush=True)
            if command == "quit":
                break
        time.sleep(0.01)
"""


def test_keys_of_a_terminal_become_commands_without_enter():
    parent, child = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", KEYS], stdin=child, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        # A cursor key begins as Esc does, and is no emergency: nothing is said before what the next key says.
        for keys, lines in (
            (b"c", ["start"]),
            (b"\x1b[A", []),
            (b"S", ["stop"]),
            (b"\x7f", ["drop"]),
            (b" ", ["stopped", "emergency stop"]),
            (b"\x1b", ["stopped", "emergency stop"]),
            (b"q", ["quit"]),
        ):
            os.write(parent, keys)
            if not lines:
                time.sleep(0.5)  # somebody who presses one key after another
            assert [process.stdout.readline().strip() for _ in lines] == lines
        assert process.stdout.read() == "" and process.wait(timeout=60) == 0
    finally:
        process.kill()
        os.close(parent)
        os.close(child)


def test_what_is_pressed_right_after_a_cursor_key_still_counts():
    assert controls.commands("\x1b[A") == controls.commands("\x1bOB\x1b[1;5C\x1b[3~") == []
    assert controls.commands("\x1b[A ") == [Command.EMERGENCY]
    assert controls.commands("\x1b[A\x1b[A\x1bs") == [Command.EMERGENCY, Command.STOP]
    assert controls.commands("x\x1b") == [Command.EMERGENCY]


def test_without_a_terminal_there_are_no_keys(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("q"))
    with keyboard(Controls()) as there:
        assert not there


def test_the_way_to_where_a_recording_begins_is_slow():
    here = IdealArm.start
    there = here + np.array([0.05, 0, 0, 0, 0, 0.8, 0.02])
    way = approach(here, there, dt=0.05, layout=LAYOUT)
    np.testing.assert_allclose(way[:10], np.repeat(here[None], 10, 0))
    np.testing.assert_allclose(way[-1], there, atol=1e-9)
    assert len(way) == 10 + 40  # 0.8 rad at 0.4 rad/s takes longer than 5 cm at 0.1 m/s
    assert len(approach(here, here, dt=0.05, layout=LAYOUT)) == 10


def measured(*, rate_hz=20.0, seconds=8.0, inference_s=0.1, pause_s=0.0, oversleep=lambda t: 0.0):
    """A run of the benchmark on a clock that passes only while somebody sleeps: the same on any machine."""
    clock = Virtual(oversleep)
    arm = IdealArm(clock)
    policy = benchmark.SlowPolicy(0.0, hz=rate_hz, chunk=16, swing=np.array([0.05, 0.05, 0.02, 0, 0, 0.2, -0.01]))
    silent = []
    called = []
    worker = Timed(
        clock,
        benchmark.SlowChunkSource(policy.sample, arm.stay),
        lambda request: inference_s + (silent.pop() if silent else 0.0),
    )
    pause = benchmark.Pause(lambda: silent.append(pause_s), lambda: called.append(clock.now()), pause_s, inference_s)
    run = benchmark.measure(arm, LAYOUT, worker, rate_hz=rate_hz, seconds=seconds, pause=pause if pause_s else None)
    assert worker.closed and len(called) == bool(pause_s)
    return run


def test_the_benchmark_counts_gaps_and_sees_the_arm_hold_in_a_pause():
    run = measured(pause_s=1.5)
    assert run.episode.timing.steps == 161 and run.episode.timing.skipped == 0 and run.episode.timing.late_steps == 0
    # A chunk covers 0.8 s: what is left of the last one is followed, then the arm stands until the answer comes.
    assert run.resumed and 0.7 < run.held_s < 1.5
    assert run.gaps == 0 and run.episode.counts.gaps == 1 and run.passed
    assert run.episode.counts.too_late == 1 and run.episode.counts.chunks > 12
    assert "went on" in benchmark._line(run) and "as it should be" in benchmark._line(run)


def test_the_benchmark_fails_runs_with_gaps_late_steps_or_an_arm_that_stays():
    steady = measured()
    assert steady.passed and steady.held_s == 0 and steady.episode.counts.gaps == 0
    gaps = measured(inference_s=0.65)  # of the 0.8 s that a chunk covers, little is left when it comes
    assert gaps.gaps > 3 and not gaps.passed
    late = measured(oversleep=lambda t: 0.02 if int(20 * t) % 10 == 0 else 0.0)
    assert late.gaps == 0 and late.late > 0.05 and not late.passed
    assert "NOT as it should be" in benchmark._line(late)
    stays = measured(pause_s=10.0)  # longer than the rest of the run
    assert not stays.resumed and not stays.passed and "did NOT go on" in benchmark._line(stays)


def test_the_benchmark_refuses_runs_that_are_too_short_and_reports_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="too short for a pause"):
        benchmark.main(["--minutes", "0.05"])
    with pytest.raises(MachineError, match="is a folder"):
        benchmark.main(["--minutes", "1", "--json", str(tmp_path)])


@pytest.fixture
def mujoco():
    # Not imported here: the environment says first how MuJoCo shall draw.
    if importlib.util.find_spec("mujoco") is None:
        pytest.skip("the twin needs mujoco: pip install 'uva-agents[arx]'")


def test_the_command_runs_records_and_replays_on_the_twin(mujoco, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    folder = tmp_path / "a"
    words = ["run", "tests.test_realtime_run:swinging", "--env-arg", "image_size=32", "--length", "2.5", "--rate", "10"]
    assert main([*words, "--record", str(folder), "--task", "swing"]) == 0
    assert "1 episodes in" in capsys.readouterr().out
    recording = open_recording(f"{folder}#0")
    assert recording.task == "swing" and recording.settings["action_mode"] == "absolute_vector"
    assert (
        recording.actions.shape[1] == 7 and 1 <= len(recording.actions) <= 26
    )  # 2.5 s at 10 Hz; a busy machine skips steps
    assert main(["run", f"replay:{folder}#0", "--env-arg", "image_size=32"]) == 0
    assert "finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "tests.test_realtime_run:swinging", "uva/PushT-v0"], "uva eval"),
        (["run", "tests.test_realtime_run:swinging", "--safety", "sped=1"], "--safety sped: unknown"),
        (["run", "tests.test_realtime_run:swinging", "--episodes", "0"], "at least 1"),
        (["run", "replay:nowhere#1"], "no dataset at nowhere"),
        (["run", "tests.test_realtime_run:swinging", "--camera", "nowhere.mp4"], "no such file"),
    ],
)
def test_mistakes_on_the_command_line_are_named(mujoco, words, message, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_where_episodes_and_messages_go_is_checked_before_anything_moves(mujoco, tmp_path, capsys):
    (tmp_path / "file").touch()
    for words in (["--record", str(tmp_path / "file" / "a")], ["--log", str(tmp_path)]):
        assert main(["run", "no.such.module:agent", *words]) == MachineError.exit_status
        assert "cannot be written" in (err := capsys.readouterr().err) or "is a folder" in err


class Swinging:
    """An agent that swings the tool up and down by 2 cm."""

    import gymnasium as gym

    action_space = gym.spaces.Box(-4.0, 4.0, (7,), np.float32)

    def __init__(self):
        self.first = None

    def sample(self, obs, n=1, *, seed=None):
        now = time.monotonic()
        if self.first is None:
            self.first = np.asarray(obs["agent_pos"], float), now
        actions = np.repeat(self.first[0][None], 16, 0)
        actions[:, 2] += 0.01 * (1 - np.cos(now - self.first[1] + np.arange(16) / 10))
        return np.repeat(actions[None], n, 0)


def swinging():
    return Swinging()


class Late(Swinging):
    """Fails once, after its first chunks."""

    def sample(self, obs, n=1, *, seed=None):
        self.asked = getattr(self, "asked", 0) + 1
        if self.asked == 3:
            raise KeyError("oops")
        return super().sample(obs, n, seed=seed)


def late():
    return Late()


class Leaving(Swinging):
    def sample(self, obs, n=1, *, seed=None):
        raise SystemExit(0)


def leaving():
    return Leaving()


@pytest.mark.parametrize(
    ("agent", "why"),
    [
        ("late", "uva run: failed: episode 1: the agent failed once, the last time: KeyError: 'oops'"),
        ("leaving", "uva run: error: the agent failed at its first chunk: SystemExit: 0"),
    ],
)
def test_a_run_in_which_the_agent_failed_ends_with_status_1_and_the_reason(mujoco, agent, why, capsys):
    words = ["--now", "--env-arg", "image_size=32", "--env-arg", "render_observations=False", "--rate", "10"]
    assert main(["run", f"tests.test_realtime_run:{agent}", *words, "--length", "1.5"]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1] == why
