"""``uva imagine``: what the world model predicts for actions, beside what they really lead to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.commands.action_files import read_actions
from uva_agents.commands.evaluate import env_argument
from uva_agents.errors import InputError, MachineError
from uva_agents.utils.files import check_folder_target
from uva_agents.utils.memory import available_memory, in_words
from uva_agents.utils.pictures import ImaginedFuture, side_by_side, write_sheet, write_video
from uva_agents.utils.progress import progress_bar
from uva_agents.utils.results import Results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva imagine``."""
    parser.add_argument(
        "--weights", default="pusht-nano", help="shipped name, weights folder or .ckpt (default %(default)s)"
    )
    parser.add_argument(
        "--env",
        default=None,
        help="environment id (default: the one the weights were trained for; where they name none, the recorded episodes that "
        "their training held out, uva/Recorded-v0)",
    )
    parser.add_argument(
        "--env-arg",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        type=env_argument,
        help="given to gymnasium.make, for example data=PATH; VALUE as in Python, or a word; may be repeated",
    )
    parser.add_argument(
        "--seed", type=int, default=100_000, help="of the episode and the actions (default %(default)s)"
    )
    parser.add_argument(
        "--actions",
        default=None,
        help="policy: chunks that the weights propose; random: walks through the action space; recorded: what was done in a "
        "recorded episode; or an .npy, .npz (array 'actions') or .csv file with (T, A) or (S, T, A) in environment units (default "
        "policy; recorded for recorded episodes, which know what came of that alone)",
    )
    parser.add_argument(
        "--candidates", type=int, default=4, help="how many, for policy and random (default %(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=16, help="control steps ahead, a multiple of 16; more than 16 feeds back"
    )
    parser.add_argument(
        "--after", type=int, default=24, help="control steps the policy acts first (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/imagine"), help="folder (default %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write ``imagined.png`` and ``imagined.mp4``, and print how near the frames come.

    Raises:
        MachineError: nothing can be written in ``--out``; known before the work.
        ValueError: an environment without ``get_state``, actions of the wrong size, or a number of steps that is no multiple of 16.
    """
    import uva_agents as uva
    from uva_agents.agents.observations import stack_observations

    if args.after < 0:
        raise InputError(f"--after {args.after}: at least 0")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: at least 0")
    check_folder_target(args.out)
    model = uva.UVA.from_pretrained(args.weights, device=args.device)
    env, env_id = make_environment(args, model)
    replays = is_replay(env)
    if args.actions is None:
        args.actions = "recorded" if replays else "policy"
    if args.steps < 1 or args.steps % model.config.action_steps:
        raise ValueError(f"--steps {args.steps} must be a multiple of {model.config.action_steps}")
    if args.actions == "recorded":
        if not replays:
            raise InputError(f"--actions recorded is for recorded episodes, and {env_id} has none")
        obs, seen = replay(env, args.seed, args.after, args.steps)
    else:
        obs, seen = play(env, model.policy(), args.seed, args.after)
    history = stack_observations(seen)
    plans = candidates(args, model, env, obs, history)
    rollout = model.world_model().rollout(obs, plans, history=history)
    has_truth = not replays or args.actions == "recorded"
    saved = env.unwrapped.get_state()
    futures, video = [], []
    with progress_bar() as bar:
        for s, plan in enumerate(bar.track(plans, description="simulating")):
            env.unwrapped.set_state(saved)
            real = np.stack([env.unwrapped.step(action)[0]["pixels"] for action in plan]) if has_truth else None
            at = rollout.frame_steps
            futures.append(
                ImaginedFuture(
                    f"candidate {s}",
                    obs["pixels"],
                    None if real is None else real[at - 1],
                    rollout.frames[s],
                    at,
                )
            )
            for step in range(1, len(plan) + 1):
                shown = rollout.frames[s, np.searchsorted(at, step)]
                title = f"candidate {s}, step {step}"
                if real is None:
                    video.append(side_by_side(None, shown, "", f"imagined: {title}"))
                else:
                    video.append(side_by_side(real[step - 1], shown, f"real: {title}", "imagined"))
    where = f"episode {env.unwrapped.episode}" if replays else f"seed {args.seed}"
    env.close()
    print(f"{args.weights} in {env_id}, {where}, after {len(seen)} steps; {len(plans)} candidates ({args.actions})")
    if has_truth:
        print("  control steps ahead   imagined   copy of now   (PSNR in dB against the real frames)")
        for i, step in enumerate(rollout.frame_steps):
            truth = np.stack([m.real[i] for m in futures if m.real is not None])
            copied = np.broadcast_to(obs["pixels"], truth.shape)
            print(f"  {step:19d}   {psnr(rollout.frames[:, i], truth):8.2f}   {psnr(copied, truth):11.2f}")
    else:
        print(
            "  nobody knows what would come of these actions: a recording shows what came of its own (--actions recorded)"
        )
    with Results() as results:
        results.save(args.out / "imagined.png", lambda path: write_sheet(path, futures))
        results.save(args.out / "imagined.mp4", lambda path: write_video(path, video, fps=10))
    print(f"picture: {args.out / 'imagined.png'}\nvideo:   {args.out / 'imagined.mp4'}")
    return 0


def make_environment(args: argparse.Namespace, model: Any) -> tuple[Any, str]:
    """The environment, and its id.

    Raises:
        ValueError: it has no ``get_state``.
        InputError: the weights name none, and nothing says which recorded episodes to take.
    """
    import gymnasium as gym

    from uva_agents.envs import RECORDED
    from uva_agents.envs.fitting import options_for

    env_id, kwargs = args.env or model.spec.env_id or RECORDED, dict(args.env_arg)
    if env_id == RECORDED:
        from uva_agents.commands.recorded import replay_for

        found = replay_for(args.weights, model.spec, kwargs)
        kwargs = found.kwargs
        print(f"{args.weights} on recorded episodes: {found.sentence}", flush=True)
    env = gym.make(env_id, **options_for(env_id, model, kwargs))
    if not hasattr(env.unwrapped, "set_state"):
        raise ValueError(
            f"{env_id} has no get_state and set_state, so the truth cannot be shown beside the imagination"
        )
    return env, env_id


def is_replay(env: Any) -> bool:
    """Whether what is seen next is what was recorded, whatever the action."""
    return hasattr(env.unwrapped, "recorded_actions")


def replay(env: Any, seed: int, after: int, steps: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The observation after some steps of a recorded episode, and those before it.

    They are fewer, if not as many as ``steps`` would be left.
    """
    obs, _ = env.reset(seed=seed)
    seen: list[dict[str, Any]] = []
    while len(seen) < after and env.unwrapped.steps_left > steps:
        seen.append(obs)
        obs = env.step(env.unwrapped.recorded_actions(1)[0])[0]
    return obs, seen


