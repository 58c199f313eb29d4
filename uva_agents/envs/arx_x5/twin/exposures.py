"""What the twin's cameras see: exposures at the frame rate, which arrive late or are lost, as ``TwinRealism`` has it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from uva_agents.envs.arx_x5.twin.model import CAMERAS
from uva_agents.envs.arx_x5.twin.realism import TwinRealism

SavedExposures = tuple[tuple[str, float, int, tuple[tuple[float, int, float, bytes, bytes], ...]], ...]
"""Of each camera: its name, when the next exposure is due, its number, and those that are kept."""


@dataclass(slots=True, eq=False)
class Exposure:
    """What a picture will show: every body's place at one moment. Drawn when it is read.

    Attributes:
        time_s: of that moment, on the simulation's clock.
        number: of the frame, from 0.
        ready_s: when it can be read.
        qpos: all positions.
        target: (3,) of the marker.
    """

    time_s: float
    number: int
    ready_s: float
    qpos: np.ndarray
    target: np.ndarray


@dataclass(slots=True, eq=False)
class _ExposureQueue:
    """One camera's exposures, oldest first, and when the next is due."""

    next_s: float
    number: int = 0
    exposures: deque[Exposure] = field(default_factory=deque)

    def arrived(self, time_s: float) -> Exposure:
        """The newest one that has arrived; older ones are dropped."""
        while len(self.exposures) > 1 and self.exposures[1].ready_s <= time_s + 1e-9:
            self.exposures.popleft()
        return self.exposures[0]


class Exposures:
    """Exposures of all cameras that are watched.

    Args:
        realism: frame rate, latency and losses.
        positions: all positions and the marker's (3,) at this moment, as copies.
    """

    def __init__(self, realism: TwinRealism, positions: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
        self._realism, self._positions = realism, positions
        self._queues: dict[str, _ExposureQueue] = {}

    def watch(self, camera: str, time_s: float) -> None:
        """From now on, exposures are kept for a camera (a name in the model); the first is of this moment, and there at once.

        Raises:
            ValueError: there is no such camera.
        """
        if camera not in CAMERAS:
            raise ValueError(f"camera must be one of {', '.join(map(repr, CAMERAS))}, not {camera!r}")
        if camera not in self._queues:
            self._queues[camera] = _ExposureQueue(next_s=time_s)
            self._start(self._queues[camera], time_s)

    def newest(self, camera: str, time_s: float) -> Exposure:
        """The newest exposure of a watched camera that has arrived by now."""
        return self._queues[camera].arrived(time_s)

    def step(self, time_s: float) -> None:
        """Expose what is due."""
        realism = self._realism
        for index, queue in enumerate(self._queues.values()):
            if time_s + 1e-9 < queue.next_s:
                continue
            number, queue.number = queue.number, queue.number + 1
            queue.next_s += 1 / realism.camera_fps
            lost = realism.dropped_frames
            if lost and np.random.default_rng([realism.seed, 1, index, number]).random() < lost:
                continue
            queue.exposures.append(self._expose(number, time_s, ready_s=time_s + realism.camera_latency_s))
            queue.arrived(time_s)  # drops old ones even if no one reads

    def restart(self, time_s: float) -> None:
        """Things were placed elsewhere: every camera sees what is now."""
        for queue in self._queues.values():
            self._start(queue, time_s)

    def save(self) -> SavedExposures:
        """All that their future depends on."""
        return tuple(
            (
                name,
                queue.next_s,
                queue.number,
                tuple((e.time_s, e.number, e.ready_s, e.qpos.tobytes(), e.target.tobytes()) for e in queue.exposures),
            )
            for name, queue in self._queues.items()
        )

    def restore(self, state: SavedExposures, time_s: float) -> None:
        """Go to what :meth:`save` returned."""
        saved = {name: (next_s, number, exposures) for name, next_s, number, exposures in state}
        for name in saved.keys() - self._queues.keys():
            self._queues[name] = _ExposureQueue(next_s=0.0)
        for name, queue in self._queues.items():
            if name not in saved:
                # It is watched since that state was saved: begins anew, as it began then.
                self._start(queue, time_s)
                continue
            queue.next_s, queue.number, exposures = saved[name]
            queue.exposures = deque(
                Exposure(exposed_s, number, ready_s, np.frombuffer(qpos).copy(), np.frombuffer(target).copy())
                for exposed_s, number, ready_s, qpos, target in exposures
            )

    def _start(self, queue: _ExposureQueue, time_s: float) -> None:
        queue.exposures.clear()
        queue.exposures.append(self._expose(queue.number, time_s, ready_s=time_s))
        queue.number += 1
        queue.next_s = time_s + 1 / self._realism.camera_fps

    def _expose(self, number: int, time_s: float, *, ready_s: float) -> Exposure:
        return Exposure(time_s, number, ready_s, *self._positions())
