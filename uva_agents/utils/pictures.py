"""Pictures and videos of real and imagined frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.utils.videos import check_video, ffmpeg_writing

BORDER = 4
SCALE = 2
_HIGH = 512
"""Pixels: pictures are enlarged up to this height."""


@dataclass(frozen=True)
class ImaginedFuture:
    """Real and imagined frames, uint8 (T, H, W, 3), after the frame of now (H, W, 3), and how many control steps ahead (T,).

    Where nobody knows what would really have come, ``real`` is ``None``.
    """

    label: str
    now: np.ndarray
    real: np.ndarray | None
    imagined: np.ndarray
    steps: np.ndarray


def enlarge(image: np.ndarray, times: int) -> np.ndarray:
    """Nearest-neighbour enlargement of (H, W, 3)."""
    return image.repeat(times, 0).repeat(times, 1)


def write_text(canvas: np.ndarray, lines: Sequence[tuple[int, int, str]]) -> np.ndarray:
    """Dark text at (x, y) positions of a uint8 (H, W, 3) picture."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for x, y, text in lines:
        draw.text((x, y), text, fill=(30, 30, 30), font_size=16)
    return np.asarray(image)


def side_by_side(real: np.ndarray | None, imagined: np.ndarray, left: str, right: str) -> np.ndarray:
    """A frame of a video: two pictures enlarged, with a line of text over each; only the second one where there is no first."""
    shown = [(real, left)] if real is not None else []
    shown.append((imagined, right))
    height, width = imagined.shape[:2]
    times = max(1, min(4, _HIGH // height))
    height, width = times * height, times * width
    canvas = np.full((height + 40, len(shown) * (width + 12) - 12, 3), 255, np.uint8)
    text = []
    for i, (picture, words) in enumerate(shown):
        x = i * (width + 12)
        canvas[40:, x : x + width] = enlarge(picture, times)
        text.append((x + 8, 10, words))
    return write_text(canvas, text)


def write_video(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """MP4; sides are made even, as the codec wants.

    Raises:
        OSError: the disk is full, or ffmpeg ended early; what is there is no whole video.
    """
    import imageio.v2 as iio

    writer: Any
    with (
        ffmpeg_writing(path),
        iio.get_writer(path, fps=fps, codec="libx264", quality=8, macro_block_size=1) as writer,
    ):
        for frame in frames:
            writer.append_data(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])
    check_video(path, len(frames))


def write_sheet(path: Path, futures: Sequence[ImaginedFuture]) -> None:
    """Contact sheet: per future a row of real frames over a row of imagined ones."""
    import imageio.v3 as iio

    height, width = futures[0].now.shape[:2]
    scale = max(1, min(SCALE, _HIGH // height))
    height, width = scale * height, scale * width
    left, top = 150, 34
    columns = 1 + len(futures[0].imagined)
    lines = [1 if future.real is None else 2 for future in futures]
    blocks = [n * (height + BORDER) + 2 * BORDER for n in lines]
    canvas = np.full((top + sum(blocks), left + columns * (width + BORDER), 3), 255, np.uint8)
    text = [(left + 8, 8, "now")]
    text += [(left + (c + 1) * (width + BORDER) + 8, 8, f"+{s} steps") for c, s in enumerate(futures[0].steps)]
    y = top
    for future, block in zip(futures, blocks, strict=True):
        rows = [("imagined", future.imagined)]
        if future.real is not None:
            rows.insert(0, ("real", future.real))
        for line, (title, frames) in enumerate(rows):
            yy = y + line * (height + BORDER)
            for column, frame in enumerate([future.now, *frames]):
                x = left + column * (width + BORDER)
                canvas[yy : yy + height, x : x + width] = enlarge(frame, scale)
            text.append((8, yy + height // 2, title))
        text.append((8, y + 12, future.label))
        y += block
    iio.imwrite(path, write_text(canvas, text))