def play(env: Any, policy: Any, seed: int, steps: int) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """The observation after some steps of the policy (fewer, if the episode ends), and those before it."""
    obs, _ = env.reset(seed=seed)
    policy.reset(seed=seed)
    seen: list[dict[str, np.ndarray]] = []
    for _ in range(steps):
        next_obs, _, terminated, truncated, _ = env.step(policy.act(obs))
        if terminated or truncated:
            break
        seen.append(obs)
        obs = next_obs
    return obs, seen


def candidates(args: argparse.Namespace, model: Any, env: Any, obs: Any, history: Any) -> np.ndarray:
    """(S, T, A) in environment units."""
    c, space = model.config, model.spec.action_space
    if args.actions == "recorded":
        recorded = env.unwrapped.recorded_actions(args.steps)[None]
        within: np.ndarray = np.clip(recorded, space.low, space.high)
        return within
    if args.actions not in ("policy", "random"):
        from uva_agents.checkpoints.trained import action_names

        names = action_names(args.weights, space.shape[0])
        plans = read_actions(Path(args.actions), space.shape[0], args.steps, names)
        _check_memory(len(plans), args.steps, model.spec.image_shape, f"{len(plans)} candidates in {args.actions}")
        return plans
    if args.candidates < 1:
        raise ValueError(f"--candidates {args.candidates}: at least 1 is needed")
    _check_memory(args.candidates, args.steps, model.spec.image_shape, f"--candidates {args.candidates}")
    if args.actions == "policy":
        if args.steps != c.action_steps:
            raise ValueError(
                f"the policy proposes {c.action_steps} actions: use --steps {c.action_steps}, or --actions random"
            )
        proposed: np.ndarray = model.policy().sample(obs, n=args.candidates, history=history, seed=args.seed)
        return proposed
    # Straight lines between random places, one after the other: uncorrelated actions would just shake in one spot.
    rng = np.random.default_rng(args.seed)
    legs = args.steps // 8
    places = rng.uniform(space.low, space.high, (args.candidates, legs + 1, space.shape[0]))
    at = np.arange(args.steps) / 8
    leg, share = at.astype(int), (at % 1)[None, :, None]
    walks: np.ndarray = ((1 - share) * places[:, leg] + share * places[:, leg + 1]).astype(np.float32)
    return walks


def _check_memory(candidates: int, steps: int, shape: tuple[int, int], what: str) -> None:
    # Of each step, a frame of the video, its real picture, and an imagined one.
    need = candidates * steps * shape[0] * shape[1] * 3 * (4 * 8 + 2)
    free = available_memory()
    if free is not None and need > free:
        raise MachineError(
            f"{what} of {steps} steps need {in_words(need)} of memory, {in_words(free)} are free: take fewer"
        )


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of uint8 pictures, dB, over all of them together."""
    error = np.square(a.astype(np.float64) - b.astype(np.float64)).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-12)))
