"""The path to the arm, end to end, over a fake SDK that records calls: what is sent, in which order, and what never is."""

import dataclasses
import importlib.util
import inspect
import itertools
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

from tests import fake_arx5_interface as fake
from uva_agents.envs.arx_x5.arm.interface import DriverError, Order, TooLateError, Waypoint
from uva_agents.envs.arx_x5.arm.limits import arm_limits
from uva_agents.envs.arx_x5.drivers.factory import make_driver
from uva_agents.envs.arx_x5.drivers.options import DriverOptions
from uva_agents.utils.clocks import MonotonicClock, SimulatedClock

QUICK = DriverOptions(stiffen_s=0.06, home_speed=4.0, home_gripper_speed=1.0)


@pytest.fixture
def world(monkeypatch):
    return fake.install(monkeypatch)


@pytest.fixture
def driver(world):
    driver = make_driver("arx5", interface="can0", options=QUICK)
    driver.connect()
    yield driver
    driver.close()


@pytest.fixture
def arm(driver, world):
    return world.controllers[-1]


def named(arm, name):
    return [call[1:] for call in arm.calls if call[0] == name]


def moving(arm):
    return [call for call in arm.calls if not call[0].startswith("get_")]


def test_making_and_connecting_move_nothing(world):
    driver = make_driver("arx5", interface="can0")
    assert not world.controllers
    driver.connect()
    driver.connect()
    driver.state()
    assert len(world.controllers) == 1
    assert moving(world.controllers[0]) == []


def test_state_is_the_measurement_on_the_drivers_clock(driver, world):
    before = driver.clock.now()
    state = driver.state()
    assert before - 0.01 < state.time_s < driver.clock.now() + 0.01
    np.testing.assert_allclose(state.joint_pos, world.joints)
    assert state.gripper_pos == pytest.approx(world.gripper)
    np.testing.assert_allclose(state.eef_pose, driver.kinematics.forward(world.joints))


def test_state_takes_the_latency_of_measurements_off(world):
    driver = make_driver("arx5", options=DriverOptions(observation_latency_s=5.0))
    driver.connect()
    before = driver.clock.now()
    assert before - 5.01 < driver.state().time_s < driver.clock.now() - 4.99


def test_damped_arm_follows_nothing(driver, arm):
    with pytest.raises(DriverError, match=r"damped.*hold\(\)"):
        driver.send([Waypoint(driver.clock.now() + 1, np.zeros(6), 0.0)])
    assert moving(arm) == []


def test_hold_commands_where_the_arm_is_before_stiffness_rises(driver, arm, world):
    driver.hold()
    names = [call[0] for call in moving(arm)]
    assert names[0] == "set_joint_cmd" and set(names[1:]) == {"set_gain"}
    np.testing.assert_allclose(named(arm, "set_joint_cmd")[0][0].pos(), world.joints)
    stiffness = np.array([gain.kp() for (gain,) in named(arm, "set_gain")])
    assert (np.diff(stiffness, axis=0) > 0).all()
    limits = arm_limits("X5")
    np.testing.assert_allclose(stiffness[-1], limits.default_kp)
    np.testing.assert_allclose(arm.get_gain().kd(), limits.default_kd)
    assert arm.get_gain().gripper_kp == limits.default_gripper_kp
    np.testing.assert_allclose(driver.state().joint_pos, world.joints, atol=1e-9)


def test_waypoints_arrive_in_the_controllers_time_and_the_arm_stays_at_the_last(driver, arm):
    driver.hold()
    start = driver.state().joint_pos
    now = driver.clock.now()
    driver.send([Waypoint(now + 0.1, start + 0.05, 0.02), Waypoint(now + 0.2, start + 0.1, 0.03)])
    (trajectory,) = named(arm, "set_joint_traj")[-1]
    offset = driver.clock.now() - arm.get_timestamp()
    assert [state.timestamp + offset for state in trajectory[:2]] == pytest.approx([now + 0.1, now + 0.2], abs=2e-3)
    assert all(later.timestamp > earlier.timestamp for earlier, later in itertools.pairwise(trajectory))
    # What the SDK takes for its velocity at the end is none.
    np.testing.assert_allclose(trajectory[-1].pos(), trajectory[1].pos())
    driver.clock.sleep_until(now + 0.4)
    state = driver.state()
    np.testing.assert_allclose(state.joint_pos, start + 0.1, atol=1e-6)
    assert state.gripper_pos == pytest.approx(0.03, abs=1e-6)


def test_past_waypoints_are_left_out_and_only_past_ones_are_an_error(driver, arm):
    driver.hold()
    start, now = driver.state().joint_pos, driver.clock.now()
    driver.send([Waypoint(now - 0.2, start + 1.0, 0.02), Waypoint(now + 0.2, start, 0.02)])
    assert np.abs(named(arm, "set_joint_traj")[-1][0][0].pos() - start).max() < 1e-9
    with pytest.raises(DriverError, match=r"past, the last by \d+ ms"):
        driver.send([Waypoint(driver.clock.now() - 0.2, start, 0.02)])


