"""Through how many files of this package a decision goes, and in which order: what somebody has to read who wants to follow it.

    uva bench call-trace [--weights pusht-nano] [--json FILE]

Traced are ``Policy.act`` where it makes a new decision, in the middle of an episode, and ``SamplingPlanner.plan``, after each has
been called before (the first call also imports modules). Status 1 if either enters more files than it is meant to.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import Any

import uva_agents
from uva_agents.benchmarks.skeleton import Benchmark, Outcome

ACT_FILES, PLAN_FILES = 12, 18
"""Files that a decision of the policy, and of the planner, is meant to enter at most."""
_PACKAGE = Path(uva_agents.__file__).parent


def files_entered(call: Callable[[], Any], package: Path = _PACKAGE) -> dict[str, int]:
    """Files of ``package`` that ``call`` enters, in the order of their first frame -> number of frames in them.

    Frames are calls, comprehensions and resumed generators of this thread; ``call`` itself is not counted if it is a function of
    this file or from elsewhere.
    """
    entered: dict[str, int] = {}
    prefix, own = f"{package}/", __file__

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            name = frame.f_code.co_filename
            if name.startswith(prefix) and name != own:
                entered[name] = entered.get(name, 0) + 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(before)
    return {name.removeprefix(prefix): count for name, count in entered.items()}


def trace(weights: str) -> dict[str, dict[str, int]]:
    """:func:`files_entered` of one ``act`` and one ``plan`` of these weights, in the environment they were trained for."""
    import gymnasium as gym

    from uva_agents.agents import UVA
    from uva_agents.errors import InputError
    from uva_agents.planners import ActionPenalty, PushTCoverage, SamplingPlanner

    model = UVA.from_pretrained(weights, device="cpu")
    env_id = model.spec.env_id
    if env_id is None:
        raise InputError(f"{weights} name no environment: decisions cannot be traced in it")
    policy = model.policy()
    objective = PushTCoverage() if env_id == "uva/PushT-v0" else ActionPenalty()
    planner = SamplingPlanner(
        dynamics=model.world_model(), objective=objective, proposals=policy, n_samples=4, execute=6, steps=2
    )
    env = gym.make(env_id)
    try:
        obs, _ = env.reset(seed=0)
        policy.reset(seed=0)
        for _ in range(policy.execute):
            obs, *_ = env.step(policy.act(obs))
        act = files_entered(lambda: policy.act(obs))
        planner.plan(obs, seed=0)
        plan = files_entered(lambda: planner.plan(obs, seed=0))
    finally:
        env.close()
    return {"act": act, "plan": plan}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--weights", default="pusht-nano", help="shipped name or weights folder (default %(default)s)")


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """Both lists of files. Status 0 if neither is longer than it is meant to be."""
    found = trace(args.weights)
    limits = {"act": ACT_FILES, "plan": PLAN_FILES}
    for name, title in (("act", "Policy.act, a new decision"), ("plan", "SamplingPlanner.plan")):
        files = found[name]
        yield f"{title}: {len(files)} files (at most {limits[name]} are meant), {sum(files.values())} frames"
        for number, (file, frames) in enumerate(files.items(), 1):
            yield f"  {number:3d}  {file:44s} {frames:5d}"
    within = all(len(files) <= limits[name] for name, files in found.items())
    return Outcome({"files": found, "limits": limits}, status=0 if within else 1)


BENCHMARK = Benchmark("call-trace", __doc__, add_arguments, run)
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
