"""The twin: tracking, limits, homing, things on the table, cameras. Pictures are few and small."""

import importlib.util
import threading

import numpy as np
import pytest

if importlib.util.find_spec("mujoco") is None:
    pytest.skip("the twin of the arm needs MuJoCo: pip install 'uva-agents[arx]'", allow_module_level=True)

from tests.twins import RAISED, go, simulated, wait
from uva_agents.envs.arx_x5.arm.interface import DriverError, Waypoint
from uva_agents.envs.arx_x5.arm.limits import arm_limits
from uva_agents.envs.arx_x5.twin.controller import TwinController
from uva_agents.envs.arx_x5.twin.model import TABLE
from uva_agents.envs.arx_x5.twin.realism import REALISTIC, TwinRealism
from uva_agents.envs.arx_x5.twin.sdk import Gain, JointState
from uva_agents.utils.clocks import SimulatedClock

LIMITS = arm_limits("X5")


@pytest.fixture
def driver():
    driver = simulated()
    yield driver
    driver.shut_down()


def test_lies_damped_until_told_otherwise():
    driver = simulated(joints=None)
    wait(driver, 0.5)
    assert not driver.stiff
    assert np.abs(driver.state().joint_vel).max() < 1e-3
    with pytest.raises(DriverError, match="damped"):
        driver.send([Waypoint(1.0, RAISED, 0.0)])
    driver.shut_down()


def test_follows_waypoints_with_the_lag_of_its_gains_and_stays_at_the_last(driver):
    goal = RAISED + np.array([0.3, -0.2, 0.2, 0.2, -0.2, 0.3])
    start = driver.clock.now()
    driver.send([Waypoint(start + 1.0, goal, 0.06)])
    driver.clock.sleep_until(start + 0.5)
    halfway = driver.state().joint_pos - (RAISED + goal) / 2
    assert 1e-4 < np.abs(halfway).max() < 0.03
    driver.clock.sleep_until(start + 2.0)
    state = driver.state()
    assert np.abs(state.joint_pos - goal).max() < 0.003
    assert state.gripper_pos == pytest.approx(0.06, abs=5e-4)
    np.testing.assert_allclose(state.eef_pose, driver.kinematics.forward(state.joint_pos))


def test_tool_is_where_the_kinematics_have_it(driver):
    for model in ("X5", "X5_umi"):
        other = simulated(model=model)
        truth = other.twin.plant.tool()
        np.testing.assert_allclose(other.kinematics.forward(RAISED)[:3], truth, atol=1e-4)
        other.shut_down()


def test_speeds_and_torques_stay_within_the_arms(driver):
    goal = RAISED + np.array([1.5, 0.6, 0.8, -0.6, 1.0, 1.2])
    # At once, as the driver never asks: with waypoints, the SDK takes the speed between them for what is wanted.
    driver.twin.set_joint_cmd(JointState(goal, np.zeros(6), np.zeros(6), 0.0))
    speeds, torques, gripper = [], [], []
    for _ in range(200):
        wait(driver, 0.004)
        state = driver.state()
        speeds.append(np.abs(state.joint_vel) / LIMITS.joint_vel_max)
        torques.append(np.abs(state.joint_torque) / LIMITS.joint_torque_max)
        gripper.append(abs(state.gripper_vel) / LIMITS.gripper_vel_max)
    # Motors overshoot what they are told a little.
    assert np.max(speeds) < 1.35 and np.max(torques) <= 1.1 + 1e-9 and max(gripper) < 1.3
    wait(driver, 1.0)
    assert np.abs(driver.state().joint_pos - goal).max() < 0.01


def test_joints_do_not_leave_their_limits_whatever_is_asked(driver):
    go(driver, RAISED + np.array([0, 0, 0, 9.0, 9.0, -9.0]), 1.0)
    wait(driver, 1.5)
    joints = driver.state().joint_pos
    assert (joints < LIMITS.joint_pos_max + 0.01).all() and (joints > LIMITS.joint_pos_min - 0.01).all()


