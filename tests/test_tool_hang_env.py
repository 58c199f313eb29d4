"""``uva/ToolHang-v0``: control, determinism, saved states. Pictures are small and few: each takes a tenth of a second."""

import dataclasses
import importlib.util
import json
import pickle
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest

# Not importorskip: importing robosuite is the environment's business.
if importlib.util.find_spec("robosuite") is None:
    pytest.skip("uva/ToolHang-v0 needs robosuite: pip install 'uva-agents[toolhang]'", allow_module_level=True)

from gymnasium.utils.env_checker import check_env
from scipy.spatial.transform import Rotation

import uva_agents  # noqa: F401  (registers the environments)
from uva_agents.benchmarks import PROTOCOLS, get_protocol, protocol_for
from uva_agents.cli import main
from uva_agents.data.libero import absolute_actions, relative_actions, site_rotation
from uva_agents.envs.tool_hang import ToolHangEnv
from uva_agents.utils.rotations import matrix_from_quaternion

SEED = 100_000


@pytest.fixture(scope="module")
def absolute():
    env = ToolHangEnv(render_observations=False)
    yield env
    env.close()


@pytest.fixture(scope="module")
def delta():
    env = ToolHangEnv(render_observations=False, action_mode="delta")
    yield env
    env.close()


@pytest.fixture(scope="module")
def drawing():
    env = ToolHangEnv(image_size=48, render_size=64, quality="fast")
    yield env
    env.close()


def smooth_changes(n, seed=0):
    """(n, 7) robosuite's own actions: sums of slow sines, gripper open and closed."""
    rng = np.random.default_rng(seed)
    t = np.arange(n)[:, None] / 20
    waves = [rng.uniform(0.1, 0.6, 6) * np.sin(t * rng.uniform(1, 5, 6) + rng.uniform(0, 6.28, 6)) for _ in range(2)]
    return np.concatenate([sum(waves), np.where(t % 1.5 < 0.75, -1.0, 1.0)], axis=1).astype(np.float32)


def degrees_between(a, b):
    return np.degrees(np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1)))


def digest(env, actions):
    observation, _ = env.reset(seed=SEED)
    rows = [observation["agent_pos"]]
    for action in actions:
        observation, *_ = env.step(action)
        rows.append(observation["agent_pos"])
    return np.stack(rows), env.get_state()


# -- control --------------------------------------------------------------------------------------------------------


def test_asking_for_the_present_pose_holds_the_arm_still(absolute):
    _, start = absolute.reset(seed=SEED)
    hold = absolute.hold_action()
    for _ in range(10):
        _, _, _, _, info = absolute.step(hold)
    assert np.linalg.norm(info["grip_position"] - start["grip_position"]) < 1e-5
    assert degrees_between(info["grip_rotation"], start["grip_rotation"]) < 1e-3


def test_an_absolute_action_moves_the_grip_site_to_that_pose(absolute):
    _, start = absolute.reset(seed=SEED)
    goal = start["grip_position"] + [0.05, -0.08, 0.06]
    turned = Rotation.from_rotvec([0.1, 0.2, 0.3]).as_matrix() @ start["grip_rotation"]
    action = np.concatenate([goal, turned[:2].ravel(), [1.0]]).astype(np.float32)
    far = np.linalg.norm(goal - start["grip_position"])
    assert far > 0.1
    for _ in range(40):
        observation, _, _, _, info = absolute.step(action)
    assert np.linalg.norm(info["grip_position"] - goal) < 1e-3
    assert degrees_between(info["grip_rotation"], turned) < 0.2
    assert observation["agent_pos"][7:] == pytest.approx([0, 0], abs=2e-3), "the gripper has closed"


def test_a_change_moves_along_the_axes_of_the_world(delta):
    _, start = delta.reset(seed=SEED)
    for _ in range(10):
        _, _, _, _, info = delta.step([0.2, 0, 0, 0, 0, 0, -1])
    moved = info["grip_position"] - start["grip_position"]
    assert 0.01 < moved[0] < 0.1 and np.abs(moved[1:]).max() < 5e-3


