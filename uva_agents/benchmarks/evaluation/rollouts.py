"""Rollouts of weights in an environment while they are trained: what ``uva train --eval-env`` measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from uva_agents.benchmarks.evaluation.protocols import EvalProtocol, get_protocol, protocol_for
from uva_agents.benchmarks.evaluation.report import EvalReport
from uva_agents.benchmarks.evaluation.runner import evaluate
from uva_agents.benchmarks.evaluation.where import find_environment
from uva_agents.errors import InputError

FIRST_SEED = 900_000
"""Of the episodes by default: not those that protocols publish, so that no weights are chosen by what they are then measured on."""


@dataclass(frozen=True)
class EnvRollouts:
    """An :class:`~uva_agents.training.selection.Evaluator`.

    Args:
        env_id: gymnasium id.
        episodes: of each case of the protocol.
        folder: where the reports go, ``step-N.json``; a call that was killed goes on from the journal beside it.
        protocol: step limit and score; by default the environment's usual one.
        seed: of the first episode.
        workers: processes with an environment each; ``None`` runs them in this one.
        progress: a progress bar.

    Raises:
        InputError: there is no such environment or protocol.
    """

    env_id: str
    episodes: int
    folder: Path
    protocol: str | None = None
    seed: int = FIRST_SEED
    workers: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise InputError(f"rollouts of {self.episodes} episodes: at least 1")
        self.rules, find_environment(self.env_id)  # one of the two may be unknown

    @property
    def rules(self) -> EvalProtocol:
        """The protocol."""
        return protocol_for(self.env_id) if self.protocol is None else get_protocol(self.protocol)

    @property
    def name(self) -> str:
        """As scores compare."""
        return f"{self.env_id}, {self.rules.title}, {self.episodes} episodes from seed {self.seed}"

    def check(self, weights: Path) -> Collection[str]:
        """Two steps; the names of the metrics."""
        short = dataclasses.replace(self.rules, max_steps=2)
        return list(_metrics(self._report(weights, short, 1, None)))

    def evaluate(self, weights: Path, step: int) -> Mapping[str, float]:
        """``success_rate``, ``score`` and what the protocol's progress is at the end, as means; numbers of episodes."""
        return _metrics(self._report(weights, self.rules, self.episodes, self.folder / f"step-{step:07d}.json"))

    def _report(self, weights: Path, rules: EvalProtocol, episodes: int, path: Path | None) -> EvalReport:
        from uva_agents.agents import load_policy

        return evaluate(
            load_policy(weights, device="auto"),
            self.env_id,
            episodes,
            seed=self.seed,
            protocol=rules,
            workers=self.workers,
            json_path=path,
            progress=self.progress and path is not None,
            label=weights.name if path is None else path.stem,
        )


def _metrics(report: EvalReport) -> dict[str, float]:
    out = {
        "success_rate": report.success_rate,
        "score": report.score,
        f"final_{report.progress_key.removeprefix('is_')}": report.final_coverage,
        "episodes": float(report.n),
        "failed": float(len(report.failures)),
    }
    out.update(
        {f"{case.name}/success_rate": case.success_rate for case in report.cases if case.success_rate is not None}
    )
    return out
