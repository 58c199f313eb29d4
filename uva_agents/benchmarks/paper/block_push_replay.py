"""Recorded Block Push actions, replayed open loop. ``python -m uva_agents.benchmarks.paper.block_push_replay --data FOLDER``.

FOLDER holds ``multimodal_push_seed.zarr`` (relative actions) and ``replayed_obs.npz`` (``obs`` (N, 16), what the published
environment observed for them, ``episode_ends``, and ``n_in_target``, (block, square) pairs closer than 5 cm after the last
action). Every episode starts from its seed and is compared with that. ``--nudge`` replays each a second time with its
first action changed a little, and compares the two: how far can two simulators agree that differ in the last bits?
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing as mp
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.benchmarks.skeleton import Benchmark, Outcome, add_workers
from uva_agents.utils.progress import progress_bar


@dataclass(frozen=True, slots=True)
class Replay:
    """One episode. Distances in metres, of red and green block, where the recording saw them last.

    ``inside``, ``nudged_inside``: pairs inside after the last action, here and in the second replay (-1: there was none).
    """

    episode: int
    steps: int
    inside: int
    recorded_inside: int
    error: tuple[float, float]
    nudged_inside: int = -1
    nudged_error: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class _Task:
    episode: int
    actions: np.ndarray
    last: np.ndarray
    inside: int
    nudge: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--data", type=Path, required=True, help="folder of the recording")
    parser.add_argument("--episodes", type=int, default=None, help="spread evenly over the recording (default: all)")
    add_workers(parser, 2)
    parser.add_argument("--nudge", type=float, default=0.0, help="metres; 0 leaves the second replay out (default)")


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """Agreement with the recording, and distances from it."""
    tasks = _tasks(args.data, args.episodes, args.nudge)
    began = time.perf_counter()
    replays = []
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress_bar())
        shown = bar.add_task("episodes", total=len(tasks))
        pool = stack.enter_context(mp.Pool(args.workers)) if args.workers > 1 else None
        for replay in map(_replay, tasks) if pool is None else pool.imap(_replay, tasks):
            replays.append(replay)
            bar.advance(shown)
    wall = time.perf_counter() - began
    summary = summarise(replays)
    for name, value in summary.items():
        yield f"  {name:34s} {value:8.3f}" if isinstance(value, float) else f"  {name:34s} {value}"
    steps = sum(r.steps for r in replays) * (2 if args.nudge else 1)
    yield f"  {wall:.0f} s, {steps / wall:.0f} steps/s with {args.workers} processes, no pictures"
    return Outcome({"summary": summary, "wall_time_s": wall, "episodes": [asdict(r) for r in replays]})


def summarise(replays: list[Replay]) -> dict[str, Any]:
    """Shares in [0, 1], distances in millimetres."""
    ours = np.array([r.inside for r in replays])
    theirs = np.array([r.recorded_inside for r in replays])
    summary: dict[str, Any] = {
        "episodes": len(replays),
        "same number inside": float((ours == theirs).mean()),
        "both inside, here": float((ours >= 2).mean()),
        "both inside, recorded": float((theirs >= 2).mean()),
        "at least one inside, here": float((ours >= 1).mean()),
        "at least one inside, recorded": float((theirs >= 1).mean()),
        **_percentiles("block error", [r.error for r in replays]),
    }
    nudged = [r for r in replays if r.nudged_inside >= 0]
    if nudged:
        summary["same number inside after a nudge"] = float(np.mean([r.inside == r.nudged_inside for r in nudged]))
        summary |= _percentiles("nudge", [r.nudged_error for r in nudged])
    return summary


def _percentiles(name: str, errors: list[tuple[float, float]]) -> dict[str, float]:
    both = np.array(errors) * 1000
    found = {f"{name} p{p} [mm], each block": float(np.percentile(both, p)) for p in (50, 75, 90, 95)}
    return found | {f"{name} p{p} [mm], worse block": float(np.percentile(both.max(axis=1), p)) for p in (50, 75, 90)}


def _tasks(folder: Path, episodes: int | None, nudge: float) -> list[_Task]:
    """Raises ``FileNotFoundError`` if the recording is not there."""
    import zarr

    recording = folder / "replayed_obs.npz"
    if not recording.exists():
        raise FileNotFoundError(f"no replayed_obs.npz in {folder}")
    with np.load(recording) as stored:
        obs, ends, inside = stored["obs"], stored["episode_ends"], stored["n_in_target"]
    actions = np.asarray(zarr.open_group(str(folder / "multimodal_push_seed.zarr"), mode="r")["data/action"])
    starts = np.concatenate([[0], ends[:-1]])
    chosen = np.linspace(0, len(ends) - 1, min(episodes or len(ends), len(ends))).round().astype(int)
    return [_Task(int(e), actions[starts[e] : ends[e]], obs[ends[e] - 1], int(inside[e]), nudge) for e in chosen]


_env: Any = None  # one per process: loading the arm takes a second


def _replay(task: _Task) -> Replay:
    from uva_agents.envs.block_push import BlockPushEnv

    global _env
    if _env is None:
        _env = BlockPushEnv(action_mode="relative", render_observations=False)
    last, inside = _run(_env, task.episode, task.actions)
    found = Replay(task.episode, len(task.actions), inside, task.inside, _distance(last, task.last))
    if not task.nudge:
        return found
    changed = task.actions.astype(np.float64)
    changed[0] += task.nudge
    other, other_inside = _run(_env, task.episode, changed)
    return replace(found, nudged_inside=other_inside, nudged_error=_distance(other, last))


def _run(env: Any, seed: int, actions: np.ndarray) -> tuple[np.ndarray, int]:
    """The state before the last action, as the recording has it, and the pairs inside after it."""
    _, info = env.reset(seed=seed)
    last = info["state"]
    for action in actions:
        last = info["state"]
        *_, info = env.step(action)
    return last, sum(d < 0.05 for d in info["block_distances"].values())


def _distance(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    return float(np.hypot(*(a[:2] - b[:2]))), float(np.hypot(*(a[3:5] - b[3:5])))


BENCHMARK = Benchmark("block-push-replay", __doc__, add_arguments, run)
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
