"""Cameras: an OpenCV device, a video file. A thread keeps the newest frame; reading never waits for the next."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import DriverError, Frame
from uva_agents.errors import InputError
from uva_agents.utils.clocks import Clock

log = logging.getLogger(__name__)

Size = tuple[int, int]
"""(H, W)."""
_RETRY_S = 1.0
"""Between attempts to open a device that is gone."""


class Capture(Protocol):
    """What is used of ``cv2.VideoCapture``."""

    def read(self) -> tuple[bool, Any]:
        """Waits for the next picture: success, uint8 (H, W, 3) BGR."""
        ...

    def release(self) -> None:
        """Let go of the device."""
        ...


def fit(image: np.ndarray, size: Size) -> np.ndarray:
    """``image`` uint8 (H, W, 3) made just large enough to cover ``size``, and cut around its middle."""
    import cv2

    height, width = image.shape[:2]
    rows, columns = size
    if (height, width) == (rows, columns):
        return image
    scale = max(rows / height, columns / width)
    # Rounding must not leave a row too few.
    covered = max(rows, round(height * scale)), max(columns, round(width * scale))
    if covered != (height, width):
        # Averages when it shrinks: leaving pixels out would flicker.
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, covered[::-1], interpolation=method)
    top, left = (covered[0] - rows) // 2, (covered[1] - columns) // 2
    return np.ascontiguousarray(image[top : top + rows, left : left + columns])


class ThreadedCamera:
    """Keeps the newest frame of a capture device.

    A frame's time is when it arrived less ``latency_s``: lens to computer, measured once (``docs/arx_x5.md``). A device that stops
    giving pictures is opened again; meanwhile :meth:`read` raises, and a safety layer that watches the camera holds the arm.

    Args:
        open_capture: opens the device; called again if it is lost.
        clock: the one that the arm's states are stamped with. It must be a real one: devices do not wait.
        name: for messages.
        size: of the frames given; the device's own if absent.
        latency_s: taken off arrival times.
        stale_s: an older newest frame is an error.
    """

    def __init__(
        self,
        open_capture: Callable[[], Capture],
        *,
        clock: Clock,
        name: str = "camera",
        size: Size | None = None,
        latency_s: float = 0.0,
        stale_s: float = 0.5,
    ) -> None:
        if not 0 <= latency_s <= 2 or stale_s <= 0:
            raise InputError(f"latency_s={latency_s} must be 0 to 2 s, stale_s={stale_s} positive")
        self._open, self._clock, self.name = open_capture, clock, name
        self._size, self._latency_s, self._stale_s = size, latency_s, stale_s
        self._lock = threading.Lock()
        self._newest: tuple[float, Frame] | None = None
        self._problem = "it has not given a picture yet"
        self._over = threading.Event()
        capture = open_capture()  # what is wrong from the beginning is said at once
        self._thread = threading.Thread(target=self._run, args=(capture,), name=name, daemon=True)
        self._thread.start()

    def read(self) -> Frame:
        """See :meth:`~uva_agents.envs.arx_x5.arm.interface.Camera.read`; one older than ``stale_s`` is an error, too."""
        with self._lock:
            newest, problem = self._newest, self._problem
        if self._over.is_set():
            raise DriverError(f"{self.name} is closed")
        if newest is None:
            raise DriverError(f"{self.name}: {problem}")
        arrived_s, frame = newest
        age_s = self._clock.now() - arrived_s
        if age_s > self._stale_s:
            raise DriverError(
                f"{self.name} has given no picture for {age_s:.2f} s: {problem or 'is it still plugged in?'}"
            )
        return frame

    def close(self) -> None:
        """See :meth:`~uva_agents.envs.arx_x5.arm.interface.Camera.close`; waits up to 2 s for the thread to end."""
        self._over.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)

    def _run(self, capture: Capture | None) -> None:
        try:
            while not self._over.is_set():
                if capture is None:
                    capture = self._opened_again()
                    continue
                try:
                    good, image = capture.read()
                    arrived_s = self._clock.now()
                    frame = self._frame(image, arrived_s) if good else None
                except Exception as error:  # OpenCV's own, of many kinds
                    log.warning("%s: %s", self.name, error)
                    frame = None
                if frame is None:
                    self._lost("the device gives no more pictures; it is opened again")
                    capture.release()
                    capture = None
                    continue
                with self._lock:
                    self._newest, self._problem = (arrived_s, frame), ""
        finally:
            if capture is not None:
                capture.release()

    def _frame(self, image: Any, arrived_s: float) -> Frame:
        picture = np.ascontiguousarray(np.asarray(image)[..., ::-1])
        return Frame(arrived_s - self._latency_s, picture if self._size is None else fit(picture, self._size))

    def _opened_again(self) -> Capture | None:
        if self._over.wait(_RETRY_S):
            return None
        try:
            return self._open()
        except DriverError as error:
            self._lost(str(error))
            return None

    def _lost(self, problem: str) -> None:
        with self._lock:
            changed = problem != self._problem
            self._problem = problem
        if changed:
            log.warning("%s: %s", self.name, problem)


class VideoFileCamera:
    """Plays a video file in the time of a clock, simulated or real: for tests, and for runs without an arm.

    Every picture comes at its own time, as the file says, also where the rate varies or pictures were lost.

    Args:
        path: anything that OpenCV reads.
        clock: playing begins now.
        size: of the frames given; the file's own if absent.
        latency_s: a frame is given this long after it was seen.
        loop: begin again after the end; otherwise the end is an error.

    Raises:
        DriverError: no such file, or no video.
    """

    def __init__(
        self, path: str | Path, *, clock: Clock, size: Size | None = None, latency_s: float = 0.0, loop: bool = False
    ) -> None:
        self.path, self._clock, self._size = Path(path), clock, size
        self._latency_s, self._loop = latency_s, loop
        self._capture = self._opened()
        import cv2

        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self._begin_s, self._number = clock.now(), 0  # of this round
        self._frame: Frame | None = None
        self._seen_s = 0.0  # in the film, of the picture that is shown
        self._first_s = self._last_s = (
            0.0  # of the first and the last that was decoded; the film's own clock, and since the first
        )
        self._coming = self._next() if self.fps > 0 else None
        if self._coming is None:
            raise DriverError(f"{path} has no picture in it")

    def read(self) -> Frame:
        """See :meth:`~uva_agents.envs.arx_x5.arm.interface.Camera.read`; the end of a film that does not loop is an error."""
        if self._capture is None:
            raise DriverError(f"{self.path} is closed")
        now_s = self._clock.now() - self._latency_s
        while True:
            coming_s = self._seen_s + 1 / self.fps if self._coming is None else self._coming[0]
            # The first picture is given at once, whatever the latency.
            if self._frame is not None and self._begin_s + coming_s > now_s + 1e-9:
                return self._frame
            if self._coming is not None:
                self._seen_s, image = self._coming
                picture = np.ascontiguousarray(image[..., ::-1])
                picture = picture if self._size is None else fit(picture, self._size)
                self._frame = Frame(self._begin_s + self._seen_s, picture)
                self._coming = self._next()
                continue
            if not self._loop:
                raise DriverError(f"{self.path} has ended after {self._number} pictures")
            self._capture.release()
            self._begin_s += self._seen_s + 1 / self.fps
            self._capture, self._number, self._seen_s = self._opened(), 0, 0.0
            self._coming = self._next()
            if self._coming is None:
                raise DriverError(f"{self.path} has no picture in it any more")

    def close(self) -> None:
        """See :meth:`~uva_agents.envs.arx_x5.arm.interface.Camera.close`."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _opened(self) -> Any:
        import cv2

        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            reason = "it is no video that OpenCV can read" if self.path.is_file() else "there is no such file"
            raise DriverError(f"{self.path} cannot be played: {reason}")
        return capture

    def _next(self) -> tuple[float, np.ndarray] | None:
        """The picture after the last one and its seconds since the first; ``None`` at the end."""
        import cv2

        good, image = self._capture.read()
        if not good:
            return None
        at_s = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        if self._number == 0:
            self._first_s = at_s
        since = at_s - self._first_s
        if self._number and not since > self._last_s:  # a file that does not say
            since = self._last_s + 1 / self.fps
        self._last_s = since
        self._number += 1
        return since, image


