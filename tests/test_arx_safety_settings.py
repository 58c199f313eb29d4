"""The ARX X5's safety layer: its configuration, and what presses its stop."""

from __future__ import annotations

import math
import os
import signal
import threading
import time

import numpy as np
import pytest

from tests.arx_arm import (
    KINEMATICS,
    WritingArm,
    moving,
    sleep,
)
from uva_agents.envs.arx_x5.limits import X5
from uva_agents.envs.arx_x5.safety import EStop, Mode, SafeArm, SafetyConfig
from uva_agents.envs.arx_x5.safety.frames import ToolFrames

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
