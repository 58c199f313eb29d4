"""``uva/ArxX5-v0`` on an arm that is exactly where its waypoints say: times, latencies, what is sent, and when nothing is."""

import copy
import pickle

import numpy as np
import pytest

from tests.arx_envs import KINEMATICS, READY, kinds, made
from tests.arx_ideal import HandClock, IdealDriver, KnowingCamera
from uva_agents.envs.arx_x5.env import ArxX5Env
from uva_agents.envs.arx_x5.observing import picture
from uva_agents.envs.arx_x5.safety import SafetyConfig
from uva_agents.envs.arx_x5.system.system import Latencies
from uva_agents.errors import InputError

# -- nothing moves by itself ----------------------------------------------------------------------------------------


def test_making_and_resetting_it_moves_nothing_unless_homing_was_allowed():
    driver = IdealDriver(KINEMATICS)
    env = ArxX5Env(driver=driver, model="X5", camera=KnowingCamera(driver.clock), image_size=32)
    assert driver.calls == ["connect"]
    env.reset(seed=0)
    assert driver.calls == ["connect"] and not driver.sent
    _, _, _, _, info = env.step(env.hold_action())
    assert kinds(info) == ["not_ready"] and info["sent"] is None and not driver.sent
    env.reset(options={"home": True})
    # Not the driver's own way home, which knows no limits.
    assert set(driver.calls) == {"connect", "hold"} and driver.sent


def test_somebody_can_be_asked_before_every_homing():
    asked = []
    driver = IdealDriver(KINEMATICS)
    answers = iter([False, True])
    env = ArxX5Env(
        driver=driver,
        model="X5",
        camera=KnowingCamera(driver.clock),
        home_on_reset=lambda: asked.append(1) or next(answers),
    )
    env.reset()
    assert not driver.sent
    env.reset()
    assert driver.sent and len(asked) == 2


def test_closing_ends_in_damping_after_the_way_home():
    env, driver = made()
    env.close()
    env.close()
    assert driver.calls[-1] == "close" and "damp" in driver.calls
    assert np.abs(driver.where(driver.clock.now())[:6]).max() < 0.01, "hold_then_home is the default"
    with pytest.raises(RuntimeError, match="after close"):
        env.step(np.zeros(10))


def test_the_model_has_to_be_said_for_anything_but_the_twin():
    driver = IdealDriver(KINEMATICS)
    with pytest.raises(ValueError, match="say which model"):
        ArxX5Env(driver=driver, camera=KnowingCamera(driver.clock))
    with pytest.raises(ValueError, match="'X5'"):
        ArxX5Env(driver=driver, model="L5", camera=KnowingCamera(driver.clock))


# -- actions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["absolute", "absolute_vector", "relative", "joints"])
def test_holding_still_is_an_action_in_every_mode(mode):
    env, driver = made(action_mode=mode)
    before = driver.where(driver.clock.now())
    for _ in range(10):
        _, _, _, _, info = env.step(env.hold_action())
        assert not info["interventions"]
    assert driver.where(driver.clock.now()) == pytest.approx(before, abs=1e-4)


def test_an_absolute_action_brings_the_tool_to_that_pose():
    env, _ = made(tool_frame="sdk", action_mode="absolute")
    goal = KINEMATICS.forward(READY)
    goal[:3] += [0.03, 0.04, 0.02]
    action = env._codec.action(goal, READY, 0.02, env._seen.state)
    for _ in range(30):
        obs, _, _, _, info = env.step(action)
    assert obs["agent_pos"][:3] == pytest.approx(goal[:3], abs=1e-3) and obs["agent_pos"][6] == pytest.approx(
        0.02, abs=1e-3
    )
    assert info["sent"] == pytest.approx(action, abs=1e-3), "what was sent is told as an action"


def test_a_relative_action_starts_from_the_pose_that_was_seen():
    env, driver = made(action_mode="relative", tool_frame="umi")
    start = env.get_obs()["agent_pos"][:3]
    forward = np.array([0, 0, 0.01, 1, 0, 0, 0, 1, 0, 0.04])
    for _ in range(6):
        env.step(forward)
    moved = KINEMATICS.forward(driver.where(driver.clock.now())[:6])[:3] - start
    outward = env._codec.rotation(KINEMATICS.forward(READY))[:, 2]
    assert moved @ outward > 0.012 and np.linalg.norm(moved - (moved @ outward) * outward) < 2e-3


def test_asking_for_too_much_sends_less_and_says_so():
    env, _ = made()
    start = env.hold_action()
    action = start.copy()
    action[0] += 0.08
    for _ in range(3):
        _, _, _, _, info = env.step(action)
        assert kinds(info) == ["slowed"]
    assert 0.002 < info["sent"][0] - start[0] < 0.06
    assert len(info["waypoints"]) > 1 and info["waypoints"][0].time_s > 0


