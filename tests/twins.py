"""Twins of the arm on simulated time."""

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import Waypoint
from uva_agents.envs.arx_x5.drivers.factory import make_driver
from uva_agents.envs.arx_x5.twin.realism import IDEAL
from uva_agents.utils.clocks import SimulatedClock

RAISED = np.array([0.2, 1.3, 1.2, -0.5, 0.1, 0.2])


def simulated(realism=IDEAL, model="X5", joints=RAISED, gripper=0.04):
    driver = make_driver("sim", clock=SimulatedClock(), realism=realism, model=model)
    driver.connect()
    if joints is not None:
        driver.place_arm(joints, gripper_pos=gripper)
        driver.settle()
    return driver


def wait(driver, seconds):
    driver.clock.sleep_until(driver.clock.now() + seconds)


def go(driver, joints, seconds, gripper=0.04):
    driver.send([Waypoint(driver.clock.now() + seconds, joints, gripper)])
    wait(driver, seconds)
