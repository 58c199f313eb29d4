"""Limits, kinematics and masses of the X5: against the SDK where it is installed, against themselves everywhere."""

import importlib.util
import math

import numpy as np
import pytest

from uva_agents.envs.arx_x5.arm.kinematics import X5Kinematics, matrix_from_pose, pose_from_matrix, rotation_vector
from uva_agents.envs.arx_x5.arm.limits import MODELS, arm_limits

needs_sdk = pytest.mark.skipif(
    importlib.util.find_spec("arx5_interface") is None, reason="needs the arm's SDK: pip install 'uva-agents[arx]'"
)
needs_mujoco = pytest.mark.skipif(
    importlib.util.find_spec("mujoco") is None, reason="needs MuJoCo: pip install 'uva-agents[arx]'"
)
both_models = pytest.mark.parametrize("model", MODELS)


def random_joints(model, n, seed=0):
    limits = arm_limits(model)
    return np.random.default_rng(seed).uniform(limits.joint_pos_min, limits.joint_pos_max, (n, 6))


def solver(model):
    import arx5_interface as sdk

    config = sdk.RobotConfigFactory.get_instance().get_config(model)
    return sdk.Arx5Solver(
        config.urdf_path,
        6,
        config.joint_pos_min,
        config.joint_pos_max,
        config.base_link_name,
        config.eef_link_name,
        config.gravity_vector,
    )


@needs_sdk
@both_models
def test_limits_are_the_sdks(model):
    import arx5_interface as sdk

    limits = arm_limits(model)
    robot = sdk.RobotConfigFactory.get_instance().get_config(model)
    control = sdk.ControllerConfigFactory.get_instance().get_config("joint_controller", 6)
    for name in (
        "joint_pos_min",
        "joint_pos_max",
        "joint_vel_max",
        "joint_torque_max",
        "gripper_width",
        "gripper_vel_max",
        "gripper_torque_max",
        "gripper_open_readout",
    ):
        np.testing.assert_allclose(getattr(limits, name), getattr(robot, name), rtol=1e-12, err_msg=name)
    np.testing.assert_allclose([limits.eef_vel_max] * 3 + [limits.eef_turn_max] * 3, robot.ee_vel_max)
    for name in ("default_kp", "default_kd", "default_gripper_kp", "default_gripper_kd"):
        np.testing.assert_allclose(getattr(limits, name), getattr(control, name), rtol=1e-12, err_msg=name)
    assert limits.over_current_cycles == control.over_current_cnt_max
    assert limits.control_dt == control.controller_dt


def test_limits_cannot_be_changed_and_unknown_models_are_named():
    with pytest.raises(ValueError, match="read-only"):
        arm_limits("X5").joint_pos_max[0] = 9
    with pytest.raises(ValueError, match="did you mean 'X5_umi'"):
        arm_limits("X5-umi")


@needs_sdk
@both_models
def test_forward_kinematics_agree_with_the_sdk_on_1000_random_states(model):
    kinematics, sdk = X5Kinematics(model), solver(model)
    for joints in random_joints(model, 1000):
        theirs, ours = matrix_from_pose(sdk.forward_kinematics(joints)), matrix_from_pose(kinematics.forward(joints))
        assert np.linalg.norm(theirs[:3, 3] - ours[:3, 3]) < 1e-4
        assert np.linalg.norm(rotation_vector(theirs[:3, :3].T @ ours[:3, :3])) < 1e-3


@needs_sdk
@needs_mujoco
@both_models
def test_gravity_torques_of_the_twin_are_the_sdks_within_one_percent(model):
    from uva_agents.envs.arx_x5.twin.plant import Plant

    plant, sdk = Plant(arm_limits(model)), solver(model)
    for joints in random_joints(model, 200):
        theirs = sdk.inverse_dynamics(joints, np.zeros(6), np.zeros(6))
        scale = np.abs(theirs).max()
        # What gravity is compensated with, and what it really does in the whole model, fingers and all.
        assert np.abs(plant.gravity_torques(joints) - theirs).max() < 0.01 * scale
        plant.data.qpos[:6], plant.data.qpos[6:8], plant.data.qvel[:] = joints, 0.02, 0
        plant.mj.mj_forward(plant.model, plant.data)
        assert np.abs(plant.data.qfrc_bias[:6] - theirs).max() < 0.01 * scale


@both_models
def test_home_is_where_the_models_have_it(model):
    offset = {"X5": 0.240, "X5_umi": 0.320}[model]
    np.testing.assert_allclose(X5Kinematics(model).forward(np.zeros(6)), [offset, 0.001, 0.157, 0, 0, 0], atol=5e-4)


