"""``uva data collect``: demonstrations from simulators."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uva_agents.data.collect.block_push import ChunkPolicy
    from uva_agents.data.collect.engine import Collected


def add_collect_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva data collect block-push OUT`` and ``arx-x5 OUT``."""
    environments = parser.add_subparsers(title="environment", metavar="block-push | arx-x5", required=True)
    _add_block_push(environments.add_parser("block-push", help="a script, a feedback controller, or recorded actions"))
    _add_arx_x5(environments.add_parser("arx-x5", help="a script does the tasks of the simulated arm"))


def _add_common(collect: argparse.ArgumentParser, action: Callable[[argparse.Namespace], int]) -> None:
    collect.add_argument("out", type=Path, help="replay buffer (.zarr folder) to write")
    collect.add_argument("--seed", type=int, default=0, help="of the first episode (default %(default)s)")
    collect.add_argument("--workers", type=int, default=2, help="processes (default %(default)s)")
    collect.add_argument("--only-successful", action="store_true", help="leave the other episodes out")
    collect.add_argument("--force", action="store_true", help="replace OUT")
    collect.add_argument("--quiet", action="store_true", help="no progress bar")
    collect.set_defaults(action=action)


def _add_block_push(collect: argparse.ArgumentParser) -> None:
    _add_common(collect, run_block_push)
    collect.add_argument("--episodes", type=int, default=None, help="default: 1000, or all of --replay")
    collect.add_argument(
        "--demonstrator",
        choices=("oracle", "pusher"),
        default="oracle",
        help="oracle: the published script; pusher: looks at positions only and recovers (default %(default)s)",
    )
    collect.add_argument(
        "--noise",
        type=float,
        default=None,
        help="standard deviation added to every step, metres (default: 0 for the oracle, 0.002 for the pusher)",
    )
    collect.add_argument(
        "--disturbed",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the episodes, in which something moves the pusher aside before the record begins (default %(default)s)",
    )
    collect.add_argument(
        "--policy",
        default=None,
        metavar="WEIGHTS",
        help="a Diffusion Policy that drives the pusher in disturbed episodes instead, until the demonstrator takes over",
    )
    collect.add_argument(
        "--replay",
        type=Path,
        default=None,
        metavar="RECORDED.zarr",
        help="execute these recorded relative actions instead of a script's; episode i has seed SEED + i",
    )
    collect.add_argument(
        "--image-size", type=int, default=96, help="side of the pictures, 0 for none (default %(default)s)"
    )
    collect.add_argument("--camera", choices=("workspace", "published"), default="workspace")
    collect.add_argument(
        "--max-steps", type=int, default=350, help="after these the script gives up (default %(default)s)"
    )


