"""The ARX X5's safety layer: silence, stops and faults, coming and going."""

from __future__ import annotations

import dataclasses
import json
import math
import os

import numpy as np
import pytest

from tests.arx_arm import (
    KINEMATICS,
    NEAR,
    SimulatedClock,
    WritingArm,
    assert_legal,
    go,
    kinds,
    moving,
    safe_arm,
    sleep,
)
from uva_agents.envs.arx_x5.arm.interface import DriverError, Frame, Waypoint
from uva_agents.envs.arx_x5.arm.limits import X5
from uva_agents.envs.arx_x5.safety import Intervention, InterventionKind, Mode, SafeArm, SafetyConfig

# --- silence, stops, faults -------------------------------------------------------------------------------------------


def test_silence_ends_at_rest_in_time_then_damped():
    arm, driver = moving()
    last = arm.clock.now()
    go(arm, [0.9, 0.6, 0.6, 0, 0, 0])
    assert driver.knots[-1][0] <= last + arm.config.watchdog_s
    sleep(arm, arm.config.watchdog_s + 0.05)
    assert arm.mode is Mode.HOLDING and [i.kind for i in arm.take_interventions()] == [InterventionKind.WATCHDOG]
    sleep(arm, arm.config.damp_after_s + 0.05)
    assert arm.mode.value == "damped" and driver.damped  # mypy takes the mode above for granted still
    assert kinds(go(arm, NEAR)) == [InterventionKind.WATCHDOG_DAMP, InterventionKind.NOT_READY]


def test_refused_commands_do_not_keep_the_watchdog_quiet():
    arm, _ = moving()
    for _ in range(15):
        go(arm, np.full(6, math.nan))
        sleep(arm, 0.1)
    assert arm.mode is Mode.HOLDING and arm.at_rest


def test_the_stop_latches_until_it_is_reset():
    arm, driver = moving()
    arm.stop.press("the operator")
    sleep(arm, arm.config.stop_s + 0.15)
    rest = driver.commanded(arm.clock.now())
    for _ in range(3):
        assert InterventionKind.STOPPED in kinds(go(arm, NEAR))
        sleep(arm, 0.2)
    np.testing.assert_array_equal(driver.commanded(arm.clock.now()), rest)
    with pytest.raises(DriverError, match="the operator"):
        arm.home()
    arm.reset_stop()
    assert go(arm, rest[:6] + 0.01).waypoints
    assert_legal(arm, driver)


def test_a_stop_may_end_damped():
    arm, driver = safe_arm(settings=dict(on_stop="damp"))
    go(arm, NEAR)
    sleep(arm, 0.1)
    arm.stop.press()
    sleep(arm, 0.6)
    assert arm.mode is Mode.DAMPED and driver.calls[-1] == "damp"


def test_an_old_measurement_stops_the_arm_until_there_are_new_ones():
    arm, driver = moving()
    driver.frozen_at = arm.clock.now()
    sleep(arm, 0.3)
    assert arm.mode is Mode.HOLDING and arm.take_interventions()[0].kind is InterventionKind.STALE_STATE
    assert kinds(go(arm, NEAR)) == [InterventionKind.STALE_STATE]
    driver.frozen_at = None
    sleep(arm, 0.3)  # what was stopped goes on from rest only
    assert go(arm, driver.commanded(arm.clock.now())[:6]).interventions == ()


def test_a_measurement_of_nan_stops_the_arm():
    arm, driver = moving()
    driver.nan = True
    sleep(arm, 0.1)
    assert arm.mode is Mode.HOLDING and arm.take_interventions()[0].kind is InterventionKind.STALE_STATE


def test_over_current_makes_the_arm_stay_where_it_is_then_damped():
    arm, driver = moving()
    driver.torque = np.array([0, 39.0, 0, 0, 0, 0])
    sleep(arm, 0.1)
    assert driver.calls[-1] == "hold" and arm.mode is Mode.HOLDING
    (report,) = arm.take_interventions()
    assert report.kind is InterventionKind.OVER_CURRENT and "joint 2" in report.detail
    sleep(arm, 0.7)
    assert arm.mode is Mode.DAMPED


def test_an_arm_that_was_held_where_it_is_is_not_sent_back_to_its_path():
    arm, driver = moving()
    driver.torque = np.array([0, 39.0, 0, 0, 0, 0])
    sleep(arm, 0.06)
    assert driver.calls[-1] == "hold"
    held = len(driver.calls)
    arm.hold()
    arm.stop.press()
    sleep(arm, 0.05)
    arm.close()
    assert "send" not in driver.calls[held:]


def test_a_short_peak_of_torque_is_no_over_current():
    arm, driver = safe_arm(settings=dict(current_s=0.2))
    driver.torque = np.full(6, 100.0)
    sleep(arm, 0.1)
    driver.torque = np.zeros(6)
    sleep(arm, 0.3)
    assert arm.take_interventions() == ()