def test_recorded_changes_replayed_as_absolute_actions_follow_the_same_path(absolute, delta):
    changes = smooth_changes(60)
    _, info = delta.reset(seed=SEED)
    positions, rotations = [info["grip_position"]], [info["grip_rotation"]]
    for change in changes:
        _, _, _, _, info = delta.step(change)
        positions.append(info["grip_position"])
        rotations.append(info["grip_rotation"])
    goals = absolute_actions(changes, np.array(positions[:-1]), np.array(rotations[:-1]))
    absolute.reset(seed=SEED)
    travelled = np.linalg.norm(np.diff(positions, axis=0), axis=1).sum()
    assert travelled > 0.3, "an arm that stands still would agree with anything"
    for goal, position, rotation in zip(goals, positions[1:], rotations[1:], strict=True):
        _, _, _, _, info = absolute.step(goal)
        assert np.linalg.norm(info["grip_position"] - position) < 1e-4
        assert degrees_between(info["grip_rotation"], rotation) < 0.02
    back = relative_actions(goals, np.array(positions[:-1]), np.array(rotations[:-1]))
    np.testing.assert_allclose(back, changes, atol=1e-4)


def test_proprioception_is_the_pose_that_the_conversion_expects(absolute):
    observation, info = absolute.reset(seed=SEED)
    position, quaternion = observation["agent_pos"][:3], observation["agent_pos"][3:7]
    np.testing.assert_allclose(position, info["grip_position"], atol=1e-6)
    np.testing.assert_allclose(site_rotation(matrix_from_quaternion(quaternion)), info["grip_rotation"], atol=1e-5)


def test_a_hundred_random_steps(absolute, delta):
    for env, n in ((absolute, 100), (delta, 40)):
        env.action_space.seed(0)
        env.reset(seed=1)
        for _ in range(n):
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            assert env.observation_space.contains(observation)
            assert (reward, terminated, truncated, info["is_success"]) == (0.0, False, False, False)


def test_a_rotation_vector_asks_for_the_same_as_its_matrix(absolute):
    vector = ToolHangEnv(render_observations=False, action_mode="absolute_vector")
    for env in (absolute, vector):
        env.reset(seed=SEED)
        hold = env.hold_action()
        hold[:3] += [0.02, 0.01, 0.03]
        env.step(hold)
    # The numbers of the actions are rounded to float32, each in its own way.
    np.testing.assert_allclose(absolute.get_obs()["agent_pos"], vector.get_obs()["agent_pos"], atol=1e-5)
    assert vector.action_space.shape == (7,)
    vector.close()


# -- protocol -------------------------------------------------------------------------------------------------------


class Holding:
    """Stays where the first observation shows it; says what it acts in, as released weights do: without bounds."""

    def __init__(self, numbers):
        self.action_space = gym.spaces.Box(-np.inf, np.inf, (numbers,), np.float32)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        rows = np.asarray(observation["agent_pos"])
        turned = site_rotation(matrix_from_quaternion(rows[:, 3:7]))
        return np.concatenate(
            [rows[:, :3], turned[:, :2].reshape(len(rows), 6), -np.ones((len(rows), 1))], axis=1
        ), state


def holding():
    return Holding(10)


def wrong():
    return Holding(2)


def test_uva_eval_runs_the_protocol_and_refuses_who_acts_otherwise(tmp_path, monkeypatch, capsys):
    rules = get_protocol("toolhang")
    assert (rules.env_id, rules.max_steps, rules.first_seed, rules.executes) == ("uva/ToolHang-v0", 700, 100_000, 8)
    assert protocol_for("uva/ToolHang-v0") is rules
    monkeypatch.setitem(PROTOCOLS, "toolhang", dataclasses.replace(rules, max_steps=3))
    path = tmp_path / "report.json"
    argv = ["--protocol", "toolhang", "--episodes", "2", "--quiet", "--env-arg", "render_observations=False"]
    assert main(["eval", "tests.test_tool_hang_env:holding", *argv, "--json", str(path)]) == 0
    saved = json.loads(path.read_text())
    assert (saved["protocol"], saved["n"], saved["success_rate"]) == ("toolhang", 2, 0.0)
    assert "robosuite" in saved["versions"] and "mujoco" in saved["versions"]
    assert main(["eval", "tests.test_tool_hang_env:wrong", *argv]) != 0
    message = capsys.readouterr().err
    assert "it was made for another environment" in message and "--env-arg" in message


def test_released_weights_act_in_it_as_they_are(tmp_path, monkeypatch, capsys):
    pytest.importorskip("dill")
    pytest.importorskip("omegaconf")
    from tests import released

    state, _, _ = released.state_of("toolhang")
    path = released.write(tmp_path / "toolhang.ckpt", "toolhang", state)
    monkeypatch.setitem(PROTOCOLS, "toolhang", dataclasses.replace(get_protocol("toolhang"), max_steps=2))
    argv = [
        "eval",
        str(path),
        "--protocol",
        "toolhang",
        "--episodes",
        "1",
        "--steps",
        "2",
        "--device",
        "cpu",
        "--quiet",
    ]
    assert main([*argv, "--env-arg", "action_mode=absolute_vector", "--env-arg", "quality=fast"]) == 0
    assert "1 episodes from seed 100000" in capsys.readouterr().out


