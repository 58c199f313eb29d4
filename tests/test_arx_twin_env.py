"""``uva/ArxX5-v0`` on the twin: checkers, repeatability, saved states, demonstrations, the twin's own latencies."""

import importlib.util
import json
import logging
import pickle
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest

if importlib.util.find_spec("mujoco") is None:
    pytest.skip("the twin needs MuJoCo: pip install 'uva-agents[arx]'", allow_module_level=True)

from gymnasium.utils.env_checker import check_env

from tests.conftest import REPOSITORY
from uva_agents.bridges.lerobot_robot import ArxX5Robot, ArxX5RobotConfig
from uva_agents.envs.arx_x5.arm.interface import DriverError
from uva_agents.envs.arx_x5.drivers.factory import make_driver
from uva_agents.envs.arx_x5.env import ArxX5Env
from uva_agents.envs.arx_x5.safety import SafetyConfig
from uva_agents.envs.arx_x5.system.system import Latencies
from uva_agents.envs.arx_x5.twin.realism import REALISTIC, TwinRealism
from uva_agents.errors import InputError

SIZE = 48
MODES = ["absolute", "absolute_vector", "relative", "joints"]


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR)


@pytest.fixture(scope="module")
def env():
    found = ArxX5Env(image_size=SIZE)
    yield found
    found.close()


@pytest.fixture(scope="module")
def blind():
    found = ArxX5Env(render_observations=False, task="reach")
    yield found
    found.close()


