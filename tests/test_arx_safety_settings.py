"""The ARX X5's safety layer: its configuration, and what presses its stop."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.arx_arm import (
    KINEMATICS,
    WritingArm,
    moving,
    safe_arm,
    sleep,
)
from uva_agents.bridges.lerobot_robot import ArxX5Robot, ArxX5RobotConfig
from uva_agents.envs.arx_x5.arm.interface import Waypoint
from uva_agents.envs.arx_x5.arm.limits import X5
from uva_agents.envs.arx_x5.drivers.options import DriverOptions
from uva_agents.envs.arx_x5.env import ArxX5Env
from uva_agents.envs.arx_x5.options import check_rate
from uva_agents.envs.arx_x5.safety import EStop, Mode, SafeArm, SafetyConfig
from uva_agents.envs.arx_x5.safety.frames import ToolFrames
from uva_agents.envs.arx_x5.system.system import Latencies
from uva_agents.envs.arx_x5.twin.realism import TwinRealism
from uva_agents.errors import InputError

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


WRONG = (math.nan, True, "1", None, [], {}, -1.0, -math.inf)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(SafetyConfig)])
def test_every_field_refuses_what_is_no_number_and_names_itself(name):
    refused = 0
    for value in WRONG:
        if value is None and name in ("table_height", "gripper_max"):
            continue
        if (value is True and name == "dry_run") or (name == "table_height" and value == -1.0):
            continue
        with pytest.raises(InputError, match=name):
            SafetyConfig(**{name: value})
        refused += 1
        if name in ("box_min", "box_max"):
            for corner in ((value, 0.0, 0.0), [0.0, value], (0.0, 0.0, math.inf)):
                if value != -1.0 or len(corner) != 3:
                    with pytest.raises(InputError, match=name):
                        SafetyConfig(**{name: corner})
    assert refused >= 6


@pytest.mark.parametrize("made", [DriverOptions, Latencies, TwinRealism])
def test_so_do_the_other_settings(made):
    for field in dataclasses.fields(made):
        for value in WRONG:
            with pytest.raises(InputError, match=field.name):
                made(**{field.name: value})


@pytest.mark.parametrize("options", [dict(period_s=1e-6), dict(accel=1e-300), dict(watchdog_s=1e9)])
def test_settings_that_would_take_all_memory_are_refused(options):
    with pytest.raises(InputError, match=r"period_s|watchdog_s"):
        SafetyConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"safety": "x"}, {"safety": {"speed": 0.1}}, {"safety": 7}, {"latencies": 0.1}, {"latencies": {}},
        {"control_hz": "20"}, {"control_hz": math.nan}, {"control_hz": True}, {"control_hz": None}, {"control_hz": -1},
        {"realtime": "no"}, {"outside": 1}, {"joint_state": None}, {"timestamp": "x"}, {"render_observations": 0},
        {"task": 7}, {"action_mode": ["absolute"]}, {"tool_frame": {}}, {"tool_frame": None}, {"driver": 7}, {"driver": None},
        {"camera": "/dev/video0"}, {"outside_camera": 0}, {"home_on_reset": "yes"}, {"success": True}, {"late_s": "0.1"},
        {"late_s": -1.0}, {"late_s": math.inf}, {"log_file": 7}, {"image_mask": [[True]]}, {"interface": 0},
        {"options": {"stiffen_s": 1.0}}, {"realism": "REALISTIC"}, {"speed": 0.1},
    ],
    ids=str,
)  # fmt: skip
def test_an_option_of_the_environment_that_makes_no_sense_is_named(options):
    with pytest.raises(InputError, match=next(iter(options))):
        ArxX5Env(**options)


def test_a_dictionary_of_limits_is_told_what_to_make_of_it():
    with pytest.raises(InputError, match=r"safety=\{'speed': 0.1\} must be a SafetyConfig.*SafetyConfig\(\*\*safety\)"):
        ArxX5Env(safety={"speed": 0.1})
    with pytest.raises(InputError, match=r"leave the quotes away: control_hz=20"):
        ArxX5Env(control_hz="20")


@pytest.mark.parametrize(
    "options", [{"control_hz": "20"}, {"safety": {}}, {"latencies": 1}, {"cartesian": "no"}, {"driver": 7}], ids=str
)
def test_so_is_one_of_lerobots_robot(options):
    with pytest.raises(InputError, match=next(iter(options))):
        ArxX5Robot(ArxX5RobotConfig(**{"driver": "sim", **options}))


@pytest.mark.parametrize("options", [{"config": {}}, {"stop": True}, {"log_file": 7}, {"threaded": "no"}], ids=str)
def test_so_is_one_of_the_safety_layer(options):
    with pytest.raises(InputError, match=next(iter(options))):
        SafeArm(WritingArm(), kinematics=KINEMATICS, limits=X5, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(speed=0.9, accel=3.0), "speed=0.9 is more than the X5 is made for: at most 0.6"),
        (dict(gripper_max=0.2), "gripper_max=0.2"),
        (dict(joint_margin=1.6), "leaves no joint any range"),
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
        np.testing.assert_allclose(frames.jacobian(joints[0]), KINEMATICS.jacobian(joints[0]), atol=1e-3)


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
        deadline = time.monotonic() + 60
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


def test_a_speed_that_no_arm_has_is_named_before_what_follows_from_it():
    with pytest.raises(InputError, match=r"^speed=9 is more than an arm is made for: at most 0\.6"):
        SafetyConfig(speed=9)
    with pytest.raises(InputError, match=r"^speed=1e\+300 is more than"):
        SafetyConfig(speed=1e300)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_quotes_are_not_to_be_left_away_from_what_is_no_number(text):
    with pytest.raises(InputError, match=r"must be a number, not str$"):
        check_rate(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"task": "Cup"}, {"driver": "sim", "model": "x5"}, {"driver": "arx5"}, {"driver": "arx5", "model": "X5"},
        {"image_mask": np.zeros((3, 3), bool)}, {"image_mask": np.zeros((224, 224))}, {"tool_frame": "x"}, {"action_mode": "x"},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_an_input_error(wrong):
    with pytest.raises(InputError):
        ArxX5Env(**wrong)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("huge", [1e300, -1e308])
def test_a_huge_number_is_said_shortly_and_warns_of_nothing(huge):
    arm, driver = safe_arm()
    commands = [
        lambda now: arm.command_joints([Waypoint(now + 0.1, np.full(6, huge), huge)]),
        lambda now: arm.command_joints([Waypoint(abs(huge), np.zeros(6), 0.05)]),
        lambda now: arm.command_joints([Waypoint(-abs(huge), np.zeros(6), 0.05)]),
        lambda now: arm.command_poses([now + 0.1], [np.full(6, huge)], [huge]),
        lambda now: arm.command_poses([-abs(huge), abs(huge)], [np.full(6, huge)] * 2, [huge] * 2),
    ]
    for command in commands:
        for found in command(arm.clock.now()).interventions:
            assert len(found.detail) < 200, found.detail
    state = driver.state()
    for name, value in (("joint_pos", np.full(6, huge)), ("joint_torque", np.full(6, huge)), ("time_s", huge)):
        driver.state = lambda name=name, value=value: replace(state, **{name: value})
        arm.tick()
        assert all(len(found.detail) < 200 for found in arm.take_interventions())
    arm.close()