# -- determinism ----------------------------------------------------------------------------------------------------

_OTHER = """
import pickle, sys
from tests.test_tool_hang_env import SEED, ToolHangEnv, digest, smooth_changes
env = ToolHangEnv(render_observations=False, action_mode="delta")
sys.stdout.buffer.write(pickle.dumps(digest(env, smooth_changes(10, seed=3))))
env.close()
"""


def test_a_seed_gives_the_same_episode_in_another_process_and_after_other_episodes(delta):
    delta.reset(seed=7)
    for action in smooth_changes(10, seed=8):
        delta.step(action)
    rows, state = digest(delta, smooth_changes(10, seed=3))
    done = subprocess.run([sys.executable, "-c", _OTHER], capture_output=True, timeout=600)
    assert done.returncode == 0 and done.stderr == b"", done.stderr.decode()
    other_rows, other_state = pickle.loads(done.stdout)
    assert np.array_equal(rows, other_rows) and state == other_state


def test_seeds_draw_as_the_simulator_of_the_published_results_did(absolute):
    """Joint noise by randn, then x, y and angle of stand, frame and wrench by uniform, from one legacy generator."""
    absolute.reset(seed=SEED)
    draws = np.random.RandomState(SEED)
    draws.randn(7)
    wanted = {}
    for name, x, y, tolerance in (
        ("stand", -0.08, 0.0, 0.0),
        ("frame", -0.04, -0.24, 0.02),
        ("tool", 0.04, -0.2, 0.02),
    ):
        wanted[name] = [
            draws.uniform(low=x - tolerance, high=x + tolerance),
            draws.uniform(low=y - tolerance, high=y + tolerance),
        ]
        draws.uniform()
    data = absolute._scene._data
    for name, place in wanted.items():
        np.testing.assert_allclose(data.joint(f"{name}_joint0").qpos[:2], place, atol=1e-9)


def test_different_seeds_and_unseeded_resets_differ(absolute):
    starts = [absolute.reset(seed=s)[0]["agent_pos"] for s in (1, 2, None, None)]
    assert len({row.tobytes() for row in starts}) == 4
    absolute.reset(seed=2)
    assert np.array_equal(absolute.reset()[0]["agent_pos"], starts[2]), "what follows a seed follows it again"


def test_a_restored_state_has_the_same_future_bit_for_bit(absolute, delta):
    actions = smooth_changes(12, seed=5)
    delta.reset(seed=3)
    for action in actions[:6]:
        delta.step(action)
    state = pickle.loads(pickle.dumps(delta.get_state()))
    seen = delta.get_obs()["agent_pos"]
    future = []
    for action in actions[6:]:
        observation, *_ = delta.step(action)
        future.append(observation["agent_pos"])
    end = delta.get_state()
    delta.reset(seed=4)
    beginning = delta.get_state()
    delta.advance(actions[0])
    second = delta.get_state()
    delta.set_state(beginning)
    delta.advance(actions[0])
    assert delta.get_state() == second
    delta.set_state(state)
    assert np.array_equal(delta.get_obs()["agent_pos"], seen)
    for action, expected in zip(actions[6:], future, strict=True):
        observation, *_ = delta.step(action)
        assert np.array_equal(observation["agent_pos"], expected)
    assert delta.get_state() == end
    new_env = ToolHangEnv(render_observations=False, action_mode="delta")
    new_env.set_state(state)
    for action in actions[6:]:
        new_env.advance(action)
    assert new_env.get_state() == end
    new_env.close()
    absolute.set_state(state)
    assert np.array_equal(absolute.get_obs()["agent_pos"], seen), "the kind of action does not matter"


# -- success --------------------------------------------------------------------------------------------------------


