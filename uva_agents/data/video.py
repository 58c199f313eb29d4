"""Frames of video files, through the ffmpeg program that imageio-ffmpeg brings."""

from __future__ import annotations

import json
import subprocess
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uva_agents.data.lazy import file_identity

_BLOCK = 128
"""Frames that are decoded together."""
_KEPT_BYTES = 256 * 2**20
"""Decoded frames that are kept for the next look, all videos together."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says. ``shape`` is (H, W, 3) as shown, rotation applied; ``frames`` are counted, not estimated."""

    fps: float
    shape: tuple[int, int, int]
    frames: int


def probe(path: Path) -> VideoInfo:
    """Rate, size and number of frames; all packets are read, none is decoded.

    Raises:
        ValueError: no readable video.
    """
    from imageio_ffmpeg import count_frames_and_secs, read_frames

    try:
        reader = read_frames(str(path))
        meta = next(reader)
        reader.close()
        width, height = meta["size"]
        frames, _ = count_frames_and_secs(str(path))
    except (OSError, RuntimeError, StopIteration, KeyError) as error:
        raise ValueError(f"{path} cannot be read as a video; it is damaged or cut short: {_short(error)}") from error
    if frames < 1 or not meta["fps"]:
        raise ValueError(f"{path} has no video frame in it")
    return VideoInfo(float(meta["fps"]), (height, width, 3), frames)


class VideoFrames:
    """Consecutive frames of a video file.

    Args:
        path: the file.
        info: of the whole file.
        begin: number of the first frame.
        count: how many.
    """

    def __init__(self, path: Path, info: VideoInfo, begin: int, count: int) -> None:
        self.path, self.info, self.begin, self.count = path, info, begin, count
        self.identity = f"{file_identity(path)}:{begin}:{count}"

    def __len__(self) -> int:
        return self.count

    def read(self, rows: np.ndarray) -> np.ndarray:
        blocks = {int(b): self._block(int(b)) for b in np.unique(rows // _BLOCK)}
        return np.stack([blocks[int(row) // _BLOCK][int(row) % _BLOCK] for row in rows])

    def _block(self, number: int) -> np.ndarray:
        key = f"{self.identity}:{number}"
        if key in _CACHE:
            _CACHE.move_to_end(key)
            return _CACHE[key]
        begin = number * _BLOCK
        frames = decode(self.path, self.info, self.begin + begin, min(_BLOCK, self.count - begin))
        _CACHE[key] = frames
        while len(_CACHE) > 1 and sum(block.nbytes for block in _CACHE.values()) > _KEPT_BYTES:
            _CACHE.popitem(last=False)
        return frames


_CACHE: OrderedDict[str, np.ndarray] = OrderedDict()


def decode(path: Path, info: VideoInfo, begin: int, count: int) -> np.ndarray:
    """Frames ``begin`` to ``begin + count`` as uint8 (count, H, W, 3).

    Raises:
        ValueError: the file has fewer, or is damaged.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    # Half a frame early: rounding in the container must never skip the frame that is wanted.
    seek = ["-ss", f"{(begin - 0.5) / info.fps:.6f}"] if begin else []
    command = [
        *(get_ffmpeg_exe(), "-nostdin", "-v", "error", "-threads", "1"),
        *seek,
        *("-i", str(path), "-an", "-frames:v", str(count), "-fps_mode", "passthrough"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-"),
    ]
    done = subprocess.run(command, capture_output=True, check=False)
    size = int(np.prod(info.shape))
    found = len(done.stdout) // size
    if found < count:
        reason = _short(done.stderr.decode(errors="replace")) or "it ends early"
        raise ValueError(
            f"{path}: frames {begin} to {begin + count - 1} were expected, {found} of them could be read: {reason}"
        )
    return np.frombuffer(done.stdout, np.uint8, count * size).reshape(count, *info.shape)


class VideoWriter:
    """Writes an H.264 file, yuv420p, a key frame every second frame so that any frame is found quickly.

    Args:
        fps: frames per second.
        crf: quality, 0 (lossless but for the colour's resolution) to 51.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float, *, crf: int = 18) -> None:
        from imageio_ffmpeg import write_frames

        height, width = size
        if height % 2 or width % 2:
            raise ValueError(f"frames of {height} x {width} cannot be stored: H.264 in yuv420p needs even sides")
        self.path, self.size, self.frames = path, size, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = write_frames(
            str(path),
            (width, height),
            fps=fps,
            codec="libx264",
            pix_fmt_out="yuv420p",
            macro_block_size=2,
            quality=None,
            output_params=["-crf", str(crf), "-g", "2", "-preset", "veryfast", "-threads", "1"],
        )
        self._writer.send(None)

    def append(self, frames: Iterable[np.ndarray]) -> None:
        """uint8 (n, H, W, 3)."""
        for frame in frames:
            self._writer.send(np.ascontiguousarray(frame))
            self.frames += 1

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def _short(error: object) -> str:
    lines = str(error).strip().splitlines()
    return json.dumps(lines[-1][:200])[1:-1] if lines else ""
