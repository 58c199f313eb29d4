"""What goes on after a hold, a refusal, a stop or a change of mode begins at rest where the arm is; the way home above all."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from tests.arx_arm import KINEMATICS, NEAR, go, kinds, sleep
from tests.arx_faults import Fault, FaultyArm, judged
from uva_agents.envs.arx_x5.arm.interface import DriverError
from uva_agents.envs.arx_x5.arm.limits import X5
from uva_agents.envs.arx_x5.safety import InterventionKind, Mode, SafeArm, SafetyConfig

FAR = np.array([0.75, 0.75, 0.75, 0.0, 0.0, 0.0])


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def made(*, lag_s=0.0, **settings):
    """A connected damped arm at home."""
    driver = FaultyArm(lag_s=lag_s)
    config = SafetyConfig(**settings)
    arm = SafeArm(driver, kinematics=KINEMATICS, limits=X5, config=config, threaded=False)
    driver.stop = arm.stop
    arm.connect()
    return arm, driver


def away(arm):
    """Led to FAR."""
    arm.home()
    for share in np.linspace(0.125, 1, 8):
        go(arm, share * FAR, ahead=0.5)
        sleep(arm, 0.5)
    sleep(arm, 0.5)


def on_its_way(arm):
    """In the middle of a motion, far from home."""
    arm.home()
    go(arm, NEAR)
    sleep(arm, 0.1)
    go(arm, [1.2, 1.2, 1.2, 0, 0, 0], ahead=0.8)
    sleep(arm, 0.6)
    assert np.abs(arm.state().joint_vel).max() > 0.3


def reasons(arm):
    return [i.kind for i in arm.take_interventions()]


def where(driver):
    return driver.commanded(driver.clock.now())[:6]


@pytest.mark.parametrize("kind", ["raises", "raises_os", "raises_late"])
def test_an_order_that_fails_while_the_arm_brakes_for_home_is_not_gone_on_from(kind):
    arm, driver = made()
    on_its_way(arm)
    driver.arm(Fault("send", kind))
    arm.home()
    assert driver.happened == 1 and InterventionKind.DRIVER in reasons(arm)
    assert arm.mode is Mode.HOLDING and np.abs(where(driver)).max() < 2e-3
    assert not judged(driver, arm.config)


@pytest.mark.parametrize("lag_s", [0.0, 0.03])
@pytest.mark.parametrize("after_s", [0.0, 0.4, 1.1])
def test_an_obstacle_ends_the_way_home_in_a_hold_with_the_reason(after_s, lag_s):
    arm, driver = made(lag_s=lag_s)
    away(arm)
    began = driver.clock.now()
    # The torque is gone as soon as the arm is held: that is no reason to go on.
    driver.wall_at, driver.free_at = began + after_s, began + 100
    with pytest.raises(DriverError, match="torque limit"):
        arm.home()
    assert driver.clock.now() - began < after_s + 1
    assert arm.mode is Mode.HOLDING and InterventionKind.OVER_CURRENT in reasons(arm)
    stood, orders = where(driver), len(driver.orders)
    sleep(arm, 0.5)
    np.testing.assert_array_equal(where(driver), stood)
    assert len(driver.orders) == orders
    # Once it is gone, the way home begins where the arm is.
    driver.wall_at = np.inf
    arm.home()
    assert np.abs(where(driver)).max() < 2e-3 and not judged(driver, arm.config)


def test_a_soft_obstacle_that_keeps_the_arm_from_home_is_not_passed_over():
    """Too little torque to be seen, and near enough to home not to count as lost."""
    arm, driver = made(tracking_error=0.35)
    away(arm)
    real = driver.state

    def state():
        seen = real()
        seen.joint_pos[0] = max(seen.joint_pos[0], 0.2)
        return seen

    driver.state = state
    with pytest.raises(DriverError, match="did not get home: joint 1"):
        arm.home()
    assert arm.mode is Mode.HOLDING and InterventionKind.HOME_PATH in reasons(arm)


@pytest.mark.parametrize("method", ["send", "state", "hold"])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_driver_that_fails_on_the_way_home_ends_it_in_a_hold_or_damped(method, after):
    arm, driver = made()
    away(arm)
    driver.arm(Fault(method, "raises", after=30 * after if method == "state" else after, times=1000))
    try:
        arm.home()
    except DriverError:
        assert arm.mode in (Mode.HOLDING, Mode.DAMPED) and InterventionKind.DRIVER in reasons(arm)
        assert driver.knots[-1][0] <= driver.clock.now() + arm.config.watchdog_s
    else:
        assert driver.happened == 0 and method == "hold"  # a stiff arm is not held on the way
    driver.arm(None)
    arm.home()
    assert np.abs(where(driver)).max() < 2e-3 and not judged(driver, arm.config)


def test_a_stop_on_the_way_home_ends_it():
    arm, driver = made()
    away(arm)
    driver.arm(Fault("state", "stops", after=20))
    with pytest.raises(DriverError, match="the stop is pressed: in state"):
        arm.home()
    assert arm.mode is Mode.HOLDING
    with pytest.raises(DriverError, match="reset_stop"):
        arm.home()
    arm.reset_stop()
    sleep(arm, 0.5)
    arm.home()
    assert not judged(driver, arm.config)


@pytest.mark.parametrize("what", ["hold", "damp", "close"])
def test_another_call_ends_the_way_home(what):
    arm, driver = made()
    away(arm)
    sleeps, then = arm.clock.sleep_until, driver.clock.now() + 0.5

    def interfering(time_s):
        sleeps(time_s)
        if driver.clock.now() > then:
            arm.clock.sleep_until = sleeps
            getattr(arm, what)()

    arm.clock.sleep_until = interfering
    with pytest.raises(DriverError, match="something stopped the way home"):
        arm.home()
    assert arm.mode is {"hold": Mode.HOLDING, "damp": Mode.DAMPED, "close": Mode.CLOSED}[what]
    assert not judged(driver, arm.config)


@pytest.mark.parametrize("stall_s", [0.03, 0.3, 5.0])
def test_a_clock_that_stalls_on_the_way_home_changes_nothing_about_the_limits(stall_s):
    arm, driver = made()
    away(arm)
    driver.clock.stall_at, driver.clock.stall_s = driver.clock.now() + 0.7, stall_s
    arm.home()
    assert np.abs(where(driver)).max() < 2e-3 and not judged(driver, arm.config)


@pytest.mark.parametrize("stall_s", [0.05, 0.12, 0.3])
def test_an_order_that_reaches_the_driver_too_late_is_not_taken_up(stall_s):
    arm, driver = made()
    on_its_way(arm)
    # The bus stalls for longer than the lead, while the arm is told to turn round.
    driver.arm(Fault("send", "stalls", times=1000, seconds=stall_s))
    sent = go(arm, [-1.0, 0.2, 0.2, 0, 0, 0])
    if stall_s == 0.3:  # longer than any lead
        assert InterventionKind.LATE in kinds(sent) and sent.waypoints == ()
    driver.arm(None)
    sleep(arm, 1.0)
    assert not judged(driver, arm.config)


@pytest.mark.parametrize("how", ["hold", "refusal", "stop"])
def test_nothing_goes_on_before_the_arm_is_at_rest(how):
    arm, driver = made()
    on_its_way(arm)
    if how == "hold":
        arm.hold()
    elif how == "refusal":
        go(arm, np.full(6, np.nan))
    else:
        arm.stop.press("the test")
        sleep(arm, 0.05)
        arm.reset_stop()
    ends = driver.knots[-1]
    sent = go(arm, where(driver) + 0.01)
    assert InterventionKind.NOT_READY in kinds(sent) and sent.waypoints == () and driver.knots[-1] == ends
    sleep(arm, 0.6)
    assert go(arm, where(driver) + 0.01).waypoints
    assert not judged(driver, arm.config)


def test_an_arm_that_was_moved_while_it_rested_goes_on_from_where_it_is():
    """Its power was off for a moment, or somebody leant on it."""
    arm, driver = made()
    arm.home()
    sleep(arm, 0.1)
    driver.hold()
    driver.knots[-1] = (driver.clock.now(), 0.2, *driver.knots[-1][2:])  # the driver holds it there
    assert go(arm, [0.25, 0.05, 0.05, 0, 0, 0]).waypoints
    sleep(arm, 0.8)
    assert not judged(driver, arm.config)


def test_a_clock_that_is_set_back_is_no_place_on_a_path():
    arm, driver = made()
    on_its_way(arm)
    sleep(arm, 0.02)
    driver.clock._now -= 0.3  # the knots of what was sent lie further ahead now
    driver.knots = [(t - 0.3, *row) for t, *row in driver.knots]
    sent = go(arm, where(driver) + 0.01)
    assert sent.waypoints == () and InterventionKind.NOT_READY in kinds(sent)
    assert driver.calls[-1] == "hold"


def test_an_arm_that_cannot_be_damped_is_asked_again_until_it_is():
    arm, driver = made()
    away(arm)
    driver.arm(Fault("damp", "raises", times=5))
    with pytest.raises(DriverError, match="cannot be damped"):
        arm.damp()
    assert arm.mode is Mode.DAMPED and not driver.damped
    assert reasons(arm).count(InterventionKind.DRIVER) == 1
    sleep(arm, 0.2)
    assert driver.damped


def test_a_damped_arm_becomes_stiff_where_it_is_or_not_at_all():
    arm, driver = made()
    driver.arm(Fault("hold", "raises"))
    with pytest.raises(DriverError, match="hold is refused"):
        arm.home()
    assert not driver.orders and InterventionKind.DRIVER in reasons(arm)
    arm.home()
    assert driver.orders and not judged(driver, arm.config)


def test_on_the_way_out_one_failed_order_is_no_reason_to_sink_and_an_obstacle_is():
    arm, driver = made()
    away(arm)
    driver.arm(Fault("send", "raises"))
    arm.close()
    assert driver.damped and np.abs(driver.knots[-1][1:7]).max() < 2e-3
    assert not judged(driver, arm.config)
    arm, driver = made()
    away(arm)
    driver.wall_at, driver.free_at = driver.clock.now() + 0.4, np.inf
    arm.close()
    assert driver.damped and np.abs(driver.knots[-1][1:7]).max() > 0.5
    assert InterventionKind.OVER_CURRENT in reasons(arm) and not judged(driver, arm.config)


def test_a_driver_that_raises_anything_is_a_driver_error():
    arm, driver = made()
    arm.home()
    driver.arm(Fault("send", "raises_os"))
    with pytest.raises(DriverError, match="OSError: the bus is gone"):
        go(arm, NEAR)
    assert arm.mode is Mode.HOLDING


@pytest.mark.parametrize("kind", ["nan", "old", "garbage"])
def test_a_measurement_that_is_none_is_nowhere_to_begin(kind):
    arm, driver = made()
    arm.home()
    driver.arm(Fault("state", kind, times=1000))
    orders = len(driver.orders)
    assert set(kinds(go(arm, NEAR))) & {InterventionKind.STALE_STATE, InterventionKind.DRIVER}
    with pytest.raises(DriverError):
        arm.home()
    assert len(driver.orders) == orders


def test_a_damped_arm_that_sank_beyond_a_limit_comes_home_at_the_limits_speed():
    arm, driver = made(box_min=(0.245, -0.35, 0.0), joint_margin=0.03)
    # Home is outside of this box by 5 mm, and so was the arm: no further out, and a millimetre more is no reason to stay.
    driver.knots[0] = (driver.clock.now(), 0.12, 0.0, 0.0, 0.0, 0.0, 0.0, 0.05)
    arm.home()
    assert np.abs(where(driver)).max() < 2e-3
    found = {name for name, *_ in judged(driver, arm.config)}
    assert found <= {"box_min"}
