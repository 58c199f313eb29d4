"""Table VI of the arm: visual odometry on scenes whose answer is known, errors against every truth, replays."""

import dataclasses
import importlib.util
import json
import logging

import numpy as np
import pytest
import zarr

if importlib.util.find_spec("mujoco") is None or importlib.util.find_spec("cv2") is None:
    pytest.skip("needs MuJoCo and OpenCV: pip install 'uva-agents[arx]'", allow_module_level=True)

from uva_agents.benchmarks.paper import table6_arx
from uva_agents.benchmarks.paper.arx_recordings import ReplayedArm, actions_of, arm_recordings, poses_of
from uva_agents.benchmarks.paper.odometry import METHODS, WristOdometry
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.data.collect.arx_x5 import ArxX5Plan, collect_arx_x5
from uva_agents.data.conventions import RelativePoses
from uva_agents.data.replay_buffer import write_replay_buffer
from uva_agents.envs.arx_x5.env import ArxX5Env
from uva_agents.envs.arx_x5.twin.optics import wrist_pinhole
from uva_agents.errors import DataError, InputError
from uva_agents.utils.rotations import pose_matrix


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two calm episodes of reaching over a chequered table."""
    path = tmp_path_factory.mktemp("arm") / "reach.zarr"
    plan = ArxX5Plan(episodes=2, seed=1, tasks=("reach",), looks="plain", disturbed=0.0, control_hz=10.0)
    collect_arx_x5(path, plan)
    return path


@pytest.fixture(scope="module")
def recording(data):
    return arm_recordings(data, held_out=1)[0]


def test_a_point_is_seen_where_the_pinhole_says():
    env = ArxX5Env(cameras="wrist", image_size=96, task="reach", tool_frame="sdk")
    pinhole = wrist_pinhole((96, 96))
    compared = 0
    for seed in range(1, 8):
        obs, _ = env.reset(seed=seed)
        picture = obs["pixels"].astype(int)
        ball = (picture[..., 1] > picture[..., 0] + 40) & (picture[..., 1] > picture[..., 2] + 40)
        rows, columns = np.nonzero(ball)
        if len(rows) < 30 or rows.min() == 0 or columns.min() == 0 or columns.max() == 95 or rows.max() > 50:
            continue  # cut off, or behind a finger
        target = env._session.driver.twin.plant.target()
        found = pinhole.project(pose_matrix(obs["agent_pos"][:6]), target)
        assert found == pytest.approx((columns.mean(), rows.mean()), abs=1.0)
        compared += 1
    env.close()
    assert compared >= 2


def test_the_table_tells_how_the_tool_moved(recording):
    eye = WristOdometry(wrist_pinhole((96, 96)), method="plane")
    track = eye.track(recording.video("wrist"), recording.in_sdk_axes(recording.reached[0]))
    found, true = recording.in_own_axes(track.poses), recording.reached
    np.testing.assert_allclose(found[0], true[0], atol=1e-9)
    assert track.lost.mean() < 0.3

    def steps(poses):
        return np.linalg.inv(poses[:-1]) @ poses[1:]

    off = table6_arx.distances(steps(found), steps(true))
    moved = table6_arx.distances(steps(true), np.broadcast_to(np.eye(4), (len(true) - 1, 4, 4)))
    # Most steps are told well; some, where little is seen but the ball, are not.
    assert np.median(off[:, 0]) < 0.4 * np.median(moved[:, 0]) and np.median(off[:, 1]) < 0.5 * np.median(moved[:, 1])


@pytest.mark.parametrize("method", METHODS)
def test_what_shows_nothing_is_a_pause(method):
    eye = WristOdometry(wrist_pinhole((48, 48)), method=method)
    start = pose_matrix(np.array([0.3, 0.0, 0.2, 0.0, 0.9, 0.0]))
    track = eye.track(np.full((3, 48, 48, 3), 120, np.uint8), start)
    assert track.lost.all() and np.allclose(track.poses, start)
    with pytest.raises(InputError, match="at least 2 frames"):
        eye.track(np.zeros((1, 48, 48, 3), np.uint8), start)
    with pytest.raises(InputError, match="method="):
        WristOdometry(wrist_pinhole((48, 48)), method="stars")


def test_networks_are_shown_their_main_camera_and_relative_poses_begin_where_the_tool_was(recording):
    class Network:
        """Gives steps of 1 cm along the first tool's x axis, and keeps the video."""

        def label(self, video):
            self.video = video
            steps = np.zeros((len(video) - 1, 10), np.float32)
            steps[:, 0], steps[:, [3, 7]] = 0.01, 1.0
            return steps

    network = Network()
    bounds = {"image_shape": (96, 96), "action_low": (-1.0,) * 10, "action_high": (1.0,) * 10}
    for spec, camera in (
        (InterfaceSpec(**bounds), "wrist"),
        (InterfaceSpec(**bounds, wrist_shape=(96, 96)), "outside"),
        (InterfaceSpec(**bounds, wrist_shape=(96, 96), wrist_key="pixels_outside"), "wrist"),
    ):
        poses = table6_arx._network(network, spec)(recording)
        np.testing.assert_array_equal(network.video, recording.video(camera))
        np.testing.assert_allclose(poses[0][:3, 3], [0.01, 0, 0], atol=1e-6)
    relative = InterfaceSpec(**bounds, action_transforms=(RelativePoses(environment="rot6d"),), proprio_key="agent_pos")
    poses = table6_arx._network(network, relative)(recording)
    ahead = recording.reached[0] @ pose_matrix(np.array([0.01, 0, 0, 0, 0, 0]))
    np.testing.assert_allclose(poses[0], ahead, atol=1e-6)
    with pytest.raises(DataError, match="the outside camera was not recorded"):
        dataclasses.replace(recording, videos={"wrist": recording.video("wrist")}).video("outside")