def test_an_arm_that_is_blocked_stays_where_it_is():
    arm, driver = moving()
    driver.blocked = driver.state().joint_pos - 0.5
    sleep(arm, 0.1)
    assert arm.take_interventions()[0].kind is InterventionKind.TRACKING and driver.calls[-1] == "hold"


class OldCamera:
    def __init__(self, clock):
        self.clock, self.age, self.reads = clock, 0.0, 0

    def read(self):
        self.reads += 1
        return Frame(self.clock.now() - self.age, np.zeros((2, 2, 3), np.uint8))

    def close(self):
        pass


def test_an_old_picture_stops_the_arm():
    clock = SimulatedClock()
    camera = OldCamera(clock)
    arm, _ = safe_arm(WritingArm(clock), camera=camera)
    assert go(arm, NEAR).waypoints
    camera.age = 1.0
    sleep(arm, 0.5)
    assert arm.take_interventions()[0].kind is InterventionKind.STALE_CAMERA
    assert kinds(go(arm, NEAR)) == [InterventionKind.STALE_CAMERA]
    camera.age = 0.1
    assert go(arm, NEAR).waypoints


def test_a_driver_that_refuses_is_held_and_the_error_comes_through():
    arm, driver = moving()
    driver.refuses = True
    with pytest.raises(DriverError, match="refuses"):
        go(arm, NEAR * 2)
    assert driver.calls[-1] == "hold" and arm.mode is Mode.HOLDING


def test_ctrl_c_between_sending_and_remembering_holds_the_arm_where_it_is():
    arm, driver = moving()
    send = driver.send

    def interrupted(waypoints):
        send(waypoints)
        raise KeyboardInterrupt

    driver.send = interrupted
    with pytest.raises(KeyboardInterrupt):
        go(arm, NEAR)
    driver.send = send
    arm.hold()
    assert driver.calls[-1] == "hold"


# --- coming and going -------------------------------------------------------------------------------------------------


def test_a_damped_arm_takes_no_commands_and_says_what_to_do():
    driver = WritingArm()
    arm = SafeArm(driver, kinematics=KINEMATICS, limits=X5)
    arm.connect()
    (intervention,) = go(arm, NEAR).interventions
    assert intervention.kind is InterventionKind.NOT_READY and "home()" in intervention.detail
    with pytest.raises(DriverError, match="home"):
        arm.send([Waypoint(arm.clock.now() + 1, NEAR, 0.0)])
    assert driver.calls == ["connect"]
    arm.close()


def test_connecting_does_not_move_the_arm():
    driver = WritingArm()
    with SafeArm(driver, kinematics=KINEMATICS, limits=X5):
        assert driver.calls == ["connect"] and driver.damped


@pytest.mark.parametrize(
    ("on_exit", "calls"), [("hold_then_home", ["damp", "close"]), ("damp", ["damp", "close"]), ("hold", ["send"])]
)
def test_leaving_does_what_was_chosen_and_never_jumps(on_exit, calls):
    arm, driver = safe_arm(settings=dict(on_exit=on_exit))
    go(arm, NEAR)
    sleep(arm, 0.2)
    with arm:
        go(arm, [0.5, 0.5, 0.5, 0, 0, 0])
        sleep(arm, 0.2)
    assert driver.calls[-len(calls) :] == calls
    at_home = np.abs(driver.knots[-1][1:7]).max() < 2e-3
    assert at_home == (on_exit == "hold_then_home")
    assert_legal(arm, driver)
    with pytest.raises(DriverError, match="closed"):
        go(arm, NEAR)


def test_ctrl_c_on_the_way_home_ends_it():
    arm, driver = moving()
    sleeps = arm.clock.sleep_until
    until = arm.clock.now() + 1.0

    def interrupted(time_s):
        sleeps(time_s)
        if arm.clock.now() > until:
            raise KeyboardInterrupt

    arm.clock.sleep_until = interrupted
    with pytest.raises(KeyboardInterrupt):
        arm.close()
    assert driver.damped and driver.calls[-1] == "close"
    assert_legal(arm, driver)


def test_a_stopped_arm_is_not_sent_home_on_exit():
    arm, driver = moving()
    arm.stop.press()
    arm.close()
    assert np.abs(driver.knots[-1][1:7]).max() > 0.01 and driver.calls[-2:] == ["damp", "close"]


