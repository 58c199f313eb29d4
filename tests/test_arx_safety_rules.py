"""The ARX X5's safety layer, rule by rule."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import threading
import time

import numpy as np
import pytest

from tests.arx_arm import KINEMATICS, SimulatedClock, WritingArm, safe_arm, violations
from uva_agents.envs.arx_x5.interface import DriverError, Frame, Waypoint
from uva_agents.envs.arx_x5.limits import X5
from uva_agents.envs.arx_x5.safety import EStop, Intervention, Kind, Mode, SafeArm, SafetyConfig
from uva_agents.envs.arx_x5.safety.frames import ToolFrames

HOME_POSE = KINEMATICS.forward(np.zeros(6))
NEAR = np.array([0.05, 0.05, 0.05, 0.0, 0.0, 0.0])


def go(arm, joints, *, gripper=0.088, ahead=0.2):
    """One waypoint."""
    return arm.command_joints([Waypoint(arm.clock.now() + ahead, np.asarray(joints, float), gripper)])


def go_pose(arm, *poses, gripper=0.088, ahead=0.2):
    times = arm.clock.now() + ahead * (1 + np.arange(len(poses)))
    return arm.command_poses(times, np.array(poses), np.full(len(poses), gripper))


def sleep(arm, seconds):
    arm.clock.sleep_until(arm.clock.now() + seconds)


def kinds(sent):
    return [i.kind for i in sent.interventions]


def moving():
    """An arm in the middle of a motion."""
    arm, driver = safe_arm()
    go(arm, NEAR)
    sleep(arm, 0.1)
    go(arm, [0.6, 0.6, 0.6, 0.0, 0.0, 0.0])
    sleep(arm, 0.3)
    assert np.abs(driver.state().joint_vel).max() > 0.1
    return arm, driver


def assert_legal(arm, driver):
    for course in driver.courses():
        assert not violations(course, arm.config)


# --- what passes ------------------------------------------------------------------------------------------------------


def test_a_slow_and_near_command_is_followed_to_its_end():
    arm, driver = safe_arm()
    sent = go(arm, NEAR, gripper=0.08, ahead=0.5)
    assert sent.interventions == () and len(sent.waypoints) > 10
    sleep(arm, 0.9)
    np.testing.assert_allclose(driver.commanded(arm.clock.now()), [*NEAR, 0.08], atol=1e-3)


def test_a_smooth_stream_is_followed_closely_and_without_interventions():
    arm, driver = safe_arm()
    start, off = arm.clock.now(), []
    for _ in range(60):
        t = arm.clock.now() - start
        course = lambda s: np.append(0.15 * (1 - np.cos(1.5 * s)), 0.0) * 1.0  # noqa: E731
        target = np.zeros(6)
        target[1:3] = course(t + 0.1)[0]
        assert go(arm, target, ahead=0.1).interventions == ()
        sleep(arm, 0.05)
        off.append(np.abs(driver.commanded(arm.clock.now())[1:3] - course(t + 0.05)[0]).max())
    assert max(off) < 0.03
    assert_legal(arm, driver)


def test_what_comes_back_is_what_the_driver_got():
    arm, driver = safe_arm()
    got = []
    driver.send = lambda waypoints: got.append(waypoints)
    assert go(arm, NEAR).waypoints == tuple(got[0])


def test_poses_and_joints_may_take_turns():
    arm, driver = safe_arm()
    for i in range(6):
        if i % 2:
            go(arm, driver.commanded(arm.clock.now())[:6] + 0.02)
        else:
            pose = KINEMATICS.forward(driver.commanded(arm.clock.now())[:6])
            assert Kind.NO_IK not in kinds(go_pose(arm, pose + np.array([0.01, 0.01, 0.01, 0, 0, 0])))
        sleep(arm, 0.1)
    assert_legal(arm, driver)


# --- what does not ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["joints", "gripper", "time", "pose"])
def test_a_number_that_is_not_finite_stops_the_arm(value, where):
    arm, driver = moving()
    if where == "joints":
        sent = go(arm, [0, value, 0, 0, 0, 0])
    elif where == "gripper":
        sent = go(arm, NEAR, gripper=value)
    elif where == "time":
        sent = go(arm, NEAR, ahead=value)
    else:
        sent = go_pose(arm, np.array([0.2, 0, value, 0, 0, 0]))
    assert kinds(sent) == [Kind.NOT_FINITE] and sent.waypoints == () and arm.mode is Mode.HOLDING
    sleep(arm, arm.config.stop_s + 0.1)
    assert arm.at_rest and np.abs(driver.state().joint_vel).max() == 0
    assert_legal(arm, driver)


@pytest.mark.parametrize(
    ("times", "kind"),
    [([0.3, 0.2], Kind.BAD_TIMES), ([0.2, 0.2], Kind.BAD_TIMES), ([-0.2, -0.1], Kind.LATE), ([], Kind.LATE)],
)
def test_times_that_make_no_sense_are_refused(times, kind):
    arm, _ = safe_arm()
    sent = arm.command_joints([Waypoint(arm.clock.now() + t, NEAR, 0.08) for t in times])
    assert kinds(sent) == [kind] and sent.waypoints == ()


def test_waypoints_that_are_past_are_left_out_and_the_rest_is_followed():
    arm, driver = safe_arm()
    sent = arm.command_joints([Waypoint(arm.clock.now() + t, q, 0.088) for t, q in ((-0.1, NEAR * 9), (0.4, NEAR))])
    assert kinds(sent) == [Kind.LATE]
    sleep(arm, 0.8)
    np.testing.assert_allclose(driver.commanded(arm.clock.now())[:6], NEAR, atol=1e-3)


def test_a_shape_that_is_wrong_is_refused_in_words():
    arm, _ = safe_arm()
    (intervention,) = arm.command_poses([1.0], np.zeros((1, 7)), [0.0]).interventions
    assert "rows (1, 7)" in intervention.detail


def test_joints_stay_inside_their_limits_by_the_margin():
    arm, driver = safe_arm(settings=dict(first_joints=3.0, first_turn=3.0))
    sent = go(arm, [0, 0, 0, 0, 0, 2.5])
    assert Kind.JOINT_LIMIT in kinds(sent)
    for _ in range(12):
        go(arm, [0, 0, 0, 0, 0, 2.5])
        sleep(arm, 0.5)
    assert driver.commanded(arm.clock.now())[5] == pytest.approx(2.0 - arm.config.joint_margin, abs=1e-3)
    assert_legal(arm, driver)


@pytest.mark.parametrize(("axis", "sign", "edge"), [(0, 1, 0.45), (1, -1, -0.2), (2, 1, 0.35)])
def test_a_slow_drift_out_of_the_box_ends_at_its_wall(axis, sign, edge):
    arm, driver = safe_arm(settings=dict(box_max=(0.45, 0.35, 0.35), box_min=(0.1, -0.2, 0.0)))
    pose, seen = HOME_POSE.copy(), set()
    for _ in range(80):
        pose[axis] += sign * 0.006
        seen |= set(kinds(go_pose(arm, pose)))
        sleep(arm, 0.1)
    assert Kind.WORKSPACE in seen
    assert KINEMATICS.forward(driver.commanded(arm.clock.now())[:6])[axis] == pytest.approx(edge, abs=3e-3)
    assert_legal(arm, driver)


def test_fingers_stay_above_the_table_whichever_way_they_point():
    for roll in (0.0, 0.4):
        # A table that stands high: the arm reaches a low one only with its hand bent down.
        arm, driver = safe_arm(settings=dict(table_height=0.1))
        pose, seen = HOME_POSE + np.array([0, 0, 0.02, roll, 0, 0]), set()
        for step in range(45):
            pose[[0, 2]] += [0.01, 0.0] if step < 25 else [0.0, -0.006]
            seen |= set(kinds(go_pose(arm, pose)))
            sleep(arm, 0.1)
        assert Kind.TABLE in seen
        low = KINEMATICS.matrix(driver.commanded(arm.clock.now())[:6])
        corners = [low[2, 3] + low[2, 1] * y * 0.044 + low[2, 2] * z * 0.0255 / 2 for y in (-1, 1) for z in (-1, 1)]
        assert 0 <= min(corners) - 0.1 < 3e-3
        assert_legal(arm, driver)


def test_the_gripper_stays_in_its_range_and_under_its_speed():
    arm, driver = safe_arm(settings=dict(gripper_min=0.01))
    assert Kind.GRIPPER in kinds(go(arm, np.zeros(6), gripper=-5.0))
    for _ in range(10):
        go(arm, np.zeros(6), gripper=-5.0)
        sleep(arm, 0.2)
    assert driver.commanded(arm.clock.now())[6] == pytest.approx(0.01, abs=1e-6)
    # The first course is the limp arm's, whose gripper was closed.
    assert not [found for course in driver.courses()[1:] for found in violations(course, arm.config)]


def test_a_far_target_is_approached_slowly_and_says_so():
    arm, driver = safe_arm()
    go(arm, NEAR)
    sleep(arm, 0.2)
    sent = go(arm, [0.9, 0.5, 0.5, 0, 0, 0], ahead=0.1)
    (slowed,) = [i for i in sent.interventions if i.kind is Kind.SLOWED]
    assert slowed.wanted == pytest.approx((0.9, 0.5, 0.5, 0, 0, 0, 0.088)) and slowed.sent is not None
    for _ in range(30):
        sleep(arm, 0.1)
        go(arm, [0.9, 0.5, 0.5, 0, 0, 0], ahead=0.1)
    np.testing.assert_allclose(driver.commanded(arm.clock.now())[:3], [0.9, 0.5, 0.5], atol=2e-3)
    assert_legal(arm, driver)


def test_turning_round_in_the_middle_of_a_motion_stays_within_the_acceleration():
    arm, driver = moving()
    for sign in (-1, 1, -1, 1):
        here = driver.commanded(arm.clock.now())[:6]
        go(arm, here + sign * np.array([1.0, 0.3, 0.3, 0, 0, 0]), ahead=0.05)
        sleep(arm, 0.2)
    sleep(arm, 1.2)
    assert_legal(arm, driver)


def test_the_first_target_must_be_near_and_nothing_moves_until_it_is():
    arm, driver = safe_arm()
    before = driver.calls.count("send")
    for joints in ([0.6, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0.7]):
        sent = go(arm, joints)
        assert kinds(sent) == [Kind.FIRST_JUMP] and sent.waypoints == ()
    assert driver.calls.count("send") == before
    assert go(arm, NEAR).waypoints


@pytest.mark.parametrize("how", ["hold", "silence", "stop", "nan"])
def test_after_every_rest_the_first_target_must_be_near_again(how):
    arm, _ = moving()
    if how == "hold":
        arm.hold()
    elif how == "silence":
        sleep(arm, 2.0)
    elif how == "nan":
        go(arm, np.full(6, math.nan))
    else:
        arm.stop.press()
        sleep(arm, 0.5)
        arm.reset_stop()
    assert Kind.FIRST_JUMP in kinds(go(arm, [-1.5, 0.1, 0.1, 0, 0, 0]))


def test_a_pose_out_of_reach_stops_the_arm():
    arm, _ = safe_arm(settings=dict(first_turn=3.2))
    sent = go_pose(arm, HOME_POSE + np.array([0, 0, 0, 0, 0, 3.0]))
    assert kinds(sent) == [Kind.NO_IK] and sent.waypoints == ()


def test_a_chunk_with_a_pose_out_of_reach_is_followed_up_to_it():
    arm, driver = safe_arm()
    good = HOME_POSE + np.array([0.02, 0, 0.02, 0, 0, 0])
    sent = go_pose(arm, good, HOME_POSE + np.array([0, 0, 0, 0, 0, 3.0]))
    assert Kind.NO_IK in kinds(sent) and sent.waypoints
    sleep(arm, 0.9)
    np.testing.assert_allclose(KINEMATICS.forward(driver.commanded(arm.clock.now())[:6])[:3], good[:3], atol=1e-3)


def test_an_arm_that_begins_outside_may_come_back_and_goes_no_further():
    # Home is below this box.
    arm, driver = safe_arm(settings=dict(box_min=(0.1, -0.3, 0.2), table_height=None))
    heights = []
    for up in (-0.02, 0.02, 0.05, 0.08):
        go_pose(arm, HOME_POSE + np.array([0, 0, up, 0, 0, 0]))
        sleep(arm, 0.6)
        heights.append(KINEMATICS.forward(driver.commanded(arm.clock.now())[:6])[2])
    assert min(heights) > HOME_POSE[2] - 1e-3 and heights[-1] > HOME_POSE[2] + 0.03


# --- silence, stops, faults -------------------------------------------------------------------------------------------


def test_silence_ends_at_rest_in_time_then_limp():
    arm, driver = moving()
    last = arm.clock.now()
    go(arm, [0.9, 0.6, 0.6, 0, 0, 0])
    assert driver.knots[-1][0] <= last + arm.config.watchdog_s
    sleep(arm, arm.config.watchdog_s + 0.05)
    assert arm.mode is Mode.HOLDING and [i.kind for i in arm.take_interventions()] == [Kind.WATCHDOG]
    sleep(arm, arm.config.damp_after_s + 0.05)
    assert arm.mode.value == "limp" and driver.limp  # mypy takes the mode above for granted still
    assert kinds(go(arm, NEAR)) == [Kind.WATCHDOG_DAMP, Kind.NOT_READY]


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
        assert Kind.STOPPED in kinds(go(arm, NEAR))
        sleep(arm, 0.2)
    np.testing.assert_array_equal(driver.commanded(arm.clock.now()), rest)
    with pytest.raises(DriverError, match="the operator"):
        arm.home()
    arm.reset_stop()
    assert go(arm, rest[:6] + 0.01).waypoints
    assert_legal(arm, driver)


def test_a_stop_may_end_limp():
    arm, driver = safe_arm(settings=dict(on_stop="damp"))
    go(arm, NEAR)
    sleep(arm, 0.1)
    arm.stop.press()
    sleep(arm, 0.6)
    assert arm.mode is Mode.LIMP and driver.calls[-1] == "damp"


def test_an_old_measurement_stops_the_arm_until_there_are_new_ones():
    arm, driver = moving()
    driver.frozen_at = arm.clock.now()
    sleep(arm, 0.3)
    assert arm.mode is Mode.HOLDING and arm.take_interventions()[0].kind is Kind.STALE_STATE
    assert kinds(go(arm, NEAR)) == [Kind.STALE_STATE]
    driver.frozen_at = None
    assert go(arm, driver.commanded(arm.clock.now())[:6]).interventions == ()


def test_a_measurement_of_nan_stops_the_arm():
    arm, driver = moving()
    driver.nan = True
    sleep(arm, 0.1)
    assert arm.mode is Mode.HOLDING and arm.take_interventions()[0].kind is Kind.STALE_STATE


def test_over_current_makes_the_arm_stay_where_it_is_then_limp():
    arm, driver = moving()
    driver.torque = np.array([0, 39.0, 0, 0, 0, 0])
    sleep(arm, 0.1)
    assert driver.calls[-1] == "hold" and arm.mode is Mode.HOLDING
    (report,) = arm.take_interventions()
    assert report.kind is Kind.OVER_CURRENT and "joint 2" in report.detail
    sleep(arm, 0.7)
    assert arm.mode is Mode.LIMP


def test_an_arm_that_was_held_where_it_is_is_not_sent_back_to_its_path():
    arm, driver = moving()
    driver.torque = np.array([0, 39.0, 0, 0, 0, 0])
    sleep(arm, 0.06)
    assert driver.calls[-1] == "hold"
    arm.hold()
    arm.stop.press()
    sleep(arm, 0.05)
    arm.close()
    assert "send" not in driver.calls[driver.calls.index("hold") :]


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
    assert arm.take_interventions()[0].kind is Kind.TRACKING and driver.calls[-1] == "hold"


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
    assert arm.take_interventions()[0].kind is Kind.STALE_CAMERA
    assert kinds(go(arm, NEAR)) == [Kind.STALE_CAMERA]
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


def test_a_limp_arm_takes_no_commands_and_says_what_to_do():
    driver = WritingArm()
    arm = SafeArm(driver, kinematics=KINEMATICS, limits=X5)
    arm.connect()
    (intervention,) = go(arm, NEAR).interventions
    assert intervention.kind is Kind.NOT_READY and "home()" in intervention.detail
    with pytest.raises(DriverError, match="home"):
        arm.send([Waypoint(arm.clock.now() + 1, NEAR, 0.0)])
    assert driver.calls == ["connect"]
    arm.close()


def test_connecting_does_not_move_the_arm():
    driver = WritingArm()
    with SafeArm(driver, kinematics=KINEMATICS, limits=X5):
        assert driver.calls == ["connect"] and driver.limp


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
    assert driver.limp and driver.calls[-1] == "close"
    assert_legal(arm, driver)


def test_a_stopped_arm_is_not_sent_home_on_exit():
    arm, driver = moving()
    arm.stop.press()
    arm.close()
    assert np.abs(driver.knots[-1][1:7]).max() > 0.01 and driver.calls[-2:] == ["damp", "close"]


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
    assert Kind.NOT_FINITE in kinds(go(arm, np.full(6, math.nan)))
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


def test_interventions_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Intervention(0.0, Kind.LATE, "").kind = Kind.TABLE


def test_nothing_public_of_the_arm_is_its_driver():
    arm, driver = safe_arm()
    assert not [name for name in dir(arm) if not name.startswith("_") and getattr(arm, name) is driver]


# --- numbers that make no sense ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(speed=-1.0), "speed=-1.0 must be positive"),
        (dict(speed=math.nan), "speed=nan must be a number"),
        (dict(accel=math.inf), "accel=inf must be finite"),
        (dict(joint_margin=-0.1), "joint_margin=-0.1 must be zero or positive"),
        (dict(box_min=(0, 0, 0), box_max=(0, 1, 1)), "empty along x"),
        (dict(box_min=(0, 0)), "three finite numbers"),
        (dict(table_height=2.0), "above the workspace box"),
        (dict(on_exit="panic"), "on_exit='panic' is unknown: one of 'hold_then_home'"),
        (dict(watchdog_s=0.2), "watchdog_s=0.2 leaves no time to move"),
        (dict(lead_s=0.01), "at least one period"),
        (dict(home_speed=2.0), "is a share"),
        (dict(dry_run="yes"), "must be True or False"),
    ],
)
def test_a_configuration_that_makes_no_sense_says_why(options, message):
    with pytest.raises(ValueError, match=message):
        SafetyConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(speed=0.9, accel=3.0), "speed=0.9 is more than the X5 is made for: at most 0.6"),
        (dict(gripper_max=0.2), "gripper_max=0.2"),
        (dict(joint_margin=1.6), "leaves no joint any room"),
        (dict(gripper_min=0.088), "must be below"),
    ],
)
def test_more_than_the_arm_can_do_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SafeArm(WritingArm(), kinematics=KINEMATICS, limits=X5, config=SafetyConfig(**options))


def test_tool_frames_of_many_are_those_of_one_whatever_the_kinematics():
    joints = np.random.default_rng(0).uniform(X5.joint_pos_min, X5.joint_pos_max, (50, 6))

    class Other:
        """Kinematics that the links' table does not describe."""

        def forward(self, joint_pos):
            return KINEMATICS.forward(joint_pos) + np.array([0, 0, 0.1, 0, 0, 0])

        inverse = KINEMATICS.inverse

    for kinematics, lift in ((KINEMATICS, 0.0), (Other(), 0.1)):
        frames = ToolFrames(kinematics, X5)
        points, turned = frames(joints)
        for row, point, turn in zip(joints, points, turned, strict=True):
            expected = KINEMATICS.matrix(row)
            np.testing.assert_allclose(point, expected[:3, 3] + np.array([0, 0, lift]), atol=1e-9)
            np.testing.assert_allclose(turn, expected[:3, :3], atol=1e-9)
        np.testing.assert_allclose(frames.reach(joints[0]), KINEMATICS.jacobian(joints[0]), atol=1e-3)


