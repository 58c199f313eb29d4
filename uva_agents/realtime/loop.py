"""The control loop: sends and observes at a fixed rate, whatever inference does meanwhile."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from uva_agents.agents.base import Observation
from uva_agents.realtime.chunk_source import ChunkRequest
from uva_agents.realtime.controls import Command, Controls
from uva_agents.realtime.robot_interface import Observed, RobotInterface, SendReport
from uva_agents.realtime.schedule import ChunkSchedule
from uva_agents.realtime.telemetry import AgentError, End, EpisodeSummary, LoopSettings, Status
from uva_agents.realtime.worker import InferenceWorker, Reply
from uva_agents.utils.pacing import Pacer

_LOG = logging.getLogger(__name__)
_NOT_READY = "the agent is not ready"


@contextlib.contextmanager
def _responsive() -> Iterator[None]:
    """Fewer and shorter waits for what other threads of this process do."""
    # Objects that are alive now are exempt from garbage collection: scanning them again and again would make steps late.
    gc.collect()
    gc.freeze()
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.001)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        gc.unfreeze()


@dataclass
class _EpisodeProgress:
    """An episode that is under way."""

    began_s: float
    seed: int
    number: int = 0  # of the next request
    request_after_s: float = -np.inf
    interventions: int = 0
    idle: int = 0
    gaps: list[float] = field(default_factory=list)
    held: bool = False  # the agent's output could not be followed: nothing is executed before its next chunk
    finished: bool = False  # the worker has no more chunks
    success: bool = False
    error: str = ""  # the newest one of the agent
    end: End | None = None


class StepRecorder(Protocol):
    """Takes every step of an episode, without making the loop wait."""

    def add(self, observed: Observed, action: np.ndarray | None, desired: np.ndarray | None) -> None:
        """A step: what was seen, the action that was really sent (A,), and the one that the agent chose."""
        ...


class Loop:
    """Runs episodes.

    Args:
        robot: the arm.
        worker: answers requests.
        schedule: puts chunks in time.
        settings: of the loop.
        controls: what the operator asks for.
        say: takes messages for the operator; the log by default.
        watch: takes the status after every step; must not wait.
    """

    def __init__(
        self,
        robot: RobotInterface,
        worker: InferenceWorker,
        schedule: ChunkSchedule,
        settings: LoopSettings,
        *,
        controls: Controls | None = None,
        say: Callable[[str], None] | None = None,
        watch: Callable[[Status], None] | None = None,
    ) -> None:
        self.robot, self.worker, self.schedule, self.settings = robot, worker, schedule, settings
        self.controls = controls or Controls(robot.stop)
        self._say = say or _LOG.info
        self._watch = watch
        self._observations: deque[Observed] = deque(maxlen=1 + self._kept())
        self._episode = 0
        self._reported_s: dict[str, float] = {}

    def warm_up(self, seed: int = 0, *, timeout_s: float = 300.0) -> float:
        """One chunk that is not executed: what an agent does only the first time does not happen while the arm moves.

        Returns:
            Seconds that it took.

        Raises:
            AgentError: the agent failed, did not answer in time, or with a chunk that could not be followed.
        """
        robot = self.robot
        self._wait(lambda: not self.worker.busy, timeout_s, _NOT_READY)
        self._observations.clear()
        self._observations.append(robot.observe())
        self.schedule.restart(robot.stay(self._observations[-1].obs))
        self.worker.submit(self._make_request(0, seed))
        asked = robot.now()
        replies: list[Reply] = []

        def answered() -> bool:
            reply = self.worker.poll()
            if reply is not None:
                replies.append(reply)
            return bool(replies)

        self._wait(answered, timeout_s, "the agent has not answered")
        if replies[0].request is None:
            raise AgentError(str(replies[0].error))
        if replies[0].error is not None:
            raise AgentError(f"the agent failed at its first chunk: {replies[0].error}")
        seconds = robot.now() - asked
        assert replies[0].chunk is not None
        try:
            self.schedule.check(replies[0].chunk)
        except ValueError as error:
            raise AgentError(f"the agent's first chunk cannot be followed: {error}") from error
        return seconds

    def run(self, seed: int = 0, recorder: StepRecorder | None = None) -> EpisodeSummary:
        """One episode. However it ends, the arm is brought to rest.

        Raises:
            Whatever the robot raises; the arm has been ordered to hold before.
        """
        try:
            with _responsive():
                return self._run(seed, recorder)
        finally:
            # After an emergency stop this changes nothing: the safety layer keeps the arm at rest.
            self.robot.hold()

    def _run(self, seed: int, recorder: StepRecorder | None) -> EpisodeSummary:
        robot, settings, schedule = self.robot, self.settings, self.schedule
        self._episode += 1
        self._observations.clear()
        schedule.restart(robot.stay(robot.observe().obs))
        pacer = Pacer(robot, settings.dt, tolerance_s=settings.late_s or 0.1 * settings.dt)
        progress = _EpisodeProgress(began_s=pacer.due_s, seed=seed)
        while progress.end is None:
            robot.sleep_until(pacer.due_s)
            due_s = pacer.arrived()
            progress.end = self._operator_end()
            if progress.end is not None:
                break
            # Send first: looking may take its time (a simulator draws), and nothing that is sent depends on it.
            earliest_s = robot.now() + robot.reaction_s
            self._take_replies(progress, earliest_s)
            desired, sent = self._send(progress, due_s, earliest_s)
            progress.interventions += len(sent.interventions)
            self._report_interventions(sent.interventions, due_s)
            self._count_gap(progress, due_s, has_actions=desired is not None)
            observed = robot.observe()
            self._observations.append(observed)
            self._request_chunk(progress)
            if recorder is not None and schedule.counts.chunks:
                recorder.add(observed, sent.sent, None if desired is None else desired[0])
            if self._watch is not None:
                self._watch(self._status(due_s - progress.began_s, pacer, progress.interventions, desired is not None))
            progress.success = observed.success
            if progress.end is None:
                progress.end = self._natural_end(progress, observed, due_s, has_actions=desired is not None)
        status = self._status(robot.now() - progress.began_s, pacer, progress.interventions, False)
        if progress.end == "finished":  # that nothing comes after the last action is no gap
            progress.gaps, progress.idle = progress.gaps[:-1], progress.idle - 1
        counts = replace(status.counts, gaps=len(progress.gaps))
        return EpisodeSummary(
            *(
                progress.end,
                progress.success,
                status.elapsed_s,
                status.timing,
                status.latency_s,
                counts,
                progress.interventions,
            ),
            tuple(progress.gaps),
            progress.idle,
            progress.error,
        )

    def _take_replies(self, progress: _EpisodeProgress, earliest_s: float) -> None:
        """Follow what the worker has decided since the last step."""
        while (reply := self.worker.poll()) is not None:
            if reply.request is None:
                progress.error, progress.end = str(reply.error), "error"
                self._say(progress.error)
                return  # every later poll gives the same
            if reply.request.episode != self._episode:
                continue
            if reply.chunk is None and reply.not_finite:
                self._refuse(progress, str(reply.error))
            elif reply.chunk is None:
                self.schedule.failed()
                progress.error = str(reply.error)
                progress.request_after_s = self.robot.now() + self.settings.retry_s
                hold = self.settings.on_error == "hold"
                self._say(f"{reply.error}; {'holding' if hold else 'stopping'}")
                progress.end = progress.end if hold else "error"
            elif reply.chunk.ndim and not len(reply.chunk):
                progress.finished = True
            elif (message := self._received(progress, reply, earliest_s)) is not None:
                self._say(message)

    def _refuse(self, progress: _EpisodeProgress, reason: str) -> None:
        """The arm holds because the agent's output cannot be followed; the safety layer logs that as an intervention."""
        self.schedule.failed()
        self.schedule.stand(None)
        progress.error = reason
        progress.held, progress.request_after_s = True, self.robot.now() + self.settings.retry_s
        refuse = getattr(self.robot, "refuse", None)
        if refuse is None:
            self.robot.hold()
        interventions = (f"not_finite: {reason}",) if refuse is None else refuse(reason)
        progress.interventions += len(interventions)
        hold = self.settings.on_error == "hold"
        self._say(f"{reason}; {'holding' if hold else 'stopping'}")
        progress.end = progress.end if hold else "error"

    def _request_chunk(self, progress: _EpisodeProgress) -> None:
        """Have the next chunk decided, if it is time."""
        if progress.finished or self.worker.busy or self.robot.now() < progress.request_after_s:
            return
        if self.schedule.due(self.robot.now() + self.robot.reaction_s):
            self.worker.submit(self._make_request(progress.number, progress.seed))
            progress.number += 1

    def _count_gap(self, progress: _EpisodeProgress, due_s: float, *, has_actions: bool) -> None:
        if has_actions or not self.schedule.counts.chunks:
            return
        progress.idle += 1
        if self.schedule.counts.gaps > len(progress.gaps):
            progress.gaps.append(due_s - progress.began_s)
            if not progress.finished:
                self._say("no fresh chunk: holding")

    def _natural_end(
        self, progress: _EpisodeProgress, observed: Observed, due_s: float, *, has_actions: bool
    ) -> End | None:
        """How the episode ends by itself, if it does."""
        if observed.stopped:
            return "emergency"
        if observed.done:
            return "done"
        if progress.finished and not has_actions:
            return "finished"
        return "length" if due_s - progress.began_s >= self.settings.length_s - 1e-9 else None

    def _report_interventions(self, interventions: tuple[str, ...], now_s: float) -> None:
        """Of each kind at most one message a second: they come with every step."""
        for text in interventions:
            kind = text.split(":")[0]
            if now_s - self._reported_s.get(kind, -np.inf) >= 1.0:
                self._reported_s[kind] = now_s
                self._say(text)

    def _operator_end(self) -> End | None:
        """How the operator ends the episode, if so."""
        if self.controls.emergency.is_set():
            return "emergency"
        ends: Mapping[Command, End] = {Command.STOP: "stopped", Command.DROP: "dropped", Command.QUIT: "quit"}
        while (command := self.controls.take()) is not None:
            if command in ends:
                return ends[command]
        return None

    def _received(self, progress: _EpisodeProgress, reply: Reply, earliest_s: float) -> str | None:
        assert reply.request is not None and reply.chunk is not None
        try:
            if progress.held:  # from where the arm was brought to rest
                self.schedule.stand(self.robot.stay(self._observations[-1].obs))
            message = self.schedule.received(reply.chunk, reply.request.observed_s, earliest_s)
        except ValueError as error:
            self._refuse(progress, f"a chunk that cannot be followed: {error}")
            return None
        progress.held = False
        return message

    def _send(
        self, progress: _EpisodeProgress, due_s: float, earliest_s: float
    ) -> tuple[np.ndarray | None, SendReport]:
        """Send the next actions; returns them (n, A) and what became of them."""
        dt = self.settings.dt
        # On the grid of the steps, so that a step that comes late asks for nothing else than one that is in time.
        first = due_s + dt * np.ceil((earliest_s - due_s) / dt - 1e-6)
        try:
            actions = self.schedule.window(first + dt * np.arange(self.settings.ahead))
            if actions is not None:
                return actions, self.robot.schedule(actions, first, dt)
        except ValueError as error:  # numbers that are no action: two rows of a rotation that are zero, for example
            self._refuse(progress, f"actions that cannot be followed: {error}")
        return None, SendReport(None)

    def _kept(self) -> int:
        per_action = self.settings.rate_hz / self.schedule.settings.action_hz
        return int(np.ceil(self.settings.lookback * max(per_action, 1.0))) + 1

    def _make_request(self, number: int, seed: int) -> ChunkRequest:
        """The newest observation, and those that the agent's own control steps before it would have been."""
        newest = self._observations[-1]
        history: list[Observation] = []
        step = self.schedule.settings.dt
        times = np.array([seen.time_s for seen in self._observations])
        for back in range(self.settings.lookback, 0, -1):
            desired = newest.time_s - back * step
            if desired < times[0] - 0.5 * step:
                continue  # before the episode: agents repeat its first frame themselves
            history.append(self._observations[int(np.abs(times - desired).argmin())].obs)
        return ChunkRequest(number, newest.obs, tuple(history), newest.time_s, seed, self._episode)

    def _status(self, elapsed_s: float, pacer: Pacer, interventions: int, moving: bool) -> Status:
        meter, schedule = self.schedule.latency, self.schedule
        now = self.robot.now()
        return Status(
            *(elapsed_s, pacer.timing(), (meter.p50, meter.p95), schedule.left_s(now), schedule.counts),
            *(interventions, moving),
        )

    def _wait(self, ready: Callable[[], bool], seconds: float, problem: str) -> None:
        until_s = self.robot.now() + seconds
        while not ready():
            reply = self.worker.poll() if problem == _NOT_READY else None
            if reply is not None and reply.request is None:
                raise AgentError(str(reply.error))
            if self.robot.now() > until_s:
                raise AgentError(f"{problem} after {seconds:g} s")
            self.robot.observe()  # a safety layer that watches the cameras needs snapshots
            self.robot.sleep_until(self.robot.now() + 0.05)