def test_success_is_a_frame_in_the_stand_with_the_wrench_on_it(absolute):
    """Put there by hand: a scripted arm that does it is another matter."""
    _, info = absolute.reset(seed=SEED)
    assert (info["is_success"], info["frame_assembled"], info["tool_on_frame"]) == (False, False, False)
    scene = absolute._scene
    data = scene._data
    # The frame upright with its tip in the cavity of the stand's post.
    frame = data.joint("frame_joint0")
    tip, base = data.site("frame_tip_site"), data.geom("stand_base")
    mount, corner = data.site("frame_mount_site"), data.site("frame_intersection_site")
    post = np.mean([data.geom(f"stand_wall{i}").xpos for i in range(4)], axis=0)
    up = corner.xpos - mount.xpos
    up /= np.linalg.norm(up)
    axis = np.cross(up, [0, 0, 1])
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.arccos(up[2]))
    before = Rotation.from_quat(np.roll(frame.qpos[3:], -1))
    frame.qpos[3:] = np.roll((turn * before).as_quat(), 1)
    scene._refresh()
    frame.qpos[:3] += [*(post[:2] - tip.xpos[:2]), base.xpos[2] + 0.012 - tip.xpos[2]]
    scene._refresh()
    assert scene.stages() == (True, False)
    # The wrench with its larger hole around the middle of the hook, resting on it.
    tool, hang = data.joint("tool_joint0"), data.site("frame_hang_site")
    hook = corner.xpos - hang.xpos
    hook /= np.linalg.norm(hook)
    hole = data.geom("tool_hole1_hc_0").xpos - data.site("tool_hole1_center").xpos
    other = data.geom("tool_hole1_hc_2").xpos - data.site("tool_hole1_center").xpos
    normal = np.cross(hole, other)
    normal /= np.linalg.norm(normal)
    rotation, _ = Rotation.align_vectors([hook, [0, 0, -1]], [normal, _along(data)])
    tool.qpos[3:] = np.roll((rotation * Rotation.from_quat(np.roll(tool.qpos[3:], -1))).as_quat(), 1)
    scene._refresh()
    middle = (corner.xpos + hang.xpos) / 2
    for drop in np.linspace(0, 0.008, 33):
        tool.qpos[:3] += middle - [0, 0, drop] - data.site("tool_hole1_center").xpos
        scene._refresh()
        if scene.stages() == (True, True):
            break
    assert scene.stages() == (True, True)
    _, reward, terminated, truncated, info = absolute.step(absolute.hold_action())
    assert (reward, terminated, truncated, info["is_success"]) == (1.0, True, False, True)


def _along(data):
    """Direction from the larger hole of the wrench to its other end."""
    along = data.body("tool_root").xpos - data.site("tool_hole1_center").xpos
    return along / np.linalg.norm(along)


# -- pictures and the interface -------------------------------------------------------------------------------------


def test_pictures_are_upright_and_of_two_cameras(drawing):
    observation, _ = drawing.reset(seed=SEED)
    side, wrist = observation["pixels"].astype(float), observation["pixels_wrist"].astype(float)
    assert side.shape == wrist.shape == (48, 48, 3)
    assert np.abs(side - wrist).mean() > 20
    # The white table is at the bottom of the side view, the gripper's dark palm at the bottom of the wrist view.
    assert side[-8:].mean() > side[:8].mean() + 40
    assert wrist[-6:].mean() < 90 < wrist[:6].mean()
    assert drawing.render().shape == (64, 64, 3)


def test_looking_changes_nothing(drawing, absolute):
    drawing.reset(seed=SEED)
    absolute.reset(seed=SEED)
    hold = absolute.hold_action()
    hold[2] += 0.03
    for _ in range(2):
        drawing.step(hold)
        absolute.step(hold)
    assert drawing.get_state() == absolute.get_state()


def test_the_checkers_of_gymnasium_and_stable_baselines3_are_content():
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    env = gym.make("uva/ToolHang-v0", image_size=40, quality="fast", render_size=48)
    assert env.spec.max_episode_steps == 700
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env.unwrapped)
        sb3.check_env(env.unwrapped)
    # Actions are metres on purpose; everything else the checkers could say would be news.
    assert [str(w.message) for w in caught if "symmetric and normalized" not in str(w.message)] == []
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="close"):
        env.unwrapped.render()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(10), "two rows are zero or parallel"),
        (np.zeros(7), "action_mode='absolute_vector' or 'delta'"),
        (np.zeros((16, 10)), "one step at a time"),
        (np.full(10, np.nan), "NaN"),
    ],
)
def test_a_wrong_action_is_named(absolute, action, message):
    absolute.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        absolute.step(action)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"action_mode": "relative"}, "'absolute', 'absolute_vector', 'delta'"),
        ({"quality": "ultra"}, "'full' or 'fast'"),
        ({"image_size": 4}, "at least 8"),
        ({"render_mode": "human"}, "rgb_array"),
    ],
)
def test_a_wrong_option_is_named(option, message):
    with pytest.raises(ValueError, match=message):
        ToolHangEnv(**option)


def test_reset_takes_no_options_and_states_of_other_environments_are_refused(absolute):
    with pytest.raises(ValueError, match="has none"):
        absolute.reset(options={"variation": "x"})
    with pytest.raises(ValueError, match="out of range"):
        absolute.reset(seed=2**32)
    with pytest.raises(TypeError, match="ToolHangState"):
        absolute.set_state({})
