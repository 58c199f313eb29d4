"""The loop on ``uva/ArxX5-v0`` with its safety layer: an arm without physics, and time that passes only while somebody sleeps."""

import json

import gymnasium as gym
import numpy as np
import pytest

from tests.arx_ideal import HandClock, IdealDriver, KnowingCamera
from tests.ideal_arm import Timed
from uva_agents.data import open_dataset
from uva_agents.envs.arx_x5.arm.kinematics import X5Kinematics
from uva_agents.envs.arx_x5.env import ArxX5Env
from uva_agents.errors import NotFiniteError
from uva_agents.realtime import (
    ArxRobotInterface,
    ChunkSchedule,
    Command,
    EpisodeRecorder,
    Loop,
    LoopSettings,
    OperatorSession,
    ReplayChunkSource,
    ScheduleSettings,
    open_recording,
)


def make_env(**options):
    clock = HandClock()
    driver = IdealDriver(X5Kinematics("X5"), clock)
    camera = KnowingCamera(clock)
    env = ArxX5Env(driver=driver, model="X5", camera=camera, image_size=32, home_on_reset=True, **options)
    return env, driver


class Wave:
    """Chunks of joints that swing from where an episode began."""

    swing = np.array([0.3, 0.5, 0.4, 0.2, 0.2, 0.3, -0.01])

    def __init__(self, hz=20.0):
        self.hz = hz

    def __call__(self, request):
        if request.number == 0:
            self.place = np.append(request.obs["joint_pos"], request.obs["agent_pos"][6]).astype(float)
            self.began = request.observed_s
        t = request.observed_s - self.began + np.arange(16) / self.hz
        return self.place + self.swing * (1 - np.cos(0.7 * t))[:, None]


class Silent:
    def __init__(self):
        self.messages = []

    def say(self, text):
        self.messages.append(text)

    def phase(self, text):
        pass


def session(env, source, *, seconds=0.2, rate=20.0, length_s=3.0, recorder=None, task=""):
    robot = ArxRobotInterface(env, task=task or None)
    worker = Timed(env.clock, source, seconds if callable(seconds) else lambda request: seconds)
    schedule = ChunkSchedule(ScheduleSettings(action_hz=rate), robot.layout)
    audience = Silent()
    loop = Loop(robot, worker, schedule, LoopSettings(rate_hz=rate, length_s=length_s), say=audience.say)

    def reset(seed, *, home=False, release_stop=False):
        env.reset(seed=seed, options={"release_stop": True} if release_stop else {})

    return OperatorSession(loop, reset, audience, recorder=recorder, task=task), audience


@pytest.fixture
def arm():
    env, driver = make_env(action_mode="joints", joint_state=True)
    env.reset(seed=0)
    yield env, driver
    env.close()


@pytest.mark.parametrize("rate", [20.0, 8.0])
def test_an_agent_is_followed_through_the_safety_layer_without_its_stepping_in(arm, rate):
    env, driver = arm
    run, audience = session(env, Wave(rate), rate=rate, length_s=6.0)
    (episode,) = run.run(1)
    assert episode.end == "length" and episode.counts.gaps == 0 and episode.counts.chunks >= 6
    assert episode.interventions == 0, audience.messages
    joints = np.array([w.joint_pos for ws in driver.sent for w in ws])
    begun = Wave.swing[:6] * (1 - np.cos(0.7 * 6.0))
    np.testing.assert_allclose(joints.max(0), np.maximum(2 * Wave.swing[:6], begun), atol=0.03)


def test_a_pause_of_the_network_holds_the_arm_and_then_it_goes_on(arm):
    env, driver = arm
    run, audience = session(env, Wave(), seconds=lambda request: 2.1 if request.number == 10 else 0.1, length_s=8.0)
    (episode,) = run.run(1)
    assert episode.end == "length" and episode.counts.gaps == 1, audience.messages
    assert any("holding" in text for text in audience.messages)
    # The safety layer's own watchdog saw it too; on the way back to where the wave is by now, it limits the speed.
    kinds = [text.split(":")[0] for text in audience.messages]
    assert kinds.count("watchdog") == 1 and {"no_ik", "first_jump", "joint_limit"}.isdisjoint(kinds)
    ends = np.array([ws[-1].time_s for ws in driver.sent])
    begins = np.array([ws[0].time_s for ws in driver.sent])
    silence = begins[1:] - ends[:-1]
    at = int(silence.argmax())
    assert silence[at] > 0.8
    still = np.array([driver.where(t) for t in np.linspace(ends[at] + 0.01, begins[at + 1] - 0.05, 20)])
    assert np.ptp(still, axis=0).max() < 1e-6
    # No jump afterwards, and the arm is on its way again.
    joints = np.array([driver.where(t) for t in np.arange(begins[at + 1] - 0.1, begins[at + 1] + 1.5, 0.01)])
    assert np.abs(np.diff(joints[:, :6], axis=0)).max() / 0.01 < 1.5
    assert len(begins) - at > 30


