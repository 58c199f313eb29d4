"""What limits guided block pushing: the policy's proposals, the world model, or the detector. ``uva bench guidance``.

Episodes are played as in Table V. At every decision a few of the policy's own proposals are imagined, and carried out in a copy of
the simulator. Compared: where imagined frames and drawn ones show the blocks, where the blocks are, and which proposal each of them
would choose.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uva_agents.benchmarks.paper.recordings import BLOCK_PUSH
from uva_agents.benchmarks.skeleton import Benchmark, Outcome, add_seed
from uva_agents.errors import InputError
from uva_agents.utils.progress import progress_bar

AHEAD = (4, 8, 12, 16)


@dataclass(frozen=True)
class Decision:
    """K proposals at one decision; positions in metres at :data:`AHEAD` steps.

    Attributes:
        block: index of the named block.
        square: (2,) middle of the named square.
        now: (2, 2) where the blocks are.
        truth: (K, 4, 2, 2) where they go.
        drawn: (K, 4, 2, 2) where the detector sees them in the simulator's frames; NaN where it does not.
        imagined: (K, 4, 2, 2) the same of imagined frames.
    """

    block: int
    square: np.ndarray
    now: np.ndarray
    truth: np.ndarray
    drawn: np.ndarray
    imagined: np.ndarray


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--world", default="block-push-nano", help="UVA weights (default %(default)s)")
    parser.add_argument("--policy", default="dp-c-block-push", help="Diffusion Policy weights (default %(default)s)")
    parser.add_argument("--episodes", type=int, default=3, help="per assignment (default %(default)s)")
    add_seed(parser, 150_000)
    parser.add_argument("--assignments", nargs="+", default=["R-R", "R-G", "G-R", "G-G"])
    parser.add_argument("--proposals", type=int, default=16, help="per decision (default %(default)s)")
    parser.add_argument("--decisions", type=int, default=12, help="per episode, at most (default %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=4, help="denoising steps of imagined frames; 0 is the rendered prior alone"
    )


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """The comparison and ``guidance.json``."""
    import uva_agents as uva

    world = uva.WorldModel.from_pretrained(args.world)
    policy = uva.DiffusionPolicy.from_pretrained(args.policy)
    decisions: list[Decision] = []
    with progress_bar() as bar:
        task = bar.add_task("episodes", total=args.episodes * len(args.assignments))
        for seed in range(args.seed, args.seed + args.episodes):
            for assignment in args.assignments:
                decisions += play(world, policy, assignment, seed, args.proposals, args.decisions, args.steps)
                bar.update(task, advance=1)
    if not decisions:
        raise InputError("every episode was solved before its first decision: choose other seeds")
    table = summarise(decisions)
    yield from lines(table)
    return Outcome({"table": table})


def play(
    world: Any, policy: Any, assignment: str, seed: int, proposals: int, most: int, steps: int, *, execute: int = 6
) -> list[Decision]:
    """One episode, guided by imagined frames; its decisions."""
    import gymnasium as gym

    from uva_agents.agents.observations import stack_observations
    from uva_agents.envs.block_push.layout import parse_assignment

    env = gym.make("uva/BlockPush-v0", assignment=assignment, render_mode=None)
    copy = gym.make("uva/BlockPush-v0", assignment=assignment, render_mode=None, render_observations=False)
    base, other = env.unwrapped, copy.unwrapped
    named, goal = parse_assignment(assignment)
    decisions: list[Decision] = []
    try:
        obs, info = env.reset(seed=seed)
        copy.reset(seed=seed)
        seen = [obs]
        while len(decisions) < most and not info["is_success"]:
            history = stack_observations(seen[-16:-1])
            candidates = policy.sample(obs, proposals, history=history, seed=len(decisions))
            imagined = world.rollout(obs, candidates, history=history, steps=steps).frames
            truth, frames = _carried_out(other, base.get_state(), candidates)  # type: ignore[attr-defined]
            square = info["state"][10 + 3 * goal : 12 + 3 * goal]
            decision = Decision(named, square, _blocks(info), truth, _located(frames), _located(imagined))
            decisions.append(decision)
            for action in candidates[chosen(decision, decision.imagined)][:execute]:
                obs, _, over, cut, info = env.step(action)
                seen.append(obs)
                if over or cut:
                    return decisions
    finally:
        env.close()
        copy.close()
    return decisions


def _carried_out(env: Any, state: Any, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the blocks go (K, 4, 2, 2), and pictures (K, 4, H, W, 3)."""
    places, pictures = [], []
    for plan in candidates:
        env.set_state(state)
        where, frames = [], []
        for step, action in enumerate(plan, 1):
            *_, info = env.step(action)
            if step in AHEAD:
                where.append(_blocks(info))
                frames.append(env.observe()["pixels"])
        places.append(where)
        pictures.append(frames)
    return np.array(places), np.array(pictures)


