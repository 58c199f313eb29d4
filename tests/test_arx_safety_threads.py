"""Several threads and one arm: the watch outlives whatever the driver raises, and nothing moves an arm that is being let go."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from tests.arx_arm import KINEMATICS, NEAR, WritingArm, go, kinds
from uva_agents.envs.arx_x5.clock import MonotonicClock
from uva_agents.envs.arx_x5.interface import DriverError
from uva_agents.envs.arx_x5.limits import X5
from uva_agents.envs.arx_x5.safety import Kind, Mode, SafeArm, SafetyConfig


def until(true, seconds=20.0):
    """Wait for what comes in its own time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


class Arm(WritingArm):
    """In real time, for several threads; the watch's look raises ``bad``."""

    def __init__(self):
        super().__init__(MonotonicClock())
        self.bad = None
        self.guard = threading.RLock()

    def commanded(self, time_s):
        with self.guard:
            return super().commanded(time_s)

    def state(self):
        if self.bad is not None and threading.current_thread().name == "arm watch":
            raise self.bad
        with self.guard:
            return super().state()

    def send(self, waypoints):
        with self.guard:
            super().send([w for w in waypoints if w.time_s > self.clock.now() + 1e-3])


def threaded(**settings):
    driver = Arm()
    arm = SafeArm(driver, kinematics=KINEMATICS, limits=X5, config=SafetyConfig(**settings), threaded=True)
    arm.connect()
    arm.home()
    return arm, driver


def test_whatever_the_driver_raises_the_watch_goes_on_and_the_arm_holds():
    arm, driver = threaded(damp_after_s=0.2, on_exit="damp")
    try:
        for error in (asyncio.CancelledError, SystemExit, KeyboardInterrupt, AssertionError, GeneratorExit):
            until(lambda: arm.at_rest and go(arm, NEAR).waypoints)
            arm.take_interventions()
            driver.bad = error("a bug of the driver")
            until(lambda: arm.mode is Mode.HOLDING)
            assert Kind.DRIVER in [i.kind for i in arm.take_interventions()] and arm._watch.alive
            driver.bad = None if error is not GeneratorExit else driver.bad
        until(lambda: arm.mode is Mode.LIMP)
    finally:
        driver.bad = None
        arm.close()
    assert driver.limp


def test_an_arm_that_nobody_watches_any_more_takes_no_command_and_stops():
    arm, driver = threaded(on_exit="damp")
    try:
        assert go(arm, NEAR).waypoints
        arm._watch.stop()  # as in a forked process
        sent = go(arm, NEAR * 1.5)
        assert not sent.waypoints and kinds(sent)[-1] is Kind.WATCHDOG and arm.mode is Mode.HOLDING
        with pytest.raises(DriverError, match="nobody watches"):
            arm.home()
    finally:
        arm.close()
    assert driver.limp
