"""Pictures of block pushing, drawn for tests: the floor, two outlines, two blocks, an arm, through the task's camera."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from uva_agents.planners.vision.camera import Homography, block_push_camera

SCALE = 4
NATIVE = (240 * SCALE, 320 * SCALE)
PURE = {"red": (255, 0, 0), "green": (0, 255, 0)}
PALE = {"red": (255, 87, 89), "green": (87, 255, 89)}


def plane(height: float) -> Homography:
    """Of the task's camera, drawn four times as large."""
    return block_push_camera(NATIVE, height)


def box(x: float, y: float, side: float, turn: float = 0.0) -> np.ndarray:
    half = side / 2 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    c, s = np.cos(turn), np.sin(turn)
    corners: np.ndarray = np.array([x, y]) + half @ np.array([[c, s], [-s, c]])
    return corners


def scene(
    blocks: dict[str, tuple[float, float]],
    squares: dict[str, tuple[float, float]],
    *,
    arm: tuple[float, float] | None = (0.3, -0.4),
    turn: float = 0.4,
    blur: float = 0.0,
    noise: float = 0.0,
    shade: float = 1.0,
    size: tuple[int, int] = (96, 96),
    seed: int = 0,
) -> np.ndarray:
    """uint8 (H, W, 3).

    Args:
        blocks, squares: colour to centre (x, y), metres.
        arm: position of the tool, hidden behind which is what is behind it.
        turn: yaw of the blocks, radians.
        blur: radius in pixels of the result.
        noise: deviation in grey levels.
        shade: brightness of the blocks' upper sides.
    """
    image = Image.new("RGB", NATIVE[::-1], (235, 240, 250))
    draw = ImageDraw.Draw(image)

    def polygon(points: np.ndarray, height: float, colour: tuple[int, ...]) -> None:
        draw.polygon([tuple(p) for p in plane(height).to_pixels(points)], fill=colour)

    floor = np.array([[0.0995, -0.4995], [0.6005, -0.4995], [0.6005, 0.4995], [0.0995, 0.4995]])
    polygon(floor, 0.0, (51, 51, 51))
    for colour, (x, y) in squares.items():
        for k in range(4):
            outer, inner = box(x, y, 0.12, 0.05), box(x, y, 0.108, 0.05)
            strip = np.stack([outer[k], outer[(k + 1) % 4], inner[(k + 1) % 4], inner[k]])
            polygon(strip, 0.02, PURE[colour])
    for colour, (x, y) in sorted(blocks.items(), key=lambda b: b[1][0]):  # nearer ones later
        base = box(x, y, 0.04, turn)
        for k in np.argsort([base[k][0] + base[(k + 1) % 4][0] for k in range(4)])[2:]:
            low, high = (plane(z).to_pixels(base[[k, (k + 1) % 4]]) for z in (0.0, 0.04))
            side = tuple(int(0.7 * shade * c) for c in PALE[colour])
            draw.polygon([tuple(low[0]), tuple(low[1]), tuple(high[1]), tuple(high[0])], fill=side)
        polygon(base, 0.04, tuple(int(shade * c) for c in PALE[colour]))
    if arm is not None:
        polygon(box(*arm, 0.02), 0.01, (46, 129, 197))
        for z in np.arange(0.02, 0.25, 0.004):
            polygon(box(*arm, 0.012 if z < 0.06 else 0.07), z, (30, 30, 30) if z < 0.06 else (225, 225, 228))
    image = image.resize(size[::-1], Image.Resampling.BOX)
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    pixels = np.asarray(image, np.float64)
    pixels = pixels + np.random.default_rng(seed).normal(0, noise, pixels.shape) if noise else pixels
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)
