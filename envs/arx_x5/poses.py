"""Tool poses of the ARX X5 in the forms that meet here: the SDK's angles, rotation matrices, rotation vectors, other tool axes.

Matrices are (3, 3) and turn the tool's axes into the base's. Everything is float64, one pose at a time.
"""

from __future__ import annotations

import math

import numpy as np

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
        ValueError: no such frame.
    """
    if frame not in _TOOL_AXES:
        raise ValueError(f"tool_frame={frame!r} is unknown: pass one of {', '.join(map(repr, TOOL_FRAMES))}")
    return _TOOL_AXES[frame]


def matrix_from_rpy(rpy: np.ndarray) -> np.ndarray:
    """Roll, pitch, yaw (3,), rad -> Rz(yaw) Ry(pitch) Rx(roll)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def rpy_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """Inverse of :func:`matrix_from_rpy`: roll and yaw in [-pi, pi], pitch in [-pi/2, pi/2]; no roll where pitch is +-pi/2."""
    r = rotation
    across = math.hypot(r[0, 0], r[1, 0])
    pitch = math.atan2(-r[2, 0], across)
    if across < 1e-9:
        return np.array([0.0, pitch, math.atan2(-r[0, 1], r[1, 1])])
    return np.array([math.atan2(r[2, 1], r[2, 2]), pitch, math.atan2(r[1, 0], r[0, 0])])


def matrix_from_vector(vector: np.ndarray) -> np.ndarray:
    """Rotation vector (3,), rad -> matrix (Rodrigues)."""
    x, y, z = (float(v) for v in vector)
    angle = math.sqrt(x * x + y * y + z * z)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    # np.sinc(u) is sin(pi u) / (pi u), which has no hole at zero.
    return np.asarray(
        np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * (cross @ cross)
    )


def vector_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """Matrix -> rotation vector (3,) of length 0 to pi."""
    w, xyz = _quaternion(rotation)
    if w < 0:
        w, xyz = -w, -xyz
    length = float(np.linalg.norm(xyz))
    # For small angles the vector is twice the imaginary part.
    return xyz * (2 * math.atan2(length, w) / length if length > 1e-12 else 2.0)


def slerp(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Matrix ``share`` of the way from ``first`` to ``second``, about one axis, the short way round."""
    return np.asarray(first @ matrix_from_vector(share * vector_from_matrix(first.T @ second)))


def interpolate_pose(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Pose (6,) as in ``ArmState.eef_pose``: the position straight, the rotation by :func:`slerp`."""
    rotation = slerp(matrix_from_rpy(first[3:]), matrix_from_rpy(second[3:]), share)
    return np.concatenate([(1 - share) * first[:3] + share * second[:3], rpy_from_matrix(rotation)])


def _quaternion(r: np.ndarray) -> tuple[float, np.ndarray]:
    """Real part and (3,) imaginary part; from the largest of the four, so that nothing cancels."""
    trace = float(np.trace(r))
    squares = [1 + trace, *(1 - trace + 2 * float(r[i, i]) for i in range(3))]
    best = int(np.argmax(squares))
    lean = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]])
    if best == 0:
        row = np.array([squares[0], *lean])
    else:
        i = best - 1
        row = np.array([lean[i], *(r[i, j] + r[j, i] for j in range(3))])
        row[best] = squares[best]
    row = row / np.linalg.norm(row)
    return float(row[0]), row[1:]