def test_numbers_that_are_none_move_nothing_and_raise_nothing():
    env, driver = made()
    before = driver.where(driver.clock.now())
    for bad in (np.nan, np.inf):
        action = env.hold_action()
        action[4] = bad
        _, _, _, _, info = env.step(action)
        assert kinds(info) == ["not_finite"] and info["sent"] is None
    assert driver.where(driver.clock.now() + 1) == pytest.approx(before, abs=1e-4)


def test_wrong_shapes_are_refused_before_anything_is_sent():
    env, driver = made()
    sent = len(driver.sent)
    for bad in (np.zeros(7), np.zeros((16, 10)), 1.0):
        with pytest.raises(ValueError, match="ArxX5 takes one absolute action"):
            env.step(bad)
    with pytest.raises(ValueError, match="chunk"):
        env.schedule(env.hold_action(), 0.0)
    assert len(driver.sent) == sent
    env.step(env.hold_action())  # and it goes on


def test_a_dry_run_computes_and_sends_nothing():
    env, driver = made(ready=False, safety=SafetyConfig(dry_run=True))
    _, _, _, _, info = env.step(env.hold_action())
    assert driver.calls == ["connect"] and not driver.sent
    assert info["waypoints"], "what would have been sent"


# -- one moment -----------------------------------------------------------------------------------------------------


def moving(env, steps=12):
    """Steps of a tool that moves all the time; yields observations with info."""
    for k in range(steps):
        action = env.hold_action()
        action[:3] += [0.008, 0.006 * np.cos(k / 3), 0.0]
        obs, _, _, _, info = env.step(action)
        yield obs, info


@pytest.mark.parametrize("latency_s", [0.0, 0.12])
def test_the_pose_is_of_the_moment_that_the_picture_shows(latency_s):
    env, driver = made(camera_latency_s=latency_s)
    ages = []
    for obs, info in moving(env):
        then = KINEMATICS.forward(driver.where(info["observed_s"])[:6])
        assert obs["agent_pos"][:3] == pytest.approx(then[:3], abs=2e-4)
        ages.append(info["latency_s"])
    now = KINEMATICS.forward(driver.where(driver.clock.now())[:6])
    assert (np.linalg.norm(now[:3] - then[:3]) > 0.005) == (latency_s > 0.1), "the tool has moved on meanwhile"
    assert latency_s < min(ages) + 1e-6 and max(ages) < latency_s + 1 / 60 + 1e-6


def test_the_latency_of_measurements_is_compensated():
    late = 0.03
    driver = IdealDriver(KINEMATICS, stamp_late_s=late)
    env, _ = made(driver, latencies=Latencies(state_s=late), camera_latency_s=0.1)
    for obs, info in moving(env):
        then = KINEMATICS.forward(driver.where(info["observed_s"])[:6])
        assert obs["agent_pos"][:3] == pytest.approx(then[:3], abs=2e-4)


def test_switches_add_joints_time_and_the_outside_camera():
    driver = IdealDriver(KINEMATICS)
    outside = KnowingCamera(driver.clock, size=(20, 40))
    env, _ = made(driver, joint_state=True, timestamp=True, outside=True, outside_camera=outside)
    obs, _, _, _, info = env.step(env.hold_action())
    assert env.observation_space.contains(obs)
    assert set(obs) == {"pixels", "pixels_outside", "agent_pos", "joint_pos", "joint_vel", "joint_torque", "timestamp"}
    assert obs["joint_pos"] == pytest.approx(READY, abs=1e-3)
    assert obs["timestamp"][0] == pytest.approx(info["observed_s"] - env._start_s) and obs["pixels_outside"].shape == (
        48,
        64,
        3,
    )
    env.close()
    assert outside.closed


def test_pictures_are_scaled_to_cover_and_cut_around_the_middle():
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200] = 255
    assert picture(wide, (50, 50))[:, 2:-2].min() > 250, "the middle third"
    tall = np.zeros((90, 30, 3), np.uint8)
    tall[30:60] = 255
    assert picture(tall, (60, 60)).mean() > 245
    same = picture(wide, (100, 300))
    same[:] = 7
    assert wide.max() == 255, "a copy"


def test_a_mask_blackens_parts_of_the_wrist_picture():
    mask = np.zeros((48, 64), bool)
    mask[:10] = True
    env, _ = made(image_mask=mask)
    pixels = env.get_obs()["pixels"]
    assert not pixels[:10].any() and pixels[10:, :20].all()
    with pytest.raises(ValueError, match="image_mask must be bool"):
        made(image_mask=mask[:5])


