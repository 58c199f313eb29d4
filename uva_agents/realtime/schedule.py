"""What is to be done when: chunks become one trajectory, and the next is asked for in time. No clock and no thread in here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uva_agents.errors import InputError
from uva_agents.realtime.latency import LatencyMeter, next_inference_s
from uva_agents.realtime.trajectory import ActionLayout, Trajectory, merge, stamped

_SAME_S = 1e-6


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """How chunks are used.

    Attributes:
        action_hz: actions of a chunk per second.
        execute: actions of a chunk before the next is decided; fewer where inference would not be ready in time.
        blend_s: from one chunk over to the next.
        margin_s: by how much a chunk shall be there before the one before it ends.

    Raises:
        ValueError: a number that makes no sense.
    """

    action_hz: float = 20.0
    execute: int = 8
    blend_s: float = 0.2
    margin_s: float = 0.15

    def __post_init__(self) -> None:
        if not self.action_hz > 0 or self.execute < 1 or self.blend_s < 0 or self.margin_s < 0:
            raise ValueError(f"action_hz must be positive, execute at least 1, the seconds not negative: {self}")

    @property
    def dt(self) -> float:
        """Seconds between the actions of a chunk."""
        return 1 / self.action_hz


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    """What became of the chunks of an episode.

    Attributes:
        chunks: that were followed.
        too_late: dropped whole, because all of it had passed.
        actions_dropped: late parts of chunks that were followed.
        gaps: times at which the trajectory ended before the next chunk was there.
        errors: of the worker.
    """

    chunks: int = 0
    too_late: int = 0
    actions_dropped: int = 0
    gaps: int = 0
    errors: int = 0


class ChunkSchedule:
    """The trajectory that is followed, and when to decide again.

    Args:
        settings: how chunks are used.
        layout: of an action.
    """

    def __init__(self, settings: ScheduleSettings, layout: ActionLayout) -> None:
        self.settings, self.layout = settings, layout
        self.latency = LatencyMeter()
        self._warned = False
        self.restart(None)

    def restart(self, place: np.ndarray | None) -> None:
        """A new episode. What has been learnt about latency stays.

        Args:
            place: (A,) the action that keeps the arm where it is, which the first chunk is blended from.
        """
        self.trajectory = None if place is None else Trajectory(np.zeros(1), np.asarray(place)[None])
        self._observed_s: float | None = None
        self._end_s = -np.inf
        self._execute = self.settings.execute
        self._chunks = self._late = self._dropped = self._gaps = self._errors = 0
        self._starving = False

    def stand(self, place: np.ndarray | None) -> None:
        """The arm was held: nothing that was decided is followed any more, and the next chunk is blended from ``place`` (A,)."""
        if place is not None:
            self.trajectory = Trajectory(np.zeros(1), np.asarray(place)[None])
        elif self.trajectory is not None:
            self.trajectory = Trajectory(np.zeros(1), self.trajectory.actions[-1:])
        self._end_s = -np.inf

    @property
    def counts(self) -> ChunkCounts:
        """Since :meth:`restart`."""
        return ChunkCounts(self._chunks, self._late, self._dropped, self._gaps, self._errors)

    def left_s(self, now_s: float) -> float:
        """Seconds until the trajectory ends; 0 where there is none."""
        return max(0.0, self._end_s - now_s)

    def due(self, now_s: float) -> bool:
        """Whether it is time for the next decision."""
        if self._observed_s is None or now_s >= self._end_s:
            return True
        due_s = next_inference_s(
            self._observed_s,
            self._end_s,
            dt=self.settings.dt,
            execute=self._execute,
            latency_s=self.latency.p95,
            margin_s=self.settings.margin_s,
        )
        return now_s >= due_s - _SAME_S

    def check(self, chunk: np.ndarray) -> None:
        """That a chunk can be followed from where the arm stands.

        Raises:
            InputError: another shape than (T, A).
            ValueError: NaN or infinity in the chunk, or a rotation or place that is none.
        """
        width = None if self.trajectory is None else self.trajectory.actions.shape[1]
        fits = chunk.ndim == 2 and len(chunk) > 0
        if not fits or chunk.shape[1] < self.layout.least or width not in (None, chunk.shape[1]):
            expected = "(T, A)" if width is None else f"(T, {width})"
            numbers = f"at least {self.layout.least}" if width is None else f"{width}"
            raise InputError(
                f"a chunk of shape {chunk.shape}, but this arm takes {expected}: a row of {numbers} numbers for every action"
            )
        if not np.isfinite(chunk).all():
            raise ValueError(f"action {int(np.argwhere(~np.isfinite(chunk))[0, 0])} has NaN or infinity")
        self.layout.check(chunk)

    def received(self, chunk: np.ndarray, observed_s: float, now_s: float) -> str | None:
        """Follow a new chunk (T, A) that was decided from an observation at ``observed_s``.

        Args:
            now_s: the first moment that can still be influenced.

        Returns:
            What an operator should know, if anything.

        Raises:
            InputError, ValueError: see :meth:`check`.
        """
        self.check(chunk)
        self.latency.add(now_s - observed_s)
        dt, count = self.settings.dt, len(chunk)
        if count == 1:
            # An agent that decides one action at a time means it for as soon as possible, until its next one.
            until = now_s + 2 * dt + 2 * self.latency.p95
            new = Trajectory(np.array([now_s + dt, until]), np.repeat(chunk, 2, axis=0))
        else:
            new = stamped(chunk, observed_s, dt)
        merged = merge(self.trajectory, new, now_s, blend_s=self.settings.blend_s, layout=self.layout)
        self._observed_s, self._execute = observed_s, min(self.settings.execute, count)
        if merged is None:
            self._late += 1
            return f"a chunk came {now_s - observed_s:.2f} s after its observation and covers {(count - 1) * dt:.2f} s: dropped"
        self.trajectory, self._end_s, self._starving = merged, merged.end_s, False
        self._chunks += 1
        self._dropped += 0 if count == 1 else int((new.times < now_s - _SAME_S).sum())
        cover = (count - 1) * dt
        # One is decided while the one before is followed, whose first part has passed already when it comes.
        if count > 1 and not self._warned and len(self.latency) >= 5 and 2 * self.latency.p50 > cover:
            self._warned = True
            return (
                f"chunks take {self.latency.p50:.2f} s (median) and cover {cover:.2f} s, which must be twice as long: the arm "
                "stands still in between; use a faster machine, fewer denoising steps, or a lower action rate"
            )
        return None

    def failed(self) -> None:
        """The worker has an error instead of a chunk."""
        self._errors += 1

    def window(self, times: np.ndarray) -> np.ndarray | None:
        """Actions (n, A) for ``times`` (n,), rising; ``None`` where nothing is decided for the first of them.

        Where the trajectory ends within them, its last action is kept.
        """
        if self.trajectory is None or self._observed_s is None or not self._chunks:
            return None
        if times[0] > self._end_s + _SAME_S:
            if not self._starving:
                self._starving = True
                self._gaps += 1
            return None
        return self.trajectory.at(times, self.layout)
