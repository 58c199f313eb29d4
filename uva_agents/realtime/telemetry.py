"""Telemetry of the control loop: its settings, its status while an episode runs, and the summary of an episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from uva_agents.errors import UVAError
from uva_agents.realtime.schedule import ChunkCounts
from uva_agents.utils.pacing import StepTiming

End = Literal["length", "done", "stopped", "dropped", "emergency", "quit", "error", "finished"]
"""Why an episode ended; ``"finished"``: the worker has no more chunks (a replay)."""


class AgentError(UVAError, RuntimeError):
    """The agent failed before anything moved: it did not answer, or with what cannot be followed."""

    exit_status = 1


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How the loop runs.

    Attributes:
        rate_hz: looks and sends per second.
        length_s: of an episode.
        ahead_s: how far ahead of time actions are sent: the arm bridges that much if the loop stumbles, and goes no further if
            it dies.
        late_s: a step that begins later than this is counted as late; a tenth of its period by default.
        on_error: ``"hold"`` and ask again after an error of the worker, or ``"stop"`` the episode.
        retry_s: between an error and the next attempt.
        lookback: earlier observations that go with each request.

    Raises:
        ValueError: a number that makes no sense.
    """

    rate_hz: float = 20.0
    length_s: float = 60.0
    ahead_s: float = 0.3
    late_s: float | None = None
    on_error: Literal["hold", "stop"] = "hold"
    retry_s: float = 0.5
    lookback: int = 0

    def __post_init__(self) -> None:
        if not 0.1 <= self.rate_hz <= 500:
            raise ValueError(f"rate_hz={self.rate_hz}: between 0.1 and 500 steps per second")
        if not (self.length_s > 0 and self.ahead_s > 0 and self.retry_s >= 0 and self.lookback >= 0):
            raise ValueError(f"seconds must be positive: {self}")
        if self.on_error not in ("hold", "stop"):
            raise ValueError(f'on_error={self.on_error!r}: "hold" or "stop"')

    @property
    def dt(self) -> float:
        """Seconds between steps."""
        return 1 / self.rate_hz

    @property
    def ahead(self) -> int:
        """Actions sent at a time."""
        return max(2, int(np.ceil(self.ahead_s / self.dt - 1e-9)))


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a running episode, for people.

    Attributes:
        elapsed_s: since it began.
        timing: of the steps so far.
        latency_s: of chunks, from observation to trajectory: median and 95 %.
        left_s: until the trajectory ends.
        counts: of chunks.
        interventions: of the safety layer so far.
        moving: whether there is something to follow.
    """

    elapsed_s: float
    timing: StepTiming
    latency_s: tuple[float, float]
    left_s: float
    counts: ChunkCounts
    interventions: int
    moving: bool


@dataclass(frozen=True, slots=True)
class EpisodeSummary:
    """The result of an episode.

    Attributes:
        end: why it ended.
        success: whether the task was solved.
        seconds: how long it took.
        timing: of its steps.
        latency_s: of its chunks, median and 95 %.
        counts: of its chunks.
        interventions: of the safety layer.
        gap_times: when the trajectory ended too early, seconds since the beginning.
        idle_steps: steps, after the first chunk, in which there was nothing to follow.
        error: the newest one of the agent, if it had any.
    """

    end: End
    success: bool
    seconds: float
    timing: StepTiming
    latency_s: tuple[float, float]
    counts: ChunkCounts
    interventions: int
    gap_times: tuple[float, ...] = ()
    idle_steps: int = 0
    error: str = ""

    @property
    def failure(self) -> str | None:
        """Why it did not go as it should, in words; ``None`` where it did, whether the task was solved or not."""
        if self.end == "emergency":
            return "it ended in an emergency stop"
        if self.end == "error":
            return f"the agent failed: {self.error}"
        if self.counts.errors:
            return f"the agent failed {_times(self.counts.errors)}, the last time: {self.error}"
        if not self.counts.chunks:
            return "no chunk of the agent was followed: " + (
                f"all {self.counts.too_late} came too late"
                if self.counts.too_late
                else f"none came in {self.seconds:.1f} s"
            )
        return None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
