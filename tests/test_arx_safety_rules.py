"""The ARX X5's safety layer: what it lets pass and what it does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.arx_arm import (
    HOME_POSE,
    KINEMATICS,
    NEAR,
    WritingArm,
    assert_legal,
    go,
    go_pose,
    kinds,
    moving,
    safe_arm,
    sleep,
    violations,
)
from uva_agents.envs.arx_x5.arm.interface import Waypoint
from uva_agents.envs.arx_x5.safety import InterventionKind, Mode

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
            assert InterventionKind.NO_IK not in kinds(go_pose(arm, pose + np.array([0.01, 0.01, 0.01, 0, 0, 0])))
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
    assert kinds(sent) == [InterventionKind.NOT_FINITE] and sent.waypoints == () and arm.mode is Mode.HOLDING
    sleep(arm, arm.config.stop_s + 0.1)
    assert arm.at_rest and np.abs(driver.state().joint_vel).max() == 0
    assert_legal(arm, driver)


@pytest.mark.parametrize(
    ("times", "kind"),
    [
        ([0.3, 0.2], InterventionKind.BAD_TIMES),
        ([0.2, 0.2], InterventionKind.BAD_TIMES),
        ([-0.2, -0.1], InterventionKind.LATE),
        ([], InterventionKind.LATE),
    ],
)
def test_times_that_make_no_sense_are_refused(times, kind):
    arm, _ = safe_arm()
    sent = arm.command_joints([Waypoint(arm.clock.now() + t, NEAR, 0.08) for t in times])
    assert kinds(sent) == [kind] and sent.waypoints == ()


def test_waypoints_that_are_past_are_left_out_and_the_rest_is_followed():
    arm, driver = safe_arm()
    sent = arm.command_joints([Waypoint(arm.clock.now() + t, q, 0.088) for t, q in ((-0.1, NEAR * 9), (0.4, NEAR))])
    assert kinds(sent) == [InterventionKind.LATE]
    sleep(arm, 0.8)
    np.testing.assert_allclose(driver.commanded(arm.clock.now())[:6], NEAR, atol=1e-3)


def test_a_shape_that_is_wrong_is_refused_in_words():
    arm, _ = safe_arm()
    (intervention,) = arm.command_poses([1.0], np.zeros((1, 7)), [0.0]).interventions
    assert "rows (1, 7)" in intervention.detail


def test_joints_stay_inside_their_limits_by_the_margin():
    arm, driver = safe_arm(settings=dict(first_joints=3.0, first_turn=3.0))
    sent = go(arm, [0, 0, 0, 0, 0, 2.5])
    assert InterventionKind.JOINT_LIMIT in kinds(sent)
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
    assert InterventionKind.WORKSPACE in seen
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
        assert InterventionKind.TABLE in seen
        low = KINEMATICS.matrix(driver.commanded(arm.clock.now())[:6])
        corners = [low[2, 3] + low[2, 1] * y * 0.044 + low[2, 2] * z * 0.0255 / 2 for y in (-1, 1) for z in (-1, 1)]
        assert 0 <= min(corners) - 0.1 < 3e-3
        assert_legal(arm, driver)


def test_the_gripper_stays_in_its_range_and_under_its_speed():
    driver = WritingArm()
    driver.knots[0] = (driver.clock.now(), *[0.0] * 6, 0.02)
    arm, _ = safe_arm(driver, settings=dict(gripper_min=0.01))
    assert InterventionKind.GRIPPER in kinds(go(arm, np.zeros(6), gripper=-5.0))
    for _ in range(10):
        go(arm, np.zeros(6), gripper=-5.0)
        sleep(arm, 0.2)
    assert driver.commanded(arm.clock.now())[6] == pytest.approx(0.01, abs=1e-6)
    assert not [found for course in driver.courses() for found in violations(course, arm.config)]


def test_a_far_target_is_approached_slowly_and_says_so():
    arm, driver = safe_arm()
    go(arm, NEAR)
    sleep(arm, 0.2)
    sent = go(arm, [0.9, 0.5, 0.5, 0, 0, 0], ahead=0.1)
    (slowed,) = [i for i in sent.interventions if i.kind is InterventionKind.SLOWED]
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
        assert kinds(sent) == [InterventionKind.FIRST_JUMP] and sent.waypoints == ()
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
    assert InterventionKind.FIRST_JUMP in kinds(go(arm, [-1.5, 0.1, 0.1, 0, 0, 0]))


def test_a_pose_of_zeros_is_a_failure_and_no_target():
    # Wide open rules: nothing else would refuse it.
    arm, _ = safe_arm(settings=dict(first_jump=10.0, first_turn=3.2, first_joints=6.0, box_min=(-0.6, -0.35, 0.0)))
    sent = go_pose(arm, np.zeros(6))
    assert (
        kinds(sent) == [InterventionKind.NOT_FINITE]
        and sent.waypoints == ()
        and "normaliser" in sent.interventions[0].detail
    )


def test_a_pose_out_of_reach_stops_the_arm():
    arm, _ = safe_arm(settings=dict(first_turn=3.2))
    sent = go_pose(arm, HOME_POSE + np.array([0, 0, 0, 0, 0, 3.0]))
    assert kinds(sent) == [InterventionKind.NO_IK] and sent.waypoints == ()


def test_a_chunk_with_a_pose_out_of_reach_is_followed_up_to_it():
    arm, driver = safe_arm()
    good = HOME_POSE + np.array([0.02, 0, 0.02, 0, 0, 0])
    sent = go_pose(arm, good, HOME_POSE + np.array([0, 0, 0, 0, 0, 3.0]))
    assert InterventionKind.NO_IK in kinds(sent) and sent.waypoints
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
