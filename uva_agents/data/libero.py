"""LIBERO's actions: changes of the tool's pose as recorded, absolute poses as UVA and Diffusion Policy learn them."""

from __future__ import annotations

import numpy as np

from uva_agents.utils.rotations import matrix_from_rot6d, matrix_from_vector, rot6d_from_matrix, vector_from_matrix

POSITION_SCALE = 0.05
"""Metres that an action of 1 moves the goal of robosuite's OSC_POSE controller."""
ROTATION_SCALE = 0.5
"""Radians that an action of 1 turns it."""


def absolute_actions(
    actions: np.ndarray,
    position: np.ndarray,
    rotation: np.ndarray,
    *,
    position_scale: float = POSITION_SCALE,
    rotation_scale: float = ROTATION_SCALE,
) -> np.ndarray:
    """The goals that recorded actions set.

    The controller adds the scaled change to where the tool *is* when the action arrives, not to the goal before; rotations are
    about the axes of the robot's base. LIBERO's own files hold what was seen *after* each row's action, so there the pose when an
    action is given is that of the row before.

    Args:
        actions: (..., 7) position change, rotation vector, gripper; clipped to [-1, 1] but for the gripper, as the controller does.
        position: (..., 3) of the controlled point (robosuite's grip site) when each action is given, metres.
        rotation: (..., 3, 3) of the same site. The recorded ``ee_ori`` and ``robot0_eef_quat`` are those of the hand, see
            :func:`site_rotation`.

    Returns:
        float32 (..., 10): position (metres), rot6d, gripper as recorded.

    Raises:
        ValueError: shapes that do not go together, numbers that are not finite.
    """
    actions, position, rotation = (np.asarray(value, np.float64) for value in (actions, position, rotation))
    if actions.shape[-1:] != (7,):
        raise ValueError(f"actions must be (..., 7), got {actions.shape}; are they absolute already?")
    _check(actions.shape[:-1], position, rotation)
    if not (np.isfinite(actions).all() and np.isfinite(position).all() and np.isfinite(rotation).all()):
        raise ValueError("actions and poses must be finite")
    change = np.clip(actions[..., :6], -1.0, 1.0)
    goal = position + change[..., :3] * position_scale
    rotated = matrix_from_vector(change[..., 3:] * rotation_scale) @ rotation
    absolute: np.ndarray = np.concatenate([goal, rot6d_from_matrix(rotated), actions[..., 6:]], axis=-1)
    return absolute.astype(np.float32)


def relative_actions(
    absolute: np.ndarray,
    position: np.ndarray,
    rotation: np.ndarray,
    *,
    position_scale: float = POSITION_SCALE,
    rotation_scale: float = ROTATION_SCALE,
) -> np.ndarray:
    """Inverse of :func:`absolute_actions`, as far as the controller goes in a step.

    Takes absolute actions (..., 10), gives float32 (..., 7) with changes clipped to [-1, 1].
    """
    absolute, position, rotation = (np.asarray(value, np.float64) for value in (absolute, position, rotation))
    if absolute.shape[-1:] != (10,):
        raise ValueError(f"absolute actions must be (..., 10), got {absolute.shape}")
    _check(absolute.shape[:-1], position, rotation)
    moved = (absolute[..., :3] - position) / position_scale
    turn = matrix_from_rot6d(absolute[..., 3:9]) @ np.swapaxes(rotation, -1, -2)
    rotated = vector_from_matrix(turn) / rotation_scale
    change = np.clip(np.concatenate([moved, rotated], axis=-1), -1.0, 1.0)
    relative: np.ndarray = np.concatenate([change, absolute[..., 9:]], axis=-1)
    return relative.astype(np.float32)


def site_rotation(hand: np.ndarray) -> np.ndarray:
    """Rotation of the Panda's grip site from that of its hand, (..., 3, 3).

    The gripper is mounted a quarter turn about the hand's z axis, clockwise.
    """
    quarter = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    rotated: np.ndarray = np.asarray(hand, np.float64) @ quarter
    return rotated


def _check(batch: tuple[int, ...], position: np.ndarray, rotation: np.ndarray) -> None:
    if position.shape != (*batch, 3) or rotation.shape != (*batch, 3, 3):
        raise ValueError(
            f"position and rotation must be {(*batch, 3)} and {(*batch, 3, 3)}, got {position.shape} and {rotation.shape}"
        )