def test_hold_stops_the_arm_and_keeps_what_it_grips(driver):
    plant = driver.twin.plant
    tool = driver.kinematics.matrix(RAISED)[:3, 3]
    # In the air, between the fingers: it falls if they let go.
    plant.place("block", tool, yaw=RAISED[0])
    driver.place_arm(RAISED, gripper_pos=0.046)
    driver.settle()
    plant.data.qvel[:] = 0
    driver.send([Waypoint(driver.clock.now() + 0.1, RAISED, 0.03)])
    wait(driver, 0.4)
    assert plant.touching("block", "left_finger") and plant.touching("block", "right_finger")
    driver.send([Waypoint(driver.clock.now() + 1.0, RAISED - np.array([0, 0.3, 0, 0, 0, 0]), 0.03)])
    wait(driver, 0.3)
    driver.hold()
    held = driver.state().joint_pos
    wait(driver, 1.0)
    assert np.abs(driver.state().joint_pos - held).max() < 0.03
    assert plant.position("block")[2] > 0.1 and plant.touching("block", "left_finger")


def test_damped_arm_can_be_pushed_and_held_again_without_a_jump(driver):
    driver.damp()
    wait(driver, 0.1)
    driver.twin.plant.data.qvel[:6] = [0.8, 0.4, 0, 0, 0, 0]
    wait(driver, 0.4)
    pushed = driver.state().joint_pos
    assert np.abs(pushed - RAISED).max() > 0.02
    wait(driver, 1.0)
    lies = driver.state().joint_pos
    driver.hold()
    assert driver.stiff
    wait(driver, 0.5)
    assert np.abs(driver.state().joint_pos - lies).max() < 0.02


def test_sdk_refusal_exists_in_the_twin_and_the_driver_never_meets_it():
    twin = TwinController(clock=SimulatedClock())
    twin.clock.sleep_until(0.1)
    twin.plant.place_arm(RAISED, 0.04)
    twin.plant.settle()
    stiff = Gain(LIMITS.default_kp, LIMITS.default_kd, 5.0, 0.2)
    with pytest.raises(RuntimeError, match="Cannot set kp to non-zero"):
        twin.set_gain(stiff)
    twin.close()
    driver = simulated(joints=None)
    driver.twin.plant.place_arm(RAISED, 0.04)
    driver.twin.plant.settle()
    driver.hold()
    assert driver.stiff and np.abs(driver.state().joint_pos - RAISED).max() < 0.02
    driver.shut_down()


def test_home_is_slow_and_ends_at_zero_with_the_gripper_open(driver):
    start = driver.clock.now()
    speed = 0.0

    def watch(_):
        nonlocal speed
        speed = max(speed, float(np.abs(driver.twin.plant.data.qvel[:6]).max()))

    driver.clock.follow(watch)
    driver.home()
    state = driver.state()
    assert np.abs(state.joint_pos).max() < 0.01 and state.gripper_pos == pytest.approx(LIMITS.gripper_width, abs=1e-3)
    assert driver.clock.now() - start > np.abs(RAISED).max() / 0.5
    assert 0.3 < speed < 0.8


def test_homing_ends_when_another_command_comes(driver):
    calls: list[object] = []

    def interrupt(time_s):
        if time_s > 1.0 and not calls:
            calls.append(time_s)
            driver.damp()

    driver.clock.follow(interrupt)
    with pytest.raises(DriverError, match="another command came"):
        driver.home()
    assert not driver.stiff


