"""The twin's wrist camera as a pinhole: where it is mounted, and where a point is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from uva_agents.envs.arx_x5.arm.limits import arm_limits

WRIST_POSITION = (0.055, 0.0, 0.078)
"""In the frame of the arm's last link, metres."""
WRIST_TILT = math.radians(32)
"""How far below the tool's axis it looks."""
WRIST_FOVY = 80.0
"""Degrees, from the lower to the upper edge of a picture."""


@dataclass(frozen=True, eq=False)
class Pinhole:
    """A camera on a tool.

    Attributes:
        matrix: (3, 3) of intrinsics, pixels.
        mount: (4, 4) the camera's frame (x right, y down, z where it looks) in the tool's, whose axes are the SDK's (x out of the
            gripper, y left, z up).
    """

    matrix: np.ndarray
    mount: np.ndarray

    def project(self, tool: np.ndarray, point: np.ndarray) -> np.ndarray:
        """(2,) pixel (column, row) of a point (3,) in the base's frame, the tool being at (4, 4)."""
        inside = np.linalg.inv(tool @ self.mount) @ np.append(point, 1.0)
        seen = self.matrix @ inside[:3]
        return np.asarray(seen[:2] / seen[2])


def wrist_pinhole(size: tuple[int, int], model: str = "X5") -> Pinhole:
    """Of the wrist camera with pictures of (height, width), as it was built: looks move it by some millimetres."""
    height, width = size
    focal = height / 2 / math.tan(math.radians(WRIST_FOVY) / 2)
    # The middle of the picture lies between pixels.
    matrix = np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])
    sine, cosine = math.sin(WRIST_TILT), math.cos(WRIST_TILT)
    right, down, forward = (0.0, -1.0, 0.0), (-sine, 0.0, -cosine), (cosine, 0.0, -sine)
    mount = np.eye(4)
    mount[:3, :3] = np.array([right, down, forward]).T
    mount[:3, 3] = np.array(WRIST_POSITION) - [arm_limits(model).tool_offset, 0.0, 0.0]
    return Pinhole(matrix, mount)
