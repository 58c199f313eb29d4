"""Rigid poses as robot data stores them: rotation vectors, the first two rows of a matrix, one pose seen from another.

Conventions of UMI and of the released UVA data (recorded in its golden vectors): a pose is (x, y, z, rotation vector), and
``rot6d`` is the first two *rows* of the rotation matrix, flattened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from uva_agents.errors import InputError

_FLAT = 1e-6
"""Length from which on a row of a rotation matrix has a direction."""


def matrix_from_vector(vector: np.ndarray) -> np.ndarray:
    """Rotation vectors (..., 3), radians -> matrices (..., 3, 3) (Rodrigues)."""
    vector = np.asarray(vector, dtype=np.float64)
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vector.shape[:-1], 3, 3)
    # np.sinc is sin(pi u) / (pi u), which has no hole at zero.
    once = np.sinc(angle / np.pi)
    twice = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    rotation: np.ndarray = np.eye(3) + once * cross + twice * (cross @ cross)
    return rotation


def vector_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """Matrices (..., 3, 3) -> rotation vectors (..., 3) of angle 0 to pi."""
    rotation = np.asarray(rotation, dtype=np.float64)
    quaternion = _quaternion(rotation)
    w, xyz = quaternion[..., :1], quaternion[..., 1:]
    xyz = np.where(w < 0, -xyz, xyz)
    length = np.linalg.norm(xyz, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(length, np.abs(w))
    # For small angles, vector = 2 * imaginary part.
    scale = np.where(length > 1e-9, angle / np.maximum(length, 1e-9), 2.0)
    vector: np.ndarray = xyz * scale
    return vector


def matrix_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """(..., 4) as x, y, z, w (robosuite's order) -> matrices (..., 3, 3)."""
    q = np.asarray(quaternion, dtype=np.float64)
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    axis, w = q[..., :3], q[..., 3:]
    length = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(length, w)
    return matrix_from_vector(np.where(length > 0, axis / np.maximum(length, 1e-300), 0.0) * angle)


def quaternion_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """(..., 3, 3) -> (..., 4) as x, y, z, w, of the two that mean the same rotation that with w >= 0."""
    quaternion = _quaternion(np.asarray(rotation, dtype=np.float64))
    quaternion = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    return np.roll(quaternion, -1, axis=-1)


def rot6d_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """(..., 3, 3) -> (..., 6)."""
    return np.asarray(rotation[..., :2, :]).reshape(*rotation.shape[:-2], 6)


def matrix_from_rot6d(rot6d: np.ndarray) -> np.ndarray:
    """(..., 6), which need not be orthonormal (Gram-Schmidt on the two rows) -> (..., 3, 3)."""
    rot6d = np.asarray(rot6d, dtype=np.float64)
    first = rot6d[..., :3]
    first = first / np.maximum(np.linalg.norm(first, axis=-1, keepdims=True), 1e-12)
    second = rot6d[..., 3:]
    second = second - (first * second).sum(-1, keepdims=True) * first
    second = second / np.maximum(np.linalg.norm(second, axis=-1, keepdims=True), 1e-12)
    return np.stack([first, second, np.cross(first, second)], axis=-2)


def matrix_from_rows(rows: np.ndarray) -> np.ndarray:
    """:func:`matrix_from_rot6d` of numbers (6,) that somebody gave, and that may mean nothing.

    Raises:
        InputError: the two rows are zero or parallel.
    """
    first, second = np.asarray(rows, np.float64).reshape(2, 3)
    length = math.sqrt(float(first @ first))
    if length > _FLAT:
        first = first / length
        second = second - (first @ second) * first
        if math.sqrt(float(second @ second)) > _FLAT:
            return matrix_from_rot6d(rows)
    raise InputError(f"the rotation {rows.tolist()} of the action is none: its two rows are zero or parallel")


def pose_matrix(pose: np.ndarray) -> np.ndarray:
    """(..., 6) position and rotation vector -> homogeneous matrices (..., 4, 4)."""
    pose = np.asarray(pose, dtype=np.float64)
    return _homogeneous(pose[..., :3], matrix_from_vector(pose[..., 3:6]))


def pose_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Inverse of :func:`pose_matrix`."""
    return np.concatenate([matrix[..., :3, 3], vector_from_matrix(matrix[..., :3, :3])], axis=-1)


def pose9_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Homogeneous matrices (..., 4, 4) -> position and rot6d (..., 9)."""
    return np.concatenate([matrix[..., :3, 3], rot6d_from_matrix(matrix[..., :3, :3])], axis=-1)


def matrix_from_pose9(pose9: np.ndarray) -> np.ndarray:
    """Inverse of :func:`pose9_from_matrix`; the rotation is made orthonormal."""
    pose9 = np.asarray(pose9, dtype=np.float64)
    return _homogeneous(pose9[..., :3], matrix_from_rot6d(pose9[..., 3:9]))


def relative_to(base: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Homogeneous ``matrix`` (..., 4, 4) seen from ``base`` (4, 4): base^-1 @ matrix.

    Raises:
        InputError: ``base`` is no pose.
    """
    try:
        inverse: np.ndarray = np.linalg.inv(base) @ matrix
    except np.linalg.LinAlgError as error:
        raise InputError(
            "a pose has no rotation: the numbers of its rotation are all zero, or its rows parallel"
        ) from error
    return inverse


@dataclass(frozen=True)
class RotationForm:
    """One way to write a rotation as numbers.

    Attributes:
        words: for messages.
        width: how many numbers.
        to_matrix: (..., width) -> (..., 3, 3).
        from_matrix: the inverse.
    """

    words: str
    width: int
    to_matrix: Callable[[np.ndarray], np.ndarray]
    from_matrix: Callable[[np.ndarray], np.ndarray]

    def pose_matrix(self, pose: np.ndarray) -> np.ndarray:
        """Position and rotation (..., 3 + width), or more columns -> homogeneous matrices (..., 4, 4)."""
        pose = np.asarray(pose, dtype=np.float64)
        return _homogeneous(pose[..., :3], self.to_matrix(pose[..., 3 : 3 + self.width]))

    def pose(self, matrix: np.ndarray) -> np.ndarray:
        """Homogeneous matrices (..., 4, 4) -> (..., 3 + width)."""
        return np.concatenate([matrix[..., :3, 3], self.from_matrix(matrix[..., :3, :3])], axis=-1)


ROTATION_FORMS: Mapping[str, RotationForm] = MappingProxyType(
    {
        "vector": RotationForm("rotation vector", 3, matrix_from_vector, vector_from_matrix),
        "rot6d": RotationForm("rot6d", 6, matrix_from_rot6d, rot6d_from_matrix),
        "quaternion": RotationForm("quaternion", 4, matrix_from_quaternion, quaternion_from_matrix),
    }
)
"""The forms that poses of robots come in, by name."""


def _homogeneous(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    matrix = np.zeros((*position.shape[:-1], 4, 4))
    matrix[..., :3, :3], matrix[..., :3, 3], matrix[..., 3, 3] = rotation, position, 1.0
    return matrix


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """(..., 3, 3) -> (..., 4) as w, x, y, z; from the largest of the four components, so that nothing cancels."""
    r = rotation
    trace = np.trace(r, axis1=-2, axis2=-1)
    squares = np.stack([trace, r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]], axis=-1)
    # 4 q_i^2 = 1 + trace for w, 1 - trace + 2 r_ii for the others.
    squares = np.concatenate([1 + squares[..., :1], 1 - squares[..., :1] + 2 * squares[..., 1:]], axis=-1)
    products = np.empty((*r.shape[:-2], 4, 4))
    products[..., 0, 1] = products[..., 1, 0] = r[..., 2, 1] - r[..., 1, 2]
    products[..., 0, 2] = products[..., 2, 0] = r[..., 0, 2] - r[..., 2, 0]
    products[..., 0, 3] = products[..., 3, 0] = r[..., 1, 0] - r[..., 0, 1]
    products[..., 1, 2] = products[..., 2, 1] = r[..., 0, 1] + r[..., 1, 0]
    products[..., 1, 3] = products[..., 3, 1] = r[..., 0, 2] + r[..., 2, 0]
    products[..., 2, 3] = products[..., 3, 2] = r[..., 1, 2] + r[..., 2, 1]
    for i in range(4):
        products[..., i, i] = squares[..., i]
    best = squares.argmax(-1)
    row = np.take_along_axis(products, best[..., None, None], axis=-2)[..., 0, :]
    quaternion: np.ndarray = row / np.linalg.norm(row, axis=-1, keepdims=True)
    return quaternion
