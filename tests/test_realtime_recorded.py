"""A run on recorded episodes: the loop's timing on observations that follow the clock, and nothing that moves."""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from tests.any_task_data import LENGTHS, arx
from tests.ideal_arm import Timed, Virtual
from uva_agents.commands.run_environment import default_environment
from uva_agents.data.recorded_env import RecordedEnv
from uva_agents.envs import RECORDED
from uva_agents.errors import InputError
from uva_agents.realtime import ChunkSchedule, Loop, LoopSettings, RecordedRobotInterface, ScheduleSettings


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return arx(tmp_path_factory.mktemp("arx") / "recorded")


def run(env, *, seconds, chunk, rate_hz=20.0, **settings):
    """An episode on a clock that stands still between steps, of a worker that knows what was recorded."""
    clock = Virtual()
    robot = RecordedRobotInterface(env, clock=clock)
    robot.reset(1)
    worker = Timed(clock, chunk, lambda request: seconds)
    schedule = ChunkSchedule(ScheduleSettings(action_hz=20.0, execute=8), robot.layout)
    loop = Loop(
        robot, worker, schedule, LoopSettings(rate_hz=rate_hz, length_s=60.0, **settings), say=lambda text: None
    )
    return loop.run(), robot, worker


def recorded_chunk(env, dt=0.05):
    """What was done from the time of an observation on."""
    actions = RecordedEnv(env._dataset.path)
    actions.reset(seed=1)
    every = actions.recorded_actions(80).astype(float)
    return lambda request: every[round(request.observed_s / dt) :][:16]


@pytest.mark.parametrize("rate_hz", [20.0, 50.0])
def test_what_was_done_agrees_however_late_it_is_decided(path, rate_hz):
    env = RecordedEnv(path)
    episode, robot, worker = run(env, seconds=0.12, chunk=recorded_chunk(env), rate_hz=rate_hz)
    assert episode.end == "done" and episode.success and episode.counts.gaps == 0
    (replayed,) = robot.replayed
    assert replayed.episode == 1 and replayed.steps == LENGTHS[1]
    assert replayed.steps - 5 <= replayed.compared < replayed.steps  # the first chunk takes a moment
    assert replayed.agreement > 0.99
    seen = [request.obs["pixels"] for request in worker.requests]
    numbers = [round(request.observed_s / 0.05) for request in worker.requests]
    whole = env._arrays["pixels"][LENGTHS[0] + np.array(numbers)]
    np.testing.assert_array_equal(seen, whole)


def test_what_is_done_too_late_does_not_agree(path):
    env = RecordedEnv(path)
    right = recorded_chunk(env)
    first = right(SimpleNamespace(observed_s=0.0))
    episode, robot, _ = run(env, seconds=0.12, chunk=lambda request: np.repeat(first[:1], 16, axis=0))
    assert robot.replayed[0].agreement < 0.98 and not episode.success


def test_the_next_episode_begins_at_its_beginning(path):
    env = RecordedEnv(path)
    _, robot, _ = run(env, seconds=0.05, chunk=recorded_chunk(env))
    robot.stop()
    assert robot.observe().stopped
    robot.reset(2)
    looked = robot.observe()
    assert not looked.stopped and not looked.done and env.steps_left == LENGTHS[2]
    assert looked.obs["task"] == env.task_description
    assert RecordedRobotInterface(env, task="other").observe().obs["task"] == "other"


def test_other_environments_are_refused():
    with pytest.raises(InputError, match="replays nothing"):
        RecordedRobotInterface(gym.make("uva/PushT-v0"))


def test_weights_of_other_robots_run_on_what_was_recorded_and_those_of_tool_poses_on_the_arm(tmp_path, monkeypatch):
    joints, pose = [f"joint_{i}" for i in range(6)], ["x", "y", "z", "rx", "ry", "rz", "gripper"]
    monkeypatch.setattr("uva_agents.data.run_data.data_of_run", lambda weights: object())
    for names, wanted in ((joints, RECORDED), (pose, "uva/ArxX5-v0")):
        monkeypatch.setattr("uva_agents.checkpoints.trained.action_names", lambda weights, size, known=names: known)
        spec = SimpleNamespace(env_id=None, action_low=(0.0,) * len(names))
        args = argparse.Namespace(agent=str(tmp_path))
        assert default_environment(args, SimpleNamespace(spec=spec)) == wanted
    monkeypatch.setattr("uva_agents.data.run_data.data_of_run", lambda weights: None)
    assert default_environment(args, SimpleNamespace(spec=spec)) == "uva/ArxX5-v0"
    assert default_environment(args, SimpleNamespace()) == "uva/ArxX5-v0"
