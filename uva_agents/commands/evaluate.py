"""``uva eval``."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from uva_agents.benchmarks import PROTOCOLS, evaluate, get_protocol, protocol_for

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva eval``."""
    parser.add_argument(
        "agent",
        metavar="AGENT",
        help="a shipped name (see `uva info`), a weights folder, package.module:factory, a function without arguments that "
        "returns anything with stable-baselines3's predict(), or ws://HOST:PORT, a policy server (its token in UVA_TOKEN)",
    )
    parser.add_argument(
        "env",
        nargs="?",
        metavar="ENV",
        help="gymnasium id, for example uva/PushT-v0; default: the one that the protocol is for",
    )
    parser.add_argument(
        "--episodes",
        type=int,
        default=50,
        metavar="N",
        help="default %(default)s; with a protocol of several rows, in each",
    )
    parser.add_argument("--seed", type=int, default=None, help="of episode 0; default: the protocol's first seed")
    parser.add_argument(
        "--protocol",
        metavar="NAME",
        help="; ".join(f"{p.name}: {p.description}" for p in PROTOCOLS.values() if "/" not in p.name).replace("%", "%%")
        + "; pusht-disturbed/NAME: one row alone; default: the one for ENV, else dp-pusht",
    )
    parser.add_argument("--n-envs", type=int, default=1, metavar="N", help="environments side by side (default 1)")
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes, with an environment in each (as --n-envs N --async); one that dies costs the episode it was in",
    )
    parser.add_argument("--async", dest="asynchronous", action="store_true", help="one process per environment")
    parser.add_argument("--deterministic", action="store_true", help="ask the agent for its deterministic action")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report; a killed run continues from there")
    parser.add_argument("--video", type=Path, metavar="DIR", help="write MP4 files of the first episodes there")
    parser.add_argument("--n-videos", type=int, default=3, metavar="N", help="how many, with --video (default 3)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default auto)")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps per decision; default: the agent's own")
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="decisions computed together; above 1 is faster with --n-envs, and then the last bits of the actions "
        "depend on --n-envs",
    )
    parser.add_argument(
        "--env-arg",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        type=env_argument,
        help="given to gymnasium.make, for example action_mode=absolute_vector; VALUE as in Python, or a word; may be repeated",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the summary."""
    rules = protocol_for(args.env) if args.protocol is None else get_protocol(args.protocol)
    options = {key: value for key in ("steps", "batch_size") if (value := getattr(args, key)) is not None}
    report = evaluate(
        load_agent(args.agent, device=args.device, **options),
        args.env,
        args.episodes,
        seed=rules.first_seed if args.seed is None else args.seed,
        protocol=rules,
        n_envs=args.n_envs,
        workers=args.workers,
        env_kwargs=dict(args.env_arg),
        vectorization="async" if args.asynchronous else "sync",
        deterministic=args.deterministic,
        video_dir=args.video,
        n_videos=args.n_videos if args.video is not None else 0,
        json_path=args.json,
        progress=not args.quiet,
        # The options are part of what is measured, and of what an interrupted evaluation may be continued with.
        label=" ".join([args.agent, *(f"{key}={value}" for key, value in options.items())]),
    )
    print(report.summary())
    for name, path in (("report", args.json), ("videos", args.video)):
        if path is not None:
            print(f"  {name}: {path}")
    return 0


def env_argument(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` as a pair; the value is a Python literal if it reads as one, else the text."""
    key, sign, value = text.partition("=")
    if not (sign and key.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, for example image_size=128")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def load_agent(name: str, *, device: str, **options: Any) -> Any:
    """A policy by name or folder, what ``package.module:factory`` returns, or the policy server at ``ws://host:port``.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: there is no such thing; the message says what there is.
    """
    if name.startswith(("ws://", "wss://")):
        if options:
            raise ValueError(f"--{next(iter(options)).replace('_', '-')} is for whoever serves {name}")
        try:
            from uva_agents.bridges.openpi import RemotePolicy
        except ModuleNotFoundError as error:
            raise ValueError(str(error)) from error
        return RemotePolicy(name, token=os.environ.get("UVA_TOKEN") or None)
    if _FACTORY.fullmatch(name) and not Path(name).exists():
        if options:
            raise ValueError(f"--{next(iter(options)).replace('_', '-')} applies to weights, not to {name}")
        module_name, attribute = name.split(":")
        if os.getcwd() not in sys.path:  # a console script does not look in the working directory, `python -m` does
            sys.path.insert(0, os.getcwd())
        try:
            factory = getattr(importlib.import_module(module_name), attribute)
        except (ModuleNotFoundError, AttributeError) as error:
            raise ValueError(f"{name} cannot be imported: {error}") from error
        return factory()
    from uva_agents.agents import load_policy

    return load_policy(name, device=device, **options)
