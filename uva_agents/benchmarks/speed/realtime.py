"""The control loop in real time: late steps, jitter, gaps between chunks, and a network that pauses.

    uva bench realtime [--minutes 5] [--rate 20 --rate 8] [--inference 0.2] [--busy | --remote] [--json FILE]

On the simulated twin, behind the safety layer, with pictures. The policy takes ``--inference`` seconds and decides chunks of
``--chunk`` actions; in the middle of each run it does not answer for ``--pause`` seconds. ``--busy`` lets it compute for that
time instead of sleeping; with ``--remote`` it is in another process behind a policy server, which is stopped for the pause.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.benchmarks.skeleton import Benchmark, Outcome
from uva_agents.benchmarks.speed.slow_policy import SlowChunkSource, SlowPolicy, served
from uva_agents.errors import InputError
from uva_agents.realtime import (
    ActionLayout,
    ChunkSchedule,
    EpisodeSummary,
    InferenceWorker,
    Loop,
    LoopSettings,
    RobotInterface,
    ScheduleSettings,
    Status,
    ThreadWorker,
    summary,
)

_AROUND_S = 1.0
"""Gaps that begin so shortly after a pause belong to it."""
_SAMPLE_S = 5.0
"""Between looks at how many processes want to run."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The policy falls silent in the middle of a run.

    Attributes:
        begin, end: called by the control loop when it is time, so they must not wait.
        seconds: between the two.
        answer_s: how long after the end its first answer may take.
    """

    begin: Callable[[], None]
    end: Callable[[], None]
    seconds: float
    answer_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement.

    Attributes:
        rate_hz: of control, and of the actions of a chunk.
        episode: what the loop counted.
        gaps: chunks that came too late outside of the pause.
        held_s: how long there was nothing to follow in the pause.
        resumed: whether the arm went on after it.
        load: of the machine meanwhile, processes that wanted to run, mean of the samples.
        cpu_s: processor time of this process.
        interventions: kind -> how often.
    """

    rate_hz: float
    episode: EpisodeSummary
    gaps: int
    held_s: float
    resumed: bool
    load: float
    cpu_s: float
    interventions: dict[str, int]

    @property
    def late(self) -> float:
        """Share of steps that began later than a tenth of their period."""
        return self.episode.timing.late_steps / max(self.episode.timing.steps, 1)

    @property
    def passed(self) -> bool:
        """Late steps below 1 %, no gap, and the arm held in the pause and went on."""
        return self.late < 0.01 and self.gaps == 0 and self.resumed


def measure(
    robot: RobotInterface,
    layout: ActionLayout,
    worker: InferenceWorker,
    *,
    rate_hz: float,
    seconds: float,
    pause: Pause | None = None,
) -> Run:
    """One run of the loop on a robot that has been reset, on the robot's clock, real or simulated.

    Args:
        worker: answers; is closed at the end.
        pause: in the middle of it.
    """
    idle: list[float] = []
    kinds: dict[str, int] = {}
    loads: list[float] = []
    silent: list[float] = []  # when it began to be, and when no longer

    def see(status: Status) -> None:
        now = status.elapsed_s
        if not status.moving and status.counts.chunks:
            idle.append(now)
        if now >= _SAMPLE_S * (len(loads) + 1):
            loads.append(running())
        if pause is not None and not silent and now >= seconds / 2:
            silent.append(now)
            pause.begin()
        if pause is not None and len(silent) == 1 and now >= silent[0] + pause.seconds:
            silent.append(now)
            pause.end()

    class Counted:
        """The robot, with its interventions counted by kind."""

        def __getattr__(self, name: str) -> Any:
            return getattr(robot, name)

        def schedule(self, actions: np.ndarray, start_s: float, dt: float) -> Any:
            done = robot.schedule(actions, start_s, dt)
            for text in done.interventions:
                kind = text.split(":")[0]
                kinds[kind] = kinds.get(kind, 0) + 1
            return done

    schedule = ChunkSchedule(ScheduleSettings(action_hz=rate_hz), layout)
    loop = Loop(
        Counted(),
        worker,
        schedule,
        LoopSettings(rate_hz=rate_hz, length_s=seconds),
        say=lambda text: None,
        watch=see,
    )
    try:
        loop.warm_up()
        cpu = time.process_time()
        episode = loop.run()
        cpu = time.process_time() - cpu
    finally:
        if pause is not None and len(silent) == 1:
            pause.end()
        worker.close()

    def within(at_s: float) -> bool:
        return bool(silent) and silent[0] - 0.1 <= at_s <= silent[-1] + (pause.answer_s if pause else 0.0) + _AROUND_S

    inside = [gap for gap in episode.gap_times if within(gap)]
    # It held, though perhaps it already did before, and was moving again at the end.
    resumed = pause is None or (any(within(at) for at in idle) and max(idle) < episode.seconds - 1.0)
    load = float(np.mean(loads)) if loads else running()
    gaps = episode.counts.gaps - len(inside)
    return Run(rate_hz, episode, gaps, len(idle) / rate_hz, resumed, load, cpu, kinds)


