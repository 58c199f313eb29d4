"""``uva/ArxX5-v0``: what stops it, what goes wrong, and what it refuses."""

import dataclasses

import numpy as np
import pytest

from tests.arx_envs import KINEMATICS, kinds, made
from tests.arx_ideal import IdealDriver, KnowingCamera
from uva_agents.envs.arx_x5.arm.interface import DriverError
from uva_agents.envs.arx_x5.system.system import Latencies


def test_a_stop_ends_the_episode_and_has_to_be_released_by_hand():
    env, driver = made()
    goal = env.hold_action()
    goal[1] += 0.05
    env.step(goal)
    env.stop("somebody shouted")
    _, _, terminated, truncated, info = env.step(goal)
    assert truncated and not terminated and info["stopped"] and "stopped" in kinds(info)
    for _ in range(20):
        env.step(goal)
    still = driver.where(driver.clock.now())
    env.step(goal)
    assert driver.where(driver.clock.now()) == pytest.approx(still)
    with pytest.raises(DriverError, match="somebody shouted"):
        env.reset()
    env.reset(options={"release_stop": True, "home": False})
    _, _, _, truncated, info = env.step(env.hold_action())
    assert not truncated and not info["stopped"]


def test_a_camera_that_dies_stops_the_arm():
    driver = IdealDriver(KINEMATICS)
    camera = KnowingCamera(driver.clock)
    env, _ = made(driver, camera=camera)
    goal = env.hold_action()
    goal[1] += 0.05
    env.step(goal)
    camera.dead = "somebody pulled the cable"
    with pytest.raises(DriverError, match="pulled the cable"):
        env.step(goal)
    env._system.sleep_until(driver.clock.now() + 1.0)
    assert "stale_camera" in [str(i.kind) for i in env._system.arm.take_interventions()]


def test_pictures_that_no_longer_change_stop_the_arm():
    driver = IdealDriver(KINEMATICS)
    camera = KnowingCamera(driver.clock)
    env, _ = made(driver, camera=camera)
    frozen = camera.read()
    camera.read = lambda: frozen
    seen = []
    for _ in range(20):
        _, _, _, _, info = env.step(env.hold_action())
        seen += kinds(info)
    assert "stale_camera" in seen


def test_a_camera_that_wakes_up_late_is_waited_for_and_a_missing_one_named():
    driver = IdealDriver(KINEMATICS)
    camera = KnowingCamera(driver.clock)
    camera.warm_s = driver.clock.now() + 3.0
    made(driver, camera=camera, ready=False)
    assert driver.clock.now() >= camera.warm_s
    with pytest.raises(ValueError, match="no camera for pixels_outside"):
        made(IdealDriver(KINEMATICS), outside=True)
    dead = KnowingCamera(driver.clock)
    dead.dead = "no such device"
    with pytest.raises(DriverError, match=r"'pixels' gave no picture within 10 s: no such device"):
        made(driver, camera=dead)


def test_an_arm_that_dies_is_an_error_and_can_still_be_closed():
    env, driver = made()
    action = env.hold_action()
    driver.dead = "the motors no longer answer"
    with pytest.raises(DriverError, match="no longer answer"):
        env.step(action)
    driver.dead = None
    env.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"render_mode": "human"}, "render_mode='human' is not offered"),
        ({"control_hz": 0}, "control_hz=0 must be between 1 and 100"),
        ({"action_mode": "delta"}, "action_mode='delta' is unknown"),
        ({"tool_frame": "ros"}, "tool_frame='ros' is unknown"),
        ({"image_size": 3}, "image_size=3"),
    ],
)
def test_unknown_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


def test_wrong_reset_options_and_seeds_are_named():
    env, _ = made()
    with pytest.raises(ValueError, match="unknown reset option 'variation'"):
        env.reset(options={"variation": []})
    with pytest.raises(ValueError, match="out of range"):
        env.reset(seed=-1)


def test_latencies_must_make_sense():
    with pytest.raises(ValueError, match=r"action_s=40 must be between 0 and 1 s"):
        Latencies(action_s=40)


@pytest.mark.slow
def test_a_policy_with_umis_interface_acts_here():
    """Imported umi weights: relative poses inside, absolute ones with rotation vectors outside, ``agent_pos`` as the link."""
    from tests.tiny import tiny_bundle
    from uva_agents.agents import Policy
    from uva_agents.agents.uva import UVA
    from uva_agents.checkpoints import InterfaceSpec
    from uva_agents.data import LinearNormalizer
    from uva_agents.data.conventions import RelativePoses, RelativeProprio

    bundle = tiny_bundle(action_dim=10, proprio_dim=16, frame_state_dim=0, num_keypoints=0)
    spec = InterfaceSpec(
        (96, 96),
        (-np.inf,) * 7,
        (np.inf,) * 7,
        proprio_key="agent_pos",
        proprio_transforms=(RelativeProprio(),),
        action_transforms=(RelativePoses(),),
        control_hz=20.0,
        action_offset=1,
    )
    limits = {"action": (np.full(10, -1.0), np.ones(10)), "agent_pos": (np.full(16, -1.0), np.ones(16))}
    bundle = dataclasses.replace(bundle, spec=spec, normalizer=LinearNormalizer.from_limits(limits))
    policy = Policy(UVA(bundle), steps=2)
    env, _ = made(action_mode="absolute_vector", image_size=96)
    obs = env.get_obs()
    policy.reset(seed=0)
    assert policy.action_space.shape == env.action_space.shape
    for _ in range(3):
        action = policy.act(obs)
        assert action.shape == (7,) and np.isfinite(action).all()
        obs, *_ = env.step(action)
    assert policy.sample(obs, n=2).shape == (2, 16, 7)