@pytest.mark.parametrize("ends", ["home", "exit"])
def test_a_way_home_that_ends_at_a_wall_ends_there_and_says_so(ends):
    # Home lies outside of this box, so the arm comes to its wall and no further.
    arm, driver = safe_arm(settings=dict(box_min=(0.1, -0.3, 0.2), box_max=(0.6, 0.35, 0.5)))
    for share in (0.25, 0.5, 0.75, 1.0):
        go(arm, share * np.array([0.0, 0.8, 0.9, -0.3, 0.0, 0.0]), ahead=1.0)
        sleep(arm, 1.2)
    began = arm.clock.now()
    if ends == "home":
        with pytest.raises(DriverError, match="leaves the limits"):
            arm.home()
        assert arm.mode is Mode.HOLDING
        arm.close()
    else:
        arm.close()
    assert driver.calls[-1] == "close" and driver.damped
    assert arm.clock.now() - began < 20
    assert KINEMATICS.forward(driver.commanded(arm.clock.now())[:6])[2] >= 0.2 - 1e-6


def test_home_through_the_table_is_refused_with_advice():
    driver = WritingArm()
    # Reaching forward with the hand bent down below a table that stands high.
    low = np.array([0.0, 1.0, 0.4, 1.2, 0.0, 0.0])
    driver.knots[0] = (driver.clock.now(), *low, 0.0)
    tool = KINEMATICS.matrix(low)
    table = KINEMATICS.forward(np.zeros(6))[2] + 0.05
    assert tool[2, 3] > table
    arm = SafeArm(driver, kinematics=KINEMATICS, limits=X5, config=SafetyConfig(table_height=table), threaded=False)
    arm.connect()
    with pytest.raises(DriverError, match=r"through the table.*by hand"):
        arm.home()
    assert "home" not in driver.calls
    arm.close()


def test_a_dry_run_computes_everything_and_sends_nothing():
    arm, driver = safe_arm(settings=dict(dry_run=True))
    sent = go(arm, NEAR)
    assert sent.waypoints and not sent.interventions
    sleep(arm, 0.3)
    assert InterventionKind.NOT_FINITE in kinds(go(arm, np.full(6, math.nan)))
    arm.damp()
    arm.close()
    assert driver.calls == ["connect", "close"]


def test_interventions_are_lines_of_json(tmp_path):
    file = tmp_path / "log" / "interventions.jsonl"
    arm, _ = safe_arm(log_file=file)
    go(arm, [math.nan, math.inf, 0, 0, 0, 0])
    (row,) = [json.loads(line) for line in file.read_text().splitlines()]  # before close: complete after every line
    assert row["kind"] == "not_finite" and row["wanted"][:3] == ["nan", "inf", 0.0] and "normaliser" in row["detail"]
    arm.close()


def unwritable(tmp_path, how):
    if how == "full":
        if not os.path.exists("/dev/full"):
            pytest.skip("there is no /dev/full here")
        return "/dev/full"
    if how == "pipe":
        os.mkfifo(tmp_path / "pipe")  # nobody reads it
        return tmp_path / "pipe"
    (tmp_path / "file").touch()
    return {"folder": tmp_path, "under a file": tmp_path / "file" / "log.jsonl", "no name": "log\0.jsonl"}[how]


@pytest.mark.parametrize("how", ["full", "pipe", "folder", "under a file", "no name"])
def test_a_log_that_cannot_be_written_is_said_once_and_never_takes_part_in_a_stop(tmp_path, how):
    driver = WritingArm()
    arm = SafeArm(driver, kinematics=KINEMATICS, limits=X5, log_file=unwritable(tmp_path, how), threaded=False)
    with arm:
        arm.home()
        go(arm, NEAR)
        sleep(arm, 0.1)
        go(arm, np.full(6, math.nan))
        arm.stop.press("the operator")
        sleep(arm, 0.7)
        assert arm.at_rest and "cannot be written" in arm.log_problem
        found = [i for i in arm.take_interventions() if i.kind is InterventionKind.LOG]
        assert len(found) <= 1  # it may have come with a command before
        if how == "full":
            assert "No space left" in arm.log_problem and len(found) == 1
    assert driver.calls[-2:] == ["damp", "close"]
    assert_legal(arm, driver)


def test_a_log_is_written_after_the_arm_was_told_what_to_do(tmp_path, monkeypatch):
    """A disk may take seconds; the stop does not wait for it."""
    arm, driver = moving()
    order = []
    monkeypatch.setattr(arm._events, "_save", lambda one: order.append(str(one.kind)))
    send = driver.send
    monkeypatch.setattr(driver, "send", lambda waypoints: (order.append("brakes"), send(waypoints)))
    arm.stop.press("the operator")
    arm.tick()
    assert order == ["brakes", "stopped"]


def test_interventions_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Intervention(0.0, InterventionKind.LATE, "").kind = InterventionKind.TABLE


def test_nothing_public_of_the_arm_is_its_driver():
    arm, driver = safe_arm()
    assert not [name for name in dir(arm) if not name.startswith("_") and getattr(arm, name) is driver]