def test_an_emergency_stop_ends_the_episode_and_nothing_moves_until_it_is_released(arm):
    env, driver = arm
    wave = Wave()

    def pressing(request):
        if request.number == 5:
            run.controls.give(Command.EMERGENCY)
        return wave(request)

    run, _ = session(env, pressing, length_s=10.0)
    (episode,) = run.run(3)
    assert episode.end == "emergency" and episode.seconds < 4.0 and env.stopped
    env.clock.sleep_until(env.clock.now() + 1.0)
    before = len(driver.sent)
    env.schedule(np.repeat(env.hold_action()[None], 4, 0), env.clock.now() + 0.2)
    assert len(driver.sent) == before
    # The next session lets go of it, which the operator has to ask for.
    run.controls.emergency.set()
    run, _ = session(env, wave)
    run.controls.emergency.set()
    (episode,) = run.run(1)
    assert episode.end == "length" and len(driver.sent) > before


def test_a_stop_that_somebody_else_pressed_ends_the_episode(arm):
    env, _ = arm
    wave = Wave()
    run, _ = session(
        env, lambda request: (env.stop("the fire alarm") if request.number == 5 else None, wave(request))[1]
    )
    (episode,) = run.run(2)
    assert episode.end == "emergency"


def test_an_episode_is_recorded_replayed_and_the_replay_goes_the_same_way(arm, tmp_path):
    pytest.importorskip("pyarrow")
    env, _ = arm
    recorder = EpisodeRecorder(tmp_path / "a", control_hz=20, settings={"action_mode": "joints"})
    run, audience = session(env, Wave(), recorder=recorder, task="wave")
    run.run(1)
    recorder.close()
    data = open_dataset(tmp_path / "a")
    assert data.tasks == ("wave",) and data.arrays["pixels"].shape[1:] == (32, 32, 3)
    recording = open_recording(f"replay:{tmp_path / 'a'}#0")
    assert recording.settings["action_mode"] == "joints" and recording.control_hz == 20
    robot = ArxRobotInterface(env)
    again = EpisodeRecorder(tmp_path / "b", control_hz=20)
    run, audience = session(env, ReplayChunkSource(recording, robot.stay, robot.layout), recorder=again, length_s=60)
    (episode,) = run.run(1)
    again.close()
    assert episode.end == "finished" and episode.counts.gaps == 0, audience.messages
    replayed = open_dataset(tmp_path / "b").arrays["action"]
    # The recording is the end of it, up to where within a step of the loop its times fall.
    wanted = recording.actions[:, :6]
    tail = replayed[-len(wanted) - 2 :, :6]
    best = min(np.abs(tail[k : k + len(wanted) - 5] - wanted[: len(wanted) - 5]).max() for k in range(3))
    assert best < 0.02


def test_environments_that_wait_for_their_agent_are_refused():
    with pytest.raises(ValueError, match="uva eval"):
        ArxRobotInterface(gym.make("uva/PushT-v0"))
    env, _ = make_env(action_mode="relative")
    with pytest.raises(ValueError, match="common frame"):
        ArxRobotInterface(env)
    env.close()


@pytest.mark.parametrize("says", ["raises", "nan", "zero rotation"])
def test_an_agent_that_computes_nan_is_a_hold_that_the_safety_layer_keeps_on_record(tmp_path, says):
    log = tmp_path / "interventions.jsonl"
    env, _ = make_env(action_mode="absolute", log_file=str(log))
    env.reset(seed=0)
    stays = env.hold_action().astype(float)

    def answer(request):
        rows = np.tile(stays, (16, 1))
        rows[:, 1] += 0.03 * np.sin(request.observed_s + 0.05 * np.arange(16))
        if request.number == 3 and says == "raises":
            raise NotFiniteError("weights 'umi', head 'action': 3 of 160 numbers are NaN")
        if request.number == 3:
            rows[2:, slice(3, 9) if says == "zero rotation" else slice(None)] = (
                0.0 if says == "zero rotation" else np.nan
            )
        return rows

    run, audience = session(env, answer)
    (episode,) = run.run(1)
    env.close()
    assert episode.end == "length" and episode.interventions >= 1 and episode.counts.errors >= 1
    wrong = {"raises": "head 'action'", "nan": "NaN", "zero rotation": "rotation"}[says]
    assert any(wrong in text and "holding" in text for text in audience.messages)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(row["kind"] == "not_finite" and wrong in row["detail"] for row in rows)
    assert episode.counts.chunks > 4, "the run went on"
