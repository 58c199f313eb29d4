"""``uva eval``."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import os
import re
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from uva_agents.benchmarks import PROTOCOLS, EvalReport, evaluate, get_protocol
from uva_agents.benchmarks.evaluation.rows import FAILED_IN_PREDICT
from uva_agents.benchmarks.evaluation.where import environment_and_rules
from uva_agents.envs import RECORDED
from uva_agents.errors import InputError, UVAError
from uva_agents.utils.files import check_file_target, check_folder_target
from uva_agents.utils.results import UnwrittenError

if TYPE_CHECKING:
    from uva_agents.commands.recorded import EpisodeReplay

_EPISODES = 50
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
        help="gymnasium id, for example uva/PushT-v0; default: the one that the protocol is for, else the one that the weights "
        "name; for weights that name none, the recorded episodes that their training held out (uva/Recorded-v0)",
    )
    parser.add_argument(
        "--episodes",
        type=int,
        default=None,
        metavar="N",
        help=f"default {_EPISODES}; with a protocol of several rows, in each; of recorded episodes, each once",
    )
    parser.add_argument("--seed", type=int, default=None, help="of episode 0; default: the protocol's first seed")
    parser.add_argument(
        "--protocol",
        metavar="NAME",
        help="; ".join(f"{p.name}: {p.description}" for p in PROTOCOLS.values() if "/" not in p.name).replace("%", "%%")
        + "; pusht-disturbed/NAME: one row alone; those of other packages: see `uva info`; default: the one for ENV, else success",
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
    """Evaluate, print the summary. 1 if an episode failed.

    Raises:
        UnwrittenError: the report, which was printed, could not be written.
    """
    if args.json is not None:
        check_file_target(args.json)
    if args.video is not None:
        check_folder_target(args.video)
    if args.protocol is not None:
        get_protocol(args.protocol)  # an unknown one is known before weights are read
    options = {key: value for key in ("steps", "batch_size") if (value := getattr(args, key)) is not None}
    try:
        report = _evaluate(args, options)
    except UnwrittenError as error:
        print(error.result.summary())
        if error.saved is None:
            print(error.result.to_json())
        raise
    print(report.summary())
    for name, path in (("report", args.json), ("videos", args.video)):
        if path is not None:
            print(f"  {name}: {path}")
    return 1 if report.failures else 0


def _evaluate(args: argparse.Namespace, options: dict[str, Any]) -> EvalReport:
    """Evaluate as the arguments say; what an agent of the user's own raises is named as its."""
    agent = load_agent(args.agent, device=args.device, **options)
    if (replay := _replay(args, agent)) is not None:
        print(f"{args.agent} on recorded episodes: {replay.sentence}", flush=True)
        args.env, args.env_arg = RECORDED, list(replay.kwargs.items())
        args.episodes = len(replay.episodes) if args.episodes is None else args.episodes
    env, rules = environment_and_rules(agent, args.env, args.protocol)
    evaluation = partial(
        evaluate,
        agent,
        env,
        _EPISODES if args.episodes is None else args.episodes,
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
    try:
        return evaluation()
    except UVAError:
        raise
    except (Exception, SystemExit) as error:
        if FAILED_IN_PREDICT not in getattr(error, "__notes__", ()) or not _is_factory(args.agent):
            raise
        raise InputError(f"{args.agent} failed in predict(): {_reason(error)}; --debug shows where") from error


def _replay(args: argparse.Namespace, agent: Any) -> EpisodeReplay | None:
    """Recorded episodes, where they are asked for, or where weights name no environment and nobody else does."""
    spec = getattr(agent, "spec", None)
    if spec is None or _is_factory(args.agent) or args.agent.startswith(("ws://", "wss://")):
        return None
    unnamed = args.env is None and args.protocol is None and spec.env_id is None
    if not unnamed and args.env != RECORDED and not (args.env is None and args.protocol == "recorded"):
        return None
    from uva_agents.commands.recorded import replay_for

    return replay_for(args.agent, spec, dict(args.env_arg))


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
        FileNotFoundError, InputError, ConnectionError: there is no such thing; the message says what there is.
    """
    if name.startswith(("ws://", "wss://")):
        if options:
            raise InputError(f"--{next(iter(options)).replace('_', '-')} is for whoever serves {name}")
        _check_address(name)
        try:
            from uva_agents.bridges.openpi import RemotePolicy
        except ModuleNotFoundError as error:
            raise ValueError(str(error)) from error
        return RemotePolicy(name, token=os.environ.get("UVA_TOKEN") or None)
    if _is_factory(name):
        if options:
            raise InputError(f"--{next(iter(options)).replace('_', '-')} applies to weights, not to {name}")
        return _made_by(name)
    from uva_agents.agents import load_policy

    return load_policy(name, device=device, **options)


def _is_factory(name: str) -> bool:
    return _FACTORY.fullmatch(name) is not None and not Path(name).exists()


def _made_by(name: str) -> Any:
    """What the function ``package.module:factory`` returns.

    Raises:
        InputError: it cannot be imported or called, or raises.
    """
    module_name, attribute = name.split(":")
    if os.getcwd() not in sys.path:  # a console script does not look in the working directory, `python -m` does
        sys.path.insert(0, os.getcwd())
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # the module is the user's, and so is whatever it raises
        reason = str(error) if isinstance(error, ImportError | AttributeError) else _reason(error)
        raise InputError(f"{name} cannot be imported: {reason}") from error
    if not callable(factory):
        raise InputError(f"{name} is no function that makes an agent but {type(factory).__name__}")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise InputError(
            f"{name} needs arguments ({error}), and is called without: wrap it in a function of none"
        ) from error
    except ValueError:  # one written in C does not say
        pass
    try:
        return factory()
    except UVAError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{name} failed: {_reason(error)}; --debug shows where") from error


def _reason(error: BaseException) -> str:
    """Kind and message of an error, and the line of the user's that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _check_address(url: str) -> None:
    """Raises ``InputError`` where a port or host cannot be one."""
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise InputError(f"{url} is no address of a policy server: {error}") from error
    if not good:
        raise InputError(f"{url} is no address of a policy server: ws://HOST:PORT, with a port from 1 to 65535")
