"""``uva train``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState

from uva_agents.checkpoints.kinds import OWN_KINDS, resolved
from uva_agents.training.any_task import LayoutOptions, data_of, fields_of_run, make_recipe
from uva_agents.training.baselines.sizes import BASELINES
from uva_agents.training.cli_monitoring import MakeEvaluator, add_monitoring_arguments, selection_of, trackers_of
from uva_agents.training.layout_files import layout_from_toml
from uva_agents.training.layout_report import describe_layout
from uva_agents.training.recipe import Changes, Recipe
from uva_agents.training.rehearsal import rehearse
from uva_agents.training.run import RunOptions, train
from uva_agents.training.sources import Source, with_episodes
from uva_agents.training.uva.recipes import STAGES
from uva_agents.training.uva.sizes import SIZES, OptionalInputs
from uva_agents.utils.files import check_folder_target

_ALIASES = {"vae": "autoencoder", "points": "detector", "writer": "renderer"}
"""First name of a stage, and of its folder -> what it is called today."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva train``."""
    names = [name for kind in OWN_KINDS.values() for name in resolved(kind.recipes)]
    parser.add_argument(
        "recipe",
        metavar="SIZE | RECIPE",
        help=f"a network size, for data of any layout ({', '.join(SIZES)}), or a baseline for it "
        f"({', '.join(BASELINES)}); a recipe ({', '.join(names)}, or one that another package adds); a recipe in a TOML file "
        "(uva info --recipe NAME prints one); or the recipe.json of a run",
    )
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="PATH[:WEIGHT]",
        help="dataset of any format that `uva data inspect` knows; several times for a mixture, with each one's share of what is "
        "drawn (default 1). Video without actions trains the video task",
    )
    parser.add_argument(
        "--episodes",
        action="append",
        default=[],
        metavar="LIST",
        help="only these episodes, for example 0-4,7, or '!3,8' for all but these (default: all); with several --data once for "
        "each, in their order, `all` for all",
    )
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME=KEY",
        help="where the data keeps what a recipe calls NAME (pixels, action, agent_pos, ...), if not at the format's usual place",
    )
    _add_layout_arguments(parser)
    parser.add_argument(
        "--every",
        type=int,
        default=None,
        metavar="N",
        help="keep every Nth step, where the data was recorded N times as fast as the recipe acts; for actions that are positions",
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="run folder; the same folder resumes (default runs/RECIPE)"
    )
    parser.add_argument(
        "--vae", type=Path, default=None, help="trained autoencoder (safetensors or kl16.ckpt): skips its stage"
    )
    parser.add_argument(
        "--points", type=Path, default=None, help="trained keypoint detector (safetensors): skips its stage"
    )
    parser.add_argument(
        "--init", default=None, help="go on from these weights (a shipped name, a folder, or a MAR file)"
    )
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--steps",
        type=int,
        default=None,
        help="optimiser steps: of the joint stage of a size, of the one stage of dp-* and two-frame-*",
    )
    for stage in STAGES:
        names = [f"--{stage}-steps", *([f"--{_ALIASES[stage]}-steps"] if stage in _ALIASES else [])]
        title = _ALIASES.get(stage, stage)
        parser.add_argument(
            *names, dest=f"{stage}_steps", type=int, default=None, help=f"optimiser steps of the {title} stage"
        )
    parser.add_argument("--batch-size", type=int, default=None, help="per process; of the video and joint stages")
    parser.add_argument("--lr", type=float, default=None, help="peak learning rate; of the video and joint stages")
    parser.add_argument("--variants", type=int, default=None, help="cached augmented variants of the data")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument(
        "--workers",
        type=int,
        default=None,
        metavar="N",
        help="processes that decode frames, 300 to 700 MB each (default: one for each core, up to 4; 0: this one)",
    )
    add_monitoring_arguments(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check all that comes before the first step, with one batch of every stage, and say how much memory, disk and time "
        "the run takes; write nothing",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _add_layout_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("layout of the data, with a network size")
    group.add_argument(
        "--layout",
        type=Path,
        default=None,
        metavar="TOML",
        help="what is an input and what is learned, instead of what is found in the data; `uva data layout PATH` writes one",
    )
    group.add_argument("--hz", type=float, default=None, help="rate of the recording, where the data does not say it")
    group.add_argument(
        "--instructions",
        choices=("none", "table", "clip", "given"),
        default=None,
        help="where vectors of instructions come from (default: table if there are several, none otherwise)",
    )
    group.add_argument(
        "--text-encoder", default=None, metavar="CLIP", help="folder or hub name, for --instructions clip"
    )
    group.add_argument("--env", default=None, metavar="ID", help="environment that the weights are for")
    group.add_argument("--held-out", type=int, default=None, metavar="N", help="episodes kept from training")
    group.add_argument("--name", default=None, help="of the weights (default: the data's name and the size)")
    group.add_argument("--no-proprio", action="store_true", help="proprioception is no input")
    group.add_argument("--history-actions", action="store_true", help="the actions that led here are an input")
    group.add_argument("--predict-wrist", action="store_true", help="the second camera's future is predicted, too")
    group.add_argument(
        "--predict-proprio", type=int, default=0, metavar="N", help="so are the last N numbers of future proprioception"
    )
    group.add_argument(
        "--varied-history", action="store_true", help="draw past frames at other rates, for robots of other rates"
    )


def run(args: argparse.Namespace, *, make_evaluator: MakeEvaluator | None = None) -> int:
    """Train, and say where the weights are.

    Args:
        make_evaluator: of ``--eval-env``: training knows no environments.
    """
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "WORLD_SIZE" not in os.environ:
        # However many were asked for: without MPI it starts one and does not say so.
        print(
            "training as one process; for several on these CPUs: torchrun --nproc_per_node N -m uva_agents.cli train ..."
        )
    if args.threads:
        torch.set_num_threads(args.threads)
    trackers = trackers_of(args)
    sources = with_episodes([Source.parse(text) for text in args.data], args.episodes)
    recipe = configure(args, sources)
    out = args.out or Path("runs") / recipe.name
    selection = selection_of(args, out, make_evaluator)
    options = RunOptions(
        data_of(sources),
        out,
        vae_weights=args.vae,
        detector_weights=args.points,
        init=args.init,
        progress=not args.quiet,
        fields=fields_of_run(args.recipe, _about(args)),
        every=args.every,
        trackers=trackers,
        project=args.project,
        selection=selection,
        text_encoder=args.text_encoder,
        workers=args.workers,
    )
    if args.dry_run:
        found = rehearse(recipe, options)
        if PartialState().is_main_process:
            print("\n".join(found.lines()))
        return 0
    check_folder_target(options.out)
    folder = train(recipe, options)
    if folder is not None:
        print(f"weights: {folder}")
        if selection is not None and (best := out / "weights-best").exists():
            print(f"the best by {selection.criterion}: {best}")
    return 0


def _fields(texts: list[str]) -> dict[str, str]:
    """``NAME=KEY`` as given on the command line.

    Raises:
        ValueError: one has no ``=``.
    """
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, key) in zip(texts, pairs, strict=True):
        if not (name and equals and key):
            raise ValueError(f"--field {text}: NAME=KEY, for example agent_pos=observation.state")
    return {name: key for name, _, key in pairs}


