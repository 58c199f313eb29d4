"""Finds pale blocks and square outlines of a pure hue in pictures of block pushing, sharp or imagined, and says when it cannot.

A block is a filled square of a pale red or green, a goal square is a thin outline of pure red or green. Blurred, the outline mixes
with the dark floor and turns pale as well; what it never does is fill an area. So a block is where the pale colour is dense, and
an outline is where colour lies along a square but neither inside nor outside of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from uva_agents.planners.vision.camera import PlaneProjection

Colour = Literal["red", "green"]

BLOCK_RGB = {"red": (255, 87, 89), "green": (87, 255, 89)}
"""Of a block in full light; outlines are (255, 0, 0) and (0, 255, 0)."""
BLOCK_SIDE = 0.04
"""Metres."""
SQUARE_SIDE = 0.114
"""Metres, middle of the 6 mm border (0.108 inside, 0.12 outside)."""

THRESHOLD = 0.42
"""Density of a block's colour, 1 for a sharp block in full light. Blurred by 1.5 px a block reaches 0.57, at two thirds of the
light and blurred by 0.8 px 0.5; a corner of an outline of the same hue 0.37 at most (drawn scenes of 96x96, tests/scenes.py)."""


@dataclass(frozen=True)
class Found:
    """Of N pictures.

    Attributes:
        pixels: (N, 2) x, y; meaningless where not seen.
        strength: (N,) how much of the thing is there, about 1 for a clear view of all of it.
        seen: (N,) bool.
    """

    pixels: np.ndarray
    strength: np.ndarray
    seen: np.ndarray


def find_blocks(frames: np.ndarray, colour: Colour, camera: PlaneProjection, *, threshold: float = THRESHOLD) -> Found:
    """The densest spot of a block's colour in each picture, and its soft centroid.

    Args:
        frames: uint8 or float (N, H, W, 3), 0 to 255.
        colour: of the block.
        camera: tells how large a block appears.
        threshold: density at which a block counts as seen.
    """
    amount = block_amount(frames, colour)
    n, height, width = amount.shape
    wx, wy = _block_pixels(camera, height, width)
    density = _box_mean(amount, wy, wx)
    flat = density.reshape(n, -1).argmax(1)
    top, left = flat // width, flat % width
    strength = density.reshape(n, -1).max(1)
    # Centroid around the densest spot; the weak colour of blurred outlines and edges does not pull.
    ry, rx = 2 * wy, 2 * wx
    dy, dx = np.meshgrid(np.arange(-ry, ry + 1), np.arange(-rx, rx + 1), indexing="ij")
    padded = np.pad(amount, ((0, 0), (ry, ry), (rx, rx)))
    patches = padded[np.arange(n)[:, None, None], (top[:, None, None] + dy + ry), (left[:, None, None] + dx + rx)]
    near = np.exp(-0.5 * ((dy / (0.75 * wy + 0.5)) ** 2 + (dx / (0.75 * wx + 0.5)) ** 2))
    weights = np.maximum(patches - 0.35 * patches.max((1, 2), keepdims=True), 0) * near
    mass = np.maximum(weights.sum((1, 2)), 1e-9)
    x = left + (weights * dx).sum((1, 2)) / mass
    y = top + (weights * dy).sum((1, 2)) / mass
    return Found(np.stack([x, y], -1), strength, strength >= threshold)


def block_amount(frames: np.ndarray, colour: Colour) -> np.ndarray:
    """How much of a block's colour is in each pixel, (N, H, W) from 0 to about 1 (darker in the shade).

    The largest k such that k times the block's hue and k times its paleness are both there: a pure outline has no paleness, grey
    and white have no hue.
    """
    red, green, blue = BLOCK_RGB[colour]
    frames = np.asarray(frames, np.float32)
    main, other = (frames[..., 0], frames[..., 1]) if colour == "red" else (frames[..., 1], frames[..., 0])
    rest = frames[..., 2]
    full, pale = max(red, green), min(red, green)
    hue = (main - np.maximum(other, rest)) / (full - blue)
    paleness = np.minimum(other, rest) / pale
    amount: np.ndarray = np.clip(np.minimum(hue, paleness), 0, 1.2)
    return amount


def find_square(
    frame: np.ndarray,
    colour: Colour,
    camera: PlaneProjection,
    *,
    area: tuple[float, float, float, float],
    threshold: float = 0.04,
) -> tuple[np.ndarray, float, bool]:
    """Centre of the square outline in one picture.

    Args:
        frame: uint8 or float (H, W, 3), 0 to 255.
        colour: of the outline.
        camera: of the plane it lies in.
        area: x_min, x_max, y_min, y_max in metres where its centre may be.
        threshold: contrast, in parts of the pure colour, from which it counts as seen.

    Returns: (2,) metres, contrast, and whether it was seen.
    """
    frame = np.asarray(frame, np.float32)
    main, other = (frame[..., 0], frame[..., 1]) if colour == "red" else (frame[..., 1], frame[..., 0])
    hue = np.clip((main - np.maximum(other, frame[..., 2])) / 255, 0, 1)
    hue = hue * _without_block(frame, colour, camera)
    x_min, x_max, y_min, y_max = area
    centres = np.stack(np.meshgrid(np.arange(x_min, x_max, 0.014), np.arange(y_min, y_max, 0.014)), -1).reshape(-1, 2)
    best = centres[_contrast(hue, camera, centres, 0.0).argmax()]
    score = -np.inf
    offsets = np.arange(-0.012, 0.0121, 0.003)
    fine = np.stack(np.meshgrid(offsets, offsets), -1).reshape(-1, 2)
    for turn in np.radians([-6, -3, 0, 3, 6]):  # squares lie within six degrees of the axes
        contrast = _contrast(hue, camera, best + fine, turn)
        if contrast.max() > score:
            score = float(contrast.max())
            # The mean of the best places is steadier than the best: neighbours differ by less than a pixel's noise.
            weight = np.clip(contrast - 0.9 * score, 0, None) if score > 0 else np.ones(len(contrast))
            centre = ((best + fine) * weight[:, None]).sum(0) / weight.sum()
    return centre, score, score >= threshold


def _contrast(hue: np.ndarray, camera: PlaneProjection, centres: np.ndarray, turn: float) -> np.ndarray:
    """(M,) mean colour along outlines at these centres, less that just inside and outside; no colour beyond the picture."""
    along = np.concatenate([_outline(SQUARE_SIDE - 0.003), _outline(SQUARE_SIDE + 0.003)])
    beside = np.concatenate([_outline(SQUARE_SIDE - 0.05), _outline(SQUARE_SIDE + 0.05)])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    values = []
    for points in (along, beside):
        values.append(_sampled(hue, camera.to_pixels(centres[:, None] + points @ rotation.T)).mean(1))
    contrast: np.ndarray = values[0] - values[1]
    return contrast


def _outline(side: float, count: int = 8) -> np.ndarray:
    """(4 * count, 2) points along a square around the origin."""
    t = (np.arange(count) + 0.5) / count - 0.5
    half = np.full(count, 0.5)
    edges = [np.stack(p, -1) for p in ((t, half), (t, -half), (half, t), (-half, t))]
    outline: np.ndarray = side * np.concatenate(edges)
    return outline


def _sampled(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Bilinear values (...,) at pixels (..., 2), zero outside."""
    height, width = image.shape
    padded = np.pad(image, 1)
    x = np.clip(pixels[..., 0] + 1, 0, width + 0.999)
    y = np.clip(pixels[..., 1] + 1, 0, height + 0.999)
    left, top = x.astype(int), y.astype(int)
    fx, fy = x - left, y - top
    upper = padded[top, left] * (1 - fx) + padded[top, left + 1] * fx
    lower = padded[top + 1, left] * (1 - fx) + padded[top + 1, left + 1] * fx
    value: np.ndarray = upper * (1 - fy) + lower * fy
    return value


