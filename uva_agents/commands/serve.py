"""``uva serve``."""

from __future__ import annotations

import argparse
import logging
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from uva_agents.commands.evaluate import load_agent
from uva_agents.errors import InputError

if TYPE_CHECKING:
    from uva_agents.bridges.openpi import PolicyServer

TOKEN_VARIABLE = "UVA_TOKEN"
_LARGEST_MESSAGE_MB = 4096  # what msgpack can announce


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva serve``."""
    parser.add_argument(
        "agent",
        metavar="AGENT",
        help="a shipped name (see `uva info`), a weights folder, a released .ckpt file, or package.module:factory, a function "
        "without arguments that returns an agent, for example a planner",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default %(default)s: this computer only)"
    )
    parser.add_argument("--port", type=int, default=8000, help="default %(default)s; 0 takes a free one")
    parser.add_argument(
        "--token",
        help=f"what clients must know; better in the environment variable {TOKEN_VARIABLE}, where other users of this computer "
        "do not see it",
    )
    parser.add_argument(
        "--no-token",
        action="store_true",
        help="let anybody in who reaches this address, if it is not this computer only",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate (PEM): clients then use wss://")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default auto)")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps per decision; default: the agent's own")
    parser.add_argument(
        "--execute",
        type=int,
        metavar="N",
        help="actions of a chunk that clients of openpi carry out before they ask again; default: the agent's own number",
    )
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        type=_pair,
        help="what clients call a part of the observation, for example pixels=observation/images/top; may be repeated",
    )
    parser.add_argument(
        "--stateless",
        action="store_true",
        help="every request is an episode of one observation: for clients that keep one connection for all their episodes and do "
        "not say when one begins, as openpi's",
    )
    parser.add_argument(
        "--new-episode-after",
        type=float,
        metavar="SECONDS",
        help="a pause of this length without requests begins a new episode: for the same clients, where history matters",
    )
    parser.add_argument(
        "--resize",
        action="store_true",
        help="resize images of another size, if their aspect ratio is that of the agent's (224x224 for 96x96)",
    )
    parser.add_argument(
        "--letterbox",
        action="store_true",
        help="resize images of another aspect ratio, too: with black bars beside them, as openpi's resize_with_pad",
    )
    parser.add_argument("--max-clients", type=int, default=32, metavar="N", help="default %(default)s")
    parser.add_argument(
        "--max-waiting",
        type=int,
        default=16,
        metavar="N",
        help="requests; more are asked to come back (default %(default)s)",
    )
    parser.add_argument("--max-message-mb", type=float, default=32.0, metavar="MB", help="default %(default)s")
    parser.add_argument(
        "--max-episodes", type=int, default=64, metavar="N", help="of one client side by side (default %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing about clients")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    try:
        from uva_agents.bridges.openpi import KeyMap, Limits, serve
        from uva_agents.bridges.openpi.addresses import check_listening, is_loopback
        from uva_agents.bridges.openpi.episodes import NewEpisodes
    except ModuleNotFoundError as error:
        raise InputError(str(error)) from error
    token = args.token or os.environ.get(TOKEN_VARIABLE) or None
    if token is None and not args.no_token and not is_loopback(args.host):
        raise InputError(
            f"other computers reach {args.host}: set {TOKEN_VARIABLE} to a word that clients must know, or say --no-token"
        )
    tls = _tls(args.tls_cert, args.tls_key)
    limits = Limits(
        message_bytes=_bytes(args.max_message_mb),
        connections=args.max_clients,
        waiting=args.max_waiting,
        episodes=args.max_episodes,
    )
    new_episodes = NewEpisodes(args.stateless, args.new_episode_after)
    check_listening(args.host, args.port)  # loading takes longer than finding out that it was for nothing
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("uva_agents.serve").setLevel(logging.WARNING if args.quiet else logging.INFO)
    logging.getLogger("uva_agents.serve.websockets").setLevel(logging.ERROR)
    agent = load_agent(args.agent, device=args.device, **({} if args.steps is None else {"steps": args.steps}))

    def ready(server: PolicyServer) -> None:
        print(f"{args.agent} at {server.url}, health at /healthz; {server.new_episodes}", flush=True)

    serve(
        agent,
        host=args.host,
        port=args.port,
        token=token,
        ready=ready,
        execute=args.execute,
        keys=KeyMap().with_names(dict(args.key)),
        limits=limits,
        tls=tls,
        name=args.agent,
        stateless=new_episodes.stateless,
        new_episode_after_s=new_episodes.after_s,
        resize="letterbox" if args.letterbox else args.resize,
    )
    print("stopped")
    return 0


def _bytes(megabytes: float) -> int:
    if not 0 < megabytes <= _LARGEST_MESSAGE_MB:  # NaN is neither
        raise InputError(f"--max-message-mb {megabytes:g}: above 0 and at most {_LARGEST_MESSAGE_MB}")
    return max(1, int(megabytes * 2**20))


def _pair(text: str) -> tuple[str, str]:
    ours, sign, theirs = text.partition("=")
    if not (ours and sign and theirs):
        raise argparse.ArgumentTypeError(f"{text!r} is not OURS=THEIRS, for example pixels=observation/images/top")
    return ours, theirs


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if (certificate is None) != (key is None):
        raise InputError("--tls-cert and --tls-key go together")
    if certificate is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # an SSLError is one
        raise InputError(f"{certificate} and {key} are no certificate and its key: {error}") from error
    return context