def configure(args: argparse.Namespace, sources: Sequence[Source] = ()) -> Recipe:
    """The recipe of a size or a baseline on this data, or the named one, with the command line's changes.

    Raises:
        InputError, DataError: see :func:`~uva_agents.training.any_task.make_recipe`.
    """
    steps = {name: getattr(args, f"{name}_steps") for name in STAGES}
    changes = Changes(
        steps=args.steps,
        stage_steps={name: count for name, count in steps.items() if count is not None},
        batch_size=args.batch_size,
        lr=args.lr,
        variants=args.variants,
        seed=args.seed,
    )
    inputs = OptionalInputs(
        history_actions=args.history_actions,
        predict_wrist=args.predict_wrist,
        predict_proprio=args.predict_proprio,
        varied_history=args.varied_history,
    )
    return make_recipe(
        args.recipe,
        sources,
        _about(args),
        name=args.name,
        inputs=inputs,
        changes=changes,
        report=None if args.quiet else lambda layout, dataset: print("\n".join(describe_layout(layout, dataset))),
    )


def _about(args: argparse.Namespace) -> LayoutOptions:
    return LayoutOptions(
        layout=None if args.layout is None else layout_from_toml(args.layout),
        fields=_fields(args.field),
        control_hz=args.hz,
        instructions=args.instructions,
        env_id=args.env,
        held_out=args.held_out,
        proprio=not args.no_proprio,
    )
