"""Protocols, evaluation and reports. Nothing in this package imports torch."""

from uva_agents.benchmarks.protocols import PROTOCOLS, EvalProtocol, get_protocol
from uva_agents.benchmarks.report import EpisodeFailure, EpisodeRecord, EvalReport, EvaluationError, Latency
from uva_agents.benchmarks.runner import evaluate

__all__ = [
    "PROTOCOLS",
    "EpisodeFailure",
    "EpisodeRecord",
    "EvalProtocol",
    "EvalReport",
    "EvaluationError",
    "Latency",
    "evaluate",
    "get_protocol",
]
