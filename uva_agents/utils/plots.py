"""Plain pictures of trajectories, drawn with pillow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uva_agents.utils.pictures import enlarge, write_text

_FROM, _TO = np.array([40, 90, 220]), np.array([230, 60, 40])
_INK = [(31, 90, 180), (214, 90, 20), (30, 140, 60), (150, 40, 150), (110, 90, 20), (20, 140, 150), (200, 40, 80)]


def path_over(frame: np.ndarray, points: np.ndarray, *, scale: int = 5) -> np.ndarray:
    """A path drawn over a frame, blue where it begins and red where it ends.

    Args:
        frame: uint8 (H, W, 3).
        points: (N, 2) as x, y in shares of width and height.
    """
    from PIL import Image, ImageDraw

    image = Image.fromarray(enlarge(frame, scale))
    draw = ImageDraw.Draw(image)
    at = points * (image.width, image.height)
    for i in range(len(at) - 1):
        share = i / max(len(at) - 2, 1)
        colour = tuple(int(v) for v in _FROM + share * (_TO - _FROM))
        draw.line([tuple(at[i]), tuple(at[i + 1])], fill=colour, width=3)
    for point, end in ((at[0], _FROM), (at[-1], _TO)):
        draw.ellipse([tuple(point - 6), tuple(point + 6)], fill=tuple(int(v) for v in end))
    return np.asarray(image)


def curves(values: np.ndarray, names: Sequence[str], hz: float, *, width: int = 900, height: int = 110) -> np.ndarray:
    """One panel per column of (N, A) over time, each on its own scale."""
    from PIL import Image, ImageDraw

    left, top = 120, 10
    image = Image.new("RGB", (left + width + 20, top + len(names) * (height + 14) + 24), "white")
    draw = ImageDraw.Draw(image)
    text = []
    for i, name in enumerate(names):
        y = top + i * (height + 14)
        draw.rectangle([left, y, left + width, y + height], outline=(200, 200, 200))
        column = values[:, i]
        low, high = float(column.min()), float(column.max())
        span = high - low or 1.0
        line = [
            (left + width * k / max(len(column) - 1, 1), y + height - 4 - (height - 8) * (v - low) / span)
            for k, v in enumerate(column)
        ]
        draw.line(line if len(line) > 1 else line * 2, fill=_INK[i % len(_INK)], width=2)
        text += [
            (6, y + height // 2 - 8, name),
            (left + 6, y + 4, f"{high:.3g}"),
            (left + 6, y + height - 22, f"{low:.3g}"),
        ]
    text.append((left, image.height - 22, f"0 to {(len(values) - 1) / hz:.1f} s"))
    return write_text(np.asarray(image), text)
