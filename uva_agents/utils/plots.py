"""Plain pictures of trajectories and curves, drawn with pillow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Line:
    """A named line of a panel: x increasing, y finite where it is to be drawn."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def panels(plots: Mapping[str, Sequence[Line]], *, columns: int = 2, width: int = 430, height: int = 200) -> np.ndarray:
    """A panel per plot, title -> lines, each on its own scale: logarithmic where all is above 0 and spans more than tenfold."""
    from PIL import Image, ImageDraw

    left, top, gap = 62, 44, 30
    block = (left + width + 20, top + height + gap)
    rows = -(-len(plots) // columns)
    image = Image.new("RGB", (min(columns, len(plots)) * block[0], rows * block[1]), "white")
    draw = ImageDraw.Draw(image)
    for number, (title, lines) in enumerate(plots.items()):
        x0, y0 = (number % columns) * block[0] + left, (number // columns) * block[1] + top
        draw.rectangle([x0, y0, x0 + width, y0 + height], outline=(200, 200, 200))
        draw.text((x0, y0 - 40), title, fill=(30, 30, 30), font_size=15)
        values = np.array([v for line in lines for v in line.y], float)
        steps = np.array([v for line in lines for v in line.x], float)
        values, steps = values[np.isfinite(values)], steps[np.isfinite(steps)]
        if not len(values):
            continue
        low, high = float(values.min()), float(values.max())
        scale = np.log if low > 0 and high > 10 * low else np.asarray
        bottom, span = float(scale(low)), float(scale(high) - scale(low)) or 1.0
        first, last = float(steps.min()), float(steps.max())
        name_at = x0
        for i, line in enumerate(lines):
            ink = _INK[i % len(_INK)]
            points = [
                (
                    x0 + width * (x - first) / ((last - first) or 1.0),
                    y0 + height - 4 - (height - 8) * (float(scale(y)) - bottom) / span,
                )
                for x, y in zip(line.x, line.y, strict=True)
                if np.isfinite(y)
            ]
            if len(points) > 1:
                draw.line(points, fill=ink, width=2, joint="curve")
            elif points:
                draw.ellipse([points[0][0] - 3, points[0][1] - 3, points[0][0] + 3, points[0][1] + 3], fill=ink)
            draw.text((name_at, y0 - 20), line.name, fill=ink, font_size=13)
            name_at += int(draw.textlength(line.name, font_size=13)) + 14
        for y, value in ((y0, high), (y0 + height - 14, low)):
            text = f"{value:.3g}"
            draw.text((x0 - 6 - draw.textlength(text, font_size=12), y), text, fill=(90, 90, 90), font_size=12)
        text = f"step {last:,.0f}"
        draw.text((x0, y0 + height + 4), f"{first:,.0f}", fill=(90, 90, 90), font_size=12)
        draw.text(
            (x0 + width - draw.textlength(text, font_size=12), y0 + height + 4), text, fill=(90, 90, 90), font_size=12
        )
    return np.asarray(image)
