"""The loop of an evaluation: every environment worker has an episode, the agent is asked once per step for all of them."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.benchmarks.evaluation.env_workers import Broken, EnvWorker, Request, StepResult
from uva_agents.benchmarks.evaluation.protocols import Case, EvalProtocol
from uva_agents.benchmarks.evaluation.report import EpisodeFailure, EpisodeRecord
from uva_agents.benchmarks.evaluation.rows import AgentRows, DecisionTiming, RefusedRow
from uva_agents.benchmarks.evaluation.values import flag, number
from uva_agents.benchmarks.evaluation.video import VideoFile
from uva_agents.errors import InputError


@dataclass(frozen=True, slots=True)
class EpisodeVideos:
    """Which episodes are recorded as videos, and where the files go.

    A video that cannot be written is given up, and the evaluation goes on.

    Attributes:
        problems: what was given up, and why.
    """

    folder: Path | None
    count: int
    fps: float
    problems: list[str] = field(default_factory=list)

    def wanted(self, index: int) -> bool:
        """Whether episode ``index`` is recorded."""
        return self.folder is not None and index < self.count

    def open(self, index: int, seed: int) -> VideoFile | None:
        """A file for episode ``index``, or ``None`` if it is not recorded."""
        if self.folder is None or not self.wanted(index):
            return None
        path = self.folder / f"episode_{index:03d}_seed{seed}.mp4"
        try:
            return VideoFile(path, self.fps)
        except OSError as error:
            self._note(path, error)
            return None

    @contextlib.contextmanager
    def surviving(self, path: Path) -> Iterator[None]:
        """An error of the disk or of ffmpeg is noted."""
        try:
            yield
        except OSError as error:
            self._note(path, error)

    def _note(self, path: Path, error: OSError) -> None:
        self.problems.append(f"{path} was not written: {error}")


@dataclass(slots=True)
class _RunningEpisode:
    """An episode that is running."""

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


class EpisodeLoop:
    """Runs episodes in environment workers, and asks the agent once per step for all of them.

    Args:
        agent: has ``predict``.
        workers: the environments.
        rules: how an episode is scored.
        seed: of episode 0.
        deterministic: passed to ``predict``.
        videos: which episodes to record.
        on_episode, on_failure: called as soon as an episode has ended.
        env_id: for the reasons of failures.
    """

    def __init__(
        self,
        agent: Any,
        workers: Sequence[EnvWorker],
        rules: EvalProtocol,
        *,
        seed: int,
        deterministic: bool,
        videos: EpisodeVideos,
        on_episode: Callable[[EpisodeRecord], None],
        on_failure: Callable[[EpisodeFailure], None],
        env_id: str = "",
    ) -> None:
        self._workers, self._rules, self._seed, self._videos = workers, rules, seed, videos
        self._env_id = f" {env_id}" if env_id else ""
        self._on_episode, self._on_failure = on_episode, on_failure
        self._agent = AgentRows(agent, len(workers), deterministic)
        self._episodes: list[_RunningEpisode | None] = [None] * len(workers)
        self._observations: list[Any] = [None] * len(workers)
        self._seeds = [seed] * len(workers)

    def run(self, indices: Sequence[int]) -> DecisionTiming:
        """Run the episodes with these indices."""
        queue = deque(indices)
        try:
            while True:
                started = self._fill(queue)
                if not any(self._episodes):
                    return self._agent.timing
                running = np.array([e is not None for e in self._episodes])
                answer = self._agent.actions(self._batch(), started, self._seeds, running)
                for refused in answer.refused:
                    self._refuse(refused)
                self._step(answer.actions)
        finally:
            for episode in self._episodes:
                if episode is not None:
                    self._drop_video(episode)

    def _fill(self, queue: deque[int]) -> np.ndarray:
        """Start episodes on free rows; which rows began one, (n,) bool."""
        started = np.zeros(len(self._workers), dtype=bool)
        # More than one pass: an episode whose reset fails leaves its row free for the next.
        while queue and (free := [i for i, e in enumerate(self._episodes) if e is None]):
            asked = [(i, queue.popleft()) for i in free[: len(queue)]]
            for i, index in asked:
                seed, case = self._rules.episode(index, self._seed)
                self._workers[i].send(Request("reset", seed, self._videos.wanted(index), case.options))
            for i, index in asked:
                seed, case = self._rules.episode(index, self._seed)
                reply = self._workers[i].receive()
                if isinstance(reply, Broken):
                    self._on_failure(EpisodeFailure(index, seed, 0, reply.message, case.name))
                    continue
                try:
                    solved = _success(reply)
                except InputError as error:
                    reason = f"the environment{self._env_id}: {error}"
                    self._on_failure(EpisodeFailure(index, seed, 0, reason, case.name))
                    continue
                episode = _RunningEpisode(index, seed, case, self._videos.open(index, seed), solved)
                self._episodes[i], self._seeds[i], started[i] = episode, seed, True
                self._observe(i, episode, reply)
        return started

    def _refuse(self, refused: RefusedRow) -> None:
        """The agent has no finite action for a row: that is the end of its episode."""
        episode = self._episodes[refused.row]
        assert episode is not None
        where = f"at step {episode.length} of the episode with seed {episode.seed}"
        self._fail(refused.row, episode, refused.reason.format(where=where))

    def _fail(self, i: int, episode: _RunningEpisode, reason: str) -> None:
        self._drop_video(episode)
        # What a network could not bear must not fill up the batches of other rows.
        self._episodes[i], self._observations[i] = None, None
        self._on_failure(EpisodeFailure(episode.index, episode.seed, episode.length, reason, episode.case.name))

    def _drop_video(self, episode: _RunningEpisode) -> None:
        if episode.video is not None:
            with self._videos.surviving(episode.video.path):
                episode.video.close(keep=False)

    def _step(self, actions: np.ndarray) -> None:
        running = [(i, e) for i, e in enumerate(self._episodes) if e is not None]
        for i, episode in running:
            self._workers[i].send(Request("step", actions[i], episode.video is not None))
        for i, episode in running:
            reply = self._workers[i].receive()
            episode.length += 1
            if isinstance(reply, Broken):
                self._fail(i, episode, reply.message)
                continue
            self._observe(i, episode, reply)
            problem = self._score(episode, reply)
            if problem is not None:
                self._fail(i, episode, problem)
                continue
            if reply.terminated or reply.truncated:
                if episode.video is not None:
                    with self._videos.surviving(episode.video.path):
                        episode.video.close()
                self._episodes[i] = None
                self._on_episode(self._record(episode))

    def _observe(self, i: int, episode: _RunningEpisode, result: StepResult) -> None:
        self._observations[i] = result.observation
        if episode.video is not None and result.frame is not None:
            before = len(self._videos.problems)
            with self._videos.surviving(episode.video.path):
                episode.video.add(result.frame)
            if len(self._videos.problems) > before:
                with contextlib.suppress(OSError):
                    episode.video.close(keep=False)
                episode.video = None

    def _score(self, episode: _RunningEpisode, result: StepResult) -> str | None:
        """Count a step; why it cannot be, if it cannot."""
        key = self._rules.progress_key
        if key not in result.info:
            raise InputError(
                f"protocol {self._rules.name!r} scores info[{key!r}], which this environment does not report; "
                "choose a protocol that fits it (\"success\" needs info['is_success'] only)"
            )
        try:
            progress = number(result.info[key], f"info[{key!r}]")
            success = _success(result)
        except InputError as error:
            return f"the environment{self._env_id}: {error}"
        for name, value in {f"info[{key!r}]": progress, "the reward": result.reward}.items():
            if not math.isfinite(value):  # max() would let NaN pass as the lowest score
                return f"the environment{self._env_id} gave {value} as {name}"
        episode.last = progress
        episode.best = max(episode.best, episode.last)
        episode.total_reward += result.reward
        episode.success = episode.success or success
        return None

    def _record(self, e: _RunningEpisode) -> EpisodeRecord:
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


def _success(result: StepResult) -> bool:
    return flag(result.info.get("is_success", False), "info['is_success']")