def test_errors_are_in_cm_and_degrees_against_every_truth(recording):
    """One labeller is 1 cm and 0.1 rad off, the other 2 cm."""

    def off(metres, angle=0.0):
        shift = pose_matrix(np.array([metres, 0.0, 0.0, 0.0, 0.0, angle]))
        return lambda r: poses_of(r.actions)[: len(r) - 1] @ shift

    arm = ReplayedArm.of([recording])
    errors = table6_arx.measure(
        {"inverse": off(0.01, 0.1), "two-frame": off(0.02), "recorded": off(0.0)}, [recording], arm
    )
    arm.close()
    rows = table6_arx.summarise(errors, [recording])["rows"]
    assert rows["inverse"]["recorded_cm"] == pytest.approx(1.0, abs=1e-4)
    assert rows["inverse"]["recorded_deg"] == pytest.approx(np.degrees(0.1), abs=1e-2)
    assert rows["two-frame"]["recorded_cm_over_inverse"] == pytest.approx(2.0, abs=1e-3)
    assert rows["recorded"]["replayed_cm"] < 1e-4 and rows["recorded"]["reached_cm"] > 0.1
    assert 0.5 < rows["two-frame"]["replayed_cm"] < 2.5


def test_the_benchmark_writes_its_table_without_weights(data, tmp_path, capsys):
    words = ["--data", str(data), "--no-networks", "--held-out", "1", "--out", str(tmp_path)]
    assert table6_arx.main(words) == 0
    table = json.loads((tmp_path / "table6-arx.json").read_text())["table"]
    assert list(table["rows"]) == ["odometry", "held", "recorded"] and table["replayed"] == 1
    shown = capsys.readouterr().out
    assert "visual odometry" in shown and "recorded actions (floor)" in shown


def test_disturbed_episodes_are_not_replayed_and_poses_survive_both_forms(recording):
    pushed = dataclasses.replace(recording, disturbed=True)
    arm = ReplayedArm.of([pushed])
    errors = table6_arx.measure({"recorded": lambda r: poses_of(r.actions)[: len(r) - 1]}, [pushed], arm)
    arm.close()
    assert not errors["recorded"]["replayed"] and len(errors["recorded"]["reached"]) == 1
    again = actions_of(poses_of(recording.actions), recording.actions)
    np.testing.assert_allclose(again, recording.actions, atol=1e-5)
    assert ReplayedArm.of([dataclasses.replace(recording, seed=None)]) is None


@pytest.mark.parametrize(
    ("changes", "held_out", "message"),
    [
        ({"img_wrist": None}, None, "no wrist camera"),
        ({"action": np.zeros((6, 3), np.float32)}, None, "no poses of a tool"),
        ({"agent_pos": None}, None, "no agent_pos"),
        ({}, 2, "2 of 2 episodes cannot be held out"),
    ],
)
def test_data_that_does_not_fit_is_named(tmp_path, changes, held_out, message):
    poses = np.tile(np.array([0.3, 0, 0.2, 0, 0.9, 0, 0.08], np.float32), (6, 1))
    pictures = np.zeros((6, 8, 8, 3), np.uint8)
    arrays = {"img": pictures, "img_wrist": pictures, "agent_pos": poses, "action": poses} | changes
    kept = {name: value for name, value in arrays.items() if value is not None}
    write_replay_buffer(tmp_path / "a.zarr", kept, np.array([3, 6]))
    zarr.open_group(str(tmp_path / "a.zarr"), mode="r+").attrs["env_kwargs"] = {"cameras": "outside,wrist"}
    with pytest.raises(DataError, match=message):
        arm_recordings(tmp_path / "a.zarr", held_out)
