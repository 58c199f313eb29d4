"""The ARX X5's poses, actions, measurements by time and step times: no arm and no simulator needed."""

import math

import numpy as np
import pytest

from uva_agents.data import absolute_poses
from uva_agents.data.conventions import RelativePoses, RelativeProprio
from uva_agents.data.transforms import ReferencePoses
from uva_agents.envs.arx_x5.actions import ACTIONS, ActionCodec
from uva_agents.envs.arx_x5.arm.interface import ArmState
from uva_agents.envs.arx_x5.arm.kinematics import rotation_vector
from uva_agents.envs.arx_x5.arm.poses import (
    TOOL_FRAMES,
    interpolate_pose,
    matrix_from_vector,
    pose_of,
    rotation_of,
    slerp,
    tool_axes,
    vector_near,
)
from uva_agents.envs.arx_x5.system.history import StateHistory
from uva_agents.utils import rotations as data_poses
from uva_agents.utils.pacing import Pacer

HOME = np.array([0.240, 0.001, 0.157, 0.0, 0.0, 0.0])


def state(time_s=0.0, pose=HOME, gripper=0.05, joints=None):
    joints = np.zeros(6) if joints is None else joints
    return ArmState(time_s, joints, np.zeros(6), np.zeros(6), np.asarray(pose, float), gripper, 0.0, 0.0)


def codec(mode="absolute", tool_frame="umi"):
    return ActionCodec(
        mode,
        tool_frame=tool_frame,
        low=(-0.5, -0.5, 0.0),
        high=(0.7, 0.5, 0.6),
        joint_low=np.full(6, -1.5),
        joint_high=np.full(6, 1.5),
        gripper_width=0.088,
    )


def random_poses(n, seed=0):
    rng = np.random.default_rng(seed)
    angles = rng.uniform([-math.pi, -1.5, -math.pi], [math.pi, 1.5, math.pi], (n, 3))
    return np.concatenate([rng.uniform(-0.5, 0.5, (n, 3)), angles], axis=1)


# -- poses ----------------------------------------------------------------------------------------------------------


def turned(roll, pitch, yaw):
    return rotation_of(np.array([0, 0, 0, roll, pitch, yaw]))


def test_rotations_survive_every_form():
    for pose in random_poses(200, seed=1):
        rotation = rotation_of(pose)
        assert pose_of(pose[:3], rotation) == pytest.approx(pose, abs=1e-9)
        assert matrix_from_vector(rotation_vector(rotation)) == pytest.approx(rotation, abs=1e-9)
        assert rotation_vector(rotation) == pytest.approx(data_poses.vector_from_matrix(rotation), abs=1e-9)


def test_a_rotation_vector_does_not_jump_where_the_tool_points_straight_down():
    """With UMI's axes, straight down is half a turn: the shorter vector changes its sign there with every bit of noise."""
    rng, c = np.random.default_rng(0), codec()
    down = np.array([0.3, 0, 0.2, 0, math.pi / 2, 0])
    rows = []
    for _ in range(50):
        nearly = rotation_of(down) @ matrix_from_vector(rng.normal(0, 0.02, 3))
        rows.append(c.agent_pos(state(pose=pose_of(down[:3], nearly)))[3:6])
        assert matrix_from_vector(rows[-1]) == pytest.approx(nearly @ tool_axes("umi"), abs=1e-9)
    assert np.ptp(rows, axis=0).max() < 0.3
    assert np.max(np.linalg.norm(rows, axis=1)) > math.pi, "some are longer than half a turn"
    short = [rotation_vector(matrix_from_vector(row)) for row in rows]
    assert np.ptp(short, axis=0).max() > 3, "the shorter ones do jump"


def test_the_nearer_of_two_vectors_means_the_same_rotation():
    for pose, near in zip(random_poses(50, 11), random_poses(50, 12)[:, 3:], strict=True):
        vector = vector_near(rotation_of(pose), near)
        assert vector @ near >= 0 and np.linalg.norm(vector) <= 2 * math.pi
        assert matrix_from_vector(vector) == pytest.approx(rotation_of(pose), abs=1e-9)
    assert vector_near(np.eye(3), np.ones(3)) == pytest.approx(np.zeros(3))


def test_the_rotation_between_two_is_about_one_axis_and_never_the_long_way_round():
    # 170 and -170 degrees are 20 degrees apart; the mean of the numbers would be 0 degrees.
    first, second = (turned(0, 0, math.radians(a)) for a in (170, -170))
    assert math.degrees(pose_of(np.zeros(3), slerp(first, second, 0.25))[5]) == pytest.approx(175)
    for a, b in zip(random_poses(30, 2), random_poses(30, 3), strict=True):
        first, second = rotation_of(a), rotation_of(b)
        whole = np.linalg.norm(rotation_vector(first.T @ second))
        part = np.linalg.norm(rotation_vector(first.T @ slerp(first, second, 0.3)))
        assert part == pytest.approx(0.3 * whole, abs=1e-9)
        assert slerp(first, second, 1.0) == pytest.approx(second, abs=1e-9)
        assert interpolate_pose(a, b, 0.5)[:3] == pytest.approx((a[:3] + b[:3]) / 2)