def test_blocked_arm_switches_itself_off_as_the_real_one(driver):
    goal = driver.kinematics.inverse(np.array([0.35, 0, 0.10, 0, 1.2, 0]), RAISED)
    go(driver, goal, 1.0, gripper=0.0)
    # Half a radian into the table.
    driver.send([Waypoint(driver.clock.now() + 1.0, goal + np.array([0, 0.9, 0, 0.5, 0, 0]), 0.0)])
    wait(driver, 2.5)
    assert driver.twin.plant.tool()[2] > -0.01
    driver.twin._config.over_current_cnt_max = 5
    driver.twin._robot.joint_torque_max = np.full(6, 0.5)
    wait(driver, 0.1)
    assert "over-current" in driver.twin.emergency
    wait(driver, 0.1)
    before = driver.state().joint_pos
    driver.twin.set_joint_cmd(JointState(RAISED, np.zeros(6), np.zeros(6), 0.0))
    wait(driver, 0.3)
    assert np.abs(driver.state().joint_pos - RAISED).max() > 0.1
    assert np.abs(driver.state().joint_pos - before).max() < 0.3


def test_things_rest_on_the_table(driver):
    wait(driver, 1.0)
    for name, z in (("cup", 0.0325), ("saucer", 0.006), ("block", 0.02)):
        position = driver.twin.plant.position(name)
        assert position[2] == pytest.approx(z, abs=1e-3)
        assert TABLE[0] < position[0] < TABLE[1] and TABLE[2] < position[1] < TABLE[3]
        assert driver.twin.plant.up(name)[2] > 0.9999


# Delays, noise, and what gets lost.


# Saved states.


# Real time.


# Pictures.


def test_cameras_see_different_things_and_give_a_frame_once(driver):
    wrist, outside = driver.camera("wrist", height=48, width=64), driver.camera("outside", height=48, width=64)
    first, second = wrist.read(), outside.read()
    assert first.image.shape == (48, 64, 3) and first.image.dtype == np.uint8
    assert first.image.std() > 20 and second.image.std() > 20
    assert np.abs(first.image.astype(int) - second.image).mean() > 10
    assert wrist.read() is first
    go(driver, RAISED + np.array([0.5, 0, 0, 0, 0, 0]), 0.5)
    later = wrist.read()
    assert later.time_s > first.time_s and np.abs(later.image.astype(int) - first.image).mean() > 3
    assert driver.clock.now() - later.time_s < 1 / 60 + 0.003
    assert not later.image.flags.writeable
    assert wrist.draw(height=32, width=32).shape == (32, 32, 3)


def test_picture_is_of_the_moment_that_its_time_names():
    late = simulated(TwinRealism(camera_latency_s=0.2, camera_fps=50.0))
    camera = late.camera("outside", height=48, width=64)
    pictures = {}
    late.send([Waypoint(late.clock.now() + 0.5, RAISED + np.array([0.6, 0.3, 0, 0, 0, 0]), 0.04)])
    for _ in range(25):
        wait(late, 0.02)
        pictures[round(late.clock.now(), 4)] = camera.draw()
    frame = camera.read()
    assert late.clock.now() - frame.time_s == pytest.approx(0.2, abs=0.0201)
    np.testing.assert_array_equal(frame.image, pictures[round(frame.time_s, 4)])
    late.shut_down()


def test_pictures_can_be_asked_for_from_any_thread(driver):
    camera = driver.camera("wrist", height=32, width=32)
    pictures = [camera.draw()]
    thread = threading.Thread(target=lambda: pictures.append(camera.draw()))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(*pictures)


def test_mistakes_with_cameras_are_named(driver):
    with pytest.raises(ValueError, match="'wrist', 'outside'"):
        driver.camera("front")
    with pytest.raises(ValueError, match="height must be"):
        driver.camera("wrist", height=5000)
    with pytest.raises(ValueError, match="'fast', 'full'"):
        driver.camera("wrist", quality="best")
    camera = driver.camera("wrist", height=32, width=32)
    camera.close()
    camera.close()
    with pytest.raises(DriverError, match="closed"):
        camera.read()


def test_realistic_twin_can_be_driven_home():
    driver = simulated(REALISTIC, model="X5_umi")
    driver.home()
    assert np.abs(driver.twin.plant.data.qpos[:6]).max() < 0.05
    driver.shut_down()
