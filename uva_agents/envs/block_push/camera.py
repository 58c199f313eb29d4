"""Cameras of block pushing: pinhole models above the table."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TableCamera:
    """A pinhole camera above the table.

    Attributes:
        eye: position, metres.
        look_at: point in the middle of the picture, metres.
        width, height: what the picture spans at the distance of ``look_at``, metres, across the view direction. Their
            ratio is kept whatever the number of pixels: a square picture of a wide view has narrow pixels.
    """

    eye: tuple[float, float, float]
    look_at: tuple[float, float, float]
    width: float
    height: float

    @property
    def view(self) -> list[float]:
        """OpenGL view matrix, 16 numbers, column by column."""
        forward = _unit(_minus(self.look_at, self.eye))
        # The picture's right is +y: left and right of someone who faces the arm.
        right = _unit(_cross(forward, (0.0, 0.0, 1.0)))
        up = _cross(right, forward)
        rows = (right, up, (-forward[0], -forward[1], -forward[2]))
        matrix = [rows[r][c] for c in range(3) for r in (0, 1, 2)]
        columns = [[*matrix[3 * c : 3 * c + 3], 0.0] for c in range(3)]
        columns.append([-_dot(row, self.eye) for row in rows] + [1.0])
        return [value for column in columns for value in column]

    @property
    def projection(self) -> list[float]:
        """OpenGL projection matrix, 16 numbers, column by column."""
        near, far = 0.1, 10.0
        distance = math.dist(self.eye, self.look_at)
        sx, sy = 2 * distance / self.width, 2 * distance / self.height
        depth, shift = -(far + near) / (far - near), -2 * far * near / (far - near)
        return [sx, 0, 0, 0, 0, sy, 0, 0, 0, 0, depth, -1, 0, 0, shift, 0]

    def project(self, point: tuple[float, float, float]) -> tuple[float, float]:
        """Column and row of ``point``, as shares of the picture in [0, 1] from its top left corner."""
        v, p = self.view, self.projection
        eye = [sum(v[4 * c + r] * (*point, 1.0)[c] for c in range(4)) for r in range(3)]
        return 0.5 + 0.5 * p[0] * eye[0] / -eye[2], 0.5 - 0.5 * p[5] * eye[1] / -eye[2]


_Vector = tuple[float, float, float]


def _minus(a: _Vector, b: _Vector) -> _Vector:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _dot(a: _Vector, b: _Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: _Vector, b: _Vector) -> _Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _unit(a: _Vector) -> _Vector:
    length = math.sqrt(_dot(a, a))
    return a[0] / length, a[1] / length, a[2] / length


_DISTANCE, _ELEVATION = 2.0, math.radians(60)

WORKSPACE = TableCamera(
    eye=(0.42 + _DISTANCE * math.cos(_ELEVATION), -0.07, _DISTANCE * math.sin(_ELEVATION)),
    look_at=(0.42, -0.07, 0.0),
    width=0.80,
    height=0.54,
)
"""What agents see: the part of the table that pushing happens in, from 60 degrees above, filling the picture."""

# 240 x 320 pixels with a focal length of 256.96 pixels, whose axis meets the table at (0.25, 0): the published view.
_PUBLISHED_DISTANCE = math.hypot(0.75, 0.75)
PUBLISHED = TableCamera(
    eye=(1.0, 0.0, 0.75),
    look_at=(0.25, 0.0, 0.0),
    width=320 / 256.96 * _PUBLISHED_DISTANCE,
    height=240 / 256.96 * _PUBLISHED_DISTANCE,
)
"""The published environment's view of the whole scene; blocks are five pixels wide in 96 x 96."""

CAMERAS = {"workspace": WORKSPACE, "published": PUBLISHED}
