"""Where the X5's tool is for given joints, and which joints bring it somewhere: from the numbers alone, without the SDK.

Poses are those of :class:`~uva_agents.envs.arx_x5.arm.interface.ArmState`: x, y, z, roll, pitch, yaw.
"""

from __future__ import annotations

import math

import numpy as np

from uva_agents.envs.arx_x5.arm.geometry import LINKS
from uva_agents.envs.arx_x5.arm.interface import N_JOINTS
from uva_agents.envs.arx_x5.arm.limits import arm_limits

_POSITION_TOLERANCE = 1e-6
_ANGLE_TOLERANCE = 1e-5
_REFINEMENTS = 8
"""Usually one or two are needed."""
_STRETCHED = 1e-4
"""How far beyond 1 rounding takes the cosine of the elbow's angle when the arm is stretched."""
_AT_LIMIT = 0.02
"""rad beyond a joint's limit that may be rounding: where joint 5 is nearly at a right angle, roundings count a lot."""


def matrix_from_pose(pose: np.ndarray) -> np.ndarray:
    """(6,) x, y, z, roll, pitch, yaw -> (4, 4) homogeneous."""
    cr, cp, cy = (math.cos(float(angle)) for angle in pose[3:6])
    sr, sp, sy = (math.sin(float(angle)) for angle in pose[3:6])
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr, pose[0]],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr, pose[1]],
            [-sp, cp * sr, cp * cr, pose[2]],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def pose_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """(4, 4) -> (6,), pitch in [-pi/2, pi/2]. Straight up or down roll and yaw are one angle: roll is then 0."""
    sine = -float(matrix[2, 0])
    across = math.hypot(float(matrix[0, 0]), float(matrix[1, 0]))
    pitch = math.atan2(sine, across)
    if across < 1e-9:
        roll, yaw = 0.0, math.atan2(-float(matrix[0, 1]), float(matrix[1, 1]))
    else:
        roll = math.atan2(float(matrix[2, 1]), float(matrix[2, 2]))
        yaw = math.atan2(float(matrix[1, 0]), float(matrix[0, 0]))
    return np.array([matrix[0, 3], matrix[1, 3], matrix[2, 3], roll, pitch, yaw])


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """(3, 3) rotation -> (3,) axis times angle, rad, angle in [0, pi]."""
    twice_sine = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    length = math.sqrt(float(twice_sine @ twice_sine))
    twice_cosine = float(rotation[0, 0] + rotation[1, 1] + rotation[2, 2]) - 1.0
    if length > 1e-6:
        return twice_sine * (math.atan2(length, twice_cosine) / length)
    if twice_cosine > 0:
        return twice_sine / 2
    # Half a turn: the axis is in the symmetric part, its sign does not matter.
    column = int(np.argmax(np.diagonal(rotation)))
    axis: np.ndarray = rotation[:, column] + np.eye(3)[column]
    return axis * (math.pi / math.sqrt(float(axis @ axis)))


