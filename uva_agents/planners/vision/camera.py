"""Where pixels are: the map between an image and a plane of the scene."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from uva_agents.envs.block_push.camera import CAMERAS
from uva_agents.errors import InputError


@runtime_checkable
class PlaneProjection(Protocol):
    """How a camera sees one plane: pixels (x to the right, y down, whole numbers at the centres) to metres on it, and back."""

    def to_metres(self, pixels: Any) -> np.ndarray:
        """(..., 2) -> (..., 2)."""
        ...

    def to_pixels(self, metres: Any) -> np.ndarray:
        """(..., 2) -> (..., 2)."""
        ...


@dataclass(frozen=True, eq=False)
class Homography:
    """A :class:`PlaneProjection` that is a 3x3 matrix.

    Args:
        matrix: takes (x, y, 1) in metres on the plane to pixels times a depth.

    Raises:
        ValueError: not an invertible 3x3 matrix.
    """

    matrix: np.ndarray

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, np.float64)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
            raise InputError(f"a homography is an invertible 3x3 matrix, got {self.matrix!r}")
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def pinhole(
        cls,
        *,
        position: Any,
        forward: Any,
        up: Any,
        focal: float | tuple[float, float],
        size: tuple[int, int],
        height: float = 0.0,
    ) -> Self:
        """A pinhole camera's view of the plane z = ``height``.

        Args:
            position, forward, up: (3,) of the camera, world coordinates in metres; forward and up are unit vectors.
            focal: focal length, pixels; across and down where they differ.
            size: (H, W) of the image, whose middle is on the optical axis.
        """
        position, forward, up = (np.asarray(v, np.float64) for v in (position, forward, up))
        axes = np.stack([np.cross(forward, up), -up, forward])  # image right, image down, depth
        rows, columns = size
        fx, fy = focal if isinstance(focal, tuple) else (focal, focal)
        intrinsics = np.array([[fx, 0, (columns - 1) / 2], [0, fy, (rows - 1) / 2], [0, 0, 1]])
        plane = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, height]])
        return cls(intrinsics @ (axes @ plane - np.outer(axes @ position, [0, 0, 1])))

    def resized(self, before: tuple[int, int], after: tuple[int, int]) -> Self:
        """Of the same picture scaled from (H, W) to (H, W)."""
        sy, sx = after[0] / before[0], after[1] / before[1]
        scale = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])
        return type(self)(scale @ self.matrix)

    def cropped(self, top: float, left: float) -> Self:
        """Of the picture without its first ``top`` rows and ``left`` columns."""
        return type(self)(np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]]) @ self.matrix)

    def to_pixels(self, metres: Any) -> np.ndarray:
        """Points of the plane (..., 2) -> pixels (..., 2)."""
        return _apply(self.matrix, metres)

    def to_metres(self, pixels: Any) -> np.ndarray:
        """Pixels (..., 2) -> points of the plane (..., 2)."""
        return _apply(self._inverse, pixels)

    @cached_property
    def _inverse(self) -> np.ndarray:
        return np.linalg.inv(self.matrix)


def block_push_camera(size: tuple[int, int] = (96, 96), height: float = 0.02, view: str = "workspace") -> Homography:
    """A camera of ``uva/BlockPush-v0``.

    Args:
        size: (H, W) of the pictures.
        height: of the plane; 0.02 is that of the squares.
        view: the environment's ``camera``.

    Raises:
        ValueError: an unknown view.
    """
    if view not in CAMERAS:
        raise InputError(f"view={view!r} is unknown: choose one of {', '.join(map(repr, CAMERAS))}")
    camera = CAMERAS[view]
    toward = np.subtract(camera.look_at, camera.eye)
    distance = float(np.linalg.norm(toward))
    forward = toward / distance
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    focal = (size[1] * distance / camera.width, size[0] * distance / camera.height)
    return Homography.pinhole(
        position=camera.eye, forward=forward, up=np.cross(right, forward), focal=focal, size=size, height=height
    )


def _apply(matrix: np.ndarray, points: Any) -> np.ndarray:
    points = np.asarray(points, np.float64)
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    result: np.ndarray = mapped[..., :2] / mapped[..., 2:]
    return result