@pytest.mark.parametrize(
    ("joints", "times", "message"),
    [
        (np.zeros(7), [1.0], "6 joints"),
        (np.full(6, np.nan), [1.0], "number that is none"),
        (np.zeros(6), [np.inf], "number that is none"),
        (np.zeros(6), [2.0, 1.0], "must rise"),
        (np.zeros(6), [], "at least one waypoint"),
    ],
)
def test_waypoints_that_make_no_sense_are_refused_and_nothing_is_sent(driver, arm, joints, times, message):
    driver.hold()
    before = len(named(arm, "set_joint_traj"))
    now = driver.clock.now()
    with pytest.raises(ValueError, match=message):
        driver.send([Waypoint(now + time, joints, 0.0) for time in times])
    assert len(named(arm, "set_joint_traj")) == before


def test_holding_when_stiff_forgets_the_queue_and_keeps_the_grip(driver, arm):
    driver.hold()
    start, now = driver.state().joint_pos, driver.clock.now()
    driver.send([Waypoint(now + 0.5, start + 0.4, 0.0)])
    driver.clock.sleep_until(now + 0.1)
    driver.hold()
    held = driver.state().joint_pos
    assert 0.01 < np.abs(held - start).max() < 0.35
    driver.clock.sleep_until(now + 0.7)
    np.testing.assert_allclose(driver.state().joint_pos, held, atol=0.02)
    assert named(arm, "set_joint_cmd")[-1][0].gripper_pos == pytest.approx(arm.get_joint_cmd().gripper_pos, abs=2e-3)


def test_a_hold_while_the_arm_becomes_stiff_makes_it_stiff(driver, arm):
    """A stop that is pressed then: half of the gains would let it sink."""
    driver.options = dataclasses.replace(driver.options, stiffen_s=0.1)
    sleep, held = driver._sleep, []

    def interrupted(seconds, order, when):
        if driver._rising is not None and not held:
            held.append(1)
            with pytest.raises(DriverError, match="damped"):
                driver.send([Waypoint(driver.clock.now() + 1, np.zeros(6), 0.0)])
            driver.hold()
        sleep(seconds, order, when)

    driver._sleep = interrupted
    with pytest.raises(DriverError, match="another command came while the arm became stiff"):
        driver.hold()
    np.testing.assert_allclose(arm.get_gain().kp(), arm_limits("X5").default_kp)
    driver.send([Waypoint(driver.clock.now() + 1, driver.state().joint_pos, 0.0)])


def test_an_order_that_may_no_longer_be_taken_up_changes_nothing(driver, arm):
    driver.hold()
    start, now = driver.state().joint_pos, driver.clock.now()
    before = len(named(arm, "set_joint_traj"))
    with pytest.raises(TooLateError, match="after the arm passed the point"):
        driver.send(Order.of([Waypoint(now + 0.5, start, 0.02)], now - 0.01))
    assert len(named(arm, "set_joint_traj")) == before
    driver.send(Order.of([Waypoint(now + 5.0, start, 0.02)], now + 4.0))
    assert len(named(arm, "set_joint_traj")) == before + 1


def test_damping_is_zero_stiffness_and_the_sdks_damping(driver, arm):
    driver.hold()
    driver.damp()
    gain = arm.get_gain()
    assert not gain.kp().any() and gain.gripper_kp == 0
    np.testing.assert_allclose(gain.kd(), arm_limits("X5").default_kd)
    assert not driver.stiff
    with pytest.raises(DriverError, match="damped"):
        driver.send([Waypoint(driver.clock.now() + 1, np.zeros(6), 0.0)])


def test_home_goes_slowly_with_the_gripper_open_and_without_the_blocking_call(driver, arm):
    driver.home()
    state = driver.state()
    assert np.abs(state.joint_pos).max() < QUICK.home_near
    assert state.gripper_pos == pytest.approx(arm_limits("X5").gripper_width, abs=1e-3)
    assert not named(arm, "reset_to_home") and not named(arm, "set_to_damping")
    (trajectory,) = named(arm, "set_joint_traj")[0]
    # Joint 3 waits a little, so that links 2 and 3 do not touch.
    assert trajectory[0].pos()[2] == pytest.approx(0.03) and not trajectory[-1].pos().any()


def test_another_command_ends_homing(world):
    driver = make_driver("arx5", options=DriverOptions(stiffen_s=0.02, home_speed=0.1))
    driver.connect()
    timer = threading.Timer(0.4, driver.damp)
    timer.start()
    with pytest.raises(DriverError, match="another command came on the way home"):
        driver.home()
    timer.join()
    assert not driver.stiff and not world.controllers[0].get_gain().kp().any()


