"""Robot poses between environment and network: (x, y, z, rotation vector, gripper) outside, rot6d and relative poses inside."""

from __future__ import annotations

import numpy as np
import torch

from uva_agents.errors import InputError
from uva_agents.utils.rotations import (
    matrix_from_pose9,
    pose9_from_matrix,
    pose_from_matrix,
    pose_matrix,
    relative_to,
    rot6d_from_matrix,
)


def environment_pose_actions(actions: np.ndarray, base: np.ndarray | None) -> np.ndarray:
    """Network actions (..., 10): position, rot6d, gripper -> (..., 7): position, rotation vector, gripper.

    Args:
        base: (7,) pose that the actions are relative to; ``None`` for absolute ones.
    """
    matrix = matrix_from_pose9(actions[..., :9])
    if base is not None:
        matrix = pose_matrix(base[:6]) @ matrix
    return np.concatenate([pose_from_matrix(matrix), actions[..., 9:]], axis=-1)


def network_pose_actions(actions: np.ndarray, base: np.ndarray | None) -> np.ndarray:
    """Inverse of :func:`environment_pose_actions`."""
    if actions.shape[-1] != 7:
        raise InputError(f"pose actions are (..., 7): x, y, z, rotation vector, gripper; got {actions.shape}")
    matrix = pose_matrix(actions[..., :6])
    if base is not None:
        matrix = relative_to(pose_matrix(base[:6]), matrix)
    return np.concatenate([pose9_from_matrix(matrix), actions[..., 6:]], axis=-1)


def relative_proprio(rows: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Absolute rows (K, 7) -> (K, 16): position and rot6d relative to the last row (now), gripper, rot6d relative to ``start``.

    Args:
        start: (7,) row at the start of the episode.
    """
    matrix = pose_matrix(rows[:, :6])
    now = pose9_from_matrix(relative_to(matrix[-1], matrix))
    turned = rot6d_from_matrix(relative_to(pose_matrix(start[:6]), matrix)[:, :3, :3])
    return np.concatenate([now, rows[:, 6:7], turned], axis=-1)


def smooth_actions(actions: torch.Tensor, *, taps: int = 3) -> torch.Tensor:
    """Moving average of (..., K, A) over the K steps, the ends repeated. The released robot server does it to every number.

    Rotations as rot6d come out a little short; making a matrix of them puts them back on the sphere.
    """
    steps = actions.shape[-2]
    on = actions.device
    rows = torch.arange(steps, device=on)[:, None] + torch.arange(taps, device=on) - taps // 2
    return actions[..., rows.clamp(0, steps - 1), :].mean(dim=-2)
