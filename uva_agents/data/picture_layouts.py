"""Pictures as datasets store them, made what everything here takes: uint8 (N, H, W, 3).

Channels first, grey, with alpha, and numbers that are not uint8 are converted where only one reading is possible, and that is said.
Where two are, or where something would be lost, the array is refused by name: a picture that is read wrongly looks like one that
is read rightly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

_CHANNELS = (1, 3, 4)
_LEAST_SIDE, _LEAST_GREY_SIDE = 8, 16
"""Smaller arrays are taken for tables of numbers: poses, keypoints, touch sensors."""
_LEAST_PLAIN_SIDE = 48
"""From this side on, numbers that are not uint8 are taken for pictures whatever their name is."""
_NAMES = re.compile("image|img|rgb|cam|pixel|frame|view|video|colou?r|depth", re.IGNORECASE)
"""In names of what is pictures, in any type."""
_ASKED: ContextVar[frozenset[str]] = ContextVar("asked_pictures", default=frozenset())
_SAMPLED = 16
"""Rows that are looked at before a layout is settled; the others are held against it when they are read."""
_LEAST_WHITE = 16.0
"""Pictures in [0, 255] that are not uint8 must reach this somewhere, or they are more likely something else."""


@dataclass(frozen=True)
class PictureLayout:
    """How rows of a stored array become pictures.

    Attributes:
        size: height and width.
        channels: 1, 3 or 4.
        channels_first: (N, C, H, W).
        scale: what numbers that are not uint8 are multiplied by, ``None`` for uint8.
    """

    size: tuple[int, int]
    channels: int = 3
    channels_first: bool = False
    scale: float | None = None

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of what comes out."""
        return (*self.size, 3)

    @property
    def note(self) -> str:
        """What is changed, in words; empty for pictures that stay as they are."""
        done = []
        if self.channels_first:
            done.append("channels come first, put last here")
        if self.channels == 1:
            done.append("grey, shown as three equal channels")
        if self.channels == 4:
            done.append("has an alpha channel that is opaque everywhere, left away")
        if self.scale is not None:
            done.append(f"numbers in [0, {255 / self.scale:g}], made whole ones in [0, 255]")
        return "; ".join(done)

    def convert(self, rows: np.ndarray, source: str) -> np.ndarray:
        """uint8 (n, H, W, 3) of stored rows (n, ...).

        Raises:
            DataError: these rows do not keep to what the rows looked at before promised.
        """
        if self.channels_first:
            rows = np.moveaxis(rows, 1, -1)
        if rows.ndim == 3:
            rows = rows[..., None]
        if self.channels == 4:
            alpha = rows[..., 3]
            if alpha.size and (alpha != (255 if self.scale is None else 255 / self.scale)).any():
                raise DataError(f"{source}: {_TRANSPARENT}")
            rows = rows[..., :3]
        if self.scale is not None:
            rows = _whole(rows, self.scale, source)
        return np.repeat(rows, 3, axis=-1) if self.channels == 1 else rows


_TRANSPARENT = "some pictures are transparent in places, and what is behind them is not stored: flatten them first"


@contextmanager
def asked_for_pictures(keys: Iterable[str]) -> Iterator[None]:
    """While this is open, arrays of these stored keys are taken for pictures, whatever their names and types are."""
    token = _ASKED.set(frozenset(keys))
    try:
        yield
    finally:
        _ASKED.reset(token)


def picture_layout(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    sample: Callable[[np.ndarray], np.ndarray],
    source: str,
    *,
    asked: bool = False,
) -> PictureLayout | None:
    """The layout of a stored array, or ``None`` if it holds no pictures but numbers.

    Args:
        shape: (N, ...) of all of it.
        dtype: as stored.
        sample: reads some rows, given their increasing numbers.
        source: file and key, for messages; small arrays that are not uint8 are pictures only if the key's name says so.
        asked: somebody says that it holds pictures.

    Raises:
        DataError: pictures that could be read in two ways, or in none.
    """
    if dtype == np.uint8 and len(shape) > 4 and shape[-1] in (3, 4) and min(shape[-3:-1]) >= _LEAST_SIDE:
        raise DataError(
            f"{source}: its rows are {_by(shape[1:])} uint8, which looks like several pictures each: store each camera by itself"
        )
    if not _may_be_pictures(shape, dtype):
        return None
    if dtype != np.uint8 and not (asked or _is_named(source)):
        sides = shape[2:] if _channels_first(shape) and shape[3] not in _CHANNELS else shape[1:3]
        if 0 < min(sides) < _LEAST_PLAIN_SIDE:  # touch sensors, keypoints, maps of forces
            return None
    if 0 in shape[1:]:
        raise DataError(f"{source}: its pictures have no pixel, they are {_by(shape[1:])}")
    size, channels, first = _order(shape, dtype, source)
    if dtype == np.uint8 and channels != 4:
        return PictureLayout(size, channels, first)
    if not shape[0]:
        return PictureLayout(size, channels, first, None if dtype == np.uint8 else 1.0)
    if dtype != np.uint8 and channels == 1:
        raise DataError(
            f"{source}: one channel of {dtype} may be depth as well as grey: store grey pictures as uint8, or leave it out"
        )
    rows = np.asarray(sample(np.unique(np.linspace(0, shape[0] - 1, min(_SAMPLED, shape[0])).round().astype(int))))
    layout = PictureLayout(size, channels, first, None if dtype == np.uint8 else _scale(rows, source))
    layout.convert(rows, source)
    return layout


