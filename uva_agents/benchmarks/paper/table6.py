"""The paper's Table VI in simulation: actions read off video. ``uva bench table6 --task pusht --data FOLDER``.

Whole held-out videos are labelled by InverseModel, which sees 16 steps at once, and by UniPi's inverse dynamics, a residual
network that sees two consecutive ones of the same frames (every 4th), trained on the same episodes: in UniPi's own form, which
averages over the image, and in a stronger one with keypoints. Beside them the best answer that does not look, the median of the
training actions, and where its weights are given the network on every frame of the video, four times as many as InverseModel
gets.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.benchmarks.paper.recordings import SUBJECTS, HeldOutRecording, Subject, held_out_recordings
from uva_agents.benchmarks.skeleton import Benchmark, Outcome, add_recording
from uva_agents.utils.progress import progress_bar

TITLES = {
    "inverse": "InverseModel",
    "pooled": "two frames (UniPi)",
    "two-frame": "..., with keypoints",
    "dense": "two of every frame",
    "constant": "constant",
}
SHIPPED = {
    "pusht": ("pusht-nano", "two-frame-pusht", "two-frame-pusht-pooled"),
    "block-push": ("block-push-nano", "two-frame-block-push", "two-frame-block-push-pooled"),
}
Labeller = Callable[[np.ndarray], np.ndarray]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    add_recording(parser, tuple(SUBJECTS))
    parser.add_argument("--pooled", default=None, help="weights of the two-frame network (default: the task's)")
    parser.add_argument("--two-frame", default=None, help="of the one with keypoints (default: the task's)")
    parser.add_argument("--dense", default=None, help="of one that sees every frame; without them that row is left out")


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """The table and ``table6.json``."""
    from uva_agents.agents import InverseModel, TwoFrameInverse

    subject = SUBJECTS[args.task]
    inverse = InverseModel.from_pretrained(args.weights or SHIPPED[args.task][0])
    two = TwoFrameInverse.from_pretrained(args.two_frame or SHIPPED[args.task][1])
    pooled = TwoFrameInverse.from_pretrained(args.pooled or SHIPPED[args.task][2])
    recordings = held_out_recordings(subject, args.data, args.held_out)
    constant = training_median(subject, args.data, args.held_out)
    labellers: dict[str, Labeller] = {
        "inverse": inverse.label,
        "pooled": pooled.label,
        "two-frame": two.label,
        "constant": lambda video: np.broadcast_to(constant, (len(video) - 1, len(constant))),
    }
    weights = {"inverse": inverse.weights.fingerprint, "pooled": pooled.fingerprint, "two-frame": two.fingerprint}
    if args.dense is not None:
        dense = TwoFrameInverse.from_pretrained(args.dense)
        labellers["dense"], weights["dense"] = dense.label, dense.fingerprint
    with progress_bar() as bar:
        task = bar.add_task("videos", total=len(recordings) * len(labellers))
        errors = measure(labellers, recordings, progress=lambda: bar.update(task, advance=1))
    table = summarise(subject, errors)
    yield from lines(subject, table)
    return Outcome({"task": args.task, "weights": weights, "table": table})


def training_median(subject: Subject, data: Path, held_out: int | None) -> np.ndarray:
    """The constant action (A,) with about the smallest mean distance from the training actions."""
    from uva_agents.data import held_out_split, read_replay_buffer

    episodes = read_replay_buffer(data, {"action": subject.fields["action"]})
    count = subject.held_out if held_out is None else held_out
    train = episodes.select(held_out_split(len(episodes), count, seed=42)[0])
    median: np.ndarray = np.median(train.arrays["action"], axis=0)
    return median


def measure(
    labellers: Mapping[str, Labeller],
    recordings: Sequence[HeldOutRecording],
    *,
    progress: Callable[[], None] | None = None,
) -> dict[str, list[np.ndarray]]:
    """Per labeller and recording the distances (N - 1,) from the recorded actions, environment units."""
    errors: dict[str, list[np.ndarray]] = {name: [] for name in labellers}
    for recording in recordings:
        for name, label in labellers.items():
            found = label(recording.pixels)
            errors[name].append(np.linalg.norm(found - recording.actions[: len(found)], axis=-1))
            if progress is not None:
                progress()
    return errors


def summarise(subject: Subject, errors: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Any]:
    """Mean and median errors, and how many times as large as InverseModel's; 95 % intervals resample whole episodes."""
    sums = {name: np.array([e.sum() for e in found]) for name, found in errors.items()}
    counts = np.array([len(e) for e in next(iter(errors.values()))])
    draws = np.random.default_rng(0).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=10_000)
    means = {name: (draws @ s) / (draws @ counts) for name, s in sums.items()}
    table: dict[str, Any] = {"episodes": len(counts), "steps": int(counts.sum()), "unit": subject.unit, "rows": {}}
    for name, found in errors.items():
        ratio = means[name] / means["inverse"]
        table["rows"][name] = {
            "error": float(sums[name].sum() / counts.sum() * subject.scale),
            "error_interval": _interval(means[name] * subject.scale),
            "median": float(np.median(np.concatenate(found)) * subject.scale),
            "over_inverse": float(sums[name].sum() / sums["inverse"].sum()),
            "over_inverse_interval": _interval(ratio),
        }
    return table


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def lines(subject: Subject, table: Mapping[str, Any]) -> list[str]:
    """The table as text."""
    found = [
        f"{subject.name}: {table['steps']} actions of {table['episodes']} held-out videos",
        f"{'':20s}{f'position error, {subject.unit}':^28s}{'median':>8s}  {'times InverseModel':^24s}",
    ]
    for name, row in table["rows"].items():
        (low, high), (less, more) = row["error_interval"], row["over_inverse_interval"]
        found.append(
            f"{TITLES[name]:20s}{row['error']:10.2f} [{low:6.2f}, {high:6.2f}]{row['median']:8.2f}"
            f"  {row['over_inverse']:8.2f} [{less:5.2f}, {more:5.2f}]"
        )
    return found


BENCHMARK = Benchmark("table6", __doc__, add_arguments, run, folder="outputs/table6-{task}")
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
