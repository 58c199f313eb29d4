"""Poses as actions of robosuite's arm: UVA's ten numbers, and the seven that robosuite's controllers take.

Absolute, as UVA and Diffusion Policy learn them: position (3) in metres, the first two rows of the rotation matrix (6), gripper.
Both are of the grip site between the finger tips, in the world's frame.
"""

from __future__ import annotations

import numpy as np

from uva_agents.utils.rotations import matrix_from_rows, rot6d_from_matrix


def absolute_controller(config: dict[str, object], arm: str = "right") -> dict[str, object]:
    """Let robosuite's controller take poses in the world's frame instead of changes.

    Args:
        config: from ``load_composite_controller_config``; changed in place.
        arm: which part of the body.
    """
    parts = config["body_parts"]
    assert isinstance(parts, dict)
    # As it comes, absolute input would be read in the frame of the arm's base, 0.9 m above the world's.
    parts[arm].update(input_type="absolute", input_ref_frame="world")
    return config


def native_from_absolute(action: np.ndarray) -> np.ndarray:
    """(10,) position, rot6d, gripper to the (7,) position, rotation vector, gripper of an absolute OSC_POSE controller.

    The six numbers of the rotation need not be orthonormal: they are made so, the first row first.

    Raises:
        ValueError: the rows are zero or parallel, so that no rotation is meant.
    """
    # scipy comes with robosuite; without either, an environment has to load far enough to say what is missing. Its vectors differ
    # in the last bits from those of utils.rotations, and recorded episodes are repeated bit for bit.
    from scipy.spatial.transform import Rotation

    return np.concatenate([action[:3], Rotation.from_matrix(matrix_from_rows(action[3:9])).as_rotvec(), action[9:]])


def absolute_from_pose(position: np.ndarray, rotation: np.ndarray, gripper: float) -> np.ndarray:
    """The (10,) action that asks for this pose: position (3,), rotation (3, 3), gripper in [-1, 1], 1 closed."""
    return np.concatenate([position, rot6d_from_matrix(rotation), [gripper]])
