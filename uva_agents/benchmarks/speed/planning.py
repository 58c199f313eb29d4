"""One replanning: 100 candidates of 16 actions imagined by the shipped weights. ``python -m uva_agents.benchmarks.speed.planning``.

Two ways in the same process on the same machine, in turn: the planner (history encoded once, candidates batched, few
denoising steps, only the frame that the objective looks at sampled and decoded), and a straight loop (each candidate alone:
history encoded again, every frame decoded, 100 denoising steps). The loop is timed on a few candidates and multiplied, as each
costs the same; the planner's times include proposing, the loop's do not.

Whether the short cuts change the answer is measured too, at several decisions of episodes: how the candidates' costs are ranked
(Spearman), and how much worse the planner's choice is by the straight loop's costs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Generator
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.benchmarks.skeleton import Benchmark, Outcome, add_device
from uva_agents.planners import GoalImage, Plan, PushTCoverage, SamplingPlanner, Screen

ENV_ID = "uva/PushT-v0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--weights", default="pusht-nano")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument(
        "--steps", type=int, default=4, help="denoising steps of the planner's frames (default %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=10, help="decisions of the planner (default %(default)s)")
    parser.add_argument(
        "--naive", type=int, default=3, help="candidates of the straight loop per decision (default %(default)s)"
    )
    parser.add_argument("--moments", type=int, default=3, help="decisions at which the rankings are compared (0: none)")
    add_device(parser)


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """Seconds of a decision per set of options, and whether they choose the same."""
    import torch

    from uva_agents.agents import UVA

    model = UVA.from_pretrained(args.weights, device=args.device)
    contexts = record(model, max(args.moments, 2))
    planners = {
        name: SamplingPlanner(
            dynamics=model.world_model(), proposals=model.policy(), n_samples=args.candidates, **options
        )
        for name, options in variants(model, args.steps, contexts[-1][0]["pixels"]).items()
    }
    rows: dict[str, list[Plan]] = {name: [] for name in planners}
    naive: list[float] = []
    for i in range(-1, args.repeats):  # in turn, so that all meet the same machine; the first round warms up
        obs, history = contexts[i % len(contexts)]
        for name, planner in planners.items():
            rows[name] += [planner.plan(obs, history=history, seed=i)][: i + 1]
        naive += [naive_seconds(model, obs, history, n=args.naive)][: i + 1]
    whole = args.candidates * float(np.median(naive))
    yield f"{args.weights}, {args.candidates} candidates x 16 actions, {torch.get_num_threads()} threads, {model.device}"
    yield (
        f"  {'straight loop, 100 steps, all frames':40s} {whole:8.3f} s   "
        f"({args.candidates} x the median of n={len(naive)} x {args.naive})"
    )
    for name, plans in rows.items():
        yield "  " + describe(name, plans, whole)
    agreement = compare(model, contexts[: args.moments], args.candidates, args.steps) if args.moments else {}
    for name, value in agreement.items():
        yield f"  {name}: {value:.4f}"
    decisions = {k: [parts(p) for p in v] for k, v in rows.items()}
    return Outcome({"naive_candidate_s": naive, "plans": decisions, "agreement": agreement})


def variants(model: Any, steps: int, goal: np.ndarray) -> dict[str, dict[str, Any]]:
    """Planner options by name."""
    latent = GoalImage(goal, metric="latents", world=model)
    rows: dict[str, dict[str, Any]] = {
        f"last frame, {steps} steps": {"objective": PushTCoverage(), "steps": steps},
        "last frame, 16 steps": {"objective": PushTCoverage()},
        f"last frame in latents, {steps} steps": {"objective": latent, "steps": steps},
    }
    if model.config.rendered_prior:
        first = Screen(keep=0.25, steps=0)
        rows[f"rendered prior of all, {steps} steps of a quarter"] = {
            "objective": PushTCoverage(),
            "steps": steps,
            "screen": first,
        }
    return rows


def record(model: Any, count: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Observations with their histories, 24 control steps apart in an episode of the policy."""
    from uva_agents.agents.observations import stack_observations

    env, policy = gym.make(ENV_ID), model.policy()
    obs, _ = env.reset(seed=100_000)
    policy.reset(seed=0)
    seen: list[dict[str, Any]] = []
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    while len(found) < count:
        if len(seen) >= 16 and (len(seen) - 16) % 24 == 0:
            found.append((obs, stack_observations(seen[-12:]) or {}))
        seen.append(obs)
        obs, _, terminated, truncated, _ = env.step(policy.act(obs))
        if terminated or truncated:
            obs, _ = env.reset()
            policy.reset()
            seen.clear()
    env.close()
    return found