def test_arm_that_is_far_from_its_command_is_never_made_stiff(driver, arm, monkeypatch):
    """The SDK would throw, and stop talking to the motors."""
    true = arm._state

    def far():
        state = true()
        state.pos()[:] += 0.5
        return state

    monkeypatch.setattr(arm, "get_joint_cmd", far)
    with pytest.raises(DriverError, match="rad from where it is"):
        driver.hold()
    assert not named(arm, "set_gain") and not driver.stiff


def test_silent_arm_is_noticed_before_anything_is_sent(driver, arm):
    driver.hold()
    arm.silent_since = arm.get_timestamp()
    driver.clock.sleep_until(driver.clock.now() + 0.3)
    before = len(moving(arm))
    with pytest.raises(DriverError, match=r"not answered for 0\.\d+ s.*e-stop"):
        driver.send([Waypoint(driver.clock.now() + 1, np.zeros(6), 0.0)])
    with pytest.raises(DriverError, match="not answered"):
        driver.hold()
    assert len(moving(arm)) == before
    # Damping is tried whatever the arm says.
    driver.damp()
    assert named(arm, "set_gain")


@pytest.mark.parametrize("method", ["set_joint_traj", "set_gain", "get_joint_state"])
def test_errors_of_the_sdk_keep_their_reason_and_say_what_to_do(driver, arm, method):
    driver.hold()
    arm.fail_with[method] = RuntimeError("CAN bus is off")
    action = {
        "set_joint_traj": lambda: driver.send([Waypoint(driver.clock.now() + 1, np.zeros(6), 0.0)]),
        "set_gain": driver.damp,
        "get_joint_state": driver.state,
    }[method]
    with pytest.raises(DriverError, match=r"CAN bus is off.*power"):
        action()
    arm.fail_with.clear()


def test_closing_damps_the_arm_and_lets_go(world):
    driver = make_driver("arx5", options=QUICK)
    driver.connect()
    driver.hold()
    driver.close()
    driver.close()
    assert not world.controllers[0].get_gain().kp().any()
    with pytest.raises(DriverError, match=r"call connect\(\)"):
        driver.state()


@pytest.mark.parametrize(
    ("changes", "interface", "reason"),
    [
        ({}, "can7", "Failed to open USB-CAN adapter with interface name can7"),
        ({}, "usb0", "Interface name should start with can"),
        ({"powered": False}, "can0", "None of the motors are initialized"),
    ],
)
def test_without_an_arm_the_sdks_reason_comes_with_what_to_check(monkeypatch, changes, interface, reason):
    fake.install(monkeypatch, **changes)
    with pytest.raises(DriverError) as error:
        make_driver("arx5", interface=interface, model="X5_umi").connect()
    text = str(error.value)
    assert reason in text
    for hint in ("power", "bitrate 1000000", interface, "model='X5_umi'"):
        assert hint in text


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "arx5_interface", None)
    with pytest.raises(ImportError, match=r"pip install 'uva-agents\[arx\]'"):
        make_driver("arx5")


def test_unknown_drivers_models_and_clocks_are_named(world):
    with pytest.raises(ValueError, match="'arx5', 'sim'"):
        make_driver("arx")
    with pytest.raises(ValueError, match="'X5', 'X5_umi'"):
        make_driver("arx5", model="L5")
    with pytest.raises(DriverError, match="real time"):
        make_driver("arx5", clock=SimulatedClock())


def test_clocks_keep_their_promises():
    clock = MonotonicClock()
    clock.sleep_until(clock.now() - 1)
    start = clock.now()
    clock.sleep_until(start + 0.02)
    assert clock.now() >= start + 0.02
    clock = SimulatedClock(5.0)
    seen: list[float] = []
    clock.follow(seen.append)
    clock.sleep_until(4.0)
    assert clock.now() == 5.0 and seen == []
    clock.sleep_until(6.0)
    clock.unfollow(seen.append)
    clock.sleep_until(7.0)
    assert clock.now() == 7.0 and seen == [6.0]


needs_sdk = pytest.mark.skipif(
    importlib.util.find_spec("arx5_interface") is None, reason="needs the arm's SDK: pip install 'uva-agents[arx]'"
)
CLASSES = ("Arx5JointController", "JointState", "EEFState", "Gain", "RobotConfigFactory", "ControllerConfigFactory")


def public(cls):
    return {name for name in dir(cls) if not name.startswith("_")} | ({"__add__", "__mul__"} & set(vars(cls)))