def running() -> float:
    """Processes that want to run on this machine now, this one included."""
    try:
        return float(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].split("/")[0])
    except (OSError, IndexError, ValueError):
        return float("nan")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--minutes", type=float, default=5.0, help="of each run (default %(default)s)")
    parser.add_argument("--rate", type=float, action="append", metavar="HZ", help="may be repeated (default 20 and 8)")
    parser.add_argument("--chunk", type=int, default=16, help="actions (default %(default)s)")
    parser.add_argument("--inference", type=float, default=0.2, metavar="S", help="per chunk (default %(default)s)")
    parser.add_argument(
        "--pause", type=float, default=2.0, metavar="S", help="in the middle; 0 for none (default %(default)s)"
    )
    parser.add_argument("--busy", action="store_true", help="inference computes on one core instead of sleeping")
    parser.add_argument("--remote", action="store_true", help="the policy is behind a policy server in another process")
    parser.add_argument("--image-size", type=int, default=224, help="of the pictures (default %(default)s)")


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """Measure. Status 0 if every run has late steps below 1 %, no gap, and goes on after the pause; else 1."""
    if args.minutes <= 0 or args.chunk < 2 or args.inference < 0 or args.pause < 0:
        raise InputError("--minutes must be positive, --chunk at least 2, seconds not negative")
    if args.pause and args.minutes * 30 < args.pause + 5:
        raise InputError(f"--minutes {args.minutes:g} is too short for a pause of {args.pause:g} s: make it longer")
    kind = "remote" if args.remote else "computing" if args.busy else "sleeping"
    yield (
        f"{args.minutes:g} minutes each, inference {args.inference:g} s ({kind}), chunks of {args.chunk}, pause {args.pause:g} s"
    )
    runs = []
    for rate in args.rate or [20.0, 8.0]:
        runs.append(_run(args, rate))
        yield _line(runs[-1])
    status = 0 if all(measured.passed for measured in runs) else 1
    return Outcome({"rows": [dataclasses.asdict(measured) for measured in runs]}, status=status)


# Joints and gripper: a few centimetres of the tool, from home and back.
SWING = np.array([0.2, 0.3, 0.3, 0.1, 0.1, 0.2, -0.01])


def _run(args: argparse.Namespace, rate: float) -> Run:
    import gymnasium as gym

    import uva_agents.envs  # noqa: F401
    from uva_agents.realtime import ArxRobotInterface

    env = gym.make(
        "uva/ArxX5-v0",
        disable_env_checker=True,
        realtime=True,
        control_hz=rate,
        action_mode="joints",
        image_size=args.image_size,
    )
    with contextlib.closing(env):
        env.reset(seed=0)
        robot = ArxRobotInterface(env)
        policy = SlowPolicy(args.inference, hz=rate, chunk=args.chunk, swing=SWING, busy=args.busy)
        with served(policy) if args.remote else contextlib.nullcontext((policy.sample, None)) as (sample, process):

            def begin() -> None:
                if process is None:
                    policy.pause(args.pause)
                else:
                    os.kill(process, signal.SIGSTOP)

            def end() -> None:
                if process is not None:
                    os.kill(process, signal.SIGCONT)

            ask = SlowChunkSource(sample, robot.stay)
            return measure(
                robot,
                robot.layout,
                ThreadWorker(lambda: ask),
                rate_hz=rate,
                seconds=60 * args.minutes,
                pause=Pause(begin, end, args.pause, args.inference) if args.pause else None,
            )


def _line(run: Run) -> str:
    found = ", ".join(f"{kind} {count}" for kind, count in sorted(run.interventions.items())) or "none"
    verdict = "as it should be" if run.passed else "NOT as it should be"
    after = "went on" if run.resumed else "did NOT go on"
    return (
        f"{run.rate_hz:g} Hz: {summary(run.episode)}\n"
        f"  gaps outside the pause {run.gaps}; held {run.held_s:.2f} s, {after}; safety: {found}\n"
        f"  {run.load:.1f} processes wanted to run, {run.cpu_s / max(run.episode.seconds, 1e-9):.2f} cores used here: {verdict}"
    )


BENCHMARK = Benchmark("realtime", __doc__, add_arguments, run, threads=False)
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
