"""The paper's Table II on the twin of the arm: reach and cup, in distribution and out of it. ``uva bench table2``.

The paper has a real arm and three tasks (cup, towel, mouse), unseen objects, backgrounds and a gripper of another colour. Here
the twin does two tasks, by instruction, under looks as in training (``varied``) and under looks that never are in it: the table,
the objects, what stands about, the light, the gripper, and all of them. Of a task, every row has the same episodes: where things
stand does not depend on how they look.

Agents are weights by name or folder, and two that tell what the numbers mean: ``scripted``, the demonstrator, which is told where
everything is, and ``random``, which draws from the action space. Neither looks, so each has the first row only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

from uva_agents.agents.loading import load_policy
from uva_agents.benchmarks.evaluation.intervals import wilson_interval
from uva_agents.benchmarks.evaluation.journal import Journal
from uva_agents.benchmarks.evaluation.machine import versions
from uva_agents.benchmarks.evaluation.protocols import (
    ARX_CHANGES,
    ARX_TASKS,
    Case,
    EvalProtocol,
    arx_case,
    get_protocol,
)
from uva_agents.benchmarks.evaluation.report import EvalReport, plain
from uva_agents.benchmarks.evaluation.runner import evaluate
from uva_agents.benchmarks.paper.arx_agents import BLIND, blind_agent
from uva_agents.benchmarks.skeleton import Benchmark, Outcome, add_device, add_seed, add_workers
from uva_agents.envs.fitting import options_for
from uva_agents.errors import InputError

ROWS = ("in distribution", *ARX_CHANGES, "all")
AGENTS = ("arx-x5-nano", *BLIND)


@dataclass(frozen=True)
class Table2Row:
    """One agent under one condition.

    Attributes:
        agent: as given.
        identity: of its weights and options, as JSON.
        task, row: of the table.
        n, successes, failed: episodes that ended, those that succeeded, those that broke.
        replan_p50_s: median seconds of a decision with a new chunk, of all rows of this agent; ``None`` where it does not tell.
    """

    agent: str
    identity: str
    task: str
    row: str
    n: int
    successes: int
    failed: int
    replan_p50_s: float | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument(
        "--agents", nargs="+", default=list(AGENTS), metavar="AGENT", help=f"default: {', '.join(AGENTS)}"
    )
    parser.add_argument("--tasks", nargs="+", choices=ARX_TASKS, default=list(ARX_TASKS))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="default: all")
    parser.add_argument("--episodes", type=int, default=100, help="of each row and agent (default %(default)s)")
    add_seed(parser, 100_000)
    parser.add_argument("--limit-s", type=float, default=20.0, help="seconds of an episode (default %(default)s)")
    parser.add_argument(
        "--env-args",
        type=_json,
        default={},
        metavar="JSON",
        help="""options of the environment for weights that do not say them, such as '{"cameras": "wrist"}'""",
    )
    add_workers(parser, 2, " with an environment in each, 1 for none")
    add_device(parser)


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """Run what is missing; the table and ``table2.json``."""
    if args.episodes < 1 or args.limit_s <= 0:
        raise InputError(f"--episodes {args.episodes}, --limit-s {args.limit_s:g}: both must be above 0")
    if len({*args.agents}) < len(args.agents):
        raise InputError(f"--agents {' '.join(args.agents)}: one is there twice")
    # How often the arm was held back is in no table.
    logging.getLogger("uva_agents.envs.arx_x5").setLevel(logging.ERROR)
    settings = {name: getattr(args, name) for name in ("episodes", "seed", "limit_s", "env_args")}
    journal = Journal(
        args.out / "rows.jsonl",
        {"settings": settings, "versions": versions()},
        Table2Row,
        key=lambda r: (r.agent, r.identity, r.task, r.row),
    )
    results: list[Table2Row] = []
    try:
        for name in args.agents:
            agent = None if name in BLIND else load_policy(name, device=args.device)
            identity = json.dumps(plain(getattr(agent, "identity", None)), sort_keys=True, default=str)
            wanted = [(task, row) for task in args.tasks for row in (args.rows if agent else args.rows[:1])]
            known = {(r.task, r.row): r for r in journal.records if (r.agent, r.identity) == (name, identity)}
            missing = [key for key in wanted if key not in known]
            if missing:
                report = _evaluated(args, name, agent, [_case(*key) for key in missing])
                for found in _table_rows(name, identity, missing, report):
                    journal.add(found)
                    known[found.task, found.row] = found
            results += [known[key] for key in wanted]
    finally:
        journal.close()
    yield from lines(results, args.agents, args.rows)
    table = [{**dataclasses.asdict(r), **rates(r)} for r in results]
    return Outcome({"settings": settings, "table": table}, status=1 if any(r.failed for r in results) else 0)


def _evaluated(args: argparse.Namespace, name: str, agent: Any, cases: Sequence[Case]) -> EvalReport:
    """All missing rows of one agent; killed, it continues from its journal in the folder."""
    blind = {"render_observations": False, **args.env_args}
    options = blind if agent is None else options_for("uva/ArxX5-v0", agent, args.env_args)
    rate = float(options.setdefault("control_hz", 10.0))
    rules = _protocol(cases, max_steps=round(args.limit_s * rate))
    path = args.out / f"{_file_name(name)}.json"
    shared: dict[str, Any] = {"seed": args.seed, "protocol": rules, "json_path": path, "label": name}
    if agent is not None:
        shared |= {
            "workers": args.workers if args.workers > 1 else None,
            "env_kwargs": {**options, "render_mode": None},
        }
        return evaluate(agent, rules.env_id, args.episodes, **shared)
    # It has to know the environment itself: no other process.
    env = gym.make(
        str(rules.env_id), render_mode=None, disable_env_checker=True, max_episode_steps=rules.max_steps, **options
    )
    try:
        return evaluate(blind_agent(name, env), env, args.episodes, **shared)
    finally:
        env.close()


def _case(task: str, row: str) -> Case:
    return arx_case(task, None if row == ROWS[0] else row)


def _protocol(cases: Sequence[Case], *, max_steps: int) -> EvalProtocol:
    return dataclasses.replace(get_protocol("arx-x5"), name="table2", max_steps=max_steps, cases=tuple(cases))


def _table_rows(
    name: str, identity: str, keys: Sequence[tuple[str, str]], report: EvalReport
) -> Generator[Table2Row, None, None]:
    latency = None if report.latency is None else report.latency.replan_p50_s
    for task, row in keys:
        case = _case(task, row).name
        own = [e.success for e in report.episodes if e.case == case]
        failed = sum(f.case == case for f in report.failures)
        yield Table2Row(name, identity, task, row, len(own), sum(own), failed, latency)


def rates(row: Table2Row) -> dict[str, Any]:
    """Success rate and its 95 % interval (Wilson), ``None`` where no episode ended."""
    if not row.n:
        return {"success": None, "interval": None}
    return {"success": row.successes / row.n, "interval": wilson_interval(row.successes, row.n)}


def lines(results: Sequence[Table2Row], agents: Sequence[str], rows: Sequence[str]) -> list[str]:
    """The table as text."""
    short = {name: Path(name).name[-22:] for name in agents}
    found: dict[tuple[str, str, str], Table2Row] = {(r.task, r.row, r.agent): r for r in results}
    text = []
    for task in dict.fromkeys(r.task for r in results):
        episodes = max(r.n + r.failed for r in results if r.task == task)
        head = f"{task}, {episodes} episodes"
        text.append(f"{head:28s}" + "".join(f"{short[name]:>24s}" for name in agents))
        for row in rows:
            label = row if row == ROWS[0] else f"unseen {row}" if row != "all" else "all of them unseen"
            cells = [_cell(found.get((task, row, name))) for name in agents]
            text.append(f"  {label:26s}" + "".join(f"{cell:>24s}" for cell in cells))
    return text


def _cell(row: Table2Row | None) -> str:
    if row is None:
        return "does not look"
    numbers: Mapping[str, Any] = rates(row)
    if numbers["success"] is None:
        return f"{row.failed} FAILED"
    low, high = numbers["interval"]
    broken = f" {row.failed} FAILED" if row.failed else ""
    return f"{numbers['success']:.2f} [{low:.2f}, {high:.2f}]{broken}"


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name).strip("._") or "agent"


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r}: options and values are expected, as in {{"cameras": "wrist"}}')
    return value


BENCHMARK = Benchmark(
    "table2", __doc__, add_arguments, run, folder="outputs/table2", folder_help="; a killed run continues there"
)
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