# -- times ----------------------------------------------------------------------------------------------------------


def test_steps_lie_on_a_grid():
    env, driver = made(control_hz=10)
    begun = driver.clock.now()
    for _ in range(10):
        _, _, _, _, info = env.step(env.hold_action())
    assert driver.clock.now() - begun == pytest.approx(1.0)
    assert (info["timing"].steps, info["timing"].late_steps) == (10, 0)


def test_a_slow_agent_is_counted_and_its_action_still_followed():
    env, driver = made()
    goal = env.hold_action()
    goal[2] += 0.02
    for k in range(20):
        driver.clock.time_s += 0.07 if k % 4 == 0 else 0.0  # the agent thinks
        _, _, _, _, info = env.step(goal)
    assert info["timing"].late_steps == 5 and info["timing"].skipped == 0
    assert info["timing"].jitter_max_s == pytest.approx(0.02, abs=1e-6)
    assert env.get_obs()["agent_pos"][2] == pytest.approx(goal[2], abs=1e-3)


def test_a_clock_that_oversleeps_shows_as_lateness():
    driver = IdealDriver(KINEMATICS, HandClock(extra_s=0.002))
    env, _ = made(driver, ready=False)
    for _ in range(5):
        _, _, _, _, info = env.step(env.hold_action())
    assert 0.001 < info["timing"].jitter_p50_s < 0.005 and info["timing"].late_steps == 0
    assert ArxX5Env(driver=IdealDriver(KINEMATICS), model="X5", render_observations=False, late_s=1e-4)


def sine(env, n, dt, *, amplitude=0.02, hz=0.5):
    """A chunk (n, 10) that sways the tool sideways, begun from where it is."""
    chunk = np.repeat(env.hold_action()[None].astype(float), n, axis=0)
    chunk[:, 1] += amplitude * (1 - np.cos(2 * np.pi * hz * dt * np.arange(n))) / 2
    return chunk


def follow(env, driver, chunk, start_s, dt):
    """Schedule a chunk piece by piece as a loop does, ticking; -> where the tool was at each action's time."""
    times = start_s + dt * np.arange(len(chunk))
    while driver.clock.now() < times[-1]:
        first = int(np.searchsorted(times, driver.clock.now()))
        env.schedule(chunk[first:], times[first], dt)
        env.tick()
    return np.array([KINEMATICS.forward(driver.where(t)[:6])[1] for t in times])


@pytest.mark.parametrize(("behind_s", "compensated_s"), [(0.0, 0.0), (0.08, 0.08), (0.08, 0.0)])
def test_a_chunk_is_where_it_should_be_when_it_should_be_with_the_latency_compensated(behind_s, compensated_s):
    driver = IdealDriver(KINEMATICS, behind_s=behind_s)
    env, _ = made(driver, latencies=Latencies(action_s=compensated_s))
    dt = 0.05
    chunk = sine(env, 30, dt)
    found = follow(env, driver, chunk, driver.clock.now() + 0.3, dt)
    error = np.abs(found - chunk[:, 1])[4:].max()
    assert error < 0.0005 if compensated_s == behind_s else error > 0.0015


def test_actions_that_are_past_are_dropped_and_a_chunk_that_is_all_past_sends_nothing():
    env, driver = made()
    chunk, sent = sine(env, 16, 0.05), len(driver.sent)
    now = driver.clock.now()
    half = env.schedule(chunk, now - 0.4)
    assert half.dropped == 9 and half.late_s == pytest.approx(0.4 + env.reaction_s) and half.waypoints
    assert half.sent is not None and len(driver.sent) == sent + 1
    gone = env.schedule(chunk, now - 2.0)
    assert gone.dropped == 16 and gone.sent is None and not gone.waypoints and len(driver.sent) == sent + 1


def test_the_arm_holds_when_nothing_comes_and_goes_on_when_something_does():
    env, driver = made()
    goal = env.hold_action()
    goal[1] += 0.01
    env.step(goal)
    seen = []
    for _ in range(60):
        _, _, _, _, info = env.tick()
        seen += kinds(info)
    assert seen == ["watchdog"]
    still = driver.where(driver.clock.now())
    env.tick()
    assert driver.where(driver.clock.now()) == pytest.approx(still)
    for _ in range(10):
        _, _, _, _, info = env.step(env.hold_action())
    assert not info["interventions"] and info["sent"] is not None


def test_an_arm_cannot_be_copied_or_pickled():
    env, _ = made()
    for duplicate in (copy.deepcopy, pickle.dumps):
        with pytest.raises(
            InputError, match=r"can be copied or pickled on the twin's simulated clock only.*there is one arm"
        ):
            duplicate(env)
    env.close()
