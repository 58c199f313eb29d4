"""The control loop: looks and sends at a fixed rate, whatever inference does meanwhile."""

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
from uva_agents.realtime.account import AgentError, End, Episode, LoopSettings, Status
from uva_agents.realtime.body import Body, Observed, Scheduled
from uva_agents.realtime.chunker import Job
from uva_agents.realtime.controls import Command, Controls
from uva_agents.realtime.schedule import ChunkSchedule
from uva_agents.realtime.worker import Reply, Worker
from uva_agents.utils.pacing import Pacer

_LOG = logging.getLogger(__name__)
_NOT_READY = "the agent is not ready"


@contextlib.contextmanager
def _responsive() -> Iterator[None]:
    """Fewer and shorter waits for what other threads of this process do."""
    # What is alive now stays: collecting it again and again would make steps late.
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
class _Now:
    """An episode that is under way."""

    began_s: float
    seed: int
    number: int = 0  # of the next job
    ask_after_s: float = -np.inf
    interventions: int = 0
    idle: int = 0
    gaps: list[float] = field(default_factory=list)
    held: bool = False  # because of what the agent said: nothing is followed before its next chunk
    finished: bool = False  # the worker has nothing more to say
    success: bool = False
    error: str = ""  # the newest one of the agent
    end: End | None = None


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
            AgentError: the agent failed, did not answer in time, or with a chunk that could not be followed.
        """
        body = self.body
        self._wait(lambda: not self.worker.busy, timeout_s, _NOT_READY)
        self._seen.clear()
        self._seen.append(body.observe())
        self.schedule.restart(body.stay(self._seen[-1].obs))
        self.worker.submit(self._job(0, seed))
        asked = body.now()
        replies: list[Reply] = []

        def answered() -> bool:
            reply = self.worker.poll()
            if reply is not None:
                replies.append(reply)
            return bool(replies)

        self._wait(answered, timeout_s, "the agent has not answered")
        if replies[0].job is None:
            raise AgentError(str(replies[0].error))
        if replies[0].error is not None:
            raise AgentError(f"the agent failed at its first chunk: {replies[0].error}")
        seconds = body.now() - asked
        assert replies[0].chunk is not None
        try:
            self.schedule.check(replies[0].chunk)
        except ValueError as error:
            raise AgentError(f"the agent's first chunk cannot be followed: {error}") from error
        return seconds

    def run(self, seed: int = 0, recorder: Recorder | None = None) -> Episode:
        """One episode. However it ends, the arm is brought to rest.

        Raises:
            Whatever the body raises; the arm was told to hold before.
        """
        try:
            with _responsive():
                return self._run(seed, recorder)
        finally:
            # After an emergency stop this changes nothing: the safety layer keeps the arm at rest.
            self.body.hold()

    def _run(self, seed: int, recorder: Recorder | None) -> Episode:
        body, settings, schedule = self.body, self.settings, self.schedule
        self._episode += 1
        self._seen.clear()
        schedule.restart(body.stay(body.observe().obs))
        pacer = Pacer(body, settings.dt, tolerance_s=settings.late_s or 0.1 * settings.dt)
        now = _Now(began_s=pacer.due_s, seed=seed)
        while now.end is None:
            body.sleep_until(pacer.due_s)
            due_s = pacer.arrived()
            now.end = self._asked()
            if now.end is not None:
                break
            # Send first: looking may take its time (a simulator draws), and nothing that is sent depends on it.
            reach = body.now() + body.reaction_s
            self._take_replies(now, reach)
            wanted, sent = self._send(now, due_s, reach)
            now.interventions += len(sent.interventions)
            self._tell(sent.interventions, due_s)
            self._count_gap(now, due_s, following=wanted is not None)
            observed = body.observe()
            self._seen.append(observed)
            self._ask(now)
            if recorder is not None and schedule.counts.chunks:
                recorder.add(observed, sent.sent, None if wanted is None else wanted[0])
            if self._watch is not None:
                self._watch(self._status(due_s - now.began_s, pacer, now.interventions, wanted is not None))
            now.success = observed.success
            if now.end is None:
                now.end = self._over(now, observed, due_s, following=wanted is not None)
        status = self._status(body.now() - now.began_s, pacer, now.interventions, False)
        if now.end == "finished":  # that nothing comes after the last action is no gap
            now.gaps, now.idle = now.gaps[:-1], now.idle - 1
        counts = replace(status.counts, gaps=len(now.gaps))
        return Episode(
            *(now.end, now.success, status.elapsed_s, status.timing, status.latency_s, counts, now.interventions),
            tuple(now.gaps),
            now.idle,
            now.error,
        )

    def _take_replies(self, now: _Now, reach: float) -> None:
        """Follow what the worker has decided since the last step."""
        while (reply := self.worker.poll()) is not None:
            if reply.job is None:
                now.error, now.end = str(reply.error), "error"
                self._say(now.error)
                return  # it says so for ever
            if reply.job.episode != self._episode:
                continue
            if reply.chunk is None and reply.not_finite:
                self._refuse(now, str(reply.error))
            elif reply.chunk is None:
                self.schedule.failed()
                now.error = str(reply.error)
                now.ask_after_s = self.body.now() + self.settings.retry_s
                hold = self.settings.on_error == "hold"
                self._say(f"{reply.error}; {'holding' if hold else 'stopping'}")
                now.end = now.end if hold else "error"
            elif reply.chunk.ndim and not len(reply.chunk):
                now.finished = True
            elif (message := self._received(now, reply, reach)) is not None:
                self._say(message)

    def _refuse(self, now: _Now, reason: str) -> None:
        """The arm holds because of what the agent said. The safety layer has that as an intervention of its own."""
        self.schedule.failed()
        self.schedule.stand(None)
        now.error = reason
        now.held, now.ask_after_s = True, self.body.now() + self.settings.retry_s
        refuse = getattr(self.body, "refuse", None)
        if refuse is None:
            self.body.hold()
        interventions = (f"not_finite: {reason}",) if refuse is None else refuse(reason)
        now.interventions += len(interventions)
        hold = self.settings.on_error == "hold"
        self._say(f"{reason}; {'holding' if hold else 'stopping'}")
        now.end = now.end if hold else "error"

    def _ask(self, now: _Now) -> None:
        """Have the next chunk decided, if it is time."""
        if now.finished or self.worker.busy or self.body.now() < now.ask_after_s:
            return
        if self.schedule.due(self.body.now() + self.body.reaction_s):
            self.worker.submit(self._job(now.number, now.seed))
            now.number += 1

    def _count_gap(self, now: _Now, due_s: float, *, following: bool) -> None:
        if following or not self.schedule.counts.chunks:
            return
        now.idle += 1
        if self.schedule.counts.gaps > len(now.gaps):
            now.gaps.append(due_s - now.began_s)
            if not now.finished:
                self._say("no fresh chunk: holding")

    def _over(self, now: _Now, observed: Observed, due_s: float, *, following: bool) -> End | None:
        """How the episode ends by itself, if it does."""
        if observed.stopped:
            return "emergency"
        if observed.done:
            return "done"
        if now.finished and not following:
            return "finished"
        return "length" if due_s - now.began_s >= self.settings.length_s - 1e-9 else None

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

    def _received(self, now: _Now, reply: Reply, reach: float) -> str | None:
        assert reply.job is not None and reply.chunk is not None
        try:
            if now.held:  # from where the arm was brought to rest
                self.schedule.stand(self.body.stay(self._seen[-1].obs))
            message = self.schedule.received(reply.chunk, reply.job.observed_s, reach)
        except ValueError as error:
            self._refuse(now, f"a chunk that cannot be followed: {error}")
            return None
        now.held = False
        return message

    def _send(self, now: _Now, due_s: float, reach: float) -> tuple[np.ndarray | None, Scheduled]:
        """Send the next actions; returns them (n, A) and what became of them."""
        dt = self.settings.dt
        # On the grid of the steps, so that a step that comes late asks for nothing else than one that is in time.
        first = due_s + dt * np.ceil((reach - due_s) / dt - 1e-6)
        try:
            actions = self.schedule.window(first + dt * np.arange(self.settings.ahead))
            if actions is not None:
                return actions, self.body.schedule(actions, first, dt)
        except ValueError as error:  # numbers that are no action: two rows of a rotation that are zero, for example
            self._refuse(now, f"actions that cannot be followed: {error}")
        return None, Scheduled(None)

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

    def _wait(self, ready: Callable[[], bool], seconds: float, problem: str) -> None:
        until_s = self.body.now() + seconds
        while not ready():
            reply = self.worker.poll() if problem == _NOT_READY else None
            if reply is not None and reply.job is None:
                raise AgentError(str(reply.error))
            if self.body.now() > until_s:
                raise AgentError(f"{problem} after {seconds:g} s")
            self.body.observe()  # a safety layer that watches the cameras wants to see that somebody looks
            self.body.sleep_until(self.body.now() + 0.05)
