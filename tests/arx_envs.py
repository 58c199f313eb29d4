"""``uva/ArxX5-v0`` on an arm that is exactly where its waypoints say."""

import numpy as np

from tests.arx_ideal import IdealDriver, KnowingCamera
from uva_agents.envs.arx_x5.arm.kinematics import X5Kinematics
from uva_agents.envs.arx_x5.env import ArxX5Env

KINEMATICS = X5Kinematics("X5")
READY = np.array([0.0, 1.2, 1.2, -0.2, 0.0, 0.0])
"""Joints from which the tool can go in every direction."""


def made(driver=None, *, ready=True, camera=None, camera_latency_s=0.0, **options):
    """An environment after its first reset, with the arm at READY, and its driver."""
    driver = driver or IdealDriver(KINEMATICS)
    camera = camera or KnowingCamera(driver.clock, latency_s=camera_latency_s)
    settings = {"home_on_reset": True, "image_size": (48, 64)} | options
    env = ArxX5Env(driver=driver, model="X5", camera=camera, **settings)
    env.reset(seed=0)
    if ready:
        bring(env, READY)
    return env, driver


def bring(env, joints, gripper=0.04):
    """The arm is there, stiff, and its safety layer knows: as if it had been led there, in no time."""
    system = env._system
    system.arm._driver.put(np.append(joints, gripper))
    system.arm._executor.rest_at(joints, gripper)
    system.arm.take_interventions()
    system.restart()
    env._pacer.restart()
    env.get_obs()


def kinds(info):
    return [str(i.kind) for i in info["interventions"]]
