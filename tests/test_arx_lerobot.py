"""The robot class in LeRobot's manner: features while disconnected, what was really sent, nothing that moves by itself."""

import numpy as np
import pytest

from tests.arx_ideal import IdealDriver, KnowingCamera
from uva_agents.bridges.lerobot_robot import JOINTS, ArxX5Robot, ArxX5RobotConfig
from uva_agents.envs.arx_x5.arm.interface import DriverError
from uva_agents.envs.arx_x5.arm.kinematics import X5Kinematics

KINEMATICS = X5Kinematics("X5")


def made(**options):
    driver = IdealDriver(KINEMATICS)
    cameras = {"wrist": KnowingCamera(driver.clock), "outside": KnowingCamera(driver.clock)}
    config = ArxX5RobotConfig(driver=driver, model="X5", cameras=cameras, image_size=(24, 32), **options)
    return ArxX5Robot(config), driver


def goal(robot, **changes):
    obs = robot.get_observation()
    return {key: obs[key] for key in robot.action_features} | changes


def test_what_it_sees_and_takes_is_known_while_it_is_disconnected():
    robot, driver = made()
    assert not robot.is_connected and robot.is_calibrated and driver.calls == []
    assert list(robot.action_features) == [*(f"{name}.pos" for name in JOINTS), "gripper.pos"]
    assert robot.observation_features["wrist"] == (24, 32, 3) and robot.observation_features["eef.yaw"] is float
    cartesian, _ = made(cartesian=True)
    assert next(iter(cartesian.action_features)) == "eef.x" and len(cartesian.action_features) == 7


def test_an_observation_has_exactly_the_features_that_were_announced():
    robot, driver = made()
    with robot:
        assert robot.is_connected
        obs = robot.get_observation()
        assert set(obs) == set(robot.observation_features)
        for key, what in robot.observation_features.items():
            if what is float:
                assert type(obs[key]) is float
            else:
                assert obs[key].shape == what and obs[key].dtype == np.uint8
        assert [obs[f"eef.{name}"] for name in ("x", "y", "z")] == pytest.approx([0.240, 0.001, 0.157], abs=1e-3)
    assert not robot.is_connected and driver.calls[0] == "connect" and driver.calls[-1] == "close"


def test_connecting_moves_nothing_and_a_damped_arm_takes_no_action():
    robot, driver = made()
    robot.connect(calibrate=True)
    sent = robot.send_action(goal(robot, **{"elbow_flex.pos": 0.1}))
    assert driver.calls == ["connect"] and not driver.sent
    assert sent["elbow_flex.pos"] == 0.0, "where the arm is"
    assert [str(i.kind) for i in robot.interventions] == ["not_ready"]
    with pytest.raises(DriverError, match="connected already"):
        robot.connect()
    robot.disconnect()
    robot.disconnect()
    with pytest.raises(DriverError, match=r"send_action\(\) of arx_x5 before connect"):
        robot.send_action({})


@pytest.mark.parametrize("cartesian", [False, True])
def test_an_action_returns_what_was_really_sent(cartesian):
    robot, driver = made(cartesian=cartesian)
    key, far = ("eef.z", 0.05) if cartesian else ("shoulder_pan.pos", 0.3)
    with robot:
        robot.home()
        start = robot.get_observation()[key]
        wanted = goal(robot, **{key: start + far})
        for _ in range(4):
            sent = robot.send_action(wanted)
            robot._system.sleep_until(driver.clock.now() + 0.05)
        assert set(sent) == set(robot.action_features)
        assert start < sent[key] < start + far, "as far as the limits allow in that time"
        assert [str(i.kind) for i in robot.interventions] == ["slowed"]
        for _ in range(40):
            sent = robot.send_action(wanted)
            robot._system.sleep_until(driver.clock.now() + 0.05)
        assert sent[key] == pytest.approx(start + far, abs=2e-3) and robot.interventions == ()
        assert robot.get_observation()[key] == pytest.approx(start + far, abs=2e-3)


def test_missing_and_unknown_keys_are_named():
    robot, _ = made()
    with robot:
        action = goal(robot)
        action["wrist_turn.pos"] = action.pop("wrist_rotate.pos")
        with pytest.raises(ValueError, match=r"lacks wrist_rotate.pos and has the unknown wrist_turn.pos"):
            robot.send_action(action)


def test_a_stop_keeps_actions_away_until_it_is_released():
    robot, driver = made()
    with robot:
        robot.home()
        robot.stop("enough")
        before = len(driver.sent)
        robot.send_action(goal(robot, **{"shoulder_pan.pos": 0.1}))
        assert len(driver.sent) == before
        assert "stopped" in [str(i.kind) for i in robot.interventions]


def test_an_arm_that_does_not_answer_leaves_the_robot_disconnected():
    robot, driver = made()
    driver.dead = "no such adapter"
    with pytest.raises(DriverError, match="no such adapter"):
        robot.connect()
    assert not robot.is_connected


def test_settings_that_make_no_sense_are_named():
    with pytest.raises(ValueError, match="say which model"):
        ArxX5Robot()
    with pytest.raises(ValueError, match="control_hz=0"):
        ArxX5Robot(ArxX5RobotConfig(model="X5", control_hz=0))
