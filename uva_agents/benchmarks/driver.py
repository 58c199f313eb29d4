"""The loop of an evaluation: keep every slot busy with an episode, ask the agent once per step for all of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.benchmarks.protocols import Case, EvalProtocol
from uva_agents.benchmarks.report import EpisodeFailure, EpisodeRecord
from uva_agents.benchmarks.slots import Broken, Moment, Request, Slot
from uva_agents.benchmarks.video import VideoFile


@dataclass(frozen=True, slots=True)
class Films:
    """Which episodes are filmed, and where the files go."""

    folder: Path | None
    count: int
    fps: float

    def open(self, index: int, seed: int) -> VideoFile | None:
        """A file for episode ``index``, or ``None`` if it is not filmed."""
        if self.folder is None or index >= self.count:
            return None
        return VideoFile(self.folder / f"episode_{index:03d}_seed{seed}.mp4", self.fps)


@dataclass(slots=True)
class Timing:
    """Seconds of each ``predict`` call, and whether it made a new chunk for some row (``None``: not known)."""

    seconds: list[float] = field(default_factory=list)
    replanned: list[bool] | None = field(default_factory=list)


@dataclass(slots=True)
class _Episode:
    """One that is running."""

    index: int
    seed: int
    case: Case
    video: VideoFile | None
    solved_at_start: bool
    length: int = 0
    best: float = float("-inf")
    last: float = 0.0
    total_reward: float = 0.0
    success: bool = False


class _Rows:
    """An agent over a fixed number of rows; hides how it keeps its memory."""

    def __init__(self, agent: Any, n: int, deterministic: bool) -> None:
        self._agent, self._n, self._deterministic = agent, n, deterministic
        self._state: Any = None
        self._is_value = hasattr(agent, "initial_state")
        self.timing = Timing()

    def actions(self, observations: Any, started: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """(n, ...) one action per row. ``started`` marks rows whose observation is the first of an episode."""
        episode_start: np.ndarray | None = started
        if self._is_value:
            episode_start = None  # the restart, with its seed, is in the state already
            if self._state is None:
                self._state = self._agent.initial_state(self._n, seed=list(seeds))
            elif started.any():
                self._state = self._state.restarted(started, list(seeds))
        before = getattr(self._state, "decisions", None)
        began = time.perf_counter()
        actions, self._state = self._agent.predict(
            observations, self._state, episode_start=episode_start, deterministic=self._deterministic
        )
        self.timing.seconds.append(time.perf_counter() - began)
        after = getattr(self._state, "decisions", None)
        if before is None or after is None:
            self.timing.replanned = None
        elif self.timing.replanned is not None:
            self.timing.replanned.append(bool(np.any(np.asarray(before) != np.asarray(after))))
        return np.asarray(actions)


class Driver:
    """Runs episodes on slots.

    Args:
        agent: has ``predict``.
        slots: the environments.
        rules: how an episode is scored.
        seed: of episode 0.
        deterministic: passed to ``predict``.
        films: what to record.
        on_episode, on_failure: called as soon as an episode has ended.
    """

    def __init__(
        self,
        agent: Any,
        slots: Sequence[Slot],
        rules: EvalProtocol,
        *,
        seed: int,
        deterministic: bool,
        films: Films,
        on_episode: Callable[[EpisodeRecord], None],
        on_failure: Callable[[EpisodeFailure], None],
    ) -> None:
        self._slots, self._rules, self._seed, self._films = slots, rules, seed, films
        self._on_episode, self._on_failure = on_episode, on_failure
        self._agent = _Rows(agent, len(slots), deterministic)
        self._episodes: list[_Episode | None] = [None] * len(slots)
        self._observations: list[Any] = [None] * len(slots)
        self._seeds = [seed] * len(slots)

    def run(self, indices: Sequence[int]) -> Timing:
        """Run the episodes with these indices."""
        queue = deque(indices)
        try:
            while True:
                started = self._fill(queue)
                if not any(self._episodes):
                    return self._agent.timing
                actions = self._agent.actions(self._batch(), started, self._seeds)
                self._check(actions)
                self._step(actions)
        finally:
            for episode in self._episodes:
                if episode is not None and episode.video is not None:
                    episode.video.close(keep=False)

    def _fill(self, queue: deque[int]) -> np.ndarray:
        """Start episodes on free rows; which rows began one, (n,) bool."""
        started = np.zeros(len(self._slots), dtype=bool)
        # More than one pass: an episode whose reset fails leaves its row free for the next.
        while queue and (free := [i for i, e in enumerate(self._episodes) if e is None]):
            asked = [(i, queue.popleft()) for i in free[: len(queue)]]
            for i, index in asked:
                draw = self._films.folder is not None and index < self._films.count
                seed, case = self._rules.episode(index, self._seed)
                self._slots[i].send(Request("reset", seed, draw, case.options))
            for i, index in asked:
                seed, case = self._rules.episode(index, self._seed)
                reply = self._slots[i].receive()
                if isinstance(reply, Broken):
                    self._on_failure(EpisodeFailure(index, seed, 0, reply.message, case.name))
                    continue
                episode = _Episode(
                    index, seed, case, self._films.open(index, seed), bool(reply.info.get("is_success", False))
                )
                self._episodes[i], self._seeds[i], started[i] = episode, seed, True
                self._observe(i, episode, reply)
        return started

    def _step(self, actions: np.ndarray) -> None:
        running = [(i, e) for i, e in enumerate(self._episodes) if e is not None]
        for i, episode in running:
            self._slots[i].send(Request("step", actions[i], episode.video is not None))
        for i, episode in running:
            reply = self._slots[i].receive()
            episode.length += 1
            if isinstance(reply, Broken):
                if episode.video is not None:
                    episode.video.close(keep=False)
                self._episodes[i] = None
                self._on_failure(
                    EpisodeFailure(episode.index, episode.seed, episode.length, reply.message, episode.case.name)
                )
                continue
            self._observe(i, episode, reply)
            self._score(episode, reply)
            if reply.terminated or reply.truncated:
                if episode.video is not None:
                    episode.video.close()
                self._episodes[i] = None
                self._on_episode(self._record(episode))

    def _observe(self, i: int, episode: _Episode, moment: Moment) -> None:
        self._observations[i] = moment.observation
        if episode.video is not None and moment.frame is not None:
            episode.video.add(moment.frame)

    def _score(self, episode: _Episode, moment: Moment) -> None:
        key = self._rules.progress_key
        if key not in moment.info:
            raise ValueError(
                f"protocol {self._rules.name!r} scores info[{key!r}], which this environment does not report; "
                "choose a protocol that fits it (\"success\" needs info['is_success'] only)"
            )
        episode.last = float(moment.info[key])
        episode.best = max(episode.best, episode.last)
        episode.total_reward += moment.reward
        episode.success = episode.success or bool(moment.info.get("is_success", False))

    def _record(self, e: _Episode) -> EpisodeRecord:
        return EpisodeRecord(
            index=e.index,
            seed=e.seed,
            length=e.length,
            score=self._rules.score(e.best),
            success=e.success,
            solved_at_start=e.solved_at_start,
            best_progress=e.best,
            final_progress=e.last,
            total_reward=e.total_reward,
            case=e.case.name,
        )

    def _batch(self) -> Any:
        # Rows whose last episode is over repeat its last observation, so that the batch keeps its size.
        known = next(o for o, e in zip(self._observations, self._episodes, strict=True) if e is not None)
        rows = [known if o is None else o for o in self._observations]
        if isinstance(known, dict):
            return {key: np.stack([np.asarray(row[key]) for row in rows]) for key in known}
        return np.stack([np.asarray(row) for row in rows])

    def _check(self, actions: np.ndarray) -> None:
        n = len(self._slots)
        if actions.shape[:1] != (n,):
            raise ValueError(f"predict() got {n} observations and returned actions of shape {actions.shape}")
        if actions.dtype.kind == "f":
            running = np.array([e is not None for e in self._episodes])
            bad = running & ~np.isfinite(actions.reshape(n, -1)).all(axis=1)
            if bad.any():
                episode = self._episodes[int(bad.argmax())]
                assert episode is not None
                raise ValueError(
                    f"the agent returned NaN or infinity at step {episode.length} of the episode with seed "
                    f"{episode.seed}: its weights or its normaliser are damaged, or training diverged"
                )
