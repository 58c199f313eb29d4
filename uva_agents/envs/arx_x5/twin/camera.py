"""Pictures of the twin. They are drawn only when they are read, in a thread of their own, and show the moment of the exposure.

An OpenGL context belongs to the thread that made it; in a thread of their own, contexts work for readers in any thread.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from uva_agents.envs import gl
from uva_agents.envs.arx_x5.arm.interface import DriverError, Frame
from uva_agents.envs.arx_x5.twin.controller import TwinController
from uva_agents.envs.arx_x5.twin.exposures import Exposure

LARGEST = 1024
"""Pixels, of height and width."""
QUALITIES = ("fast", "full")
_QUALITY = {"fast": (0, 16, 8, 2), "full": (4, 28, 16, 4)}
"""Samples per pixel; slices, stacks and quads of round and flat things."""
_DRAWN = "the twin of the arm"
_models_lock = threading.Lock()
_inherited: list[dict[Any, Any]] = []
"""Of the process that this one was forked from, whose they are: kept, so that nothing frees them here."""


class TwinCamera:
    """The ``Camera`` of the interface, in the twin: its frame rate, latency, lost frames and noise are those of the realism.

    Args:
        twin: what it settings at.
        name: ``"wrist"`` or ``"outside"``.
        height: of a picture, pixels.
        width: of a picture, pixels.
        quality: ``"full"`` has shadows and smooth edges, and takes about ten times as long on a CPU as ``"fast"``.

    Raises:
        ValueError: no such camera or quality, or a size outside [8, 1024].
    """

    def __init__(
        self, twin: TwinController, name: str = "wrist", *, height: int = 224, width: int = 224, quality: str = "fast"
    ) -> None:
        if quality not in QUALITIES:
            raise ValueError(f"quality must be one of {', '.join(map(repr, QUALITIES))}, not {quality!r}")
        for what, size in (("height", height), ("width", width)):
            if not 8 <= size <= LARGEST:
                raise ValueError(f"{what} must be in [8, {LARGEST}], not {size}")
        self._twin, self.name, self.height, self.width = twin, name, height, width
        self._quality = quality
        self._painter: _Painter | None = None
        self._closed = False
        self._last: tuple[Exposure, Frame] | None = None
        with twin.lock:
            twin.plant.watch(name)

    def read(self) -> Frame:
        """The newest frame; the same one again if there is none newer.

        Raises:
            DriverError: the camera was closed.
            MachineError: pictures cannot be drawn here.
        """
        if self._closed:
            raise DriverError(f"the camera {self.name!r} of the twin was closed")
        with self._twin.present():
            exposure = self._twin.plant.newest(self.name)
            start_s = self._twin.start_s
        if self._last is None or self._last[0] is not exposure:
            image = self._draw(exposure)
            self._last = exposure, Frame(start_s + exposure.time_s, image)
        return self._last[1]

    def draw(self, *, height: int | None = None, width: int | None = None) -> np.ndarray:
        """A picture uint8 (height, width, 3) of this very moment, without latency or noise: for people."""
        with self._twin.present():
            data = self._twin.plant.data
            qpos, target = data.qpos.copy(), data.mocap_pos[0].copy()
        return self._paint(qpos, target, height or self.height, width or self.width)

    def close(self) -> None:
        """Let go of the graphics side. Calling again does nothing."""
        self._closed = True
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    def _draw(self, exposure: Exposure) -> np.ndarray:
        image = self._paint(exposure.qpos, exposure.target, self.height, self.width)
        realism = self._twin.plant.realism
        if realism.pixel_noise:
            rng = np.random.default_rng([realism.seed, 2, exposure.number])
            noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(realism.pixel_noise)
            image = np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
        # The same frame is given out again.
        image.setflags(write=False)
        return image

    def _paint(self, qpos: np.ndarray, target: np.ndarray, height: int, width: int) -> np.ndarray:
        if self._painter is None:
            # Not before: a context does not survive a fork.
            self._painter = _Painter(self._twin.plant.mj, self._twin.plant.model, self._quality)
        return self._painter.draw(qpos, target, self.name, height, width)


class _Painter:
    """Draws in its own thread; freed there, at the latest when the process ends.

    Raises:
        MachineError: pictures cannot be drawn here.
    """

    def __init__(self, mj: Any, model: Any, quality: str) -> None:
        gl.require(_DRAWN)
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._mj, self._model, self._quality = mj, model, quality
        self._tools: dict[Any, Any] = {}
        thread = threading.Thread(target=_work, args=(self._orders, self._tools), name="arx-x5-painter", daemon=True)
        thread.start()
        self._end = weakref.finalize(self, _end, self._orders, thread, self._tools)
        # At exit, what is registered last goes first: before EGL is shut down, which require() has registered. The finalizer alone
        # would go when the first one of the whole process was registered, which may be after that.
        atexit.register(self._end)

    def draw(self, qpos: np.ndarray, target: np.ndarray, camera: str, height: int, width: int) -> np.ndarray:
        gl.check_process(_DRAWN)
        result: Future[np.ndarray] = Future()
        tools, mj, model, quality = self._tools, self._mj, self._model, self._quality

        def paint() -> None:
            try:
                if "data" not in tools:
                    tools["data"] = mj.MjData(model)
                data = tools["data"]
                if (height, width) not in tools:
                    tools[height, width] = _renderer(mj, model, height, width, quality)
                data.qpos[:], data.mocap_pos[0] = qpos, target
                mj.mj_kinematics(model, data)
                mj.mj_comPos(model, data)
                mj.mj_camlight(model, data)
                tools[height, width].update_scene(data, camera)
                result.set_result(tools[height, width].render())
            except BaseException as error:
                result.set_exception(error)

        self._orders.put(paint)
        try:
            image = result.result(timeout=60)
        except TimeoutError:
            raise DriverError("drawing took more than a minute: is the graphics driver alive?") from None
        return image

    def close(self) -> None:
        atexit.unregister(self._end)
        self._end()


def _renderer(mj: Any, model: Any, height: int, width: int, quality: str) -> Any:
    # The model says how finely to draw, and another camera of the same twin may want it otherwise.
    with _models_lock:
        settings = model.vis.quality
        settings.offsamples, settings.numslices, settings.numstacks, settings.numquads = _QUALITY[quality]
        try:
            renderer = mj.Renderer(model, height, width)
        except Exception as error:  # of OpenGL's many kinds
            raise gl.explained(error, _DRAWN) from error
    renderer.scene.flags[mj.mjtRndFlag.mjRND_SHADOW] = quality == "full"
    return renderer


def _work(orders: queue.SimpleQueue[Callable[[], None] | None], tools: dict[Any, Any]) -> None:
    while (order := orders.get()) is not None:
        order()
        # It holds the picture.
        del order
    for tool in tools.values():
        if hasattr(tool, "close"):
            with contextlib.suppress(Exception):
                tool.close()
    tools.clear()


def _end(orders: queue.SimpleQueue[Callable[[], None] | None], thread: threading.Thread, tools: dict[Any, Any]) -> None:
    if gl.forked():  # the thread is in the parent, and so is everything that it would free
        _inherited.append(tools)
        return
    orders.put(None)
    if thread is not threading.current_thread():  # the collector runs where it likes
        thread.join(timeout=5)
