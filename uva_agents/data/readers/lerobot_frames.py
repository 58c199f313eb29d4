"""Pictures of LeRobot datasets that are not in films, and the place of those that cannot be read."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.data.lazy import file_identity
from uva_agents.data.picture_layouts import decoded_picture
from uva_agents.data.readers.parquet import columns_of, read_table
from uva_agents.errors import DataError

_CHANGED = {
    "L": "grey, shown as three equal channels",
    "1": "black and white, shown as three equal channels",
    "RGBA": "has an alpha channel that is opaque everywhere, left away",
    "LA": "grey with an alpha channel that is opaque everywhere, shown as three equal channels",
}


class MissingFrames:
    """The place of frames that cannot be read: whoever looks at them is told why."""

    def __init__(self, count: int, why: str) -> None:
        self.count, self.why = count, why
        self.identity = f"missing:{count}:{why}"

    def __len__(self) -> int:
        return self.count

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Raises the ``DataError`` that says why."""
        raise DataError(self.why)


class PictureFrames:
    """Frames stored as PNG or JPEG in a parquet file, one per row."""

    def __init__(self, folder: Path, name: str, key: str, size: tuple[int, int]) -> None:
        self.folder, self.name, self.key, self.size = folder, name, key, size
        self.count = columns_of(folder, name)[0]
        self.identity = f"{file_identity(folder / name)}:{key}"

    def __len__(self) -> int:
        return self.count

    def read(self, rows: np.ndarray) -> np.ndarray:
        """See :meth:`~uva_agents.data.lazy.FrameSource.read`."""
        return np.stack([self._picture(int(row))[0] for row in rows])

    def note(self) -> str | None:
        """What is changed in the first picture, in words."""
        return _CHANGED.get(self._picture(0)[1]) and f"{self.key}: {_CHANGED[self._picture(0)[1]]}"

    def _picture(self, row: int) -> tuple[np.ndarray, str]:
        """uint8 (H, W, 3), and how it was stored, in PIL's words."""
        from PIL import Image

        where = f"{self.folder / self.name}: picture {self.key} of row {row}"
        cell = _picture_column(self.folder, self.name, self.key, self.identity)[row].as_py()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            path = cell.get("path") if isinstance(cell, dict) else None
            raise DataError(
                f"{where} cannot be read: " + (f"only a path is stored: {path}" if path else "there is none")
            )
        try:
            with Image.open(io.BytesIO(content)) as image:
                if image.size != self.size[::-1]:
                    raise DataError(f"it is {image.size[::-1]}, not {self.size} pixels")
                return decoded_picture(image), image.mode
        except Exception as error:  # PIL raises a dozen types for damaged pictures
            raise DataError(f"{where} cannot be read: {error}") from error


@lru_cache(maxsize=4)
def _picture_column(folder: Path, name: str, key: str, identity: str) -> Any:
    return read_table(folder, name, columns=[key])[key].combine_chunks()
