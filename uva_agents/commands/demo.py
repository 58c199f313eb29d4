"""``uva demo``: an agent does its task, with a film and a picture of what came and what it imagined."""

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
    import gymnasium as gym

    from uva_agents.agents import UVA
    from uva_agents.benchmarks.evaluation.protocols import Case, EvalProtocol

SHIPPED = {
    "pusht": ("uva/PushT-v0", "pusht-nano"),
    "block-push": ("uva/BlockPush-v0", "block-push-nano"),
    "arx-x5": ("uva/ArxX5-v0", "arx-x5-nano"),
}
"""Short name -> environment, and the shipped weights that act in it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva demo``."""
    parser.add_argument(
        "--env", help=f"{', '.join(SHIPPED)}, or the id of an environment (default: the agent's own, else pusht)"
    )
    parser.add_argument("--agent", help="shipped name or weights folder (default: what ships for the environment)")
    parser.add_argument("--episodes", type=int, default=3, help="of each of its tasks (default %(default)s)")
    parser.add_argument("--seed", type=int, default=100_000, help="of the first episode (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"), help="folder of the film and the picture")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run, print the scores, write a film (``pusht.mp4``, named after the environment) and ``imagined.png``.

    Raises:
        InputError: fewer than one episode; no environment, or none whose state can be copied.
        MachineError: nothing can be written in ``--out``; known before the first episode.
    """
    from rich.console import Console

    import uva_agents as uva
    from uva_agents.benchmarks.evaluation.protocols import protocol_for

    if args.episodes < 1:
        raise InputError(f"--episodes {args.episodes}: at least 1 is needed")
    check_folder_target(args.out)
    console = Console(highlight=False)
    agent, env_id = chosen(args.agent, args.env)
    model = uva.UVA.from_pretrained(agent, device=args.device)
    env_id = env_id or model.spec.env_id
    if env_id is None:
        raise InputError(f"{agent} name no environment: say with --env in which they act")
    rules = protocol_for(env_id)
    count = args.episodes * len(rules.cases)
    episodes = [rules.episode(index, args.seed) for index in range(count)]
    console.print(f"{agent} on {model.device}, {env_id}, seeds {args.seed} to {args.seed + args.episodes - 1}")
    env, branch = make(model, env_id, rules), make(model, env_id, rules)
    with progress_bar(console=console) as bar:
        records = [
            play(model, env, branch, seed, case, rules) for seed, case in bar.track(episodes, description="episodes")
        ]
    env.close()
    branch.close()
    for (seed, case), r in zip(episodes, records, strict=True):
        what, outcome = f"{case.name}, " if case.name else "", "success" if r.success else "no success"
        console.print(f"  {what}seed {seed}: score {r.score:.3f}, {outcome}, {r.steps} steps")
    score, success = np.mean([(r.score, r.success) for r in records], axis=0)
    console.print(f"mean of {len(records)}: score {score:.3f}, success rate {success:.2f}")
    film = args.out / f"{film_name(env_id)}.mp4"
    with Results() as results:
        frames = [frame for r in records for frame in r.video]
        results.save(film, lambda path: write_video(path, frames, fps=model.spec.control_hz))
        futures = [future for r in records for future in r.futures]
        results.save(args.out / "imagined.png", lambda path: write_sheet(path, futures))
    console.print(f"film, real beside imagined:          {film}")
    console.print(f"futures, real over imagined:         {args.out / 'imagined.png'}")
    console.print(f"the benchmark is 50 episodes:        uva eval {agent} {env_id} --episodes 50 --seed 100000")
    return 0


def chosen(agent: str | None, env: str | None) -> tuple[str, str | None]:
    """Agent and environment, where one says what the other is.

    Raises:
        InputError: an environment without an agent that ships for it.
    """
    if env is None and agent is None:
        env = next(iter(SHIPPED))
    env_id, usual = SHIPPED.get(env or "", (env, None))
    for known, shipped in SHIPPED.values():
        if known == env_id:
            usual = shipped
    if agent is None and usual is None:
        raise InputError(
            f"--env {env}: no weights ship for it (they do for {', '.join(SHIPPED)}); say whose with --agent"
        )
    return agent or str(usual), env_id


def film_name(env_id: str) -> str:
    """``pusht`` of ``uva/PushT-v0``."""
    for short, (known, _) in SHIPPED.items():
        if known == env_id:
            return short
    return env_id.rpartition("/")[2].rpartition("-v")[0].lower() or "demo"


def make(model: UVA, env_id: str, rules: EvalProtocol) -> gym.Env[Any, Any]:
    """As the weights need it.

    Raises:
        InputError: there is no such environment, or its state cannot be copied.
    """
    import gymnasium as gym

    from uva_agents.envs.fitting import options_for

    try:
        env = gym.make(
            env_id, disable_env_checker=True, max_episode_steps=rules.max_steps, **options_for(env_id, model, {})
        )
    except gym.error.Error as error:
        raise InputError(f"--env {env_id}: {error}") from error
    if not hasattr(env.unwrapped, "set_state"):
        raise InputError(f"{env_id} has no get_state and set_state, so what really comes cannot be shown")
    return env


@dataclass(frozen=True)
class DemoEpisode:
    """Frames, the futures worth showing, and the score of an episode."""

    video: list[np.ndarray]
    futures: list[ImaginedFuture]
    score: float
    success: bool
    steps: int


def play(
    model: UVA, env: Any, branch: Any, seed: int, case: Case, rules: EvalProtocol, *, n_shown: int = 3
) -> DemoEpisode:
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
    options = dict(case.options) or None
    obs, info = env.reset(seed=seed, options=options)
    branch.reset(seed=seed, options=options)
    state = policy.initial_state(1, seed=[seed])
    seen: list[dict[str, np.ndarray]] = []
    video: list[np.ndarray] = []
    futures: list[ImaginedFuture] = []
    best, done, step = 0.0, False, 0
    while not done:
        since = step % policy.execute
        if since == 0:
            future = world.imagine(
                obs, history=stack_observations(seen[-model.config.history_steps :]), seed=seed + step
            )
            assert future.actions is not None
            real = _execute(env, branch, future.actions[0], future.frame_steps)
            label = f"{case.name} {seed}, {step}".strip() if case.name else f"{seed}, step {step}"
            futures.append(ImaginedFuture(label, obs["pixels"], real, future.frames[0], future.frame_steps))
        # The imagined frame of about now: the nearest multiple of the stride ahead of the last decision.
        ahead = max(round(since / stride), 1) - 1
        left, right = (
            f"{case.name or 'real'}: seed {seed}, step {step}, best {best:.2f}",
            "imagined at the last decision",
        )
        video.append(side_by_side(obs["pixels"], futures[-1].imagined[ahead], left, right))
        seen.append(obs)
        action, state = policy.predict(obs, state)
        obs, _, terminated, truncated, info = env.step(action)
        best = max(best, rules.score(float(info.get(rules.progress_key, False))))
        done = terminated or truncated
        step += 1
    video += [video[-1]] * 10
    # The futures in which most happens say most about a model of dynamics.
    busy = sorted(futures, key=lambda m: -_change(m))[:n_shown]
    chosen = [m for m in futures if any(m is b for b in busy)]
    return DemoEpisode(video, chosen, best, bool(info.get("is_success", False)), step)


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
