"""The paper's Table V: block pushing where one block has to go to one square. ``uva bench table5``.

Diffusion Policy, trained on pushing both blocks in any order, without a planner; choosing among its proposals by imagined futures;
and choosing by the true simulator, the upper bound of the same planner. 100 proposals of 16 actions, 6 executed (section VII-B).
The shipped policy is DP-C on keypoints with a mixture prior, the paper's is DP-C on images: the table says which one it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from uva_agents.benchmarks.evaluation.journal import Journal
from uva_agents.benchmarks.evaluation.machine import hardware, versions
from uva_agents.benchmarks.evaluation.report import EvaluationError
from uva_agents.benchmarks.paper.table5_report import (
    METHODS,
    Table5Episode,
    lines,
    page,
    policy_title,
    share,
    summarise,
)
from uva_agents.benchmarks.skeleton import Benchmark, Outcome, add_seed, add_workers
from uva_agents.utils.progress import progress_bar
from uva_agents.utils.workers import run_jobs

COLOURS = {"R": "red", "G": "green"}


@dataclass(frozen=True)
class Table5Settings:
    """What decides an episode's outcome, besides method, assignment and seed.

    Args:
        world, policy: weights.
        candidates: per decision.
        execute: actions per decision, with and without a planner.
        steps: denoising steps of imagined frames.
        screen: share of the candidates that is imagined in full, after all of them were judged by their rendered priors;
            1 leaves that out.
        max_steps: of an episode.
    """

    world: str = "block-push-nano"
    policy: str = "dp-c-block-push"
    candidates: int = 100
    execute: int = 6
    steps: int = 4
    screen: float = 1.0
    max_steps: int = 350


@dataclass(frozen=True)
class Table5Job:
    """An episode to run; the pictures of its decisions go to ``pictures`` where that is given."""

    method: str
    assignment: str
    seed: int
    pictures: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    plain = Table5Settings()
    parser.add_argument("--episodes", type=int, default=10, help="per assignment and method (default %(default)s)")
    parser.add_argument(
        "--simulator-episodes",
        type=int,
        default=None,
        help="the same for the simulator, which is a hundred times slower: the first so many seeds (default: all)",
    )
    add_seed(parser, 100_000)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--assignments", nargs="+", default=["R-R", "R-G", "G-R", "G-G"])
    parser.add_argument("--world", default=plain.world, help="UVA weights (default %(default)s)")
    parser.add_argument("--policy", default=plain.policy, help="Diffusion Policy weights (default %(default)s)")
    for name in ("candidates", "execute", "steps", "max_steps"):
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=int, default=getattr(plain, name), help="default %(default)s")
    parser.add_argument(
        "--screen",
        type=float,
        default=plain.screen,
        help="share of the candidates imagined in full, the best by their rendered priors (default %(default)s)",
    )
    add_workers(parser, 1, ", one thread each")
    parser.add_argument(
        "--pictures", type=int, default=1, help="episodes per assignment with pictures (default %(default)s)"
    )


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """Run what is missing; the table, ``table5.json`` and ``index.html``."""
    import uva_agents as uva

    settings = Table5Settings(**{f.name: getattr(args, f.name) for f in dataclasses.fields(Table5Settings)})
    title = policy_title(uva.DiffusionPolicy.from_pretrained(settings.policy, device="cpu").bundle.model.config)
    head = {"settings": dataclasses.asdict(settings), "versions": versions()}
    journal = Journal(args.out / "episodes.jsonl", head, Table5Episode, key=lambda e: (e.method, e.assignment, e.seed))
    jobs = [
        Table5Job(
            method, assignment, seed, str(args.out / "pictures") if index < args.pictures and method == "uva" else None
        )
        for index, seed in enumerate(range(args.seed, args.seed + args.episodes))
        for method in args.methods
        if method != "simulator" or args.simulator_episodes is None or index < args.simulator_episodes
        for assignment in args.assignments
    ]
    done = {(e.method, e.assignment, e.seed) for e in journal.records}
    missing = [j for j in jobs if (j.method, j.assignment, j.seed) not in done]
    failures: list[str] = []
    with progress_bar(note="{task.fields[rates]}") as bar:
        task = bar.add_task("episodes", total=len(jobs), completed=len(jobs) - len(missing), rates="")
        for ended in run_jobs(partial(prepare, settings), missing, workers=args.workers, method="spawn"):
            if ended.result is None:
                failures.append(f"{ended.job.method} {ended.job.assignment} seed {ended.job.seed}: {ended.error}")
            else:
                journal.add(ended.result)
            rates = "  ".join(f"{m} {share(journal.records, m):.2f}" for m in args.methods)
            bar.update(task, advance=1, rates=rates)
    journal.close()
    wanted = {(j.method, j.assignment, j.seed) for j in jobs}
    episodes = [e for e in journal.records if (e.method, e.assignment, e.seed) in wanted]
    if not episodes:
        raise EvaluationError(f"no episode finished; the first error: {failures[0] if failures else 'none'}")
    table = summarise(episodes)
    text = [*lines(table, title), *(f"failed: {f}" for f in failures)]
    yield from text
    facts = {
        "policy": title,
        "settings": dataclasses.asdict(settings),
        "seeds": [args.seed, args.seed + args.episodes - 1],
    }
    numbers = {**facts, "table": table, "failures": failures, "episodes": [dataclasses.asdict(e) for e in episodes]}
    facts |= {"hardware": hardware(), "versions": versions()}
    html = page("\n".join(text), facts, sorted((args.out / "pictures").glob("*.png")))
    files = {"index.html": lambda path: path.write_text(html, encoding="utf-8", errors="surrogateescape")}
    return Outcome(numbers, files, status=1 if failures else 0)


def prepare(settings: Table5Settings) -> Callable[[Table5Job], Table5Episode]:
    """In a worker: load the weights once."""
    import torch

    import uva_agents as uva

    torch.set_num_threads(1)
    policy = uva.DiffusionPolicy.from_pretrained(settings.policy, execute=settings.execute)
    world = uva.WorldModel.from_pretrained(settings.world)
    return lambda job: play(job, settings, policy, world)


def play(job: Table5Job, settings: Table5Settings, policy: Any, world: Any) -> Table5Episode:
    """One episode."""
    import gymnasium as gym

    from uva_agents.planners import BlockToSquare, SamplingPlanner, Screen, SimulatorModel

    began = time.perf_counter()
    env = gym.make(
        "uva/BlockPush-v0", assignment=job.assignment, render_mode=None, max_episode_steps=settings.max_steps
    )
    agent = policy
    if job.method != "dp-c":
        block, square = (COLOURS[letter] for letter in job.assignment.split("-"))
        agent = SamplingPlanner(
            dynamics=world if job.method == "uva" else SimulatorModel(env),
            objective=BlockToSquare(block, square),  # type: ignore[arg-type]
            proposals=policy,
            n_samples=settings.candidates,
            execute=settings.execute,
            steps=settings.steps if job.method == "uva" else None,
            screen=Screen(steps=0, keep=settings.screen) if job.method == "uva" and settings.screen < 1 else None,
        )
    pictures = None
    if job.pictures is not None:
        from uva_agents.benchmarks.paper.table5_pictures import DecisionPictures

        pictures = DecisionPictures(Path(job.pictures), job.assignment, job.seed, env, world)
    try:
        obs, info = env.reset(seed=job.seed)
        agent.reset(seed=job.seed)
        seen: list[Any] = []
        latencies: list[float] = []
        length, over = 0, bool(info["is_success"])
        while not over:
            decides = length % settings.execute == 0
            if pictures is not None and decides:
                pictures.record(length, agent, obs, seen)
            start = time.perf_counter()
            action = agent.act(obs)
            if decides:
                latencies.append(time.perf_counter() - start)
            seen.append(obs)
            obs, _, terminated, truncated, info = env.step(action)
            length, over = length + 1, terminated or truncated
    finally:
        env.close()
    wall = time.perf_counter() - began
    return Table5Episode(job.method, job.assignment, job.seed, bool(info["is_success"]), length, wall, tuple(latencies))


BENCHMARK = Benchmark(
    "table5",
    __doc__,
    add_arguments,
    run,
    folder="outputs/table5",
    folder_help="; a killed run continues there",
    threads=False,  # a worker has one
)
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