def _blocks(info: dict[str, Any]) -> np.ndarray:
    return np.asarray(info["state"])[[0, 1, 3, 4]].reshape(2, 2)


def _located(frames: np.ndarray) -> np.ndarray:
    where, seen = BLOCK_PUSH.locate(frames.reshape(-1, *frames.shape[2:]))
    return np.where(seen[..., None], where, np.nan).reshape(*frames.shape[:2], 2, 2)


def chosen(decision: Decision, positions: np.ndarray) -> int:
    """The proposal that brings the named block nearest to its square, as ``positions`` (K, 4, 2, 2) have it."""
    distance = np.linalg.norm(positions[:, -1, decision.block] - decision.square, axis=-1)
    return 0 if np.isnan(distance).all() else int(np.nanargmin(distance))


def summarise(decisions: Sequence[Decision]) -> dict[str, Any]:
    """Errors in mm, and how near to the square each way of choosing brings the named block."""
    moved = np.concatenate([np.linalg.norm(d.truth - d.now, axis=-1) for d in decisions]) * 1e3
    table: dict[str, Any] = {"decisions": len(decisions), "proposals": len(decisions[0].truth), "errors": {}}
    ways: dict[str, Callable[[Decision], np.ndarray]] = {
        "imagined": lambda d: d.imagined,
        "drawn": lambda d: d.drawn,
        "copied": lambda d: np.broadcast_to(d.now, d.truth.shape),
    }
    for way, where in ways.items():
        error = np.concatenate([np.linalg.norm(where(d) - d.truth, axis=-1) for d in decisions]) * 1e3
        moving = np.where(moved > 5, error, np.nan)
        table["errors"][way] = {
            "all": _per_step(error),
            "moved": _per_step(moving),
            "moved_median": [
                None if np.isnan(moving[:, i]).all() else float(np.nanmedian(moving[:, i])) for i in range(4)
            ],
            "seen": float(np.isfinite(error).mean()),
        }
    table["moved_share"] = [float((moved[:, i] > 5).mean()) for i in range(4)]
    ends = [np.linalg.norm(d.truth[:, -1, d.block] - d.square, axis=-1) * 1e3 for d in decisions]
    # Where no proposal touches the named block there is nothing to choose.
    matters = [i for i, e in enumerate(ends) if e.max() - e.min() > 5]
    picks = {
        "imagined": [ends[i][chosen(decisions[i], decisions[i].imagined)] for i in matters],
        "drawn": [ends[i][chosen(decisions[i], decisions[i].drawn)] for i in matters],
        "best": [ends[i].min() for i in matters],
        "any": [ends[i].mean() for i in matters],
    }
    table["choices"] = {"decisions": len(matters)}
    if matters:
        means = {name: float(np.mean(found)) for name, found in picks.items()}
        gain = means["any"] - means["best"]
        table["choices"] |= {
            "distance_mm": means,
            "share_of_gain": {n: (means["any"] - means[n]) / gain for n in picks},
        }
    return table


def _per_step(error: np.ndarray) -> list[float | None]:
    """(N, 4, 2) -> mean per step ahead of what was seen."""
    return [None if np.isnan(error[:, i]).all() else float(np.nanmean(error[:, i])) for i in range(4)]


def lines(table: dict[str, Any]) -> list[str]:
    """The comparison as text."""
    found = [
        f"{table['decisions']} decisions, {table['proposals']} proposals each; distance of a block from where it goes, mm",
        f"{'steps ahead':34s}" + "".join(f"{s:>9d}" for s in AHEAD) + "   seen",
    ]
    names = {"imagined": "in imagined frames", "drawn": "in the simulator's frames", "copied": "if nothing moved"}
    for way, errors in table["errors"].items():
        for kind, what in (("all", ""), ("moved", ", that moved"), ("moved_median", ", median")):
            cells = "".join(f"{'-' if e is None else f'{e:.1f}':>9s}" for e in errors[kind])
            found.append(f"{names[way] + what:34s}{cells}" + (f"  {errors['seen']:.1%}" if kind == "all" else ""))
    found.append(f"{'share of blocks that moved':34s}" + "".join(f"{s:>9.0%}" for s in table["moved_share"]))
    choices = table["choices"]
    found.append(f"{choices['decisions']} decisions in which proposals differ by more than 5 mm for the named block:")
    labels = {"imagined": "chosen by imagined frames", "drawn": "chosen by the simulator's frames"}
    labels |= {"best": "best of the proposals", "any": "any of the proposals"}
    for name, mean in choices.get("distance_mm", {}).items():
        found.append(
            f"  {labels[name]:34s}{mean:7.1f} mm left, {choices['share_of_gain'][name]:6.1%} of the possible gain"
        )
    return found


BENCHMARK = Benchmark("guidance", __doc__, add_arguments, run, folder="outputs/guidance")
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
