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


@dataclass(frozen=True)
class ImaginedFuture:
    """Real and imagined frames, uint8 (T, H, W, 3), after the frame of now (H, W, 3), and how many control steps ahead (T,)."""

    label: str
    now: np.ndarray
    real: np.ndarray
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


def side_by_side(real: np.ndarray, imagined: np.ndarray, left: str, right: str) -> np.ndarray:
    """A frame of a video: two pictures four times enlarged, with a line of text over each."""
    size = 4 * real.shape[0]
    canvas = np.full((size + 40, 2 * size + 12, 3), 255, np.uint8)
    canvas[40:, :size] = enlarge(real, 4)
    canvas[40:, size + 12 :] = enlarge(imagined, 4)
    return write_text(canvas, [(8, 10, left), (size + 20, 10, right)])


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

    side = futures[0].now.shape[0] * SCALE
    left, top = 150, 34
    columns = 1 + len(futures[0].real)
    block = 2 * side + 4 * BORDER
    canvas = np.full((top + len(futures) * block, left + columns * (side + BORDER), 3), 255, np.uint8)
    text = [(left + 8, 8, "now")]
    text += [(left + (c + 1) * (side + BORDER) + 8, 8, f"+{s} steps") for c, s in enumerate(futures[0].steps)]
    for row, future in enumerate(futures):
        y = top + row * block
        for line, frames in enumerate((future.real, future.imagined)):
            for column, frame in enumerate([future.now, *frames]):
                x, yy = left + column * (side + BORDER), y + line * (side + BORDER)
                canvas[yy : yy + side, x : x + side] = enlarge(frame, SCALE)
        text += [(8, y + 12, future.label), (8, y + side // 2, "real"), (8, y + side + BORDER + side // 2, "imagined")]
    iio.imwrite(path, write_text(canvas, text))
