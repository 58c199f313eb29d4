"""The twin: delays, noise, losses, saved states, two kinds of time."""

import importlib.util
import pickle
import threading
import time
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("mujoco") is None:
    pytest.skip("the twin of the arm needs MuJoCo: pip install 'uva-agents[arx]'", allow_module_level=True)

from tests.twins import RAISED, simulated, wait
from uva_agents.envs.arx_x5.arm.interface import DriverError, Waypoint
from uva_agents.envs.arx_x5.drivers.factory import make_driver
from uva_agents.envs.arx_x5.drivers.options import DriverOptions
from uva_agents.envs.arx_x5.twin.realism import TwinRealism

ALL_NOISE = TwinRealism(
    camera_fps=50.0,
    dropped_frames=0.3,
    dropped_states=0.1,
    joint_pos_noise=0.001,
    joint_vel_noise=0.02,
    observation_latency_s=0.01,
    action_latency_s=0.03,
    camera_latency_s=0.05,
)


def test_measurements_arrive_late_and_say_so():
    late = simulated(TwinRealism(observation_latency_s=0.05))
    ideal = simulated()
    goal, truth = RAISED + 0.2, {}
    for driver in (late, ideal):
        driver.send([Waypoint(driver.clock.now() + 0.5, goal, 0.04)])
    for _ in range(100):
        wait(ideal, 0.002)
        state = ideal.state()
        truth[round(state.time_s, 4)] = state.joint_pos
    wait(late, 0.2)
    state = late.state()
    assert late.clock.now() - state.time_s == pytest.approx(0.05, abs=1e-6)
    np.testing.assert_allclose(state.joint_pos, truth[round(state.time_s, 4)], atol=1e-9)


def test_action_latency_delays_the_motion_and_nothing_else():
    paths = []
    for latency in (0.0, 0.04):
        driver = simulated(TwinRealism(action_latency_s=latency))
        driver.send([Waypoint(driver.clock.now() + 0.5, RAISED + 0.2, 0.04)])
        path = []
        for _ in range(150):
            wait(driver, 0.002)
            path.append(driver.state().joint_pos)
        paths.append(np.array(path))
        driver.shut_down()
    np.testing.assert_allclose(paths[1][20:], paths[0][:-20], atol=2e-3)
    assert np.abs(paths[1][18] - RAISED).max() < 2e-3


def test_noise_has_the_asked_size_and_repeats_with_its_seed():
    def measured(seed):
        driver = simulated(TwinRealism(joint_pos_noise=0.002, joint_vel_noise=0.03, seed=seed))
        states = []
        for _ in range(300):
            wait(driver, 0.002)
            states.append(driver.state().joint_pos)
        driver.shut_down()
        return np.array(states)

    first, again, other = measured(1), measured(1), measured(2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first[50:].std(axis=0) == pytest.approx(0.002, rel=0.25)


def test_lost_measurements_leave_the_old_one():
    driver = simulated(TwinRealism(dropped_states=0.5, seed=3))
    times = []
    for _ in range(200):
        wait(driver, 0.002)
        times.append(driver.state().time_s)
    new = np.count_nonzero(np.diff(times))
    assert 60 < new < 140
    driver.shut_down()


def test_frames_are_late_lost_and_numbered_by_their_time():
    driver = simulated(TwinRealism(camera_fps=50.0, camera_latency_s=0.1, dropped_frames=0.3, seed=1))
    plant = driver.twin.plant
    plant.watch("wrist")
    seen: list[tuple[Any, Any]] = []
    for _ in range(500):
        wait(driver, 0.004)
        exposure = plant.newest("wrist")
        if not seen or exposure is not seen[-1][1]:
            seen.append((plant.time_s, exposure))
    arrived = seen[2:]
    assert 55 < len(arrived) < 80  # of about 95
    for now, exposure in arrived:
        assert 0.1 - 1e-6 <= now - exposure.time_s < 0.1 + 0.0041
    times = np.array([exposure.time_s for _, exposure in arrived])
    steps = np.diff(times) / 0.02
    np.testing.assert_allclose(steps, np.rint(steps), atol=0.11)
    assert steps.max() > 1.5
    driver.shut_down()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_latency_s": -0.1}, "action_latency_s"),
        ({"dropped_frames": 1.0}, "share"),
        ({"camera_fps": 0.0}, "camera_fps"),
        ({"observation_latency_s": 40}, "in seconds"),
        ({"joint_pos_noise": float("nan")}, "joint_pos_noise"),
    ],
)
def test_realism_that_makes_no_sense_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        TwinRealism(**changes)