# --- the stop's buttons -----------------------------------------------------------------------------------------------


def test_a_signal_presses_and_the_handler_before_comes_back():
    stop, before = EStop(), signal.getsignal(signal.SIGUSR1)
    with stop.on_signals([signal.SIGUSR1]):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)
        assert stop.pressed and stop.reason == "signal SIGUSR1"
    assert signal.getsignal(signal.SIGUSR1) is before


def test_ctrl_c_twice_still_ends_the_program():
    # A shell that starts this in the background has it ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    stop = EStop()
    with stop.on_signals([signal.SIGINT]):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stop.pressed
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_a_key_presses():
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    stop = EStop()
    with os.fdopen(slave, "r") as terminal, stop.on_key("s", stream=terminal):
        os.write(master, b"x")
        time.sleep(0.1)
        assert not stop.pressed
        os.write(master, b"s")
        deadline = time.monotonic() + 5
        while not stop.reason and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "'s'" in stop.reason
    os.close(master)


def test_a_key_of_no_terminal_is_an_error(tmp_path):
    with (
        open(tmp_path / "file", "w+") as file,
        pytest.raises(ValueError, match="terminal"),
        EStop().on_key(stream=file),
    ):
        pass


def test_the_stop_may_be_pressed_from_another_thread():
    arm, _ = moving()
    thread = threading.Thread(target=arm.stop.press, args=("a thread",))
    thread.start()
    thread.join()
    sleep(arm, 0.05)
    assert arm.mode is Mode.HOLDING and arm.stop.reason == "a thread"
