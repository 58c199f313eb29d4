"""Protocols, evaluation and reports. Nothing in this package imports torch."""

from uva_agents.benchmarks.evaluation.protocols import (
    PROTOCOLS,
    Case,
    EvalProtocol,
    describe_protocols,
    get_protocol,
    protocol_for,
)
from uva_agents.benchmarks.evaluation.report import (
    CaseScore,
    EpisodeFailure,
    EpisodeRecord,
    EvalReport,
    EvaluationError,
    Latency,
)
from uva_agents.benchmarks.evaluation.rollouts import EnvRollouts
from uva_agents.benchmarks.evaluation.runner import evaluate

__all__ = [
    "PROTOCOLS",
    "Case",
    "CaseScore",
    "EnvRollouts",
    "EpisodeFailure",
    "EpisodeRecord",
    "EvalProtocol",
    "EvalReport",
    "EvaluationError",
    "Latency",
    "describe_protocols",
    "evaluate",
    "get_protocol",
    "protocol_for",
]
