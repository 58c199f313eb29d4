"""Where pixels are: the map between an image and the plane on which things happen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np


@runtime_checkable
class Camera(Protocol):
    """Maps between pixels (x to the right, y down, whole numbers at the centres) and metres on one plane."""

    def to_metres(self, pixels: Any) -> np.ndarray:
        """(..., 2) -> (..., 2)."""
        ...

    def to_pixels(self, metres: Any) -> np.ndarray:
        """(..., 2) -> (..., 2)."""
        ...


@dataclass(frozen=True, eq=False)
class Homography:
    """A :class:`Camera` that is a 3x3 matrix.

    Args:
        matrix: takes (x, y, 1) in metres on the plane to pixels times a depth.

    Raises:
        ValueError: not an invertible 3x3 matrix.
    """

    matrix: np.ndarray

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, np.float64)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
            raise ValueError(f"a homography is an invertible 3x3 matrix, got {self.matrix!r}")
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "_inverse", np.linalg.inv(matrix))

    @classmethod
    def pinhole(
        cls, *, position: Any, forward: Any, up: Any, focal: float, size: tuple[int, int], height: float = 0.0
    ) -> Self:
        """A pinhole camera's view of the plane z = ``height``.

        Args:
            position, forward, up: (3,) of the camera, world coordinates in metres; forward and up are unit vectors.
            focal: focal length, pixels.
            size: (H, W) of the image, whose middle is on the optical axis.
        """
        position, forward, up = (np.asarray(v, np.float64) for v in (position, forward, up))
        axes = np.stack([np.cross(forward, up), -up, forward])  # image right, image down, depth
        rows, columns = size
        intrinsics = np.array([[focal, 0, (columns - 1) / 2], [0, focal, (rows - 1) / 2], [0, 0, 1]])
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
        return _apply(getattr(self, "_inverse"), pixels)  # noqa: B009  (set in __post_init__)


def block_push_camera(size: tuple[int, int] = (96, 96), height: float = 0.02) -> Homography:
    """The camera of the block pushing task, 240x320, as a picture scaled to ``size``.

    Position (1, 0, 0.75), 45 degrees downwards, focal length 0.803 image widths (ibc's environment).

    Args:
        size: (H, W) of the pictures.
        height: of the plane; 0.02 is that of the squares.
    """
    a = np.sqrt(0.5)
    native = (240, 320)
    view = Homography.pinhole(
        position=(1.0, 0.0, 0.75), forward=(-a, 0, -a), up=(-a, 0, a), focal=0.803 * 320, size=native, height=height
    )
    return view.resized(native, size)


def _apply(matrix: np.ndarray, points: Any) -> np.ndarray:
    points = np.asarray(points, np.float64)
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    result: np.ndarray = mapped[..., :2] / mapped[..., 2:]
    return result