def decoded_picture(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3) of a PNG or JPEG as PIL opened it.

    Raises:
        DataError: more than 8 bits, another kind of colour, or transparent pixels: a conversion would clip or invent them.
    """
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("RGBA", "LA"):
        if image.getchannel("A").getextrema()[0] != 255:
            raise DataError(_TRANSPARENT)
    elif image.mode not in ("RGB", "L", "1", "YCbCr"):
        raise DataError(f"pictures of the kind {image.mode!r} are not read, 8-bit colour and grey are")
    return np.asarray(image.convert("RGB"))


def _may_be_pictures(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    if dtype.kind not in "uif":
        return False
    if len(shape) == 3:
        return dtype == np.uint8 and min(shape[1:]) >= _LEAST_GREY_SIDE
    if len(shape) != 4:
        return False
    last, first = shape[3], shape[1]
    if last == 3:  # the usual layout, at any size if it is uint8
        return dtype == np.uint8 or min(shape[1:3]) >= _LEAST_SIDE or _channels_first(shape)
    if last in _CHANNELS and min(shape[1:3]) >= _LEAST_SIDE:
        return True
    return _channels_first(shape) or (
        dtype == np.uint8 and min(sorted(shape[1:])[1:]) >= _LEAST_GREY_SIDE and first > 0
    )


def _is_named(source: str) -> bool:
    """Whether the name of a stored array, the last part of ``source``, or somebody, says that it is pictures."""
    if _NAMES.search(re.split(r"[/.:]", source)[-1]):
        return True
    return any(source.endswith((f"/{key}", f" {key}")) or source == key for key in _ASKED.get())


def _channels_first(shape: tuple[int, ...]) -> bool:
    return shape[1] in _CHANNELS and min(shape[2:]) >= _LEAST_SIDE


def _order(shape: tuple[int, ...], dtype: np.dtype[Any], source: str) -> tuple[tuple[int, int], int, bool]:
    """Size, channels, and whether they come first."""
    if len(shape) == 3:
        return (shape[1], shape[2]), 1, False
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first and last:
        raise DataError(
            f"{source}: pictures of {_by(shape[1:])} could have their channels first or last: store them as height, width, channels"
        )
    if not first and not last:
        raise DataError(
            f"{source}: pictures of {_by(shape[1:])} {dtype} have no axis of 1, 3 or 4 channels: store each camera by itself"
        )
    if first:
        return (shape[2], shape[3]), shape[1], True
    return (shape[1], shape[2]), shape[3], False


def _scale(rows: np.ndarray, source: str) -> float:
    """What makes numbers that are not uint8 pixels."""
    low, high = _range(rows, source)
    if low < 0 or high > 255:
        raise DataError(
            f"{source}: pixels that are no uint8 must be in [0, 1] or [0, 255], got [{low:g}, {high:g}]: scale them first"
        )
    if high <= 1:
        if not ((rows > 0) & (rows < 1)).any():
            raise DataError(
                f"{source}: its {rows.dtype} pixels are all 0 or 1, so it cannot be told whether white is 1 or 255: "
                "store them as uint8"
            )
        return 255.0
    if high < _LEAST_WHITE:
        raise DataError(
            f"{source}: {rows.dtype} in [{low:g}, {high:g}] is no picture in [0, 1] and hardly one in [0, 255]: store it as uint8"
        )
    return 1.0


def _whole(rows: np.ndarray, scale: float, source: str) -> np.ndarray:
    """uint8 of rows that are held against what their like looked like before."""
    low, high = _range(rows, source)
    if low < 0 or high > 255 / scale:
        raise DataError(
            f"{source}: most pixels are in [0, {255 / scale:g}], here they are in [{low:g}, {high:g}]: bring them to one scale"
        )
    if scale == 1 and rows.dtype.kind == "f":
        flat = rows.reshape(len(rows), -1)
        if ((flat.max(1) <= 1) & ((flat > 0) & (flat < 1)).any(1)).any():
            raise DataError(f"{source}: some pictures are in [0, 255] and some in [0, 1]: bring them to one scale")
    values: np.ndarray = rows.astype(np.float64 if rows.dtype.itemsize > 4 else np.float32)
    return np.asarray(np.round(values * np.float32(scale)), np.uint8)


def _range(rows: np.ndarray, source: str) -> tuple[float, float]:
    low, high = (float(np.min(rows)), float(np.max(rows))) if rows.size else (0.0, 0.0)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError(f"{source}: pixels have NaN or infinity")
    return low, high


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