@needs_sdk
@pytest.mark.parametrize("name", CLASSES)
def test_fake_and_twin_have_the_real_packages_methods(name):
    import arx5_interface as real

    theirs = getattr(real, name)
    ours = getattr(fake, name)
    example = {"JointState": lambda: ours(6), "Gain": lambda: ours(6), "EEFState": lambda: ours()}.get(
        name, lambda: ours
    )()
    for attribute in public(theirs):
        assert hasattr(example, attribute), attribute
        function = getattr(theirs, attribute)
        signature = re.match(rf"{attribute}\((.*)\) ->", function.__doc__ or "")
        if (
            signature is None
            or "Overloaded" in function.__doc__
            or isinstance(inspect.getattr_static(theirs, attribute), property)
        ):
            continue
        n_arguments = len(re.findall(r"arg\d+:", signature.group(1)))
        parameters = inspect.signature(getattr(ours, attribute)).parameters
        assert len([p for p in parameters if p != "self"]) == n_arguments, attribute
    assert public(ours) - public(theirs) <= {"calls", "fail_with", "silent_since"}


@needs_sdk
def test_twin_offers_the_controllers_methods_that_mean_something_without_motors():
    # Not importorskip: whoever imports MuJoCo first decides how this process draws.
    if importlib.util.find_spec("mujoco") is None:
        pytest.skip("needs MuJoCo: pip install 'uva-agents[arx]'")
    import arx5_interface as real

    from uva_agents.envs.arx_x5.twin.controller import TwinController

    only_hardware = {"send_recv_once", "recv_once", "calibrate_gripper", "calibrate_joint", "set_log_level"}
    assert public(real.Arx5JointController) - only_hardware <= public(TwinController)


@needs_sdk
def test_configurations_have_the_real_ones_attributes_and_values():
    import arx5_interface as real

    theirs = real.RobotConfigFactory.get_instance().get_config("X5_umi")
    ours = fake.RobotConfigFactory.get_instance().get_config("X5_umi")
    only_hardware = {"motor_id", "motor_type", "gripper_motor_id", "gripper_motor_type", "urdf_path"}
    for name in public(type(theirs)) - only_hardware:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    theirs = real.ControllerConfigFactory.get_instance().get_config("joint_controller", 6)
    ours = fake.ControllerConfigFactory.get_instance().get_config("joint_controller", 6)
    for name in public(type(theirs)):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


@needs_sdk
def test_data_types_behave_as_the_real_ones():
    import arx5_interface as real

    def values(module):
        a = module.JointState(np.arange(6.0), np.ones(6), np.zeros(6), 0.02)
        b = module.JointState(6)
        b.pos()[:] = 1.0
        b.gripper_pos = 0.01
        # Kept: what pos() returns is a window into it.
        total, half = a + b, a * 0.5
        far = (module.EEFState(np.ones(6), 0.01) + module.EEFState(np.ones(6), 0.02)) * 2.0
        gain = module.Gain(np.arange(6.0), np.ones(6), 5.0, 0.2)
        double = gain * 2.0
        pose = module.EEFState(np.arange(6.0), 0.03)
        return [
            np.array(total.pos()),
            np.array(half.vel()),
            [total.gripper_pos, half.gripper_pos, a.timestamp],
            np.array(double.kp()),
            np.array(double.kd()),
            [double.gripper_kp, double.gripper_kd],
            np.array(pose.pose_6d()),
            [pose.gripper_pos, pose.timestamp],
            np.array(far.pose_6d()),
            [far.gripper_pos],
        ]

    for ours, theirs in zip(values(fake), values(real), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@needs_sdk
@pytest.mark.parametrize("arguments", [("X5", "can_none"), ("X5", "usb0"), ("X9", "can0")])
def test_fake_fails_as_the_real_one(monkeypatch, arguments):
    """In a process of its own: the SDK prints from C++."""
    fake.install(monkeypatch)
    code = (
        "import arx5_interface as sdk, sys\n"
        f"try: sdk.Arx5JointController{arguments!r}\n"
        "except Exception as error: print('RAISED', type(error).__name__, error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout
    real = re.search(r"RAISED (\w+) (.*)", out)
    with pytest.raises(Exception) as ours:  # noqa: PT011  (its type is what is compared)
        fake.Arx5JointController(*arguments)
    assert type(ours.value).__name__ == real.group(1)
    # The list of models is longer in the real one.
    assert str(ours.value).split(":")[0] == real.group(2).split(":")[0]


@needs_sdk
def test_real_package_without_an_arm_fails_at_once_with_what_to_check():
    code = (
        "from uva_agents.envs.arx_x5.drivers.factory import make_driver\n"
        "from uva_agents.envs.arx_x5.arm.interface import DriverError\n"
        "try: make_driver('arx5', interface='can_none').connect()\n"
        "except DriverError as error: print('RAISED', error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout
    assert "RAISED no arm at 'can_none'. The SDK says: Failed to open USB-CAN adapter" in out
    assert "ip link" in out
