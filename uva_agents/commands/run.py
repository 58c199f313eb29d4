"""``uva run AGENT uva/ArxX5-v0``: an agent drives an arm, or its twin, in real time."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uva_agents.commands.evaluate import env_argument
from uva_agents.commands.run_agent import chunk_source, inference_worker, load_for_run, own_rate
from uva_agents.commands.run_environment import ENV_ID, default_environment, make_environment
from uva_agents.envs import RECORDED
from uva_agents.errors import InputError
from uva_agents.utils.files import check_file_target, check_folder_target

if TYPE_CHECKING:
    from uva_agents.realtime import (
        EpisodeSummary,
        LoopSettings,
        RecordedActions,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva run``."""
    parser.add_argument(
        "agent",
        metavar="AGENT",
        help="a shipped name, a weights folder, a released .ckpt file, package.module:factory, a policy server at "
        "ws://host:port, or replay:FOLDER#EPISODE, a recorded episode (without #EPISODE the last one)",
    )
    parser.add_argument(
        "env",
        nargs="?",
        metavar="ENV",
        help=f"default {ENV_ID}; for weights of a robot whose actions are no poses of a tool, the recorded episodes that their "
        f"training held out ({RECORDED}), on which nothing moves",
    )
    parser.add_argument(
        "--env-arg",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        type=env_argument,
        help="given to gymnasium.make, for example driver=arx5 model=X5_umi; VALUE as in Python, or a word; may be repeated",
    )
    parser.add_argument(
        "--safety",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        type=env_argument,
        help="a limit of the safety layer, for example table_height=0.02 (docs/arx_x5_safety.md); may be repeated",
    )
    parser.add_argument("--dry-run", action="store_true", help="compute everything, send nothing to the arm")
    parser.add_argument("--camera", metavar="SOURCE", help="wrist camera: number or file of a device, or a video file")
    parser.add_argument("--outside-camera", metavar="SOURCE", help="the same for one that sees arm and table")
    parser.add_argument(
        "--camera-latency", type=float, default=0.0, metavar="S", help="from lens to computer, measured (default 0)"
    )
    parser.add_argument(
        "--rate", type=float, default=None, metavar="HZ", help="of control; default: the agent's own, else 20"
    )
    parser.add_argument(
        "--action-rate", type=float, metavar="HZ", help="actions of a chunk per second; default: as --rate"
    )
    parser.add_argument("--execute", type=int, metavar="N", help="actions of a chunk before the next is decided")
    parser.add_argument(
        "--blend", type=float, default=0.2, metavar="S", help="from chunk to chunk (default %(default)s)"
    )
    parser.add_argument(
        "--ahead", type=float, default=0.3, metavar="S", help="how far ahead actions are sent (default %(default)s)"
    )
    parser.add_argument(
        "--relative", action="store_true", help="the agent's actions (10,) are relative poses, as UMI's"
    )
    parser.add_argument("--length", type=float, default=60.0, metavar="S", help="of an episode (default %(default)s)")
    parser.add_argument("--episodes", type=int, default=1, metavar="N", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode (default %(default)s)")
    parser.add_argument("--task", default=None, metavar="TEXT", help="what to do: given to the agent, and recorded")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="LeRobot v3 dataset to add the episodes to")
    parser.add_argument(
        "--process",
        action="store_true",
        help="inference in a process of its own; what this one then cannot ask the agent is for you to say: --rate, --execute, "
        "--env-arg action_mode= and image_size=",
    )
    parser.add_argument(
        "--timeout", type=float, metavar="S", help="with --process: a decision that takes longer is given up"
    )
    parser.add_argument(
        "--on-error", choices=("hold", "stop"), default="hold", help="when the agent fails (default %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default auto)")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps per decision; default: the agent's own")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of inference; default: one core is left to control"
    )
    parser.add_argument("--now", action="store_true", help="begin at once, do not wait for a key")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write all messages there")


