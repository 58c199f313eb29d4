"""The loop on ``uva/ArxX5-v0`` with its safety layer, on an arm without physics and the machine's own clock."""

import threading
import time

import gymnasium as gym
import numpy as np
import pytest

from tests.arx_ideal import KnowingCamera, IdealDriver
from uva_agents.data import open_dataset
from uva_agents.envs.arx_x5.clock import MonotonicClock
from uva_agents.envs.arx_x5.env import ArxX5Env
from uva_agents.envs.arx_x5.kinematics import X5Kinematics
from uva_agents.realtime import (
    ArxBody,
    ChunkSchedule,
    Command,
    EpisodeRecorder,
    Loop,
    LoopSettings,
    ReplayChunker,
    ScheduleSettings,
    Session,
    ThreadWorker,
    open_recording,
)


def make_env(**options):
    kinematics = X5Kinematics("X5")
    clock = MonotonicClock()
    driver = IdealDriver(kinematics, clock)
    camera = KnowingCamera(clock)
    env = ArxX5Env(driver=driver, model="X5", camera=camera, image_size=32, home_on_reset=True, **options)
    return env, driver


class Circle:
    """Chunks of a slow circle around the place where it first looked, after ``seconds`` of work."""

    def __init__(self, seconds=0.2, *, hz=20.0):
        self.seconds, self.hz, self.first = seconds, hz, None
        self.paused = threading.Event()

    def __call__(self, job):
        time.sleep(self.seconds)
        while self.paused.is_set():
            time.sleep(0.01)
        if self.first is None or job.number == 0:
            self.first = np.asarray(job.obs["agent_pos"], float), job.observed_s
        place, began = self.first
        t = (job.observed_s - began + np.arange(16) / self.hz)[:, None]
        move = np.concatenate([0.03 * (1 - np.cos(t)), 0.03 * np.sin(t), 0.01 * np.sin(t)], axis=1)
        return place + np.concatenate([move, np.zeros((16, 3)), -0.01 * (1 - np.cos(t))], axis=1)


class Silent:
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)

    def phase(self, text):
        pass


def session(env, chunker, *, rate=20.0, length_s=3.0, recorder=None, task=""):
    body = ArxBody(env, task=task or None)
    worker = ThreadWorker(lambda: chunker)
    schedule = ChunkSchedule(ScheduleSettings(action_hz=rate), body.layout)
    audience = Silent()
    loop = Loop(body, worker, schedule, LoopSettings(rate_hz=rate, length_s=length_s), say=audience.say)

    def reset(seed, *, home=False, release_stop=False):
        env.reset(seed=seed, options={"release_stop": True} if release_stop else {})

    return Session(loop, reset, audience, recorder=recorder, task=task), audience, worker


@pytest.fixture
def arm():
    env, driver = make_env(action_mode="absolute_vector")
    env.reset(seed=0)
    yield env, driver
    env.close()


def test_an_agent_is_followed_through_the_safety_layer_without_its_stepping_in(arm):
    env, driver = arm
    run, audience, worker = session(env, Circle())
    (episode,) = run.run(1)
    worker.close()
    assert episode.end == "length" and episode.counts.gaps == 0 and episode.counts.chunks >= 6
    assert episode.interventions == 0, audience.said
    assert episode.latency_s[0] > 0.2
    sent = np.array([w.joint_pos for ws in driver.sent for w in ws])
    assert np.abs(sent).max() > 0.02  # it moved


def test_a_pause_of_the_network_holds_the_arm_and_then_it_goes_on(arm):
    env, driver = arm
    agent = Circle(0.1)
    run, audience, worker = session(env, agent, length_s=6.0)
    pause = [threading.Timer(3.0, agent.paused.set), threading.Timer(5.0, agent.paused.clear)]
    for timer in pause:
        timer.start()
    began = time.monotonic()
    (episode,) = run.run(1)
    worker.close()
    assert episode.end == "length" and episode.counts.gaps == 1, audience.said
    assert any("holding" in text for text in audience.said)
    times = np.array([ws[0].time_s for ws in driver.sent]) - began
    at = int(np.diff(times).argmax())
    assert 0.5 < np.diff(times)[at] < 2.5 and len(times) - at > 5
    # Still meanwhile, and no jump afterwards.
    still = [driver.where(began + times[at] + dt) for dt in (1.0, 1.1, 1.2)]
    assert np.ptp(np.array(still), axis=0).max() < 1e-6


def test_an_emergency_stop_from_another_thread_ends_the_episode_and_stays(arm):
    env, driver = arm
    run, audience, worker = session(env, Circle(0.1), length_s=10.0)
    threading.Timer(1.5, lambda: run.controls.give(Command.EMERGENCY)).start()
    (episode,) = run.run(3)
    worker.close()
    assert episode.end == "emergency" and episode.seconds < 3.0
    assert env.stopped
    before = len(driver.sent)
    env.schedule(np.repeat(env.hold_action()[None], 4, 0), env.clock.now() + 0.2)
    assert len(driver.sent) == before


def test_an_episode_is_recorded_replayed_and_the_replay_goes_the_same_way(arm, tmp_path):
    pytest.importorskip("pyarrow")
    env, driver = arm
    recorder = EpisodeRecorder(tmp_path / "a", control_hz=20, settings={"action_mode": "absolute_vector"})
    run, audience, worker = session(env, Circle(0.1), recorder=recorder, task="circle")
    run.run(1)
    worker.close()
    recorder.close()
    data = open_dataset(tmp_path / "a")
    assert data.tasks == ("circle",) and data.arrays["pixels"].shape[1:] == (32, 32, 3)
    recording = open_recording(f"replay:{tmp_path / 'a'}#0")
    assert recording.settings["action_mode"] == "absolute_vector" and recording.control_hz == 20
    body = ArxBody(env)
    again = EpisodeRecorder(tmp_path / "b", control_hz=20)
    run, audience, worker = session(env, ReplayChunker(recording, body.stay, body.layout), recorder=again, length_s=60)
    (episode,) = run.run(1)
    worker.close()
    again.close()
    assert episode.end == "finished" and episode.counts.gaps == 0, audience.said
    replayed = open_dataset(tmp_path / "b").arrays["action"]
    # The recording is the end of it, up to where within a step of the loop its times fall.
    wanted = recording.actions[:, :3]
    tail = replayed[-len(wanted) - 2 :, :3]
    best = min(np.abs(tail[k : k + len(wanted) - 5] - wanted[: len(wanted) - 5]).max() for k in range(3))
    assert best < 0.003


def test_environments_that_wait_for_their_agent_are_refused():
    with pytest.raises(ValueError, match="uva eval"):
        ArxBody(gym.make("uva/PushT-v0"))
    env, _ = make_env(action_mode="relative")
    with pytest.raises(ValueError, match="common frame"):
        ArxBody(env)
    env.close()