def test_umi_looks_along_z_where_the_sdk_looks_along_x():
    axes = tool_axes("umi")
    assert axes @ [0, 0, 1] == pytest.approx([1, 0, 0]), "z is forward"
    assert axes @ [1, 0, 0] == pytest.approx([0, -1, 0]), "x is right, y of the SDK is left"
    assert axes @ [0, 1, 0] == pytest.approx([0, 0, -1]), "y is down"
    assert np.linalg.det(axes) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="tool_frame='ros' is unknown"):
        tool_axes("ros")


# -- actions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool_frame", TOOL_FRAMES)
@pytest.mark.parametrize("mode", ["absolute", "absolute_vector", "relative"])
def test_the_action_that_asks_for_a_pose_is_read_as_that_pose(mode, tool_frame):
    c = codec(mode, tool_frame)
    for now, pose in zip(random_poses(20, 4), random_poses(20, 5), strict=True):
        action = c.action(pose, np.zeros(6), 0.03, state(pose=now))
        assert action.shape == c.space.shape and action.dtype == np.float32
        found = c.targets(c.checked(action, chunk=False), state(pose=now))
        assert found.poses[0, :3] == pytest.approx(pose[:3], abs=1e-6)
        assert rotation_of(found.poses[0]) == pytest.approx(rotation_of(pose), abs=1e-6)
        assert found.grippers == pytest.approx([0.03]) and found.joints is None


def test_joint_actions_are_joints_and_opening():
    joints = np.linspace(-1, 1, 6)
    c = codec("joints")
    found = c.targets(c.checked(c.action(HOME, joints, 0.02, state()), chunk=False), state())
    assert found.poses is None and found.joints[0] == pytest.approx(joints) and found.grippers == pytest.approx([0.02])


def test_relative_actions_are_umis():
    """As recordings of UMI are decoded: current pose @ action, in UMI's tool axes."""
    c, now = codec("relative"), random_poses(1, 6)[0]
    rng = np.random.default_rng(7)
    turns = [matrix_from_vector(v)[:2].ravel() for v in rng.normal(0, 0.4, (16, 3))]
    chunk = np.concatenate([rng.uniform(-0.1, 0.1, (16, 3)), turns, rng.uniform(0, 0.08, (16, 1))], axis=1)
    found = c.targets(c.checked(chunk, chunk=True), state(pose=now))
    here = np.concatenate([now[:3], c.rotation(now)[:2].ravel(), [0.0]])
    wanted = absolute_poses(here, chunk)
    assert found.poses[:, :3] == pytest.approx(wanted[:, :3], abs=1e-9)
    for pose, row in zip(found.poses, wanted, strict=True):
        assert c.rotation(pose)[:2].ravel() == pytest.approx(row[3:9], abs=1e-9)


def test_what_a_policy_with_umis_interface_returns_is_an_absolute_vector_action():
    """The policy turns relative network outputs into poses with ``agent_pos``; the environment reads them as the same poses."""
    relative, absolute = codec("relative"), codec("absolute_vector")
    now = state(pose=random_poses(1, 8)[0])
    rng = np.random.default_rng(9)
    turns = [matrix_from_vector(v)[:2].ravel() for v in rng.normal(0, 0.4, (16, 3))]
    chunk = np.concatenate([rng.uniform(-0.1, 0.1, (16, 3)), turns, rng.uniform(0, 0.08, (16, 1))], axis=1)
    given = RelativePoses().to_environment(chunk, ReferencePoses(now=absolute.agent_pos(now)))
    assert given.shape == (16, *absolute.space.shape)
    a, b = relative.targets(chunk, now), absolute.targets(absolute.checked(given, chunk=True), now)
    assert a.poses == pytest.approx(b.poses, abs=1e-6)
    assert a.grippers == pytest.approx(b.grippers)


def test_agent_pos_is_what_that_policy_relates_its_proprioception_to():
    rows = np.stack([codec().agent_pos(state(pose=p)) for p in random_poses(16, 10)])
    start = ReferencePoses(start=rows[0])
    seen = RelativeProprio().to_network(rows, start)
    assert seen.shape == (16, 16)
    assert seen[-1, :9] == pytest.approx([0, 0, 0, 1, 0, 0, 0, 1, 0], abs=1e-6), "relative to now"
    forward = state(pose=HOME + np.array([0.1, 0, 0, 0, 0, 0]))
    steps = np.stack([codec().agent_pos(forward), codec().agent_pos(state())])
    moved = RelativeProprio().to_network(steps, start)
    assert moved[0, :3] == pytest.approx([0, 0, 0.1], abs=1e-6), "forward is z in UMI's axes"


