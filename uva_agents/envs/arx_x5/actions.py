"""Kinds of actions of ``uva/ArxX5-v0``, and what they ask of the arm.

Actions that ask for the impossible are not corrected here: the safety layer does that, and reports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.envs.arx_x5.arm.interface import N_JOINTS, ArmState
from uva_agents.envs.arx_x5.arm.kinematics import rotation_vector
from uva_agents.envs.arx_x5.arm.poses import matrix_from_vector, pose_of, rotation_of, tool_axes, vector_near
from uva_agents.errors import InputError
from uva_agents.utils.rotations import matrix_from_rows

ACTIONS = {
    "absolute": "(10,), position 3, rotation rows 6, opening of the gripper 1",
    "absolute_vector": "(7,), position 3, rotation vector 3, opening of the gripper 1",
    "relative": "(10,), move 3, rotation rows 6, opening of the gripper 1",
    "joints": "(7,), joints 6, opening of the gripper 1",
}
"""``action_mode`` -> what an action consists of. Metres and radians; the opening is from 0, closed, to the gripper's width."""
FARTHEST_MOVE = 0.5
"""Metres along an axis that a relative action may ask for: the last one of a chunk is about a second ahead."""


LONGEST_TURN = 2 * np.pi
"""rad; rotation vectors here are not the shortest ones, see :func:`~uva_agents.envs.arx_x5.arm.poses.vector_near`."""


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Where the arm shall be, step after step.

    Attributes:
        poses: (T, 6) as ``ArmState.eef_pose``, or ``None`` where joints were given.
        joints: (T, 6) rad, or ``None``.
        grippers: (T,) openings, metres.
    """

    poses: np.ndarray | None
    joints: np.ndarray | None
    grippers: np.ndarray

    def __len__(self) -> int:
        return len(self.grippers)

    def after(self, first: int) -> Targets:
        """Without the first ones."""
        poses = None if self.poses is None else self.poses[first:]
        return Targets(poses, None if self.joints is None else self.joints[first:], self.grippers[first:])


class ActionCodec:
    """Translates between actions of one kind and :class:`Targets`.

    Args:
        mode: one of :data:`ACTIONS`.
        tool_frame: the axes of the tool in which rotations are given, one of :data:`~uva_agents.envs.arx_x5.arm.poses.TOOL_FRAMES`.
        low, high: (3,) positions that an absolute action may ask for, metres, base frame.
        joint_low, joint_high: (6,) rad.
        gripper_width: largest opening, metres.

    Raises:
        InputError: an unknown mode or frame.
    """

    def __init__(
        self,
        mode: str,
        *,
        tool_frame: str,
        low: Sequence[float],
        high: Sequence[float],
        joint_low: np.ndarray,
        joint_high: np.ndarray,
        gripper_width: float,
    ) -> None:
        if mode not in ACTIONS:
            raise InputError(f"action_mode={mode!r} is unknown: pass one of {', '.join(map(repr, ACTIONS))}")
        self.mode = mode
        self._axes = tool_axes(tool_frame)
        # With the SDK's axes the home pose has no turn, and every rotation the shorter vector.
        self._near = rotation_vector(self._axes)
        farthest = np.full(3, FARTHEST_MOVE)
        least, most = {
            "absolute": ([*low, *-np.ones(6)], [*high, *np.ones(6)]),
            "absolute_vector": ([*low, *np.full(3, -LONGEST_TURN)], [*high, *np.full(3, LONGEST_TURN)]),
            "relative": ([*-farthest, *-np.ones(6)], [*farthest, *np.ones(6)]),
            "joints": ([*joint_low], [*joint_high]),
        }[mode]
        self.space = gym.spaces.Box(
            np.array([*least, 0.0], np.float32), np.array([*most, gripper_width], np.float32), dtype=np.float32
        )

    def checked(self, actions: Any, *, chunk: bool) -> np.ndarray:
        """One action (A,), or a chunk (T, A), as float64 (T, A). Neither range nor NaN is looked at.

        Raises:
            InputError: the shape is that of another mode, or of a chunk where one action is expected, or the reverse.
        """
        value = np.asarray(actions, dtype=np.float64)
        size = self.space.shape
        if chunk and value.ndim == 2 and value.shape[1:] == size and len(value):
            return value
        if not chunk and value.shape == size:
            return value[None]
        expected = f"a chunk (T, {size[0]}) of {self.mode} actions" if chunk else f"one {self.mode} action"
        hint = ""
        if chunk and value.shape == size:
            hint = "; for one action, call step()"
        elif not chunk and value.ndim == 2 and value.shape[1:] == size:
            hint = "; a chunk of actions is executed one step at a time, or given to schedule()"
        elif value.ndim:
            others = [mode for mode, what in ACTIONS.items() if what.startswith(f"({value.shape[-1]},)")]
            if others and self.mode not in others:
                hint = f"; make the environment with action_mode={' or '.join(map(repr, others))} for this one"
        raise InputError(f"ArxX5 takes {expected} {ACTIONS[self.mode]}, got {value.shape}{hint}")

    def targets(self, actions: np.ndarray, now: ArmState) -> Targets:
        """What a chunk (T, A) asks for, where relative actions start from the tool's pose in ``now``. NaN stays NaN.

        Raises:
            InputError: the six numbers of a rotation mean none.
        """
        grippers = actions[:, -1]
        if self.mode == "joints":
            return Targets(None, actions[:, :N_JOINTS], grippers)
        return Targets(np.stack([self._pose(row, now) for row in actions[:, :-1]]), None, grippers)

    def action(self, pose: np.ndarray, joints: np.ndarray, gripper: float, now: ArmState) -> np.ndarray:
        """The action (A,), float32, that asks for this pose (6,), or for these joints (6,), and this opening."""
        if self.mode == "joints":
            return np.array([*joints, gripper], np.float32)
        position, rotation = pose[:3], self.rotation(pose)
        if self.mode == "relative":
            here = self.rotation(now.eef_pose)
            position, rotation = here.T @ (position - now.eef_pose[:3]), here.T @ rotation
        rotated = vector_near(rotation, self._near) if self.mode == "absolute_vector" else rotation[:2].ravel()
        return np.array([*position, *rotated, gripper], np.float32)

    def rotation(self, pose: np.ndarray) -> np.ndarray:
        """(3, 3) of the tool's axes in this codec's frame, from a pose (6,) of the SDK's."""
        return np.asarray(rotation_of(pose) @ self._axes)

    def agent_pos(self, state: ArmState) -> np.ndarray:
        """(7,): position, rotation vector, opening of the gripper: what policies with UMI's interface take."""
        vector = vector_near(self.rotation(state.eef_pose), self._near)
        return np.array([*state.eef_pose[:3], *vector, state.gripper_pos])

    def _pose(self, row: np.ndarray, now: ArmState) -> np.ndarray:
        if not np.isfinite(row).all():
            return np.full(6, np.nan)
        position = row[:3]
        rotation = matrix_from_vector(row[3:]) if self.mode == "absolute_vector" else matrix_from_rows(row[3:])
        if self.mode == "relative":
            here = self.rotation(now.eef_pose)
            position, rotation = now.eef_pose[:3] + here @ position, here @ rotation
        return pose_of(position, rotation @ self._axes.T)
