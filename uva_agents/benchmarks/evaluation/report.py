"""The result of an evaluation: every episode, the numbers people quote with their intervals, and what it ran on."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.benchmarks.evaluation.intervals import Interval, bootstrap_interval, wilson_interval
from uva_agents.errors import InputError, UVAError
from uva_agents.utils.results import save_text

_DEEPEST = 50


class EvaluationError(UVAError, RuntimeError):
    """The environment could not be made, or no episode came to an end.

    Attributes:
        exit_status: 1 where episodes failed, as for a report that lists some; else that of what the environment raised.
    """

    def __init__(self, message: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status


@dataclass(frozen=True)
class EpisodeRecord:
    """One finished episode.

    Attributes:
        index: position in the evaluation.
        seed: of the environment's reset and of the agent's random stream.
        length: control steps.
        score: in [0, 1], as the protocol defines it.
        success: ``info["is_success"]`` was true after some step.
        solved_at_start: it was true before the first step already.
        best_progress, final_progress: of the protocol's ``progress_key``, over all steps and after the last one.
        total_reward: sum over the steps.
        case: the row of the protocol that it belongs to, if it has several.
    """

    index: int
    seed: int
    length: int
    score: float
    success: bool
    solved_at_start: bool
    best_progress: float
    final_progress: float
    total_reward: float
    case: str = ""


@dataclass(frozen=True)
class EpisodeFailure:
    """An episode that the environment did not survive, or in which the agent or the environment gave no finite numbers.

    It counts in no score.
    """

    index: int
    seed: int
    step: int
    error: str
    case: str = ""


@dataclass(frozen=True)
class CaseScore:
    """The episodes of one row of a protocol. ``n`` counts the finished ones, ``failed`` those that broke."""

    name: str
    n: int
    score: float | None
    score_ci95: Interval | None
    success_rate: float | None
    success_ci95: Interval | None
    final_coverage: float | None
    already_solved: int
    failed: int

    @classmethod
    def of(cls, name: str, episodes: Sequence[EpisodeRecord], failed: int) -> CaseScore:
        """``None`` instead of numbers where no episode finished."""
        if not episodes:
            return cls(name, 0, None, None, None, None, None, 0, failed)
        n, scores, successes = len(episodes), [e.score for e in episodes], sum(e.success for e in episodes)
        return cls(
            name,
            n,
            float(np.mean(scores)),
            bootstrap_interval(scores),
            successes / n,
            wilson_interval(successes, n),
            float(np.mean([e.final_progress for e in episodes])),
            sum(e.solved_at_start for e in episodes),
            failed,
        )


@dataclass(frozen=True)
class Latency:
    """Wall-clock seconds of ``predict`` calls, each for ``batch_size`` environments at once.

    ``replan_*`` covers the calls in which at least one environment got a new chunk of actions; the other calls only
    take the next action from a queue. ``None`` where the agent's state does not tell (no ``decisions``).

    ``first_s`` is the very first call, in which what is loaded late is loaded: it is in no other number, unless it was the only
    one.
    """

    batch_size: int
    calls: int
    p50_s: float
    p95_s: float
    replan_calls: int | None = None
    replan_p50_s: float | None = None
    replan_p95_s: float | None = None
    first_s: float | None = None

    @classmethod
    def of(cls, seconds: list[float], replanned: list[bool] | None, batch_size: int) -> Latency | None:
        """``None`` when nothing was timed, for example because every episode was resumed."""
        if not seconds:
            return None
        first = seconds[0]
        if len(seconds) > 1:
            seconds, replanned = seconds[1:], None if replanned is None else replanned[1:]
        p50, p95 = (float(q) for q in np.quantile(seconds, (0.5, 0.95)))
        if replanned is None or not any(replanned):
            return cls(batch_size, len(seconds), p50, p95, first_s=first)
        slow = np.asarray(seconds)[np.asarray(replanned)]
        r50, r95 = (float(q) for q in np.quantile(slow, (0.5, 0.95)))
        return cls(batch_size, len(seconds), p50, p95, len(slow), r50, r95, first)


@dataclass(frozen=True)
class EvalReport:
    """What :func:`uva_agents.evaluate` returns. Rates and scores are in [0, 1], times in seconds.

    Attributes:
        n: finished episodes; the means are over these.
        final_coverage: mean progress at the end of the episodes (coverage, in PushT).
        cases: a row per case of the protocol, if it has several. Then the fields above are over all of them together, and
            their intervals are over seeds, because episodes that share a seed are not independent.
        resumed: episodes taken over from an earlier run that was killed.
        progress_key: what ``final_coverage`` and the episodes' progress are of.
        workers: processes that the environments ran in; 0 when they ran in the agent's own.
    """

    protocol: str
    env_id: str
    agent: str
    seed: int
    n: int
    score: float
    score_ci95: Interval
    success_rate: float
    success_ci95: Interval
    final_coverage: float
    already_solved: int
    episodes: tuple[EpisodeRecord, ...]
    failures: tuple[EpisodeFailure, ...]
    latency: Latency | None
    n_envs: int
    deterministic: bool
    env_kwargs: dict[str, Any]
    resumed: int
    wall_time_s: float
    versions: dict[str, str]
    hardware: str
    notes: tuple[str, ...]
    protocol_version: int = 1
    workers: int = 0
    progress_key: str = "coverage"
    cases: tuple[CaseScore, ...] = ()

    @classmethod
    def of(cls, episodes: list[EpisodeRecord], failures: list[EpisodeFailure], **facts: Any) -> EvalReport:
        """Means and intervals of the episodes; ``facts`` are the remaining fields.

        Raises:
            EvaluationError: no episode finished.
        """
        if not episodes:
            first = f"; the first error: {failures[0].error}" if failures else ""
            raise EvaluationError(f"no episode finished{first}")
        ordered = tuple(sorted(episodes, key=lambda e: e.index))
        broken = Counter(f.case for f in failures)
        ended: list[EpisodeRecord | EpisodeFailure] = [*episodes, *failures]
        names = dict.fromkeys(e.case for e in sorted(ended, key=lambda e: e.index))
        rows = tuple(CaseScore.of(name, [e for e in ordered if e.case == name], broken[name]) for name in names)
        scores, successes = [e.score for e in ordered], sum(e.success for e in ordered)
        several = len(rows) > 1
        return cls(
            n=len(ordered),
            score=float(np.mean(scores)),
            score_ci95=_interval_over_seeds(ordered, "score") if several else bootstrap_interval(scores),
            success_rate=successes / len(ordered),
            success_ci95=_hull(
                wilson_interval(successes, len(ordered)),
                *([_interval_over_seeds(ordered, "success")] if several else []),
            ),
            final_coverage=float(np.mean([e.final_progress for e in ordered])),
            already_solved=sum(e.solved_at_start for e in ordered),
            cases=rows if several else (),
            episodes=ordered,
            failures=tuple(sorted(failures, key=lambda f: f.index)),
            **facts,
        )

    def to_json(self, path: str | Path | None = None) -> str:
        """The whole report as JSON; written to ``path`` too if given, completely or not at all.

        Raises:
            UnwrittenError: it is somewhere else, or nowhere; the message says.
        """
        text = json.dumps(plain(dataclasses.asdict(self)), indent=2, allow_nan=False, default=str) + "\n"
        if path is not None:
            save_text(path, text)
        return text

    @property
    def unsolved_success_rate(self) -> float | None:
        """Success rate of the episodes that did not begin solved: what an agent that does nothing gets for free is left out."""
        others = [e.success for e in self.episodes if not e.solved_at_start]
        return float(np.mean(others)) if others else None

    def _of_the_others(self) -> str:
        rate = self.unsolved_success_rate
        if not self.already_solved or rate is None:
            return ""
        return f"; success rate of the other {self.n - self.already_solved}: {rate:.3f}"

    def summary(self) -> str:
        """A few lines for people."""
        lines = [
            f"{self.agent} in {self.env_id}, protocol {self.protocol} v{self.protocol_version}: "
            f"{self.n} episodes from seed {self.seed}",
            *_rows(self.cases),
            f"  score           {self.score:.3f}  [{self.score_ci95[0]:.3f}, {self.score_ci95[1]:.3f}] 95 %",
            f"  success rate    {self.success_rate:.3f}  [{self.success_ci95[0]:.3f}, {self.success_ci95[1]:.3f}] 95 %",
            f"  {'final ' + self.progress_key.removeprefix('is_'):14}  {self.final_coverage:.3f}",
            f"  {self.already_solved} episodes began solved" + self._of_the_others(),
        ]
        if self.latency is not None:
            t = self.latency
            lines.append(f"  predict         p50 {_ms(t.p50_s)}, p95 {_ms(t.p95_s)}, batch {t.batch_size}")
            if t.replan_p50_s is not None and t.replan_p95_s is not None:
                lines.append(f"  with new chunk  p50 {_ms(t.replan_p50_s)}, p95 {_ms(t.replan_p95_s)}")
            if t.first_s is not None and t.first_s > 2 * t.p95_s:
                lines.append(f"  first predict   {_ms(t.first_s)}, loading included, in none of these")
        where = f", {self.workers} worker processes" if self.workers else ""
        lines.append(f"  wall time       {self.wall_time_s:.1f} s on {self.hardware}{where}")
        lines.append("  versions        " + ", ".join(f"{name} {version}" for name, version in self.versions.items()))
        if self.resumed:
            lines.append(f"  {self.resumed} episodes were taken over from an interrupted run")
        if self.failures:
            lines.append(
                f"  {len(self.failures)} of {self.n + len(self.failures)} episodes FAILED, and are in no number above"
            )
        lines += [f"  FAILED episode {f.index} (seed {f.seed}) at step {f.step}: {f.error}" for f in self.failures]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def _interval_over_seeds(episodes: Sequence[EpisodeRecord], field: str) -> Interval:
    by_seed: dict[int, list[float]] = {}
    for episode in episodes:
        by_seed.setdefault(episode.seed, []).append(float(getattr(episode, field)))
    return bootstrap_interval([float(np.mean(values)) for values in by_seed.values()])


def _hull(*intervals: Interval) -> Interval:
    # A bootstrap of rates that are all 0 has no width, and Wilson's takes episodes that share a seed for independent.
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def _rows(cases: Sequence[CaseScore]) -> list[str]:
    """A line per case, under a line that names the columns."""
    if not cases:
        return []
    width = max(len(case.name) for case in cases)
    lines = [f"  {'':{width}}    n  score  [95 %]           success rate  [95 %]    final coverage  began solved"]
    for c in cases:
        if c.score is None or c.score_ci95 is None or c.success_ci95 is None:
            lines.append(f"  {c.name:{width}}    0  no episode finished, {c.failed} failed")
            continue
        score = f"{c.score:.3f}  [{c.score_ci95[0]:.3f}, {c.score_ci95[1]:.3f}]"
        success = f"{c.success_rate:.3f}  [{c.success_ci95[0]:.3f}, {c.success_ci95[1]:.3f}]"
        lines.append(
            f"  {c.name:{width}} {c.n:4d}  {score}   {success}   {c.final_coverage:.3f}           {c.already_solved}"
            + (f"  {c.failed} FAILED" if c.failed else "")
        )
    return [*lines, "  all of them:"]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def plain(value: Any, _around: tuple[int, ...] = ()) -> Any:
    """What JSON can hold of keyword arguments: names as text, infinity and NaN as text, and no value inside itself.

    Raises:
        InputError: maps and lists inside each other without end.
    """
    if isinstance(value, Mapping | list | tuple):
        if id(value) in _around or len(_around) >= _DEEPEST:
            raise InputError(
                f"a {type(value).__name__} that contains itself, or more than {_DEEPEST} inside each other: an agent's identity "
                "and an environment's arguments must be values that JSON can hold"
            )
        around = (*_around, id(value))
        if isinstance(value, Mapping):
            return {str(key): plain(item, around) for key, item in value.items()}
        return [plain(item, around) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