def run(args: argparse.Namespace) -> int:
    """Run episodes. 0 if all went as they should; 1, with the reason as the last line, after an emergency stop, an error of the
    agent (one that was held over, too), an episode without a chunk that was followed, or one that could not be recorded.

    Raises:
        ValueError, FileNotFoundError: wrong arguments.
        AgentError: the agent failed before anything moved.
        DriverError: the arm or a camera does not answer.
    """
    from uva_agents.realtime import EpisodeRecorder, View, is_replay, open_recording

    if args.episodes < 1:
        raise InputError(f"--episodes {args.episodes}: at least 1")
    # An arm that has moved for an hour is a bad time to learn that nothing can be written.
    if args.record is not None:
        check_folder_target(args.record, space=256 << 20)
    if args.log is not None:
        check_file_target(args.log)
    recording = open_recording(args.agent) if is_replay(args.agent) else None
    agent = None if recording is not None or args.process else load_for_run(args)
    rate = args.rate or (recording.control_hz if recording is not None else own_rate(agent)) or 20.0
    args.env = args.env or default_environment(args, agent)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_messages(args.log))
        stack.enter_context(_ended_by(signal.SIGTERM))
        env = make_environment(args, rate, agent, recording)
        stack.callback(env.close)
        recorder = None
        view = View(f"{args.agent} on {args.env}{', dry run' if args.dry_run else ''}", rate_hz=rate)
        if args.record is not None:
            settings = {"env": args.env, "agent": args.agent, "action_mode": env.unwrapped.action_mode, "rate_hz": rate}
            settings["env_args"] = {
                key: value for key, value in args.env_arg if isinstance(value, bool | int | float | str)
            }
            recorder = EpisodeRecorder(args.record, control_hz=rate, settings=settings, say=view.say)
            stack.callback(recorder.close)
        episodes = _session(args, env, rate, agent, recording, recorder, view, stack)
    if recorder is not None:
        print(f"{len(recorder)} episodes in {args.record}")
    problems = _problems(episodes)
    if recorder is not None and not recorder.complete:
        problems.append("not every episode could be recorded")
    if problems:
        sys.stdout.flush()
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        print(f"uva run: failed: {problems[0]}{more}", file=sys.stderr)
    return 1 if problems else 0


def _problems(episodes: Sequence[EpisodeSummary]) -> list[str]:
    """What went wrong in which episode, in words."""
    if not episodes:
        return ["no episode was run"]
    return [
        f"episode {number}: {episode.failure}"
        for number, episode in enumerate(episodes, 1)
        if episode.failure is not None
    ]


def _session(
    args: argparse.Namespace, env: Any, rate: float, agent: Any, recording: Any, recorder: Any, view: Any, stack: Any
) -> Any:
    from uva_agents.realtime import (
        ArxRobotInterface,
        ChunkSchedule,
        Controls,
        Loop,
        OperatorSession,
        RecordedRobotInterface,
        ScheduleSettings,
        keyboard,
    )

    env.reset(seed=args.seed)
    task = args.task or (recording.task if recording is not None else getattr(env.unwrapped, "instruction", None))
    replays = args.env == RECORDED
    robot: Any = RecordedRobotInterface(env, task=task) if replays else ArxRobotInterface(env, task=task)
    source = None if args.process and recording is None else chunk_source(args, agent, recording, robot)
    worker = inference_worker(args, source)
    stack.callback(worker.close)
    action_hz = recording.control_hz if recording is not None else args.action_rate or rate
    execute = args.execute or getattr(agent, "execute", None) or 8
    schedule = ChunkSchedule(ScheduleSettings(action_hz=action_hz, execute=execute, blend_s=args.blend), robot.layout)
    controls = Controls(robot.stop)
    settings = _settings(args, rate, agent, recording)
    loop = Loop(robot, worker, schedule, settings, controls=controls, say=view.say, watch=view.watch)
    keys = stack.enter_context(keyboard(controls))
    view.keys = keys

    def reset(seed: int, *, home: bool = False, release_stop: bool = False) -> None:
        if replays:
            robot.reset(seed)
            return
        options = {name: True for name, wanted in (("home", home), ("release_stop", release_stop)) if wanted}
        env.reset(seed=seed, options=options)

    session = OperatorSession(loop, reset, view, recorder=recorder, interactive=keys and not args.now, task=task or "")
    with view.shown():
        if recording is None:
            view.phase("first inference")
            view.say(f"first inference took {loop.warm_up(args.seed):.2f} s")
        episodes = session.run(args.episodes, seed=args.seed)
        view.phase("done")
        for one in robot.replayed if replays else ():
            view.say(
                f"recorded episode {one.episode}: agreement {one.agreement:.3f} over {one.compared} of {one.steps} steps"
            )
        if recorder is not None:
            recorder.wait()
    return episodes


def _settings(args: argparse.Namespace, rate: float, agent: Any, recording: RecordedActions | None) -> LoopSettings:
    from uva_agents.realtime import LoopSettings, lookback

    # The agent of another process is not here to be asked.
    back = 15 if args.process and recording is None else 0 if recording is not None else lookback(agent)
    # A replay ends by itself, after the way to its beginning.
    length = args.length if recording is None else recording.seconds + 120.0
    return LoopSettings(rate_hz=rate, length_s=length, ahead_s=args.ahead, on_error=args.on_error, lookback=back)


@contextlib.contextmanager
def _messages(path: Path | None) -> Iterator[None]:
    """The package's log into a file, or nowhere: the view says what an operator must know."""
    logger = logging.getLogger("uva_agents")
    handler: logging.Handler = logging.NullHandler()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()


@contextlib.contextmanager
def _ended_by(number: signal.Signals) -> Iterator[None]:
    """A signal ends the run as Ctrl-C does: the arm comes to rest, what was recorded is kept."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    try:
        yield
    finally:
        signal.signal(number, before)
