"""What there is to do on the twin: when it is done, and that it can be done."""

import importlib.util

import numpy as np
import pytest

if importlib.util.find_spec("mujoco") is None:
    pytest.skip("the twin of the arm needs MuJoCo: pip install 'uva-agents[arx]'", allow_module_level=True)

from uva_agents.envs.arx_x5.arm.interface import Waypoint
from uva_agents.envs.arx_x5.drivers.factory import make_driver
from uva_agents.envs.arx_x5.tasks.demonstrator import Demonstrator
from uva_agents.envs.arx_x5.tasks.tasks import TASKS, make_task
from uva_agents.envs.arx_x5.twin.model import CUP_HEIGHT, SAUCER_HEIGHT
from uva_agents.envs.arx_x5.twin.realism import IDEAL, REALISTIC
from uva_agents.utils.clocks import SimulatedClock

DT = 0.05


def made(name, model="X5", realism=IDEAL):
    driver = make_driver("sim", model=model, clock=SimulatedClock(), realism=realism)
    driver.connect()
    return driver, make_task(name, driver)


def demonstrated(driver, task, seed):
    """Is the task done when its demonstrator is?"""
    task.reset(np.random.default_rng(seed))
    demonstrator = Demonstrator(task, rate_hz=1 / DT)
    while not demonstrator.done:
        target, now = demonstrator.act(), driver.clock.now()
        driver.send([Waypoint(now + DT, target.joint_pos, target.gripper_pos)])
        driver.clock.sleep_until(now + DT)
    driver.clock.sleep_until(driver.clock.now() + 0.3)
    return task.is_success()


def everything(driver):
    plant = driver.twin.plant
    return [
        *driver.state().joint_pos,
        *plant.target(),
        *(x for o in ("cup", "saucer", "block") for x in plant.position(o)),
    ]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("model", ["X5", "X5_umi"])
def test_reset_repeats_with_its_seed_takes_no_time_and_is_no_success(name, model):
    driver, task = made(name, model)
    starts = []
    for seed in (0, 1, 0):
        task.reset(np.random.default_rng(seed))
        assert driver.stiff and driver.clock.now() == 0.0 and not task.is_success()
        assert driver.state().eef_pose[2] > 0.15
        starts.append(everything(driver))
    assert starts[0] == starts[2] != starts[1]
    driver.clock.sleep_until(0.5)
    # Nothing falls, nothing was placed inside anything else.
    np.testing.assert_allclose(everything(driver), starts[2], atol=0.004)
    assert task.description
    driver.shut_down()


def test_reach_needs_the_tool_at_the_target_and_at_rest():
    driver, task = made("reach")
    task.reset(np.random.default_rng(0))
    plant = driver.twin.plant
    tool = driver.state().eef_pose[:3]
    plant.show_target(tool + np.array([0, 0, 0.01]))
    assert task.is_success()
    plant.show_target(tool + np.array([0, 0, 0.02]))
    assert not task.is_success()
    plant.show_target(tool)
    plant.data.qvel[0] = 0.5
    assert not task.is_success()
    driver.shut_down()


def test_cup_must_stand_on_the_saucer_near_its_middle():
    driver, task = made("cup")
    task.reset(np.random.default_rng(0))
    plant = driver.twin.plant
    saucer = plant.position("saucer")
    on_top = saucer + np.array([0, 0, (CUP_HEIGHT + SAUCER_HEIGHT) / 2])
    for offset, done in (([0.01, 0, 0], True), ([0.035, 0, 0], False), ([0, 0, 0.05], False)):
        plant.place("cup", on_top + offset)
        driver.settle()
        if done:
            driver.clock.sleep_until(driver.clock.now() + 0.2)
        assert task.is_success() == done, offset
    driver.shut_down()


def test_cup_in_the_gripper_is_not_yet_put_down():
    driver, task = made("cup")
    task.reset(np.random.default_rng(0))
    plant = driver.twin.plant
    saucer = plant.position("saucer")
    plant.place("cup", saucer + np.array([0, 0, (CUP_HEIGHT + SAUCER_HEIGHT) / 2]))
    angle = np.arctan2(saucer[1], saucer[0])
    joints = driver.kinematics.inverse(np.array([*saucer[:2], 0.05, 0, 1.05, angle]), driver.state().joint_pos)
    driver.place_arm(joints, gripper_pos=0.062)
    driver.settle()
    now = driver.clock.now()
    driver.send([Waypoint(now + 0.3, joints, 0.05)])
    driver.clock.sleep_until(now + 0.6)
    assert plant.touching("cup", "left_finger") and not task.is_success()
    driver.send([Waypoint(now + 0.9, joints, 0.085)])
    driver.clock.sleep_until(now + 1.5)
    assert task.is_success()
    driver.shut_down()


@pytest.mark.parametrize(("model", "realism"), [("X5", IDEAL), ("X5_umi", REALISTIC)])
def test_demonstrator_reaches(model, realism):
    driver, task = made("reach", model, realism)
    assert [demonstrated(driver, task, seed) for seed in range(3)] == [True] * 3
    driver.shut_down()


@pytest.mark.slow
def test_demonstrator_puts_the_cup_on_the_saucer():
    driver, task = made("cup")
    assert demonstrated(driver, task, 0)
    driver.shut_down()


@pytest.mark.long
@pytest.mark.parametrize(("model", "realism"), [("X5", IDEAL), ("X5", REALISTIC), ("X5_umi", IDEAL)])
def test_demonstrator_nearly_always_succeeds(model, realism):
    driver, task = made("cup", model, realism)
    assert sum(demonstrated(driver, task, seed) for seed in range(20)) >= 19
    driver.shut_down()


def test_unknown_tasks_are_named():
    driver, _ = made("cup")
    with pytest.raises(ValueError, match="did you mean 'cup'"):
        make_task("cups", driver)
    driver.shut_down()