def naive_seconds(model: Any, obs: Any, history: Any, *, n: int, seed: int = 0) -> float:
    """Seconds per candidate of the straight loop."""
    plans = model.policy().sample(obs, n=n, history=history, seed=seed)
    began = time.perf_counter()
    naive_frames(model, obs, history, plans)
    return (time.perf_counter() - began) / n


def naive_frames(model: Any, obs: Any, history: Any, plans: np.ndarray) -> np.ndarray:
    """(S, 4, H, W, 3): each candidate alone, nothing shared, nothing left out."""
    from dataclasses import replace

    from uva_agents.agents import WorldModel

    world = WorldModel(model, sampler=replace(model.world_model().sampler, video_steps=100))
    return np.concatenate([world.rollout(obs, plan, history=history).frames for plan in plans])


def compare(model: Any, contexts: list[Any], n: int, steps: int) -> dict[str, float]:
    """Agreement with the straight loop's costs, means over the observations; all candidates of each."""
    from uva_agents.agents import WorldModel
    from uva_agents.agents.rollout import Rollout

    ranks, losses, spreads, kept = [], [], [], []
    objective = PushTCoverage()
    world: WorldModel = model.world_model()
    for i, (obs, history) in enumerate(contexts):
        plans = model.policy().sample(obs, n=n, history=history, seed=i)
        frames = naive_frames(model, obs, history, plans)[:, -1:]
        exact = objective(Rollout(frames, None, np.array([16]), all_steps=np.array([4, 8, 12, 16])))
        start = world.prepare(obs, history=history)
        quick = objective(world.rollout(start, plans, frames=(-1,), steps=steps))
        ranks.append(_spearman(exact, quick))
        losses.append(exact[quick.argmin()] - exact.min())
        spreads.append(exact.mean() - exact.min())
        if model.config.rendered_prior:
            prior = objective(world.rollout(start, plans, frames=(-1,), steps=0))
            kept.append(float(exact.argmin() in np.argsort(prior)[: -(-n // 4)]))
    agreement = {
        f"rank correlation of {steps} steps with 100": float(np.mean(ranks)),
        "cost of the choice above the best candidate's": float(np.mean(losses)),
        "cost of an average candidate above the best's": float(np.mean(spreads)),
    }
    return agreement | (
        {"best candidate is in the rendered priors' best quarter": float(np.mean(kept))} if kept else {}
    )


def describe(name: str, plans: list[Plan], whole: float) -> str:
    """One line of the table."""
    times = np.array([p.latency_s for p in plans])
    p50, p95 = np.percentile(times, [50, 95])

    def share(key: str) -> float:
        return float(np.median([getattr(p, key) / p.latency_s for p in plans]))

    return (
        f"{name:40s} {p50:8.3f} s   p95 {p95:.3f}   {whole / p50:6.1f}x   model {share('model_s'):.0%}, proposals "
        f"{share('proposals_s'):.0%}, objective {share('objective_s'):.1%}, planner {share('overhead_s'):.1%}   n={len(plans)}"
    )


def parts(plan: Plan) -> dict[str, float]:
    """Seconds of one decision."""
    return {k: getattr(plan, k) for k in ("latency_s", "model_s", "proposals_s", "objective_s", "overhead_s")}


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    first, second = (np.argsort(np.argsort(x)).astype(float) for x in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


BENCHMARK = Benchmark("planning", __doc__, add_arguments, run)
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