@both_models
def test_inverse_finds_every_reachable_pose_within_the_limits(model):
    kinematics, limits = X5Kinematics(model), arm_limits(model)
    rng = np.random.default_rng(1)
    for joints in random_joints(model, 500, seed=1):
        pose = kinematics.forward(joints)
        for seed in (joints + rng.normal(0, 0.2, 6), np.zeros(6)):
            found = kinematics.inverse(pose, seed)
            assert found is not None
            assert (found >= limits.joint_pos_min).all() and (found <= limits.joint_pos_max).all()
            there = kinematics.matrix(found)
            assert np.linalg.norm(there[:3, 3] - pose[:3]) < 1e-5
            assert np.linalg.norm(rotation_vector(there[:3, :3].T @ matrix_from_pose(pose)[:3, :3])) < 1e-4
            # None farther from the seed than the joints that the pose was made from.
            assert np.abs(found - seed).max() <= np.abs(joints - seed).max() + 1e-3


def test_inverse_follows_a_straight_line_without_jumping():
    kinematics = X5Kinematics()
    start, end = np.array([0.3, -0.15, 0.2, 0.1, 0.8, -0.3]), np.array([0.42, 0.18, 0.06, -0.2, 1.1, 0.4])
    joints = kinematics.inverse(start, np.zeros(6))
    for share in np.linspace(0, 1, 200):
        there = kinematics.inverse(start + share * (end - start), joints)
        assert there is not None and np.abs(there - joints).max() < 0.03
        joints = there


@pytest.mark.parametrize(
    "pose", [[0.9, 0, 0.2, 0, 0, 0], [0.3, 0, 0.2, 0, 0, math.pi], [np.nan, 0, 0.2, 0, 0, 0], [np.inf, 0, 0, 0, 0, 0]]
)
def test_inverse_of_what_cannot_be_reached_is_none(pose):
    assert X5Kinematics().inverse(np.array(pose, float), np.zeros(6)) is None


def test_inverse_works_where_joints_stand_at_their_limits():
    kinematics, limits = X5Kinematics(), arm_limits("X5")
    for joint in range(6):
        for bound in (limits.joint_pos_min, limits.joint_pos_max):
            joints = np.array([0.2, 1.2, 1.0, -0.4, 0.3, 0.4])
            joints[joint] = bound[joint]
            found = kinematics.inverse(kinematics.forward(joints), joints)
            np.testing.assert_allclose(found, joints, atol=1e-3)


@both_models
def test_jacobian_is_the_derivative_of_the_pose(model):
    kinematics, h = X5Kinematics(model), 1e-6
    for joints in random_joints(model, 20):
        jacobian = kinematics.jacobian(joints)
        for j, change in enumerate(np.eye(6) * h):
            after, before = kinematics.matrix(joints + change), kinematics.matrix(joints - change)
            moved = (after[:3, 3] - before[:3, 3]) / (2 * h)
            turned = rotation_vector(after[:3, :3] @ before[:3, :3].T) / (2 * h)
            np.testing.assert_allclose(jacobian[:, j], [*moved, *turned], atol=1e-7)


def test_points_end_at_the_tool():
    kinematics, joints = X5Kinematics(), np.array([0.3, 1.0, 1.2, -0.3, 0.2, 0.1])
    points = kinematics.points(joints)
    assert points.shape == (7, 3)
    np.testing.assert_allclose(points[0], [0, 0, 0.0603])
    np.testing.assert_allclose(points[-1], kinematics.forward(joints)[:3])


def test_poses_and_rotation_vectors_survive_a_round_trip():
    rng = np.random.default_rng(0)
    for _ in range(200):
        pose = rng.uniform([-1, -1, -1, -3.1, -1.5, -3.1], [1, 1, 1, 3.1, 1.5, 3.1])
        np.testing.assert_allclose(pose_from_matrix(matrix_from_pose(pose)), pose, atol=1e-9)
    straight_down = matrix_from_pose(np.array([0, 0, 0, 0.4, math.pi / 2, 0.1]))
    np.testing.assert_allclose(matrix_from_pose(pose_from_matrix(straight_down)), straight_down, atol=1e-9)
    half_turn = rotation_vector(np.diag([-1.0, 1.0, -1.0]))
    np.testing.assert_allclose(np.abs(half_turn), [0, math.pi, 0], atol=1e-9)
    np.testing.assert_allclose(rotation_vector(np.eye(3)), 0)
