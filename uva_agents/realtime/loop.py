"""The control loop: looks and sends at a fixed rate, whatever inference does meanwhile."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from uva_agents.agents.base import Observation
from uva_agents.envs.arx_x5.pacing import Pacer, Timing
from uva_agents.realtime.body import Body, Observed, Scheduled
from uva_agents.realtime.chunker import Job
from uva_agents.realtime.controls import Command, Controls
from uva_agents.realtime.schedule import ChunkCounts, ChunkSchedule
from uva_agents.realtime.worker import Reply, Worker

_LOG = logging.getLogger(__name__)

End = Literal["length", "done", "stopped", "dropped", "emergency", "quit", "error", "finished"]
"""Why an episode ended; ``"finished"``: the worker has nothing more to say (a replay)."""


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
        lookback: earlier observations that go with each job.

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
    """A moment of an episode, for people.

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
    timing: Timing
    latency_s: tuple[float, float]
    left_s: float
    counts: ChunkCounts
    interventions: int
    moving: bool


@dataclass(frozen=True, slots=True)
class Episode:
    """What came of an episode.

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
    """

    end: End
    success: bool
    seconds: float
    timing: Timing
    latency_s: tuple[float, float]
    counts: ChunkCounts
    interventions: int
    gap_times: tuple[float, ...] = ()
    idle_steps: int = 0


class Recorder(Protocol):
    """Takes every step of an episode, without making the loop wait."""

    def add(self, observed: Observed, action: np.ndarray | None, wanted: np.ndarray | None) -> None:
        """A step: what was seen, the action that was really sent (A,), and the one that the agent wanted."""
        ...