class X5Kinematics:
    """Forward and inverse kinematics of one model; the ``Kinematics`` of the interface. Keeps no state: threads may share it.

    Args:
        model: ``"X5"`` or ``"X5_umi"``; they differ in how far the tool is from the last joint.

    Raises:
        ValueError: no such model.
    """

    def __init__(self, model: str = "X5") -> None:
        limits = arm_limits(model)
        self.limits = limits
        self._tool = limits.tool_offset
        # Plain floats: for arrays this small numpy's own overhead is most of the time.
        self._origins = tuple(link.origin for link in LINKS[model])
        self._links = tuple((link.origin, math.cos(link.roll), math.sin(link.roll), link.axis) for link in LINKS[model])

    def forward(self, joint_pos: np.ndarray) -> np.ndarray:
        """(6,) joints, rad -> (6,) pose of the tool in the base frame."""
        return pose_from_matrix(self.matrix(joint_pos))

    def matrix(self, joint_pos: np.ndarray) -> np.ndarray:
        """(6,) joints, rad -> (4, 4) tool frame in the base frame."""
        return self._chain(joint_pos)[0]

    def points(self, joint_pos: np.ndarray) -> np.ndarray:
        """(6,) joints, rad -> (7, 3): where joints 1 to 6 and the tool are, metres, base frame."""
        tool, points, _ = self._chain(joint_pos)
        return np.array([*points, tool[:3, 3].tolist()])

    def jacobian(self, joint_pos: np.ndarray) -> np.ndarray:
        """(6,) joints, rad -> (6, 6): joint velocities to the tool's velocity (m/s) and turning (rad/s), base frame."""
        tool, points, axes = self._chain(joint_pos)
        return _jacobian(tool, points, axes)

    def inverse(self, eef_pose: np.ndarray, seed: np.ndarray) -> np.ndarray | None:
        """Joints within their limits that bring the tool to ``eef_pose``; of several, those nearest to ``seed``.

        The axes of joints 5 and 6 meet in a point that the pose gives, and joints 2, 3 and 4 move in a plane: there are at most
        four solutions, in closed form, and a None is final. What the form leaves out (half a turn is 3.1416 in the models) a
        step or two of damped least squares puts right.

        Args:
            eef_pose: (6,).
            seed: (6,) joints, rad. The nearest solution is the one whose largest joint difference is smallest.

        Returns:
            (6,) joints, rad, exact to a micrometre and 0.01 mrad, or None: out of reach, within the joints' limits.
        """
        target, seed = matrix_from_pose(np.asarray(eef_pose, float)), np.asarray(seed, float)
        if not np.isfinite(target).all() or not np.isfinite(seed).all():
            return None
        candidates = sorted(self._closed_form(target, seed), key=lambda joints: float(np.abs(joints - seed).max()))
        for joints in candidates:
            refined = self._refine(target, joints)
            if refined is not None:
                return refined
        return None

    def _closed_form(self, target: np.ndarray, seed: np.ndarray) -> list[np.ndarray]:
        """Up to four joint vectors within (nearly) the limits."""
        low, high = self.limits.joint_pos_min - _AT_LIMIT, self.limits.joint_pos_max + _AT_LIMIT
        (_, second, third, fourth, fifth, sixth) = self._origins
        # Where the axes of joints 5 and 6 meet.
        wrist = target[:3, 3] - (self._tool + sixth[0]) * target[:3, 0]
        around = math.hypot(wrist[0], wrist[1])
        # The plane of joints 2 to 4 misses that point by what link 5 is off it.
        aside = -fifth[1]
        if around > abs(aside):
            ahead = math.atan2(wrist[1], wrist[0])
            missed = math.asin(aside / around)
            turns = [ahead - missed, ahead + missed + math.pi]
        else:
            turns = [float(seed[0])]
        forearm, bend = math.hypot(fourth[0], fourth[2]), math.atan2(fourth[2], fourth[0])
        upper = -third[0]
        solutions = []
        for turn in turns:
            turn = math.remainder(turn, 2 * math.pi)
            cos, sin = math.cos(turn), math.sin(turn)
            # The tool's axes in the frame of link 1.
            first_frame = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]]) @ target[:3, :3]
            fx, fy, fz = first_frame[:, 0].tolist()
            q5 = -math.asin(min(1.0, max(-1.0, fy)))
            # How far joints 2 to 4 have pitched link 4. Joint 5 at a right angle, it takes no part in where the tool points.
            pitch = math.atan2(-fz, fx) if math.hypot(fx, fz) > 1e-09 else float(seed[1] - seed[2] - seed[3])
            q6 = _angle_about_x(pitch, q5, first_frame)
            # Joint 4 in that plane, from joint 2, forward and up.
            forward = cos * wrist[0] + sin * wrist[1] - second[0] - fifth[0] * math.cos(pitch)
            up = wrist[2] - self._origins[0][2] - second[2] + fifth[0] * math.sin(pitch)
            distance = math.hypot(forward, up)
            cosine = (distance**2 - upper**2 - forearm**2) / (2 * upper * forearm)
            if abs(cosine) > 1.0 + _STRETCHED:
                continue
            for elbow in (1.0, -1.0):
                # Link 2 points back where it is not raised, and link 3 forward again.
                fold = elbow * math.acos(min(1.0, max(-1.0, cosine)))
                raised = math.atan2(up, forward) - math.atan2(
                    forearm * math.sin(fold), upper + forearm * math.cos(fold)
                )
                q2 = math.pi - raised
                q3 = math.pi + fold + bend
                q2, q3 = _into(q2, low[1], high[1]), _into(q3, low[2], high[2])
                q4 = _into(q2 - q3 - pitch, low[3], high[3])
                joints = np.array([_into(turn, low[0], high[0]), q2, q3, q4, q5, _into(q6, low[5], high[5])])
                if (joints >= low).all() and (joints <= high).all():
                    solutions.append(joints)
        return solutions

    def _refine(self, target: np.ndarray, start: np.ndarray) -> np.ndarray | None:
        low, high = self.limits.joint_pos_min, self.limits.joint_pos_max
        joints = np.clip(start, low, high)
        for _ in range(_REFINEMENTS):
            tool, points, axes = self._chain(joints)
            error = _error(tool, target)
            if _close(error):
                return joints
            jacobian = _jacobian(tool, points, axes)
            # Nearly stretched, the Jacobian is nearly singular: damped, the step stays small.
            normal = jacobian.T @ jacobian + 1e-9 * np.eye(N_JOINTS)
            joints = np.clip(joints + np.linalg.solve(normal, jacobian.T @ error), low, high)
        return None

    def _chain(
        self, joint_pos: np.ndarray
    ) -> tuple[np.ndarray, list[tuple[float, float, float]], list[tuple[float, float, float]]]:
        """Tool (4, 4), and of every joint its point and the direction of its axis, all in the base frame."""
        # Columns of the rotation so far, and the origin.
        ax, ay, az = 1.0, 0.0, 0.0
        bx, by, bz = 0.0, 1.0, 0.0
        cx, cy, cz = 0.0, 0.0, 1.0
        x = y = z = 0.0
        points, axes = [], []
        for ((ox, oy, oz), cos_roll, sin_roll, axis), angle in zip(self._links, joint_pos, strict=True):
            x, y, z = x + ax * ox + bx * oy + cx * oz, y + ay * ox + by * oy + cy * oz, z + az * ox + bz * oy + cz * oz
            if sin_roll:
                bx, by, bz, cx, cy, cz = (
                    cos_roll * bx + sin_roll * cx,
                    cos_roll * by + sin_roll * cy,
                    cos_roll * bz + sin_roll * cz,
                    cos_roll * cx - sin_roll * bx,
                    cos_roll * cy - sin_roll * by,
                    cos_roll * cz - sin_roll * bz,
                )
            cos, sin = math.cos(angle), math.sin(angle)
            points.append((x, y, z))
            if axis == 2:
                axes.append((cx, cy, cz))
                ax, ay, az, bx, by, bz = (
                    cos * ax + sin * bx,
                    cos * ay + sin * by,
                    cos * az + sin * bz,
                    cos * bx - sin * ax,
                    cos * by - sin * ay,
                    cos * bz - sin * az,
                )
            elif axis == 1:
                axes.append((bx, by, bz))
                ax, ay, az, cx, cy, cz = (
                    cos * ax - sin * cx,
                    cos * ay - sin * cy,
                    cos * az - sin * cz,
                    cos * cx + sin * ax,
                    cos * cy + sin * ay,
                    cos * cz + sin * az,
                )
            else:
                axes.append((ax, ay, az))
                bx, by, bz, cx, cy, cz = (
                    cos * bx + sin * cx,
                    cos * by + sin * cy,
                    cos * bz + sin * cz,
                    cos * cx - sin * bx,
                    cos * cy - sin * by,
                    cos * cz - sin * bz,
                )
        tool = self._tool
        matrix = np.array(
            [
                [ax, bx, cx, x + tool * ax],
                [ay, by, cy, y + tool * ay],
                [az, bz, cz, z + tool * az],
                [0.0, 0.0, 0.0, 1.0],
            ]
        )
        return matrix, points, axes


