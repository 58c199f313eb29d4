"""``uva demo``: the shipped policy pushes the T; real frames beside imagined ones."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.errors import InputError
from uva_agents.utils.files import check_folder_target
from uva_agents.utils.pictures import ImaginedFuture, side_by_side, write_sheet, write_video
from uva_agents.utils.progress import progress_bar
from uva_agents.utils.results import Results

if TYPE_CHECKING:
    from uva_agents.agents import UVA

ENV_ID = "uva/PushT-v0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva demo``."""
    parser.add_argument("--agent", default="pusht-nano", help="shipped name or weights folder (default %(default)s)")
    parser.add_argument("--episodes", type=int, default=3, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=100_000, help="of the first episode (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"), help="folder of the video and the picture")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run, print the scores, write ``pusht.mp4`` and ``imagined.png``.

    Raises:
        InputError: fewer than one episode.
        MachineError: nothing can be written in ``--out``; known before the first episode.
    """
    import gymnasium as gym
    from rich.console import Console

    import uva_agents as uva

    if args.episodes < 1:
        raise InputError(f"--episodes {args.episodes}: at least 1 is needed")
    check_folder_target(args.out)
    console = Console(highlight=False)
    model = uva.UVA.from_pretrained(args.agent, device=args.device)
    console.print(f"{args.agent} on {model.device}, {ENV_ID}, seeds {args.seed} to {args.seed + args.episodes - 1}")
    env, branch = gym.make(ENV_ID), gym.make(ENV_ID)
    seeds = range(args.seed, args.seed + args.episodes)
    with progress_bar(console=console) as bar:
        records = [play(model, env, branch, seed) for seed in bar.track(seeds, description="episodes")]
    env.close()
    branch.close()
    for seed, r in zip(seeds, records, strict=True):
        outcome = "success" if r.success else "no success"
        console.print(f"  seed {seed}: score {r.best:.3f}, final coverage {r.final:.3f}, {outcome}, {r.steps} steps")
    best, success, final = np.mean([(r.best, r.success, r.final) for r in records], axis=0)
    console.print(f"mean of {len(records)}: score {best:.3f}, success rate {success:.2f}, final coverage {final:.3f}")
    with Results() as results:
        frames = [frame for r in records for frame in r.video]
        results.save(args.out / "pusht.mp4", lambda path: write_video(path, frames, fps=10))
        futures = [future for r in records for future in r.futures]
        results.save(args.out / "imagined.png", lambda path: write_sheet(path, futures))
    console.print(f"video, real beside imagined:         {args.out / 'pusht.mp4'}")
    console.print(f"futures, real over imagined:         {args.out / 'imagined.png'}")
    console.print(f"the benchmark is 50 episodes:        uva eval {args.agent} {ENV_ID} --episodes 50 --seed 100000")
    return 0


@dataclass(frozen=True)
class DemoEpisode:
    """Frames, the futures worth showing, and the score of an episode."""

    video: list[np.ndarray]
    futures: list[ImaginedFuture]
    best: float
    final: float
    success: bool
    steps: int


def play(model: UVA, env: Any, branch: Any, seed: int, *, n_shown: int = 3) -> DemoEpisode:
    """One episode of the policy, with an imagined future at every decision.

    The model imagines a future together with the actions that lead there (policy + video task), and a copy of the simulator
    executes exactly those actions: what it shows is what really comes of them.
    """
    from uva_agents.agents import WorldModel
    from uva_agents.agents.observations import stack_observations
    from uva_agents.model import frame_sampler

    policy = model.policy()
    world = WorldModel(model, sampler=frame_sampler(model.config, iterations=4))
    stride = model.config.frame_stride
    obs, info = env.reset(seed=seed)
    branch.reset(seed=seed)
    state = policy.initial_state(1, seed=[seed])
    seen: list[dict[str, np.ndarray]] = []
    video: list[np.ndarray] = []
    futures: list[ImaginedFuture] = []
    best, done, step = 0.0, False, 0
    while not done:
        since = step % policy.execute
        if since == 0:
            future = world.imagine(obs, history=stack_observations(seen[-12:]), seed=seed + step)
            assert future.actions is not None
            real = _execute(env, branch, future.actions[0], future.frame_steps)
            label = f"{seed}, step {step}"
            futures.append(ImaginedFuture(label, obs["pixels"], real, future.frames[0], future.frame_steps))
        # The imagined frame of about now: the nearest multiple of the stride ahead of the last decision.
        ahead = max(round(since / stride), 1) - 1
        left, right = f"real: seed {seed}, step {step}, best {best:.2f}", "imagined at the last decision"
        video.append(side_by_side(obs["pixels"], futures[-1].imagined[ahead], left, right))
        seen.append(obs)
        action, state = policy.predict(obs, state)
        obs, reward, terminated, truncated, info = env.step(action)
        best = max(best, float(reward))
        done = terminated or truncated
        step += 1
    video += [video[-1]] * 10
    # The futures in which most happens say most about a model of dynamics.
    busy = sorted(futures, key=lambda m: -_change(m))[:n_shown]
    chosen = [m for m in futures if any(m is b for b in busy)]
    return DemoEpisode(video, chosen, best, float(info["coverage"]), bool(info["is_success"]), step)


def _change(future: ImaginedFuture) -> float:
    """How much happens in it, mean over the picture."""
    assert future.real is not None
    return float(np.abs(future.real[-1].astype(int) - future.now.astype(int)).mean())


def _execute(env: Any, branch: Any, actions: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Frames of a copied simulator at the control steps ``at``, while it executes ``actions``."""
    branch.unwrapped.set_state(env.unwrapped.get_state())
    frames = []
    for i, action in enumerate(actions, start=1):
        obs = branch.unwrapped.step(action)[0]
        if i in at:
            frames.append(obs["pixels"])
    return np.stack(frames)