def _add_arx_x5(collect: argparse.ArgumentParser) -> None:
    from uva_agents.data.collect.arx_x5 import ACTION_MODES, CAMERAS, LOOKS, TASKS

    _add_common(collect, run_arx_x5)
    collect.add_argument("--episodes", type=int, default=200, help="in all (default %(default)s)")
    collect.add_argument(
        "--task",
        type=_listed,
        default=TASKS,
        metavar="TASK[,TASK]",
        help=f"of {', '.join(TASKS)}; several take turns (default: all)",
    )
    collect.add_argument(
        "--cameras",
        type=_listed,
        default=("outside", "wrist"),
        metavar="MAIN[,OTHER]",
        help=f"of {', '.join(CAMERAS)} (default outside,wrist)",
    )
    collect.add_argument(
        "--looks",
        choices=LOOKS,
        default="varied",
        help="colours, light and things around: others in every episode, or as built (default %(default)s)",
    )
    collect.add_argument(
        "--disturbed",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the episodes, in which something pushes the arm about; recorded actions stay the good ones (default %(default)s)",
    )
    collect.add_argument("--action-mode", choices=ACTION_MODES, default="absolute", help="default %(default)s")
    collect.add_argument("--control-hz", type=float, default=20.0, help="steps per second (default %(default)s)")
    collect.add_argument("--image-size", type=int, default=96, help="side of the pictures (default %(default)s)")
    collect.add_argument(
        "--strength",
        type=float,
        default=1.0,
        help="how hard it is pushed there, times the usual: 4 mm all the time, up to 5 cm now and then (default %(default)s)",
    )
    collect.add_argument(
        "--realistic", action="store_true", help="with the latencies, lost frames and noise of a real arm"
    )
    collect.add_argument("--max-steps", type=int, default=700, help="of an episode (default %(default)s)")
    collect.add_argument(
        "--sheet", type=Path, default=None, metavar="PNG", help="contact sheet to write (default: OUT with _sheet.png)"
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _driver(weights: str) -> ChunkPolicy:
    """The policy, in a worker process: one thread each."""
    import torch

    from uva_agents.agents import DiffusionPolicy

    torch.set_num_threads(1)
    return DiffusionPolicy.from_pretrained(weights)


def run_block_push(args: argparse.Namespace) -> int:
    """Collect, and say how many episodes succeeded. 1 if some were lost.

    Raises:
        ValueError: OUT exists already, or the settings do not go together.
        FileNotFoundError: no recording there.
    """
    from uva_agents.data.collect.block_push import BlockPushPlan, collect_block_push, recorded_ends

    episodes = args.episodes
    if episodes is None:
        episodes = 1000 if args.replay is None else len(recorded_ends(args.replay))
    plan = BlockPushPlan(
        episodes=episodes,
        seed=args.seed,
        demonstrator=args.demonstrator,
        noise=args.noise if args.noise is not None else 0.002 if args.demonstrator == "pusher" else 0.0,
        disturbed=args.disturbed,
        policy=args.policy,
        replay=None if args.replay is None else str(args.replay.resolve()),
        image_size=args.image_size,
        camera=args.camera,
        max_steps=args.max_steps,
    )
    driver = None if plan.policy is None else partial(_driver, plan.policy)
    result = _collect(args, plan.episodes, partial(collect_block_push, args.out, plan, driver=driver))
    return _report(args, result, plan.seed, "both blocks placed")


def run_arx_x5(args: argparse.Namespace) -> int:
    """Collect, and say how many episodes succeeded. 1 if some were lost.

    Raises:
        ValueError: OUT exists already, or a setting makes no sense.
    """
    from uva_agents.data import open_dataset
    from uva_agents.data.collect.arx_x5 import INSTRUCTIONS, ArxX5Plan, collect_arx_x5
    from uva_agents.data.sheet import contact_sheet
    from uva_agents.utils.files import check_file_target

    names = (
        "episodes",
        "seed",
        "action_mode",
        "control_hz",
        "image_size",
        "cameras",
        "looks",
        "disturbed",
        "strength",
        "realistic",
    )
    plan = ArxX5Plan(tasks=args.task, max_steps=args.max_steps, **{name: getattr(args, name) for name in names})
    sheet = check_file_target(args.sheet or args.out.with_name(f"{args.out.stem}_sheet.png"))
    result = _collect(args, plan.episodes, partial(collect_arx_x5, args.out, plan))
    status = _report(args, result, plan.seed, "success")
    dataset = open_dataset(args.out)
    shown = [row for task in args.task for row in _spread(dataset.tasks, INSTRUCTIONS[task], 8 // len(args.task))]
    contact_sheet(dataset, sheet, episodes=8, without={*range(len(dataset))} - {*shown})
    print(f"contact sheet: {sheet}")
    return status


def _spread(tasks: Sequence[str] | None, wanted: str, most: int) -> list[int]:
    """Numbers of some episodes with this instruction, from the first to the last."""
    found = [number for number, task in enumerate(tasks or ()) if task == wanted]
    return [found[i * (len(found) - 1) // max(1, most - 1)] for i in range(min(most, len(found)))]


def _collect(args: argparse.Namespace, episodes: int, collect: Callable[..., Collected]) -> Collected:
    """With a progress bar."""
    from uva_agents.utils.progress import progress_bar

    options: dict[str, Any] = {name: getattr(args, name) for name in ("workers", "only_successful", "force")}
    with progress_bar(disable=args.quiet) as bar:
        task = bar.add_task("episodes", total=episodes)
        return collect(progress=lambda done, total: bar.update(task, completed=done, total=total), **options)


def _report(args: argparse.Namespace, result: Collected, seed: int, what: str) -> int:
    share = result.successes / max(result.episodes, 1)
    print(
        f"{result.episodes} episodes ({result.resumed} from an earlier start), {what} in {result.successes} ({share:.1%})"
    )
    print(f"{result.written} episodes, {result.rows} rows: {args.out}")
    for index, error in sorted(result.failures.items()):
        print(f"lost: episode {index} (seed {seed + index}): {error}")
    return 1 if result.failures else 0
