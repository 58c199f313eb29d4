"""Measurements that say nothing: from the future, of wrong types. The arm stops, and nothing that watches it ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.arx_arm import NEAR, go, kinds, moving, safe_arm, sleep
from tests.arx_faults import FaultyArm, judged
from uva_agents.envs.arx_x5.history import StateHistory
from uva_agents.envs.arx_x5.interface import DriverError, Frame
from uva_agents.envs.arx_x5.safety import Kind, Mode


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
    assert kinds(sent)[-1] is Kind.STALE_STATE and not sent.waypoints and arm.mode is Mode.HOLDING
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
        assert not sent.waypoints and Kind.STALE_STATE in kinds(sent)
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
    assert Kind.STALE_STATE not in [i.kind for i in arm.take_interventions()]


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
    assert Kind.STALE_CAMERA in kinds(sent) and not sent.waypoints and arm.mode is Mode.HOLDING


def test_a_picture_found_fresh_before_the_clock_was_set_back_is_looked_at_again():
    camera = Camera()
    camera.time_s = 100.0
    arm, driver = safe_arm(camera=camera, settings={"camera_age_s": 30.0})
    driver.clock._now -= 50.0
    sent = go(arm, NEAR)
    assert Kind.STALE_CAMERA in kinds(sent) and not sent.waypoints


def test_a_measurement_from_the_future_is_not_the_newest_for_ever():
    arm, driver = moving()
    history, state = StateHistory(), driver.state()
    history.add(replace(state, time_s=state.time_s + 1000))
    history.add(state)
    assert history.newest() is state