class Loop:
    """Runs episodes.

    Args:
        body: the arm.
        worker: answers jobs.
        schedule: puts chunks in time.
        settings: of the loop.
        controls: what the operator asks for.
        say: takes messages for the operator; the log by default.
        watch: takes the status after every step; must not wait.
    """

    def __init__(
        self,
        body: Body,
        worker: Worker,
        schedule: ChunkSchedule,
        settings: LoopSettings,
        *,
        controls: Controls | None = None,
        say: Callable[[str], None] | None = None,
        watch: Callable[[Status], None] | None = None,
    ) -> None:
        self.body, self.worker, self.schedule, self.settings = body, worker, schedule, settings
        self.controls = controls or Controls(body.stop)
        self._say = say or _LOG.info
        self._watch = watch
        self._seen: deque[Observed] = deque(maxlen=1 + self._kept())
        self._episode = 0
        self._told: dict[str, float] = {}

    def warm_up(self, seed: int = 0, *, timeout_s: float = 300.0) -> float:
        """One chunk that is not executed: what an agent does only the first time does not happen while the arm moves.

        Returns:
            Seconds that it took.

        Raises:
            RuntimeError: the agent failed, or did not answer in time.
        """
        body, began = self.body, self.body.now()
        self._wait(lambda: not self.worker.busy, began + timeout_s, "the agent is not ready")
        self._seen.clear()
        self._seen.append(body.observe())
        self.worker.submit(self._job(0, seed))
        asked = body.now()
        replies: list[Reply] = []

        def answered() -> bool:
            reply = self.worker.poll()
            if reply is not None:
                replies.append(reply)
            return bool(replies)

        self._wait(answered, asked + timeout_s, "the agent does not answer")
        if replies[0].error is not None:
            raise RuntimeError(f"the agent failed at its first chunk: {replies[0].error}")
        return body.now() - asked

    def run(self, seed: int = 0, recorder: Recorder | None = None) -> Episode:
        """One episode. However it ends, the arm is brought to rest.

        Raises:
            Whatever the body raises; the arm was told to hold before.
        """
        try:
            return self._run(seed, recorder)
        finally:
            # After an emergency stop this changes nothing: the safety layer keeps the arm at rest.
            self.body.hold()

    def _run(self, seed: int, recorder: Recorder | None) -> Episode:
        body, settings, schedule = self.body, self.settings, self.schedule
        pacer = Pacer(body, settings.dt, tolerance_s=settings.late_s or 0.1 * settings.dt)
        self._episode += 1
        self._seen.clear()
        schedule.restart(body.stay(body.observe().obs))
        began, number, ask_after = pacer.due_s, 0, -np.inf
        interventions, idle = 0, 0
        gaps: list[float] = []
        finished = False
        end: End | None = None
        observed: Observed | None = None
        while end is None:
            body.sleep_until(pacer.due_s)
            due_s = pacer.arrived()
            end = self._asked()
            if end is not None:
                break
            observed = body.observe()
            self._seen.append(observed)
            reach = body.now() + body.reaction_s
            while (reply := self.worker.poll()) is not None:
                if reply.job is None:
                    self._say(str(reply.error))
                    end = "error"
                elif reply.job.episode != self._episode:
                    continue
                elif reply.chunk is None:
                    schedule.failed()
                    ask_after = body.now() + settings.retry_s
                    self._say(f"{reply.error}; " + ("holding" if settings.on_error == "hold" else "stopping"))
                    end = "error" if settings.on_error == "stop" else end
                elif reply.chunk.size == 0:
                    finished = True
                else:
                    message = self._received(reply, reach)
                    if message is not None:
                        self._say(message)
            asking = not finished and not self.worker.busy and body.now() >= ask_after
            if asking and schedule.due(reach):
                self.worker.submit(self._job(number, seed))
                number += 1
            wanted, sent = self._send(due_s, reach)
            interventions += len(sent.interventions)
            self._tell(sent.interventions, due_s)
            if wanted is None and schedule.counts.chunks:
                idle += 1
                if schedule.counts.gaps > len(gaps):
                    gaps.append(due_s - began)
                    if not finished:
                        self._say("no fresh chunk: holding")
            if recorder is not None and schedule.counts.chunks:
                recorder.add(observed, sent.sent, None if wanted is None else wanted[0])
            if self._watch is not None:
                self._watch(self._status(due_s - began, pacer, interventions, wanted is not None))
            if observed.stopped:
                end = "emergency"
            elif observed.done:
                end = "done"
            elif finished and wanted is None:
                end = "finished"
            elif due_s - began >= settings.length_s - 1e-9:
                end = end or "length"
        status = self._status(body.now() - began, pacer, interventions, False)
        success = observed is not None and observed.success
        if end == "finished":  # that nothing comes after the last action is no gap
            gaps, idle = gaps[:-1], idle - 1
        counts = replace(status.counts, gaps=len(gaps))
        return Episode(
            *(end, success, status.elapsed_s, status.timing, status.latency_s, counts, interventions), tuple(gaps), idle
        )

    def _tell(self, interventions: tuple[str, ...], now_s: float) -> None:
        """Of each kind at most one message a second: they come with every step."""
        for text in interventions:
            kind = text.split(":")[0]
            if now_s - self._told.get(kind, -np.inf) >= 1.0:
                self._told[kind] = now_s
                self._say(text)

    def _asked(self) -> End | None:
        """How the operator ends the episode, if so."""
        if self.controls.emergency.is_set():
            return "emergency"
        ends: Mapping[Command, End] = {Command.STOP: "stopped", Command.DROP: "dropped", Command.QUIT: "quit"}
        while (command := self.controls.take()) is not None:
            if command in ends:
                return ends[command]
        return None

    def _received(self, reply: Reply, reach: float) -> str | None:
        assert reply.job is not None and reply.chunk is not None
        try:
            return self.schedule.received(reply.chunk, reply.job.observed_s, reach)
        except ValueError as error:
            self.schedule.failed()
            return f"a chunk that cannot be followed: {error}"

    def _send(self, due_s: float, reach: float) -> tuple[np.ndarray | None, Scheduled]:
        """Send the next actions; returns them (n, A) and what became of them."""
        dt = self.settings.dt
        # On the grid of the steps, so that a step that comes late asks for nothing else than one that is in time.
        first = due_s + dt * np.ceil((reach - due_s) / dt - 1e-6)
        actions = self.schedule.window(first + dt * np.arange(self.settings.ahead))
        if actions is None:
            return None, Scheduled(None)
        return actions, self.body.schedule(actions, first, dt)

    def _kept(self) -> int:
        per_action = self.settings.rate_hz / self.schedule.settings.action_hz
        return int(np.ceil(self.settings.lookback * max(per_action, 1.0))) + 1

    def _job(self, number: int, seed: int) -> Job:
        """The newest observation, and those that the agent's own control steps before it would have been."""
        newest = self._seen[-1]
        history: list[Observation] = []
        step = self.schedule.settings.dt
        times = np.array([seen.time_s for seen in self._seen])
        for back in range(self.settings.lookback, 0, -1):
            wanted = newest.time_s - back * step
            if wanted < times[0] - 0.5 * step:
                continue  # before the episode: agents repeat its first frame themselves
            history.append(self._seen[int(np.abs(times - wanted).argmin())].obs)
        return Job(number, newest.obs, tuple(history), newest.time_s, seed, self._episode)

    def _status(self, elapsed_s: float, pacer: Pacer, interventions: int, moving: bool) -> Status:
        meter, schedule = self.schedule.latency, self.schedule
        now = self.body.now()
        return Status(
            *(elapsed_s, pacer.timing(), (meter.p50, meter.p95), schedule.left_s(now), schedule.counts),
            *(interventions, moving),
        )

    def _wait(self, ready: Callable[[], bool], until_s: float, problem: str) -> None:
        while not ready():
            reply = self.worker.poll() if problem == "the agent is not ready" else None
            if reply is not None and reply.job is None:
                raise RuntimeError(str(reply.error))
            if self.body.now() > until_s:
                raise RuntimeError(f"{problem}: waited {until_s - self.body.now():.0f} s")
            self.body.sleep_until(self.body.now() + 0.02)
