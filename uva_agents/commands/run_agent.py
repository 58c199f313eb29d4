"""The agent of ``uva run``: loaded in this process or in one of its own, as a source of chunks."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uva_agents.realtime import ArxRobotInterface, ChunkSource, InferenceWorker, RecordedActions


def load_for_run(args: argparse.Namespace) -> Any:
    """The agent in this process, with a core left to the control loop."""
    from uva_agents.commands.evaluate import load_agent

    options = {} if args.steps is None else {"steps": args.steps}
    agent = load_agent(args.agent, device=args.device, **options)
    _leave_a_core(args.threads)
    return agent


def _leave_a_core(threads: int | None) -> None:
    """Inference on every core would make control late."""
    torch = sys.modules.get("torch")
    if torch is not None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(threads or max(1, cores - 1))


class _Setup:
    """Loads the agent in the process that it runs in. Picklable."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = argparse.Namespace(**{key: value for key, value in vars(args).items() if key != "run"})

    def __call__(self) -> Any:
        from uva_agents.realtime import AgentChunkSource, absolute

        source = AgentChunkSource(load_for_run(self._args))
        return absolute(source) if self._args.relative else source


def chunk_source(
    args: argparse.Namespace, agent: Any, recording: RecordedActions | None, robot: ArxRobotInterface
) -> ChunkSource:
    """Of an agent in this process, or of a recording."""
    from uva_agents.realtime import AgentChunkSource, ReplayChunkSource, absolute

    if recording is not None:
        return ReplayChunkSource(recording, robot.stay, robot.layout)
    source = AgentChunkSource(agent)
    return absolute(source) if args.relative else source


def inference_worker(args: argparse.Namespace, source: ChunkSource | None) -> InferenceWorker:
    """In a thread around ``source``; without one in a process that loads the agent."""
    from uva_agents.realtime import ProcessWorker, ThreadWorker

    if source is None:
        return ProcessWorker(_Setup(args), timeout_s=args.timeout)
    return ThreadWorker(lambda: source)


def own_rate(agent: Any) -> float | None:
    """Control rate of the data that the agent was trained on, Hz, if it says so."""
    rate = getattr(getattr(agent, "spec", None), "control_hz", None)
    return float(rate) if rate else None
