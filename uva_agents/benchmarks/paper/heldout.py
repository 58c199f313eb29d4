"""Held-out metrics of all five tasks. ``python -m uva_agents.benchmarks.paper.heldout --data FOLDER``

Runs shipped (or other) weights on the episodes that their training held out: action errors in pixels (or mm), frames in decibels
against copying the current one.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from uva_agents.benchmarks.evaluation.machine import json_text, parse_arguments
from uva_agents.utils.results import Results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--data", type=Path, required=True, help="the replay buffer that the weights were trained on")
    parser.add_argument("--weights", default="pusht-nano")
    parser.add_argument(
        "--held-out", type=int, default=None, help="episodes held out in training, where not the recipe's"
    )
    parser.add_argument("--actions", type=int, default=1212, help="windows for action errors")
    parser.add_argument("--videos", type=int, default=256, help="windows for frames")
    parser.add_argument("--out", type=Path, default=Path("outputs/heldout"), help="folder of the result and a picture")


def main(argv: list[str] | None = None) -> int:
    """Print the metrics; write ``heldout.json`` and ``futures.png``."""
    from uva_agents.agents import UVA
    from uva_agents.training.report import Reporter

    args = parse_arguments(__doc__, add_arguments, argv)
    uva = UVA.from_pretrained(args.weights)
    with Results() as results, tempfile.TemporaryDirectory() as folder:
        # The reporter draws in the middle of the work, where a folder that is gone would end it.
        reporter = Reporter(Path(folder), "heldout", 1, 0, show=False, write=True)
        metrics = evaluate_heldout(uva, args.data, args.held_out, args.actions, args.videos, reporter)
        for name, value in metrics.items():
            print(f"  {name:22s} {value:8.2f}")
        results.text(args.out / "heldout.json", json_text({"metrics": metrics, "weights": uva.fingerprint}))
        for picture in sorted(Path(folder).glob("*.png")):
            results.save(args.out / picture.name, partial(shutil.copyfile, picture))
    return 0


def evaluate_heldout(
    uva: object, data: Path, held_out: int | None, actions: int, videos: int, reporter: object
) -> dict[str, float]:
    """Metrics by name; see :class:`uva_agents.training.uva.validation.Validator`."""
    import torch

    from uva_agents.agents import UVA
    from uva_agents.data import LatentWindows, Variant, held_out_split, read_replay_buffer
    from uva_agents.training.keypoints.detector_stage import point_scale, stack_points
    from uva_agents.training.report import Reporter
    from uva_agents.training.uva.recipes import RECIPES, pusht_nano
    from uva_agents.training.uva.validation import Validator

    assert isinstance(uva, UVA) and isinstance(reporter, Reporter)
    recipe = RECIPES.get(uva.name, pusht_nano)()
    episodes = read_replay_buffer(data, recipe.fields)
    count = recipe.held_out if held_out is None else held_out
    episodes = episodes.select(held_out_split(len(episodes), count, seed=42)[1])
    frames = episodes.arrays["pixels"]
    codes = [uva.encode(frames[i : i + 64]) for i in range(0, len(frames), 64)]
    tokens = torch.cat([c.tokens for c in codes]).half().cpu().numpy()
    points = [c.points for c in codes if c.points is not None]
    c, spec = uva.config, uva.spec
    windows = LatentWindows(
        episodes,
        [tokens],
        [Variant()],
        uva.normalizer,
        spec.window(c.n_frames, c.frame_stride, c.action_steps),
        proprio_key=spec.proprio_key,
        readout_keys=recipe.readout_keys if c.readout_dim else (),
        points=[torch.cat(points).cpu().numpy()] if points else None,
    )
    validator = Validator(
        windows,
        uva.vae,
        uva.normalizer,
        frames,
        n_actions=actions,
        n_videos=videos,
        unit=recipe.unit,
        unit_scale=recipe.unit_scale,
        readout_keys=recipe.readout_keys,
    )
    metrics = validator.run(uva.net, reporter)
    if points:
        truth = stack_points(recipe, episodes)
        scale, offset = point_scale(recipe, uva.normalizer)
        read = (torch.cat(points).cpu().numpy().reshape(truth.shape) - offset) / scale
        metrics[f"points_{recipe.unit}"] = float(np.linalg.norm(read - truth, axis=-1).mean()) * recipe.unit_scale
    return metrics


if __name__ == "__main__":
    raise SystemExit(main())
