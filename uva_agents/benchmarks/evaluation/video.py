"""Episodes as MP4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.utils.videos import check_video, ffmpeg_writing


class VideoFile:
    """An H.264 file that appears under its name only when it is complete.

    Args:
        path: ends in ``.mp4``; the folder is made.
        fps: frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        import imageio.v2 as imageio  # slow to import, and most evaluations write no video

        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._frames = path, 0
        self._partial = path.with_name(f".{path.stem}.partial.mp4")
        self._writer: Any = imageio.get_writer(self._partial, fps=fps, codec="libx264", quality=8, macro_block_size=2)

    def add(self, frame: np.ndarray) -> None:
        """Append a uint8 (H, W, 3) picture.

        Raises:
            OSError: the disk is full, or ffmpeg has ended.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
            raise ValueError(f"a video takes uint8 (H, W, 3) frames, render() gave {frame.dtype} {frame.shape}")
        with ffmpeg_writing(self._partial):
            self._writer.append_data(frame)
        self._frames += 1

    def close(self, *, keep: bool = True) -> None:
        """Finish the file, or drop it.

        Raises:
            OSError: the video is not whole, and has been dropped.
        """
        try:
            with ffmpeg_writing(self._partial):
                self._writer.close()
            if keep:
                check_video(self._partial, self._frames)
                self._partial.replace(self.path)
        finally:
            self._partial.unlink(missing_ok=True)
