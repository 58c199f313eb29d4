"""The safety envelope: limits of position, speed and acceleration of many trajectories at once; the nearest allowed target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import Kinematics
from uva_agents.envs.arx_x5.arm.limits import ArmLimits
from uva_agents.envs.arx_x5.safety.config import SafetyConfig
from uva_agents.envs.arx_x5.safety.events import InterventionKind
from uva_agents.envs.arx_x5.safety.frames import ToolFrames, rotations_from_rpy

_INSET_M, _INSET_RAD = 5e-4, 1e-5
"""Targets are put this far inside the limits: braking ends there, not on the limit itself."""
_ROUNDING = 1e-9
SAG_M = 1e-3
"""A damped arm may hang a little beyond a limit, and not on a straight line back."""
_SUBSTEPS = 4
"""Points per grid interval in the last check: between points of the grid the joints go straight, the tool does not."""

_PLANES = ((1, 2), (2, 0), (0, 1))
_KINDS = (*[InterventionKind.JOINT_LIMIT] * 12, *[InterventionKind.WORKSPACE] * 6, InterventionKind.TABLE)


class SafetyEnvelope:
    """Limits of one arm in one place.

    Args:
        kinematics: of the arm.
        limits: of the arm's model.
        config: what is allowed of them.
        beyond: (19,) :meth:`clearance` where the arm hung: a workspace limit that it was beyond is put there, and a little further.
    """

    def __init__(
        self, kinematics: Kinematics, limits: ArmLimits, config: SafetyConfig, *, beyond: np.ndarray | None = None
    ) -> None:
        self.config = config
        out = np.full(len(_KINDS), False) if beyond is None else (beyond < 0) & (np.arange(len(_KINDS)) >= 12)
        self._floor = np.full(len(_KINDS), np.inf)
        if beyond is not None:
            self._floor[out] = beyond[out] - SAG_M
        self._kinematics, self._limits = kinematics, limits
        self.tool = ToolFrames(kinematics, limits)
        self.jacobian = self.tool.jacobian
        self.joint_min = limits.joint_pos_min + config.joint_margin
        self.joint_max = limits.joint_pos_max - config.joint_margin
        self.gripper_min = config.gripper_min
        self.gripper_max = limits.gripper_width if config.gripper_max is None else config.gripper_max
        self._box_min, self._box_max = np.array(config.box_min), np.array(config.box_max)
        # Always as if the gripper were open: a check that does not depend on the gripper cannot be undone by it.
        across, thick = limits.gripper_width / 2, config.finger_thickness / 2
        self._corners = np.array([[0.0, y, z] for y in (-across, across) for z in (-thick, thick)])
        dt = config.period_s
        # Within one interval of the grid the speed may differ from its mean by half of what the acceleration allows.
        self._speed = config.speed - config.accel * dt / 2
        self._turn = config.turn - config.turn_accel * dt / 2

    def slower(self, share: float, *, beyond: np.ndarray | None = None) -> SafetyEnvelope:
        """The same place at a share of the speeds. Of the accelerations too: braking then takes as long as ever."""
        c = self.config
        names = ("speed", "turn", "joint_speed", "accel", "turn_accel", "joint_accel")
        slow = replace(c, **{name: share * getattr(c, name) for name in names})
        return SafetyEnvelope(self._kinematics, self._limits, slow, beyond=beyond)

    def clearance(self, joints: np.ndarray, points: np.ndarray, rotations: np.ndarray) -> np.ndarray:
        """(..., 19) distance to every limit of position, rad (12) and metres (7); negative outside."""
        table = self.config.table_height
        lowest = points[..., 2] + (rotations[..., 2, :] @ self._corners.T).min(-1)
        above = np.full(lowest.shape, np.inf) if table is None else lowest - table
        return np.concatenate(
            [
                joints - self.joint_min,
                self.joint_max - joints,
                points - self._box_min,
                self._box_max - points,
                above[..., None],
            ],
            axis=-1,
        )

    def clearance_at(self, joints: np.ndarray) -> np.ndarray:
        """(19,) :meth:`clearance` of one (6,)."""
        return np.asarray(self.clearance(joints, *self.tool(joints)))

    def allowed(self, trajectories: np.ndarray, start_clearance: np.ndarray) -> np.ndarray:
        """Which trajectories keep every limit, with a little to spare.

        Args:
            trajectories: (L, M, 6) points of the grid: the one before the start, the start, and M - 2 that follow.
            start_clearance: (19,) of the start: a limit that it is beyond already must not be exceeded further.

        Returns:
            (L,) bool.
        """
        c = self.config
        points, rotations = self.tool(trajectories)
        velocity, spin = _rates(points, rotations, c.period_s)
        clearance = self.clearance(trajectories[:, 2:], points[:, 2:], rotations[:, 2:])
        spare = np.where(np.arange(len(_KINDS)) < 12, _ROUNDING, _INSET_M / 2)
        good = (clearance >= np.minimum(np.minimum(spare, start_clearance - _ROUNDING), self._floor)).all((1, 2))
        good &= (_length(velocity[:, 1:]) <= self._speed).all(1) & (_length(spin[:, 1:]) <= self._turn).all(1)
        steps = np.diff(trajectories, axis=1) / c.period_s
        good &= (np.abs(steps[:, 1:]) <= c.joint_speed).all((1, 2))
        for rates, most in ((velocity, c.accel), (spin, c.turn_accel)):
            good &= (_length(np.diff(rates, axis=1)) <= 0.95 * most * c.period_s).all(1)
        good &= (np.abs(np.diff(steps, axis=1)) <= 0.999 * c.joint_accel * c.period_s).all((1, 2))
        return np.asarray(good)

    def broken(self, trajectory: np.ndarray) -> str | None:
        """The last check before a trajectory is sent, on all of it, finer than the grid: which limit it exceeds, or None.

        Args:
            trajectory: (M, 6) as a row of :meth:`allowed`.
        """
        c = self.config
        share = np.arange(_SUBSTEPS) / _SUBSTEPS
        fine = (trajectory[:-1, None] + share[:, None] * np.diff(trajectory, axis=0)[:, None]).reshape(-1, 6)
        fine = np.concatenate([fine, trajectory[-1:]])
        points, rotations = self.tool(fine)
        clearance = self.clearance(fine, points, rotations)[_SUBSTEPS:]
        under = (clearance < np.minimum(np.minimum(0.0, clearance[0]), self._floor) - _ROUNDING).any(0)
        if under.any():
            return str(_KINDS[int(under.argmax())])
        velocity, spin = _rates(points[_SUBSTEPS:], rotations[_SUBSTEPS:], c.period_s / _SUBSTEPS)
        coarse = _rates(points[::_SUBSTEPS], rotations[::_SUBSTEPS], c.period_s)
        steps = np.diff(trajectory, axis=0) / c.period_s
        for name, value, most in (
            ("joint_speed", np.abs(steps[1:]), c.joint_speed),
            ("joint_accel", np.abs(np.diff(steps, axis=0)) / c.period_s, c.joint_accel),
            ("speed", _length(velocity), c.speed),
            ("turn", _length(spin), c.turn),
            ("accel", _length(np.diff(coarse[0], axis=0)) / c.period_s, c.accel),
            ("turn_accel", _length(np.diff(coarse[1], axis=0)) / c.period_s, c.turn_accel),
        ):
            if value.size and value.max() > most + 1e-6:
                return name
        return None

    def nearest_pose(self, pose: np.ndarray) -> tuple[np.ndarray, InterventionKind | None]:
        """The pose (6,), moved into the box and above the table without turning it; and which of the two was needed."""
        moved = pose.copy()
        moved[:3] = np.clip(pose[:3], self._box_min + _INSET_M, self._box_max - _INSET_M)
        kind = InterventionKind.WORKSPACE if (np.abs(moved - pose) > 2 * _INSET_M).any() else None
        if self.config.table_height is not None:
            lowest = float((rotations_from_rpy(pose[3:])[2] @ self._corners.T).min())
            floor = self.config.table_height + _INSET_M - lowest
            if moved[2] < floor:
                kind = InterventionKind.TABLE if floor - pose[2] > 2 * _INSET_M else kind
                # Never above the box to clear the table: then there is no allowed pose, which the caller's check finds.
                moved[2] = floor
        return moved, kind

    def nearest_joints(self, joints: np.ndarray) -> np.ndarray:
        """The joints (..., 6), each clipped to its own limits."""
        return np.clip(joints, self.joint_min + _INSET_RAD, self.joint_max - _INSET_RAD)


def angle(first: np.ndarray, second: np.ndarray) -> float:
    """Between two rotations (3, 3), rad, 0 to pi."""
    return float(np.arccos(np.clip((np.trace(first.T @ second) - 1) / 2, -1.0, 1.0)))


def _rates(points: np.ndarray, rotations: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean velocities (..., M - 1, 3), m/s and rad/s, between neighbouring points of (..., M, 3) and (..., M, 3, 3)."""
    # Half of the skew part of new @ old.T is sin(angle) times the axis; the angle of a step is small: joint speeds are limited.
    new, old = rotations[..., 1:, :, :], rotations[..., :-1, :, :]
    lean = np.stack(
        [(new[..., j, :] * old[..., i, :] - new[..., i, :] * old[..., j, :]).sum(-1) for i, j in _PLANES], -1
    )
    return np.diff(points, axis=-2) / dt, lean / (2 * dt)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt((vectors * vectors).sum(-1)))
