"""Frames of video files, each at its time.

A file says when each of its frames is shown. Those times are read before anything is decoded, and what is decoded is held against
them: frames that come at uneven times, are missing or come twice never move the ones after them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uva_agents.data.ffmpeg import Shown, first_size, packet_times, show
from uva_agents.data.frame_rate import REMEDY, frame_rate, is_even, rows_seen
from uva_agents.data.lazy import file_identity
from uva_agents.errors import DataError, MachineError
from uva_agents.utils.videos import ffmpeg_writing

_BLOCK = 128
"""Frames that are decoded together, or fewer, if they are large."""
_BLOCK_BYTES = 256 * 2**20
_KEPT_BYTES = 256 * 2**20
"""Decoded frames that are kept for the next look, all videos together."""
_SAME_TIME_S = 1e-3
"""How far decoded frames may be from what the packets say: containers round."""


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """What a file says.

    Attributes:
        fps: frames per second; of unevenly spaced frames, the rate at which none of them is passed over.
        shape: (H, W, 3) as shown, rotation applied.
        times: (N,) seconds of each frame, increasing, as the file counts them: the first need not be 0.
        beyond_s, remarks: see :class:`~uva_agents.data.ffmpeg.FrameTimes`.
    """

    fps: float
    shape: tuple[int, int, int]
    times: np.ndarray
    beyond_s: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.times)

    @property
    def even(self) -> bool:
        """Whether they are equally spaced in time, so that counting them is telling the time."""
        return is_even(self.times - self.times[0], 1 / self.fps)

    def rows(self) -> np.ndarray:
        """(n,) for every step at :attr:`fps` from the first frame to the last, the number of the frame that is seen then.

        A frame is seen from its time on until the next one's. Every frame is seen at some step, none after a later one.
        """
        return rows_seen(self.times - self.times[0], self.fps)

    def note(self, name: str) -> str | None:
        """What is done about uneven times, and what is not read, in words."""
        parts = [f"{name}: {remark}" for remark in self.remarks]
        if self.even:
            return "; ".join(parts) or None
        gaps = np.diff(self.times)
        parts.append(
            f"{name}: its {self.frames} frames are {gaps.min():.4g} to {gaps.max():.4g} s apart; read at {self.fps:.4g} steps a "
            f"second, {len(self.rows())} in all, each with the frame that is seen then"
        )
        return "; ".join(parts)


def probe(path: Path) -> VideoInfo:
    """Times, size and rate; all packets are read, one frame is decoded (all of them, if only that tells their times).

    Raises:
        DataError: no readable video; times that are missing, or the same for two frames, or too uneven to be filled up.
    """
    try:
        packets = packet_times(path)
        times = packets.seconds
        if len(times):
            height, width = first_size(path, packets.beyond_s)
    except OSError as error:
        raise DataError(f"{path} cannot be read as a video; {error.strerror}") from error
    if not len(times):
        raise DataError(f"{path} has no video frame in it")
    if not np.isfinite(times).all():
        shown = show(path)
        if shown.errors:
            raise DataError(f"{path} cannot be read as a video; it is damaged or cut short: {shown.errors[-1]}")
        times = shown.times
    if not np.isfinite(times).all():
        raise DataError(f"{path} does not say when its frames are shown; {REMEDY}")
    gaps = np.diff(times)
    if (gaps <= 0).any():
        where = int(np.flatnonzero(gaps <= 0)[0])
        raise DataError(
            f"{path}: frames {where} and {where + 1} are shown at the same time, {times[where]:.4g} s; {REMEDY}"
        )
    return VideoInfo(frame_rate(path, times), (height, width, 3), times, packets.beyond_s, packets.remarks)


class VideoFrames:
    """Frames of a video file, in any order that does not go back.

    Args:
        path: the file.
        info: of the whole file.
        numbers: (n,) which of its frames these are, never falling; all steps of :meth:`VideoInfo.rows` by default.
    """

    def __init__(self, path: Path, info: VideoInfo, numbers: np.ndarray | None = None) -> None:
        self.path, self.info = path, info
        self.numbers = info.rows() if numbers is None else np.asarray(numbers)
        self._first, self._last = int(self.numbers[0]), int(self.numbers[-1])
        self._block_size = max(1, min(_BLOCK, _BLOCK_BYTES // int(np.prod(info.shape))))
        self.identity = f"{file_identity(path)}:{self._first}:{len(self.numbers)}"

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3) of these rows (n,).

        Raises:
            DataError: they cannot be decoded, or are not shown when the file says.
        """
        wanted = self.numbers[rows] - self._first
        blocks = {int(b): self._block(int(b)) for b in np.unique(wanted // self._block_size)}
        return np.stack([blocks[int(w) // self._block_size][int(w) % self._block_size] for w in wanted])

    def _block(self, number: int) -> np.ndarray:
        begin = self._first + number * self._block_size
        end = min(begin + self._block_size, self._last + 1)
        key = f"{file_identity(self.path)}:{begin}:{end}"
        if key in _CACHE:
            _CACHE.move_to_end(key)
            return _CACHE[key]
        frames = decode(self.path, self.info, begin, end - begin)
        _CACHE[key] = frames
        while len(_CACHE) > 1 and sum(block.nbytes for block in _CACHE.values()) > _KEPT_BYTES:
            _CACHE.popitem(last=False)
        return frames


_CACHE: OrderedDict[str, np.ndarray] = OrderedDict()


def read_forwards() -> None:
    """In this process, frames are read one after another from now on: no more than a block of them is kept for the next look."""
    global _KEPT_BYTES
    _KEPT_BYTES = 0
    _CACHE.clear()


def decode(path: Path, info: VideoInfo, begin: int, count: int) -> np.ndarray:
    """Frames ``begin`` to ``begin + count`` as uint8 (count, H, W, 3).

    Raises:
        DataError: the file has fewer, or is damaged, or shows others at their times.
    """
    wanted = info.times[begin : begin + count]
    shown = None
    if begin:
        # Half way from the frame before: rounding in the container must never skip the frame that is wanted.
        after = float(info.times[begin - 1] + wanted[0]) / 2
        shown = show(path, count=count, after_s=after, shape=info.shape, beyond_s=info.beyond_s)
    if shown is None or _problem(shown, wanted, info.shape) is not None:
        # Some files cannot be sought in. What is wrong from the beginning on is wrong.
        shown = show(path, count=count, skip=begin, shape=info.shape, beyond_s=info.beyond_s)
    if problem := _problem(shown, wanted, info.shape):
        raise DataError(
            f"{path}: frames {begin} to {begin + count - 1} were expected, {len(shown.pixels)} of them could be read: {problem}"
        )
    return shown.pixels[: len(wanted)]


def _problem(shown: Shown, wanted: np.ndarray, shape: tuple[int, int, int]) -> str | None:
    """Why what was decoded is not what was wanted, if it is not."""
    if shown.errors:
        return shown.errors[-1]
    if len(shown.times) < len(wanted) or len(shown.pixels) < len(wanted):
        return "it ends early"
    if (shown.sizes != shape[:2]).any():
        return f"they change their size from {shape[0]} x {shape[1]}"
    late = np.abs(shown.times[: len(wanted)] - wanted)
    if not (late <= _SAME_TIME_S).all():
        return f"a frame is shown at {shown.times[late.argmax()]:.4g} s, the file says {wanted[late.argmax()]:.4g} s"
    return None


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
        """uint8 (n, H, W, 3).

        Raises:
            MachineError: the disk is full, or ffmpeg was killed.
        """
        for frame in frames:
            try:
                with ffmpeg_writing(self.path):
                    self._writer.send(np.ascontiguousarray(frame))
            except OSError as error:
                raise MachineError(f"{self.path} could not be written: {error.strerror or error}") from error
            self.frames += 1

    def close(self) -> None:
        """Finish the file.

        Raises:
            MachineError: it did not become a film of all frames, because the disk is full or ffmpeg was killed.
        """
        self._writer.close()
        if not self.frames:
            return
        try:
            found = len(packet_times(self.path).seconds)
        except (DataError, OSError) as error:
            raise MachineError(f"{self.path} could not be written: {error}") from error
        if found != self.frames:
            raise MachineError(f"{self.path} could not be written: {found} of {self.frames} frames are in it")