def open_camera(
    source: int | str | Path,
    *,
    clock: Clock,
    size: Size | None = None,
    latency_s: float = 0.0,
    stale_s: float = 0.5,
    resolution: Size | None = None,
    fps: float | None = None,
    loop: bool = False,
) -> ThreadedCamera | VideoFileCamera:
    """A camera by number, device file or video file.

    Args:
        source: number of a device, ``/dev/video0`` and the like (``/dev/v4l/by-id/...`` stays the same when it is plugged in
            again), or a video file.
        clock, size, latency_s, stale_s: see :class:`ThreadedCamera`.
        resolution: (H, W) asked of the device.
        fps: asked of the device.
        loop: see :class:`VideoFileCamera`.

    Raises:
        DriverError: it cannot be opened; the message says why, as far as that is known.
    """
    text = str(source)
    is_device = text.isdigit() or text.startswith("/dev/")
    if not is_device:
        return VideoFileCamera(text, clock=clock, size=size, latency_s=latency_s, loop=loop)
    return ThreadedCamera(
        lambda: _device(text, resolution, fps),
        clock=clock,
        name=f"camera {text}",
        size=size,
        latency_s=latency_s,
        stale_s=stale_s,
    )


def _device(source: str, resolution: Size | None, fps: float | None) -> Capture:
    import cv2

    path = Path(f"/dev/video{source}" if source.isdigit() else source)
    if Path("/dev").is_dir() and not path.exists():
        found = ", ".join(sorted(str(p) for p in Path("/dev").glob("video*"))) or "none"
        raise DriverError(f"there is no camera {path}; devices: {found}. Is it plugged in?")
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_V4L2)
    if not capture.isOpened():
        raise DriverError(f"{path} cannot be opened: used by another program, or no right to it (group 'video')?")
    # Compressed pictures: raw ones of large size do not fit through USB at full rate.
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    if resolution is not None:
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, resolution[0])
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, resolution[1])
    if fps is not None:
        capture.set(cv2.CAP_PROP_FPS, fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    got = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    if resolution is not None and got != tuple(resolution):
        log.warning("%s gives %d x %d, not the %d x %d asked for", path, got[1], got[0], resolution[1], resolution[0])
    return capture