def test_a_number_that_is_none_stays_one_for_the_safety_layer_to_find():
    for mode in ACTIONS:
        c = codec(mode)
        action = c.action(HOME, np.zeros(6), 0.03, state())
        action[1] = np.nan
        found = c.targets(c.checked(action, chunk=False), state())
        assert np.isnan(found.joints if found.poses is None else found.poses).any()


@pytest.mark.parametrize(
    ("mode", "value", "chunk", "message"),
    [
        ("absolute", np.zeros(7), False, "action_mode='absolute_vector' or 'joints' for this one"),
        ("joints", np.zeros(10), False, "action_mode='absolute' or 'relative' for this one"),
        ("absolute", np.zeros((16, 10)), False, "given to schedule"),
        ("absolute", np.zeros(10), True, r"call step\(\)"),
        ("absolute", np.zeros((0, 10)), True, r"a chunk \(T, 10\)"),
        ("relative", 3.0, False, r"got \(\)"),
    ],
)
def test_a_wrong_shape_is_named_with_the_way_out(mode, value, chunk, message):
    with pytest.raises(ValueError, match=message):
        codec(mode).checked(value, chunk=chunk)


def test_an_unknown_mode_is_named():
    with pytest.raises(ValueError, match="action_mode='delta' is unknown: pass one of 'absolute'"):
        codec("delta")


def test_rows_that_are_no_rotation_are_refused():
    with pytest.raises(ValueError, match="zero or parallel"):
        codec().targets(np.zeros((1, 10)), state())


# -- measurements by time -------------------------------------------------------------------------------------------


def test_the_pose_of_a_moment_lies_between_the_measurements_around_it():
    history = StateHistory()
    moved = HOME + np.array([0.1, 0, 0, 0, 0, 0.4])
    history.add(state(1.0, HOME, 0.0))
    history.add(state(1.01, moved, 0.02, np.full(6, 0.1)))
    found = history.at(1.0025)
    assert found.time_s == 1.0025
    assert found.eef_pose == pytest.approx(HOME + np.array([0.025, 0, 0, 0, 0, 0.1]))
    assert found.gripper_pos == pytest.approx(0.005) and found.joint_pos == pytest.approx(np.full(6, 0.025))


def test_nothing_is_guessed_outside_the_measurements():
    history = StateHistory()
    with pytest.raises(LookupError):
        history.at(0.0)
    first, last = state(1.0), state(1.1)
    history.add(first)
    history.add(last)
    assert history.at(0.5) is first and history.at(9.0) is last and history.newest() is last


def test_the_latency_of_measurements_is_taken_off():
    history = StateHistory(latency_s=0.005)
    history.add(state(1.0))
    assert history.newest().time_s == pytest.approx(0.995)


def test_old_measurements_are_forgotten_and_repeated_ones_ignored():
    history = StateHistory(seconds=0.5)
    for k in range(100):
        history.add(state(k / 100))
        history.add(state(k / 100))
    assert history.at(0.0).time_s == pytest.approx(0.99 - 0.5)
    history.clear()
    with pytest.raises(LookupError):
        history.newest()


# -- step times -----------------------------------------------------------------------------------------------------


class Hands:
    """A clock that is set by hand."""

    def __init__(self):
        self.time_s = 0.0

    def now(self):
        return self.time_s

    def sleep_until(self, time_s):
        self.time_s = max(self.time_s, time_s)


def test_punctual_steps_are_not_late_and_lie_on_a_grid():
    clock = Hands()
    pacer = Pacer(clock, 0.05, tolerance_s=0.005)
    for _ in range(1000):
        clock.sleep_until(pacer.due_s)
        pacer.arrived()
    timing = pacer.timing()
    assert (timing.steps, timing.late_steps, timing.skipped) == (1000, 0, 0)
    assert clock.now() == pytest.approx(50.0) and timing.jitter_p99_s < 1e-9


def test_late_steps_are_counted_and_never_made_up_for():
    clock = Hands()
    pacer = Pacer(clock, 0.05, tolerance_s=0.005)
    clock.time_s = 0.06  # 10 ms late
    assert pacer.arrived() == pytest.approx(0.05) and pacer.due_s == pytest.approx(0.10)
    clock.time_s = 0.103  # within the tolerance
    pacer.arrived()
    clock.time_s = 0.32  # 170 ms late: three whole periods have gone
    assert pacer.arrived() == pytest.approx(0.30) and pacer.due_s == pytest.approx(0.35)
    timing = pacer.timing()
    assert (timing.steps, timing.late_steps, timing.skipped) == (3, 2, 3)
    assert timing.lateness_s == pytest.approx(0.17) and timing.jitter_max_s == pytest.approx(0.17)
    assert timing.jitter_p50_s == pytest.approx(0.01)
    pacer.restart()
    assert pacer.timing().steps == 0 and pacer.due_s == pytest.approx(0.37)
