"""Measurements that say nothing: from the future, of wrong types. The arm stops, and nothing that watches it ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.arx_arm import NEAR, go, kinds, moving, safe_arm, sleep
from tests.arx_faults import GARBAGE, FaultyArm, judged
from uva_agents.envs.arx_x5.arm.interface import DriverError, Frame
from uva_agents.envs.arx_x5.safety import InterventionKind, Mode
from uva_agents.envs.arx_x5.system.history import StateHistory


def faulty():
    """An arm in the middle of a motion, that a judge looks at."""
    driver = FaultyArm()
    arm, _ = safe_arm(driver)
    go(arm, NEAR)
    sleep(arm, 0.1)
    go(arm, [0.6, 0.6, 0.6, 0, 0, 0], ahead=0.8)
    sleep(arm, 0.3)
    return arm, driver


@pytest.mark.parametrize("ahead_s", [0.05, 30.0, 1e300])
def test_a_measurement_ahead_of_the_clock_stops_the_arm(ahead_s):
    arm, driver = faulty()
    frozen = replace(driver.state(), time_s=driver.clock.now() + ahead_s)
    driver.state = lambda: frozen
    sent = go(arm, [0.65, 0.65, 0.65, 0, 0, 0])
    assert kinds(sent)[-1] is InterventionKind.STALE_STATE and not sent.waypoints and arm.mode is Mode.HOLDING
    assert "ahead of the clock" in sent.interventions[-1].detail and len(sent.interventions[-1].detail) < 200
    sleep(arm, 0.02)
    with pytest.raises(DriverError, match="ahead of the clock"):
        arm.home()
    assert not judged(driver, arm.config)


def test_a_clock_that_is_set_back_leaves_no_limit():
    driver = FaultyArm()
    arm, _ = safe_arm(driver)
    sleep(arm, 0.2)
    last = driver.state()
    driver.state = lambda: last
    driver.clock._now -= 3.0
    driver.knots = [(t - 3.0, *row) for t, *row in driver.knots]
    for k in range(4):
        sent = go(arm, np.array([0.06, 0.06, 0.06, 0, 0, 0]) * (k + 1), ahead=0.3)
        assert not sent.waypoints and InterventionKind.STALE_STATE in kinds(sent)
        sleep(arm, 0.3)
    with pytest.raises(DriverError):
        arm.home()
    assert not judged(driver, arm.config)


def test_a_measurement_that_took_its_time_is_none_from_the_future():
    arm, driver = moving()
    real = driver.state

    def slow():
        driver.clock.sleep_until(driver.clock.now() + 0.06)
        return real()

    driver.state = slow
    arm.tick()
    assert InterventionKind.STALE_STATE not in [i.kind for i in arm.take_interventions()]


class Camera:
    def __init__(self):
        self.time_s = 0.0

    def read(self):
        return Frame(self.time_s, np.zeros((1, 1, 3), np.uint8))


@pytest.mark.parametrize("ahead_s", [100.0, 1e9, float("nan")])
def test_a_picture_ahead_of_the_clock_stops_the_arm(ahead_s):
    camera = Camera()
    camera.time_s = 100.0
    arm, driver = safe_arm(camera=camera, settings={"camera_age_s": 30.0})
    camera.time_s = driver.clock.now() + ahead_s
    sleep(arm, 8.0)
    sent = go(arm, NEAR)
    assert InterventionKind.STALE_CAMERA in kinds(sent) and not sent.waypoints and arm.mode is Mode.HOLDING


def test_a_picture_found_fresh_before_the_clock_was_set_back_is_looked_at_again():
    camera = Camera()
    camera.time_s = 100.0
    arm, driver = safe_arm(camera=camera, settings={"camera_age_s": 30.0})
    driver.clock._now -= 50.0
    sent = go(arm, NEAR)
    assert InterventionKind.STALE_CAMERA in kinds(sent) and not sent.waypoints


def test_a_measurement_from_the_future_is_not_the_newest_for_ever():
    _arm, driver = moving()
    history, state = StateHistory(), driver.state()
    history.add(replace(state, time_s=state.time_s + 1000))
    history.add(state)
    assert history.newest() is state


GARBLED = pytest.mark.parametrize("garbage", range(len(GARBAGE)))


def garbled(driver, index):
    real, (name, value) = driver.state, GARBAGE[index]
    driver.state = lambda: replace(real(), **{name: value}) if name else value
    return real


@GARBLED
def test_a_measurement_of_a_wrong_type_stops_the_arm_and_does_not_stop_the_watchdog(garbage):
    arm, driver = faulty()
    garbled(driver, garbage)
    sent = go(arm, [0.65, 0.65, 0.65, 0, 0, 0])
    assert kinds(sent)[-1] is InterventionKind.DRIVER and not sent.waypoints and arm.mode is Mode.HOLDING
    with pytest.raises(DriverError, match="no measurement"):
        arm.home()
    with pytest.raises(DriverError, match="no measurement"):
        arm.state()
    sleep(arm, arm.config.watchdog_s + arm.config.damp_after_s + 0.1)
    assert arm.mode is Mode.DAMPED and driver.damped
    assert not judged(driver, arm.config)


@GARBLED
@pytest.mark.parametrize("way", ["hold", "damp", "close"])
def test_an_arm_that_measures_garbage_can_be_held_damped_and_closed(garbage, way):
    arm, driver = faulty()
    garbled(driver, garbage)
    getattr(arm, way)()
    assert driver.damped == (way != "hold")
    arm.close()
    assert arm.mode is Mode.CLOSED and driver.damped
    assert not judged(driver, arm.config)


def test_whole_numbers_and_lists_of_numbers_are_a_measurement():
    arm, driver = safe_arm()
    state = replace(driver.state(), joint_vel=np.zeros(6, int), joint_torque=[0.0] * 6, gripper_vel=np.float32(0))
    driver.state = lambda: state
    assert arm.state().joint_vel.dtype == np.float64 and type(arm.state().gripper_vel) is float


def test_the_watchdog_runs_whatever_looking_at_the_arm_raises():
    arm, driver = moving()

    def fails(*_):
        raise KeyboardInterrupt

    looks, arm._monitor.problem = arm._monitor.problem, fails
    driver.clock.sleep_until(driver.clock.now() + arm.config.watchdog_s)
    with pytest.raises(KeyboardInterrupt):
        arm.tick()
    arm._monitor.problem = looks
    assert arm.mode is Mode.HOLDING
