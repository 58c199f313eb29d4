"""Rotations of the ARX X5's tool: between two of them, as vectors without a jump, and about other axes of the tool.

Matrices are (3, 3) and turn the tool's axes into the base's; one at a time, float64.
"""

from __future__ import annotations

import math

import numpy as np

from uva_agents.envs.arx_x5.arm.kinematics import matrix_from_pose, pose_from_matrix, rotation_vector
from uva_agents.errors import InputError

_TOOL_AXES = {
    "sdk": np.eye(3),
    # z forward out of the gripper, x to the right of it, y down: columns are these axes in the SDK's tool frame.
    "umi": np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
}
TOOL_FRAMES = tuple(_TOOL_AXES)
"""``"sdk"``: x out of the gripper, y left, z up where all joints are zero. ``"umi"``: z out of the gripper, x right, y down."""


def tool_axes(frame: str) -> np.ndarray:
    """(3, 3): one of :data:`TOOL_FRAMES` seen from the SDK's tool frame.

    Raises:
        InputError: no such frame.
    """
    if frame not in _TOOL_AXES:
        raise InputError(f"tool_frame={frame!r} is unknown: pass one of {', '.join(map(repr, TOOL_FRAMES))}")
    return _TOOL_AXES[frame]


def rotation_of(pose: np.ndarray) -> np.ndarray:
    """Of a pose (6,) as ``ArmState.eef_pose``."""
    return np.asarray(matrix_from_pose(pose)[:3, :3])


def pose_of(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """(6,) as ``ArmState.eef_pose``."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, position
    return pose_from_matrix(matrix)


def vector_near(rotation: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Rotation vector (3,), rad: of the two that mean ``rotation``, one shorter and one longer than pi, that along ``near`` (3,).

    The shorter one jumps where a rotation passes half a turn, and half a turn from UMI's axes is a tool that points straight down.
    """
    vector = rotation_vector(rotation)
    length = math.sqrt(float(vector @ vector))
    if length < 1e-6 or vector @ near >= 0:
        return vector
    return np.asarray(vector * (1 - 2 * math.pi / length))


def matrix_from_vector(vector: np.ndarray) -> np.ndarray:
    """Rotation vector (3,), rad -> matrix (Rodrigues)."""
    x, y, z = (float(v) for v in vector)
    angle = math.sqrt(x * x + y * y + z * z)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    # np.sinc(u) is sin(pi u) / (pi u), which has no hole at zero.
    return np.asarray(
        np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * (cross @ cross)
    )


def slerp(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Matrix ``share`` of the way from ``first`` to ``second``, about one axis, the short way round."""
    return np.asarray(first @ matrix_from_vector(share * rotation_vector(first.T @ second)))


def interpolate_pose(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Pose (6,): the position straight, the rotation by :func:`slerp`."""
    rotated = slerp(rotation_of(first), rotation_of(second), share)
    return pose_of((1 - share) * first[:3] + share * second[:3], rotated)