def future(driver, n=60):
    numbers = []
    for i in range(n):
        if i % 20 == 0:
            driver.send([Waypoint(driver.clock.now() + 0.1, RAISED + 0.1 * np.sin(i + np.arange(6)), 0.03)])
        wait(driver, 0.01)
        state = driver.state()
        exposure = driver.twin.plant.newest("wrist")
        numbers.append(
            [state.time_s, *state.joint_pos, *state.joint_vel, state.gripper_pos, exposure.time_s, exposure.number]
        )
    return np.array(numbers)


def test_saved_state_has_the_same_future_here_and_in_another_twin():
    driver, other = simulated(ALL_NOISE), simulated(ALL_NOISE, joints=None)
    driver.twin.plant.watch("wrist")
    future(driver, 23)
    state = driver.get_state()
    first = future(driver)
    wait(driver, 0.5)
    driver.set_state(state)
    assert driver.clock.now() == state.clock_s
    np.testing.assert_array_equal(future(driver), first)
    other.set_state(pickle.loads(pickle.dumps(state)))
    np.testing.assert_array_equal(future(other), first)
    driver.shut_down()
    other.shut_down()


def test_looking_changes_nothing():
    results = []
    for looks in (1, 7):
        driver = simulated(ALL_NOISE)
        driver.twin.plant.watch("wrist")
        driver.send([Waypoint(driver.clock.now() + 0.4, RAISED + 0.2, 0.02)])
        for _ in range(20):
            wait(driver, 0.02)
            for _ in range(looks):
                state, exposure = driver.state(), driver.twin.plant.newest("wrist")
        results.append([*state.joint_pos, *state.joint_vel, state.time_s, exposure.time_s])
        driver.shut_down()
    assert results[0] == results[1]


def test_how_time_is_cut_changes_nothing():
    results = []
    for steps in ([0.5], [0.01] * 50, [0.0033] * 151 + [0.0017]):
        driver = simulated()
        driver.send([Waypoint(driver.clock.now() + 0.4, RAISED + 0.2, 0.02)])
        for step in steps:
            wait(driver, step)
        driver.clock.sleep_until(0.5)
        results.append(driver.state().joint_pos)
        driver.shut_down()
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_in_real_time_the_arm_moves_while_nobody_asks():
    driver = make_driver("sim", options=DriverOptions(stiffen_s=0.05))
    driver.connect()
    driver.hold()
    start = driver.state().joint_pos
    driver.send([Waypoint(driver.clock.now() + 1.5, start + 0.2, 0.02)])
    before, deadline = driver.twin.plant.cycles, time.monotonic() + 20
    # Not through the driver: looking brings it to the present.
    while np.abs(driver.twin.plant.data.qpos[:6] - start - 0.2).max() > 0.02 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert driver.twin.plant.cycles > before + 100
    asked = driver.clock.now()
    state = driver.state()
    np.testing.assert_allclose(state.joint_pos, start + 0.2, atol=0.02)
    assert state.time_s > asked - 0.2
    with pytest.raises(DriverError, match="does not go back"):
        driver.set_state(driver.get_state())
    driver.shut_down()
    assert not any(thread.name == "arx-x5-twin" and thread is driver.twin._thread for thread in threading.enumerate())


def test_too_slow_a_computer_slows_the_twins_time(caplog):
    driver = make_driver("sim")
    driver.connect()
    with driver.twin.lock:
        time.sleep(0.6)
    asked = driver.clock.now()
    state = driver.state()
    assert driver.twin.lost_s > 0.2
    assert "too slow" in caplog.text
    # Only its own time stood still: what it says now is of now.
    assert state.time_s > asked - 0.2
    driver.shut_down()


def test_pixel_noise_repeats():
    pictures = []
    for _ in range(2):
        driver = simulated(TwinRealism(pixel_noise=4.0))
        camera = driver.camera("wrist", height=32, width=32)
        pictures.append((camera.read().image, camera.draw()))
        driver.shut_down()
    np.testing.assert_array_equal(pictures[0][0], pictures[1][0])
    assert 1 < (pictures[0][0].astype(int) - pictures[0][1]).std() < 6