def sway(env, n, seed=0):
    """What ``n`` steps with small random moves show."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(n):
        action = env.hold_action()
        action[:3] += rng.uniform(-0.02, 0.02, 3).astype(np.float32)
        action[-1] = rng.uniform(0, 0.088)
        obs, reward, _, _, info = env.step(action)
        kinds = tuple(str(i.kind) for i in info["interventions"])
        rows.append((obs["agent_pos"].tobytes(), obs["pixels"].tobytes(), info["observed_s"], reward, kinds))
    return rows


# -- the contract ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_gymnasiums_checker_passes(mode):
    made = gym.make("uva/ArxX5-v0", image_size=SIZE, action_mode=mode)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(made.unwrapped, skip_render_check=True)
    made.close()
    # Metres and radians stay metres and radians.
    assert all("symmetric and normalized" in str(w.message) for w in caught), [str(w.message) for w in caught]


@pytest.mark.slow
def test_stable_baselines3s_checker_passes():
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    made = ArxX5Env(image_size=SIZE, outside=True, joint_state=True, timestamp=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checker.check_env(made)
    made.close()
    assert all("symmetric and normalized" in str(w.message) for w in caught), [str(w.message) for w in caught]


def test_it_is_registered_with_a_step_limit_and_says_what_to_do():
    spec = gym.spec("uva/ArxX5-v0")
    assert spec.max_episode_steps == ArxX5Env._max_episode_steps
    assert gym.envs.registration.load_env_creator(spec.entry_point) is ArxX5Env


def test_an_episode_begins_with_pictures_a_pose_and_nothing_solved(env):
    obs, info = env.reset(seed=0)
    assert env.observation_space.contains(obs) and set(obs) == {"pixels", "agent_pos"}
    assert obs["pixels"].shape == (SIZE, SIZE, 3) and np.std(obs["pixels"]) > 20
    assert info["is_success"] is False and info["interventions"] == () and not info["stopped"]
    assert (env.task, env.task_description) == ("cup", "put the blue cup on the white saucer")
    assert env.metadata["render_fps"] == 20 and env.render().shape == (480, 480, 3)


def test_the_wrist_camera_moves_with_the_arm(env):
    obs, _ = env.reset(seed=0)
    first, start = obs["pixels"].astype(int), obs["agent_pos"]
    action = env.hold_action()
    action[1] += 0.05
    for _ in range(12):
        obs, *_ = env.step(action)
    assert obs["agent_pos"][1] - start[1] == pytest.approx(0.05, abs=0.01)
    assert np.abs(obs["pixels"] - first).mean() > 5


@pytest.mark.parametrize("mode", MODES)
def test_random_actions_do_no_harm_and_stay_in_the_spaces(mode):
    made = ArxX5Env(render_observations=False, action_mode=mode, joint_state=True, timestamp=True)
    made.action_space.seed(1)
    made.reset(seed=1)
    box = made._system.arm.config
    for _ in range(12):
        obs, *_ = made.step(made.action_space.sample())
        assert made.observation_space.contains(obs)
        assert (obs["agent_pos"][:3] > np.array(box.box_min) - 0.02).all()
        assert (obs["agent_pos"][:3] < np.array(box.box_max) + 0.02).all()
    made.close()


# -- the same again -------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_episode_whatever_was_before(env):
    env.reset(seed=3)
    first = sway(env, 4)
    env.reset(seed=4)
    other = sway(env, 3)
    env.reset(seed=3)
    assert sway(env, 4) == first
    assert first[:3] != other


@pytest.mark.parametrize("realism", [TwinRealism(), REALISTIC], ids=["ideal", "realistic"])
def test_a_restored_state_goes_on_bit_for_bit_in_another_environment_too(realism):
    one, two = (ArxX5Env(image_size=SIZE, realism=realism) for _ in range(2))
    one.reset(seed=1)
    sway(one, 3)
    saved = pickle.dumps(one.get_state())
    assert len(saved) < 200_000
    wanted = sway(one, 5, seed=7)
    one.set_state(pickle.loads(saved))
    assert sway(one, 5, seed=7) == wanted
    two.set_state(pickle.loads(saved))  # never reset
    assert sway(two, 5, seed=7) == wanted
    with pytest.raises(TypeError, match="not dict"):
        one.set_state({})
    one.close()
    two.close()


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"control_hz": 5}, "control_hz=20.0 there and 5.0 here"),
        (
            {"safety": SafetyConfig(speed=0.02, joint_speed=0.1)},
            "safety.joint_speed=1.5 there and 0.1 here; safety.speed=",
        ),
        ({"safety": SafetyConfig(box_max=(0.5, 0.35, 0.5))}, "safety.box_max="),
    ],
)
def test_a_state_of_other_limits_is_refused_with_what_differs(other, differs):
    one, two = ArxX5Env(render_observations=False), ArxX5Env(render_observations=False, **other)
    one.reset(seed=1)
    two.reset(seed=2)
    before = pickle.dumps(two.get_state())
    with pytest.raises(InputError, match=differs):
        two.set_state(one.get_state())
    assert pickle.dumps(two.get_state()) == before
    one.close()
    two.close()


def test_states_are_the_simulated_clocks_only():
    made = ArxX5Env(render_observations=False, realtime=True)
    with pytest.raises(RuntimeError, match="before reset"):
        made.get_state()
    made.reset(seed=0)
    with pytest.raises(RuntimeError, match="real time does not go back"):
        made.get_state()
    made.close()


# -- tasks ----------------------------------------------------------------------------------------------------------


def demonstrated(env, seed, most=400):
    env.reset(seed=seed)
    done, steps = False, 0
    for action in env.demonstration():
        _, reward, done, _, info = env.step(action)
        steps += 1
        assert done == info["is_success"] == bool(reward)
        if done or steps == most:
            break
    return done, steps


def test_the_demonstrator_reaches_the_marker_through_the_safety_layer(blind):
    assert all(done for done, _ in (demonstrated(blind, seed) for seed in range(5)))


@pytest.mark.slow
def test_the_demonstrator_puts_the_cup_on_the_saucer_through_the_safety_layer():
    made = ArxX5Env(render_observations=False, task="cup")
    found = [demonstrated(made, seed) for seed in range(3)]
    made.close()
    assert sum(done for done, _ in found) >= 2, found


def test_pictures_can_be_had_where_observations_have_none(blind):
    obs, _ = blind.reset(seed=0)
    assert set(obs) == {"agent_pos"}
    assert blind.observe()["pixels"].shape == (224, 224, 3) and set(blind.get_obs()) == {"agent_pos"}


def test_holding_neither_creeps_with_noise_nor_lets_go_of_what_is_gripped():
    made = ArxX5Env(render_observations=False, action_mode="joints", realism=TwinRealism(joint_pos_noise=0.002))
    made.reset(seed=0)
    action = made.hold_action()
    action[-1] = 0.03
    for _ in range(30):
        made.step(action)
    held = [made.hold_action() for _ in range(5) if made.step(made.hold_action())]
    assert np.ptp(held, axis=0).max() < 1e-5 and held[0] == pytest.approx(action, abs=1e-4)
    assert np.ptp([made.get_obs()["agent_pos"] for _ in range(3) if made.tick()], axis=0).max() > 0, (
        "measurements do differ"
    )
    made.close()


def test_standing_still_solves_nothing(blind):
    blind.reset(seed=0)
    for _ in range(20):
        _, reward, terminated, truncated, _ = blind.step(blind.hold_action())
    assert not (reward or terminated or truncated)


# -- times ----------------------------------------------------------------------------------------------------------


def lag(env, *, hz=0.5, amplitude=0.1, seconds=3.0):
    """Seconds by which the first joint follows a slow sine later than it was told: the calibration of ``docs/arx_x5.md``."""
    env.reset(seed=0)
    dt = 1 / env.control_hz
    start = env.clock.now() + 0.5
    hold = env.hold_action().astype(float)

    def wanted(t):
        return hold[0] + amplitude * (1 - np.cos(2 * np.pi * hz * np.maximum(t - start, 0))) / 2

    while env.clock.now() < start + seconds:
        times = env._pacer.due_s + 0.1 + dt * np.arange(6)
        chunk = np.repeat(hold[None], 6, axis=0)
        chunk[:, 0] = wanted(times)
        env.schedule(chunk, float(times[0]), dt)
        env.tick()
    states = [s for s in env._system.history.states if s.time_s > start + 1]
    times = np.array([s.time_s for s in states])
    found = np.array([s.joint_pos[0] for s in states])
    shifts = np.arange(-0.05, 0.25, 0.001)
    return float(shifts[np.argmin([np.square(found - wanted(times - s)).sum() for s in shifts])])


def test_the_twins_latency_is_measured_and_compensated_as_the_page_says():
    delay = 0.06

    def measured(action_s):
        made = ArxX5Env(
            render_observations=False,
            action_mode="joints",
            realism=TwinRealism(action_latency_s=delay),
            latencies=Latencies(action_s=action_s),
        )
        found = lag(made)
        made.close()
        return found

    raw = measured(0.0)
    assert delay - 0.005 < raw < delay + 0.06, "the delay, and what the gains add"
    assert abs(measured(raw)) < 0.01


def test_pose_and_picture_are_of_one_moment_with_latency_and_lost_frames():
    realism = TwinRealism(camera_latency_s=0.1, dropped_frames=0.3, observation_latency_s=0.005)
    made = ArxX5Env(image_size=16, realism=realism)
    made.reset(seed=0)
    truth: dict[float, np.ndarray] = {}
    ages = []
    for _ in range(10):
        action = made.hold_action()
        action[1] += 0.03
        obs, _, _, _, info = made.step(action)
        truth |= {s.time_s: s.eef_pose for s in made._system.history.states}
        near = min(truth, key=lambda t: abs(t - info["observed_s"]))
        assert obs["agent_pos"][:3] == pytest.approx(truth[near][:3], abs=3e-3)
        ages.append(info["latency_s"])
    made.close()
    assert min(ages[3:]) > 0.09 and max(ages) > 0.11, "some frames were lost"


@pytest.mark.slow
def test_in_real_time_steps_take_their_time_and_lateness_is_told():
    made = ArxX5Env(render_observations=False, realtime=True, control_hz=10)
    made.reset(seed=0)
    begun = made.clock.now()
    for _ in range(10):
        *_, info = made.step(made.hold_action())
    took, timing = made.clock.now() - begun, info["timing"]
    made.close()
    assert timing.steps + timing.skipped >= 9 and took > 0.9
    assert timing.jitter_max_s >= timing.jitter_p99_s >= timing.jitter_p50_s >= 0


# -- options, the end -----------------------------------------------------------------------------------------------


def test_tasks_and_drivers_are_named_when_unknown():
    with pytest.raises(ValueError, match="task must be one of 'reach', 'cup', not 'cups'; did you mean 'cup'"):
        ArxX5Env(task="cups")
    with pytest.raises(ValueError, match="driver must be one of"):
        ArxX5Env(driver="ur5", model="X5")
    with pytest.raises(ValueError, match="say which model"):
        ArxX5Env(driver="arx5")
    with pytest.raises(ValueError, match="one of the twin's"):
        ArxX5Env(driver=IdleDriver(), model="X5", task="cup")


class IdleDriver:
    """Only its clock is looked at."""

    def __init__(self):
        self.clock = make_driver("sim").clock


@pytest.mark.skipif(importlib.util.find_spec("arx5_interface") is None, reason="needs the SDK: arx5-interface")
def test_without_an_arm_it_fails_at_once_with_the_sdks_reason_and_what_to_check():
    with pytest.raises(DriverError, match=r"(?s)The SDK says: .*can0.*Check, in this order"):
        ArxX5Env(driver="arx5", model="X5", render_observations=False)


def test_a_process_that_forgets_to_close_ends_quietly():
    code = (
        "import logging; logging.disable(50)\nimport gymnasium as gym, uva_agents.envs\n"
        f"env = gym.make({json.dumps('uva/ArxX5-v0')}, image_size=16)\nenv.reset(seed=0)\n"
        "env.step(env.unwrapped.hold_action())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr[-2000:]


def test_the_robot_class_drives_the_twin():
    driver = make_driver("sim", clock=None)
    with ArxX5Robot(ArxX5RobotConfig(driver="sim")) as robot:
        assert set(robot.get_observation()) == set(robot.observation_features)
        sent = robot.send_action({key: robot.get_observation()[key] for key in robot.action_features})
        assert set(sent) == set(robot.action_features) and robot.interventions
    driver.shut_down()