def _error(tool: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(6,) from the tool to the target: metres, and rad about the base's axes."""
    return np.concatenate([target[:3, 3] - tool[:3, 3], rotation_vector(target[:3, :3] @ tool[:3, :3].T)])


def _close(error: np.ndarray) -> bool:
    return bool(
        float(error[:3] @ error[:3]) < _POSITION_TOLERANCE**2 and float(error[3:] @ error[3:]) < _ANGLE_TOLERANCE**2
    )


def _jacobian(
    tool: np.ndarray, points: list[tuple[float, float, float]], axes: list[tuple[float, float, float]]
) -> np.ndarray:
    tx, ty, tz = tool[0, 3], tool[1, 3], tool[2, 3]
    columns = []
    for (px, py, pz), (ux, uy, uz) in zip(points, axes, strict=True):
        dx, dy, dz = tx - px, ty - py, tz - pz
        columns.append((uy * dz - uz * dy, uz * dx - ux * dz, ux * dy - uy * dx, ux, uy, uz))
    return np.array(columns).T


def _angle_about_x(pitch: float, q5: float, tool: np.ndarray) -> float:
    """Joint 6, from how link 5 and the tool (3, 3) are turned in the frame of link 1."""
    # The y axis of link 5 after the half turn of joint 6: sideways where joint 5 is at 0.
    cp, sp, c5, s5 = math.cos(pitch), math.sin(pitch), math.cos(q5), math.sin(q5)
    sideways = np.array([cp * s5, c5, -sp * s5])
    upwards = np.array([sp, 0.0, cp])
    return math.atan2(float(upwards @ tool[:, 1]), float(sideways @ tool[:, 1]))


def _into(angle: float, low: float, high: float) -> float:
    """The same angle by whole turns, within the range where it can be."""
    while angle > high:
        angle -= 2 * math.pi
    while angle < low:
        angle += 2 * math.pi
    return angle
