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

from tests.ideal_arm import IdealArm, Timed, Virtual, Wall, chunk
from uva_agents.benchmarks import realtime as benchmark
from uva_agents.cli import main
from uva_agents.realtime import (
    ActionLayout,
    ChunkSchedule,
    Command,
    Controls,
    Loop,
    LoopSettings,
    ScheduleSettings,
    Session,
    View,
    keyboard,
    open_recording,
)
from uva_agents.realtime.replay import approach

LAYOUT = ActionLayout(((3, "vector"),))


def session(*, interactive=True, answer=chunk, length_s=1.0):
    clock = Virtual()
    arm = IdealArm(clock)
    worker = Timed(clock, answer, lambda job: 0.1)
    view = View("test", console=Console(file=io.StringIO()))
    settings = LoopSettings(length_s=length_s, on_error="stop")
    loop = Loop(arm, worker, ChunkSchedule(ScheduleSettings(), LAYOUT), settings, say=view.say, watch=view.watch)
    resets = []

    def reset(seed, *, home=False, release_stop=False):
        resets.append((seed, home, release_stop))

    return Session(loop, reset, view, interactive=interactive), resets, arm, view


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
    def answer(job: Any) -> Any:
        run.controls.give(Command.EMERGENCY)
        return chunk(job)

    run: Any
    run, resets, arm, _ = session(answer=answer)
    press(run, Command.START, *([None] * 8), Command.START, *([None] * 8), Command.QUIT)
    assert [episode.end for episode in run.run(3)] == ["emergency", "emergency"] and len(arm.stops) >= 2
    assert resets == [(0, False, False), (1, False, True)]


def test_without_a_keyboard_episodes_follow_each_other_until_one_fails():
    run, resets, _, _ = session(interactive=False)
    assert [episode.end for episode in run.run(3, seed=5)] == ["length"] * 3
    assert [seed for seed, *_ in resets] == [5, 6, 7]
    run, *_ = session(interactive=False, answer=lambda job: 1 / 0)
    assert [episode.end for episode in run.run(3)] == ["error"]


def test_an_emergency_stop_does_not_wait_for_the_loop():
    stopped = []
    controls = Controls(lambda: stopped.append(True))
    controls.give(Command.EMERGENCY)
    assert stopped == [True] and controls.emergency.is_set()
    controls.clear()
    assert controls.take() is Command.EMERGENCY  # nobody forgets it by the way


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
        # A cursor key begins as Esc does, and is no emergency.
        for keys in (b"c", b"\x1b[A", b"S", b"\x7f", b" ", b"\x1b", b"q"):
            os.write(parent, keys)
            time.sleep(0.15)
        said = process.stdout.read().split("\n")
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        os.close(parent)
        os.close(child)
    wanted = ["start", "stop", "drop", "stopped", "emergency stop", "stopped", "emergency stop", "quit"]
    assert [line for line in said if line] == wanted


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


def test_the_benchmark_counts_gaps_and_sees_the_arm_hold_in_a_pause():
    arm = IdealArm(Wall())
    policy = benchmark.SlowPolicy(0.1, hz=20, chunk=16, swing=np.array([0.05, 0.05, 0.02, 0, 0, 0.2, -0.01]))
    ask = benchmark._Asking(policy.sample, arm.stay)

    def pause():
        policy.pause(1.5)
        return 1.6

    run = benchmark.measure(arm, LAYOUT, ask, rate_hz=20, seconds=8, pause=pause)
    assert run.episode.timing.steps + run.episode.timing.skipped == pytest.approx(161, abs=2)
    assert run.resumed and 0.3 < run.held_s < 4.0
    # How late steps are, and whether chunks join, is also the matter of a machine that others use.
    assert run.episode.counts.too_late >= 1 and run.episode.counts.chunks > 15
    assert "went on" in benchmark._line(run)
    with pytest.raises(ValueError, match="too short for a pause"):
        benchmark.main(["--minutes", "0.05"])


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
    assert recording.actions.shape[1] == 7 and 15 <= len(recording.actions) <= 25
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
