"""Frames in hdf5 files: arrays of pictures, and JPEG files one per row."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.data.hdf5_store import DAMAGE, one_line, open_hdf5
from uva_agents.data.picture_layouts import PictureLayout, decoded_picture, picture_layout
from uva_agents.errors import DataError

if TYPE_CHECKING:
    import h5py

_MOST_PIXELS = 1 << 26


class Hdf5Frames:
    """Frames of one dataset of pictures in an hdf5 file.

    Args:
        count: how many of its rows to use.
        layout: how they are stored; by default as they come out.
    """

    def __init__(self, path: Path, key: str, count: int, identity: str, layout: PictureLayout | None = None) -> None:
        self.path, self.key, self.count, self.layout = path, key, count, layout
        self.identity = f"{identity}:{key}"

    def __len__(self) -> int:
        return self.count

    def read(self, rows: np.ndarray) -> np.ndarray:
        """See :meth:`~uva_agents.data.lazy.FrameSource.read`."""
        with open_hdf5(self.path) as file:
            try:
                array = file[self.key]
                if len(rows) == rows[-1] - rows[0] + 1:  # much faster than a list of rows
                    found = np.asarray(array[int(rows[0]) : int(rows[-1]) + 1])
                else:
                    found = np.asarray(array[rows])
            except DAMAGE as error:
                raise DataError(
                    f"{self.path}: {self.key} cannot be read around row {rows[0]}: {one_line(error)}"
                ) from error
        return found if self.layout is None else self.layout.convert(found, f"{self.path}: {self.key}")


def hdf5_layout(array: h5py.Dataset, source: str) -> PictureLayout | None:
    """The layout of an array of pictures, ``None`` for numbers.

    Raises:
        DataError: see :func:`~uva_agents.data.picture_layouts.picture_layout`.
    """
    return picture_layout(tuple(array.shape), array.dtype, lambda rows: np.asarray(array[rows]), source)


class JpegFrames(Hdf5Frames):
    """Frames stored as JPEG files, one per row, in an hdf5 dataset."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        """See :meth:`~uva_agents.data.lazy.FrameSource.read`."""
        with open_hdf5(self.path) as file:
            try:
                stored = file[self.key][rows]
            except DAMAGE as error:
                raise DataError(
                    f"{self.path}: {self.key} cannot be read around row {rows[0]}: {one_line(error)}"
                ) from error
        found = [
            decoded_jpeg(data, f"{self.path}: {self.key}, row {row}") for row, data in zip(rows, stored, strict=True)
        ]
        for row, frame in zip(rows, found, strict=True):
            if frame.shape != found[0].shape:
                raise DataError(
                    f"{self.path}: {self.key}, row {row}: the picture is {frame.shape[0]} x {frame.shape[1]}, others are "
                    f"{found[0].shape[0]} x {found[0].shape[1]}"
                )
        return np.stack(found)


def decoded_jpeg(data: Any, where: str) -> np.ndarray:
    """uint8 (H, W, 3) of a JPEG's bytes.

    Raises:
        DataError: it is damaged, or not what is read.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(np.asarray(data, np.uint8).tobytes()))
        if image.width * image.height > _MOST_PIXELS:
            raise DataError(f"it says it has {image.width} x {image.height} pixels")
        return decoded_picture(image)
    except Exception as error:  # damage brings PIL's own types and many others
        raise DataError(f"{where}: the picture is damaged: {one_line(error)}") from error
