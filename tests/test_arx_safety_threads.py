"""Several threads and one arm: the watch outlives whatever the driver raises, and nothing moves an arm that is being let go."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import numpy as np
import pytest

from tests.arx_arm import KINEMATICS, NEAR, WritingArm, go, kinds, safe_arm
from uva_agents.envs.arx_x5.arm.interface import DriverError
from uva_agents.envs.arx_x5.arm.limits import X5
from uva_agents.envs.arx_x5.safety import InterventionKind, Mode, SafeArm, SafetyConfig
from uva_agents.utils.clocks import MonotonicClock


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
            assert InterventionKind.DRIVER in [i.kind for i in arm.take_interventions()] and arm._supervisor.watch.alive
            driver.bad = None if error is not GeneratorExit else driver.bad
        until(lambda: arm.mode is Mode.DAMPED)
    finally:
        driver.bad = None
        arm.close()
    assert driver.damped


def test_an_arm_that_nobody_watches_any_more_takes_no_command_and_stops():
    arm, driver = threaded(on_exit="damp")
    try:
        assert go(arm, NEAR).waypoints
        arm._supervisor.watch.stop()  # as in a forked process
        sent = go(arm, NEAR * 1.5)
        assert not sent.waypoints and kinds(sent)[-1] is InterventionKind.WATCHDOG and arm.mode is Mode.HOLDING
        with pytest.raises(DriverError, match="nobody watches"):
            arm.home()
    finally:
        arm.close()
    assert driver.damped


class Gate:
    """Inside the next call of a method of the driver another thread waits for the test, or the test does something itself."""

    def __init__(self, driver, method, act=None):
        self.inside, self.go, self._act = threading.Event(), threading.Event(), act
        real = getattr(driver, method)

        def call(*values):
            if not self.inside.is_set():
                self.inside.set()
                if self._act is not None:
                    self._act()
                else:
                    assert self.go.wait(20)
            return real(*values)

        setattr(driver, method, call)


def in_thread(act):
    """Start; returns the thread, and what came of it."""
    came = []

    def run():
        try:
            came.append(act())
        except DriverError as error:
            came.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, came


def orders(driver):
    return [call for call in driver.calls if call in ("send", "hold", "damp", "close")]


@pytest.mark.parametrize("on_exit", ["damp", "hold", "hold_then_home"])
def test_a_command_that_is_under_way_is_finished_before_an_arm_is_closed(on_exit):
    arm, driver = safe_arm(settings={"on_exit": on_exit})
    gate = Gate(driver, "send")
    commander, _ = in_thread(lambda: go(arm, NEAR))
    assert gate.inside.wait(20)
    closer, _ = in_thread(arm.close)
    time.sleep(0.05)
    assert arm.mode is not Mode.CLOSED
    gate.go.set()
    commander.join(20), closer.join(20)
    assert arm.mode is Mode.CLOSED and driver.damped == (on_exit != "hold")
    assert on_exit == "hold" or orders(driver)[-2:] == ["damp", "close"]


@pytest.mark.parametrize("on_exit", ["damp", "hold", "hold_then_home"])
def test_nobody_moves_an_arm_that_is_being_closed(on_exit):
    arm, driver = safe_arm(settings={"on_exit": on_exit})
    go(arm, NEAR)
    refused, sleeps = [], driver.clock.sleep_until

    def meanwhile(time_s):
        sleeps(time_s)
        for act in (lambda: go(arm, NEAR * 2), arm.home, arm.connect):
            thread, came = in_thread(act)
            thread.join(20)
            refused.append(came[0])

    driver.clock.sleep_until = meanwhile
    arm.close()
    driver.clock.sleep_until = sleeps
    assert refused and all(isinstance(came, DriverError) and "closed" in str(came) for came in refused)
    assert arm.mode is Mode.CLOSED and driver.damped == (on_exit != "hold")
    before = orders(driver)
    for act in (lambda: go(arm, NEAR), arm.home, arm.hold, arm.damp, arm.connect):
        with pytest.raises(DriverError, match="closed"):
            act()
    assert orders(driver) == before
    driver.courses()


@pytest.mark.parametrize("inside", ["send", "state"])
@pytest.mark.parametrize("way", ["close", "damp", "hold"])
@pytest.mark.parametrize("reaction", ["command", "home", "hold"])
def test_what_is_done_inside_of_a_call_of_the_driver_has_the_last_word(inside, way, reaction):
    """As a handler of a signal may."""
    arm, driver = safe_arm()
    go(arm, NEAR)
    driver.clock.sleep_until(driver.clock.now() + 0.1)
    gate = Gate(driver, inside, getattr(arm, way))
    with contextlib.suppress(DriverError):
        {"command": lambda: go(arm, NEAR * 2), "home": arm.home, "hold": arm.hold}[reaction]()
    if inside == "send" or reaction != "hold":
        assert gate.inside.is_set()
        wanted = {"close": Mode.CLOSED, "damp": Mode.DAMPED, "hold": Mode.HOLDING}[way]
        assert arm.mode is wanted and driver.damped == (way != "hold")
        assert way == "hold" or driver.damped
    arm.close()
    driver.courses()


def test_a_damped_arm_that_is_closed_while_it_becomes_stiff_ends_damped():
    arm, driver = safe_arm()
    arm.damp()
    gate = Gate(driver, "hold")
    homer, came = in_thread(arm.home)
    assert gate.inside.wait(20)
    closer, _ = in_thread(arm.close)
    until(lambda: arm._supervisor.closing_thread is not None)
    gate.go.set()
    homer.join(20), closer.join(20)
    assert isinstance(came[0], DriverError)
    assert arm.mode is Mode.CLOSED and driver.damped and orders(driver)[-1] == "close"


def test_two_threads_that_close_an_arm_return_when_it_is_closed():
    arm, driver = safe_arm()
    gate = Gate(driver, "damp")
    first, _ = in_thread(arm.close)
    assert gate.inside.wait(20)
    second, _ = in_thread(arm.close)
    second.join(0.05)
    assert second.is_alive()
    gate.go.set()
    first.join(20), second.join(20)
    assert not second.is_alive() and orders(driver).count("close") == 1


def test_a_way_home_that_was_ended_does_not_go_on_with_the_next():
    arm, driver = safe_arm()
    for k in range(4):
        go(arm, [0.1 * k + 0.05] * 3 + [0, 0, 0], ahead=0.5)
        driver.clock.sleep_until(driver.clock.now() + 0.5)
    came, sleeps, depth = [], driver.clock.sleep_until, []

    def meanwhile(time_s):
        """In the middle of the first way somebody holds the arm, and begins another."""
        sleeps(time_s)
        if not depth:
            depth.append(1)
            arm.hold()
            arm.home()
            came.append(len(driver.calls))

    driver.clock.sleep_until = meanwhile
    with pytest.raises(DriverError, match="something stopped the way home"):
        arm.home()
    assert len(driver.calls) == came[0], "the first went on"
    assert arm.mode is Mode.HOLDING and np.abs(driver.state().joint_pos).max() < 2e-3
    arm.close()
