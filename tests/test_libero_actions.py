"""LIBERO's changes as absolute poses: replayed in the simulator, from memory and from a file in LIBERO's own layout."""

import numpy as np
import pytest

from tests import libero_files
from uva_agents.data import absolute_actions, open_dataset, site_rotation
from uva_agents.utils.rotations import matrix_from_quaternion, matrix_from_vector, vector_from_matrix

pytest.importorskip("libero", reason="replaying needs LIBERO: pip install 'uva-agents[libero]'")

from uva_agents.envs.libero import LiberoEnv

STEPS = 45


def grip(env):
    position, rotation = env._scene.grip()
    return position, rotation


def path_of(env, actions):
    """Positions (n, 3) and rotations (n, 3, 3) of the grip site after each action."""
    found = []
    for action in actions:
        env.advance(action)
        found.append(grip(env))
    return tuple(np.stack(x) for x in zip(*found, strict=True))


def apart(a, b):
    """Largest distances between two paths: millimetres, degrees."""
    turn = vector_from_matrix(a[1] @ np.swapaxes(b[1], -1, -2))
    return 1000 * np.linalg.norm(a[0] - b[0], axis=-1).max(), np.degrees(np.linalg.norm(turn, axis=-1)).max()


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    """Recorded with LIBERO's controller: its start, actions, path and rows, and the file of it."""
    env = LiberoEnv(task_id=2, action_mode="delta", image_size=32, render_size=32, wait_steps=3, quality="fast")
    env.reset(seed=11)
    start, actions = env.get_state(), libero_files.smooth_actions(STEPS)
    rows = libero_files.record(env, actions)
    env.set_state(start)
    path = path_of(env, actions)
    file = tmp_path_factory.mktemp("libero") / f"{env.task}_demo.hdf5"
    libero_files.write(file, env, actions, rows)
    env.close()
    return start, actions, path, rows, file


@pytest.fixture(scope="module")
def absolute():
    env = LiberoEnv(task_id=2, render_observations=False)
    yield env
    env.close()


def test_the_recorded_path_is_worth_replaying(episode):
    _, _, (position, rotation), rows, _ = episode
    assert np.ptp(position, axis=0).max() > 0.1
    assert np.degrees(np.linalg.norm(vector_from_matrix(rotation @ rotation[0].T), axis=-1)).max() > 30
    # What was recorded is where the arm was.
    np.testing.assert_allclose(rows["agent_pos"][:, :3], position, atol=1e-6)
    hand = matrix_from_quaternion(rows["agent_pos"][:, 3:7])
    np.testing.assert_allclose(site_rotation(hand), rotation, atol=1e-5)


def test_converted_actions_lead_the_arm_along_the_same_path(episode, absolute):
    start, actions, path, rows, _ = episode
    converted = absolute_actions(actions, rows["position"], site_rotation(matrix_from_quaternion(rows["hand"])))
    absolute.set_state(start)
    millimetres, degrees = apart(path_of(absolute, converted), path)
    print(f"replayed from observations: {millimetres:.5f} mm, {degrees:.5f} degrees")
    assert millimetres < 0.1 and degrees < 0.1


def test_a_wrong_frame_or_row_would_be_noticed(episode, absolute):
    start, actions, path, rows, _ = episode
    for wrong in (
        absolute_actions(
            actions, rows["position"], matrix_from_quaternion(rows["hand"])
        ),  # of the hand, not the grip site
        absolute_actions(
            actions, rows["agent_pos"][:, :3], site_rotation(matrix_from_quaternion(rows["agent_pos"][:, 3:7]))
        ),
    ):
        absolute.set_state(start)
        millimetres, degrees = apart(path_of(absolute, wrong), path)
        assert millimetres > 2 or degrees > 2


def test_the_reader_takes_the_file_and_its_actions_convert_to_the_same_path(episode, absolute):
    start, _, path, rows, file = episode
    dataset = open_dataset(file)
    assert (dataset.format, dataset.control_hz, len(dataset)) == ("hdf5", 20.0, 1)
    assert set(dataset.tasks) == {absolute.unwrapped._task.prompt}, "the words that the environment says"
    np.testing.assert_array_equal(dataset.arrays["pixels"][7], rows["agentview_rgb"][7][::-1])
    np.testing.assert_array_equal(dataset.arrays["pixels_wrist"][7], rows["eye_in_hand_rgb"][7][::-1])
    taken, states, position, vector = (dataset.arrays[key] for key in ("action", "states", "ee_pos", "ee_ori"))
    # Row t holds what was seen after action t: the pose when action t is given is that of row t - 1.
    converted = absolute_actions(taken[1:], position[:-1], site_rotation(matrix_from_vector(vector[:-1])))
    absolute.set_state(start)
    first = absolute_actions(taken[:1], rows["position"][:1], site_rotation(matrix_from_quaternion(rows["hand"][:1])))
    absolute.advance(first[0])
    np.testing.assert_allclose(absolute.flat_state(), states[1], atol=1e-4)
    millimetres, degrees = apart(path_of(absolute, converted), tuple(x[1:] for x in path))
    print(f"replayed from the file: {millimetres:.5f} mm, {degrees:.5f} degrees")
    assert millimetres < 0.1 and degrees < 0.1