def _without_block(frame: np.ndarray, colour: Colour, camera: PlaneProjection) -> np.ndarray:
    """(H, W) one, falling to zero where the block of the same hue is: it is not part of an outline."""
    height, width = frame.shape[:2]
    found = find_blocks(frame[None], colour, camera)
    if not found.seen[0]:
        return np.ones((height, width), np.float32)
    wx, wy = _block_pixels(camera, height, width)
    y, x = np.mgrid[:height, :width]
    far = ((x - found.pixels[0, 0]) / (0.9 * wx)) ** 2 + ((y - found.pixels[0, 1]) / (0.9 * wy)) ** 2
    weight: np.ndarray = np.clip(far - 0.5, 0, 1).astype(np.float32)
    return weight


def _block_pixels(camera: PlaneProjection, height: int, width: int) -> tuple[int, int]:
    """About how wide and high a block appears in the middle of the picture."""
    middle = camera.to_metres([(width - 1) / 2, (height - 1) / 2])
    half = BLOCK_SIDE / 2
    corners = camera.to_pixels(middle + half * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]))
    size = corners.max(0) - corners.min(0)
    return max(2, round(float(size[0]))), max(2, round(float(size[1])))


def _box_mean(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Mean over a window around each pixel (zeros outside), (N, H, W)."""
    top, left = rows // 2, columns // 2
    padded = np.pad(images, ((0, 0), (top + 1, rows - 1 - top), (left + 1, columns - 1 - left)))
    total = padded.cumsum(1).cumsum(2)
    area = (
        total[:, rows:, columns:]
        - total[:, :-rows, columns:]
        - total[:, rows:, :-columns]
        + total[:, :-rows, :-columns]
    )
    mean: np.ndarray = area / (rows * columns)
    return mean
