"""Tool frames of many joint vectors at once: every check of a trajectory needs hundreds."""

from __future__ import annotations

import numpy as np

from uva_agents.envs.arx_x5.arm.geometry import LINKS
from uva_agents.envs.arx_x5.arm.interface import N_JOINTS, Kinematics
from uva_agents.envs.arx_x5.arm.limits import ArmLimits


class ToolFrames:
    """Where the tool is, for many joint vectors.

    From the model's own table of links where that agrees with ``kinematics``; otherwise from ``kinematics``, row by row, slower.

    Args:
        kinematics: what has the last word.
        limits: of the arm's model.
    """

    def __init__(self, kinematics: Kinematics, limits: ArmLimits) -> None:
        self._kinematics = kinematics
        self._links = LINKS.get(limits.model)
        self._offset = limits.tool_offset
        rng = np.random.default_rng(0)
        probes = rng.uniform(limits.joint_pos_min, limits.joint_pos_max, (8, N_JOINTS))
        if self._links is not None:
            fast, slow = self(probes), self._one_by_one(probes)
            if not all(np.allclose(f, s, atol=1e-9) for f, s in zip(fast, slow, strict=True)):
                self._links = None

    def __call__(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(..., 6) joints -> tool points (..., 3), metres, and rotations (..., 3, 3), base frame."""
        rows = joints.reshape(-1, N_JOINTS)
        points, rotations = self._one_by_one(rows) if self._links is None else self._together(rows)
        return points.reshape(*joints.shape[:-1], 3), rotations.reshape(*joints.shape[:-1], 3, 3)

    def jacobian(self, joints: np.ndarray) -> np.ndarray:
        """(6,) joints -> (6, 6) geometric Jacobian of the tool in the base frame: m/s in three rows, rad/s in three."""
        jacobian = getattr(self._kinematics, "jacobian", None)
        if jacobian is not None:
            return np.asarray(jacobian(joints))
        step = 1e-4
        points, rotations = self(np.concatenate([joints[None], joints + step * np.eye(N_JOINTS)]))
        spin = rotations[1:] @ rotations[0].T
        lean = [(spin[:, j, i] - spin[:, i, j]) / 2 for i, j in ((1, 2), (2, 0), (0, 1))]
        return np.asarray(np.concatenate([(points[1:] - points[0]).T, np.stack(lean)]) / step)

    def _one_by_one(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        poses = np.stack([self._kinematics.forward(row) for row in rows])
        return poses[:, :3], rotations_from_rpy(poses[:, 3:])

    def _together(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self._links is not None
        cosines, sines = np.cos(rows.T), np.sin(rows.T)
        # Columns of the rotation so far, each (3, N), and the origin.
        axes = [np.repeat(column[:, None], len(rows), axis=1) for column in np.eye(3)]
        point = np.zeros((3, len(rows)))
        for link, cos, sin in zip(self._links, cosines, sines, strict=True):
            for column, offset in zip(axes, link.origin, strict=True):
                if offset:
                    point = point + offset * column
            if link.roll:
                _turn(axes, 0, np.cos(link.roll), np.sin(link.roll))
            _turn(axes, link.axis, cos, sin)
        point = point + self._offset * axes[0]
        # Views: in memory the rows stay side by side, which is what the sums over them like best.
        return point.T, np.array(axes).transpose(2, 1, 0)


def rotations_from_rpy(rpy: np.ndarray) -> np.ndarray:
    """(..., 3) roll, pitch, yaw -> (..., 3, 3) Rz(yaw) Ry(pitch) Rx(roll)."""
    cosine, sine = np.cos(rpy), np.sin(rpy)
    cr, cp, cy = cosine[..., 0], cosine[..., 1], cosine[..., 2]
    sr, sp, sy = sine[..., 0], sine[..., 1], sine[..., 2]
    out = np.empty((*rpy.shape[:-1], 3, 3))
    out[..., 0, 0], out[..., 0, 1], out[..., 0, 2] = cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr
    out[..., 1, 0], out[..., 1, 1], out[..., 1, 2] = sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr
    out[..., 2, 0], out[..., 2, 1], out[..., 2, 2] = -sp, cp * sr, cp * cr
    return out


def _turn(axes: list[np.ndarray], axis: int, cos: np.ndarray, sin: np.ndarray) -> None:
    """Turn a frame about one of its own axes, in place."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    axes[first], axes[second] = cos * axes[first] + sin * axes[second], cos * axes[second] - sin * axes[first]
