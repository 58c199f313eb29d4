"""How true imagined frames are, 4 to 64 control steps ahead. ``uva bench fidelity --task block-push --data FOLDER``.

Recorded actions of held-out episodes are imagined; frames are compared with the recorded ones in decibels, and the objects in
them with where the recording has them. Beside it: not moving anything (the current frame), and the autoencoder's own version of
the recorded frame, which is as well as imagined frames can look. Beyond 16 steps imagined frames are fed back.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.benchmarks.paper.recordings import SUBJECTS, HeldOutRecording, Subject, held_out_recordings
from uva_agents.benchmarks.skeleton import Benchmark, Outcome, add_recording
from uva_agents.utils.progress import progress_bar

WAYS = ("imagined", "copied", "autoencoder")
SHOWN = (4, 8, 12, 16, 32, 48, 64)
SHIPPED = {"pusht": "pusht-nano", "block-push": "block-push-nano"}


@dataclass(frozen=True)
class Forecasts:
    """Futures imagined from W observations, F frames ahead of each, K objects.

    Attributes:
        steps: (F,) control steps ahead.
        episode: (W,) which recording.
        psnr: way -> (W, F) decibels.
        error: way -> (W, F, K) distance of an object from where it was, environment units; NaN where it is not seen.
        moved: (W, F, K) how far the object has moved.
        truth, imagined: uint8 (P, F, H, W, 3) of those that are drawn.
    """

    steps: np.ndarray
    episode: np.ndarray
    psnr: dict[str, np.ndarray]
    error: dict[str, np.ndarray]
    moved: np.ndarray
    truth: np.ndarray
    imagined: np.ndarray


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    add_recording(parser, tuple(SUBJECTS))
    parser.add_argument(
        "--moments", type=int, default=200, help="observations from which futures are imagined (default %(default)s)"
    )
    parser.add_argument("--ahead", type=int, default=64, help="control steps, a multiple of 16 (default %(default)s)")


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """The table, ``fidelity.json`` and ``futures.png``."""
    from uva_agents.agents import WorldModel

    subject = SUBJECTS[args.task]
    world = WorldModel.from_pretrained(args.weights or SHIPPED[args.task])
    recordings = held_out_recordings(subject, args.data, args.held_out)
    with progress_bar() as bar:
        task = bar.add_task("futures", total=None)
        forecasts = measure(
            world,
            subject,
            recordings,
            args.moments,
            args.ahead,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    table = summarise(subject, forecasts)
    yield from lines(subject, table, len(forecasts.episode), len(recordings))
    numbers = {"task": args.task, "weights": world.identity, "moments": len(forecasts.episode), "table": table}
    return Outcome(numbers, {"futures.png": lambda path: _draw(path, forecasts)})


def measure(
    world: Any,
    subject: Subject,
    recordings: Sequence[HeldOutRecording],
    count: int,
    ahead: int,
    *,
    pictures: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Forecasts:
    """Imagine from ``count`` observations, evenly spread over the recordings.

    Raises:
        ValueError: no recording is longer than ``ahead``, or that is no multiple of a chunk of actions.
    """
    c = world.weights.config
    if ahead < 1 or ahead % c.action_steps:
        raise ValueError(f"ahead={ahead}: a multiple of {c.action_steps} control steps, one chunk of actions")
    starts = [(i, t) for i, r in enumerate(recordings) for t in range(len(r.pixels) - ahead)]
    if not starts:
        raise ValueError(f"no held-out recording is longer than {ahead} steps: pass a smaller ahead")
    chosen = [starts[j] for j in np.linspace(0, len(starts) - 1, min(count, len(starts))).astype(int)]
    shown = set(np.linspace(0, len(chosen) - 1, min(pictures, len(chosen))).astype(int).tolist())
    steps = np.arange(c.frame_stride, ahead + 1, c.frame_stride)
    psnr: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    error: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    moved, pairs = [], []
    for done, (index, t) in enumerate(chosen):
        r = recordings[index]
        future = world.rollout(r.observation(t), r.actions[t : t + ahead], history=r.history(t))
        truth = r.pixels[t + steps]
        frames = {
            "imagined": future.frames[0],
            "copied": np.broadcast_to(r.pixels[t], truth.shape),
            "autoencoder": world.weights.decode(world.weights.encode(truth).tokens),
        }
        for way, found in frames.items():
            psnr[way].append(_psnr(found, truth))
            where, seen = subject.locate(found)
            error[way].append(np.where(seen, np.linalg.norm(where - r.objects[t + steps], axis=-1), np.nan))
        moved.append(np.linalg.norm(r.objects[t + steps] - r.objects[t], axis=-1))
        if done in shown:
            pairs.append((truth, future.frames[0]))
        if progress is not None:
            progress(done + 1, len(chosen))
    return Forecasts(
        steps,
        np.array([i for i, _ in chosen]),
        {way: np.stack(psnr[way]) for way in WAYS},
        {way: np.stack(error[way]) for way in WAYS},
        np.stack(moved),
        np.stack([truth for truth, _ in pairs]),
        np.stack([imagined for _, imagined in pairs]),
    )


def _psnr(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(F,) decibels."""
    mse = ((found.astype(np.float64) - truth) ** 2).mean((1, 2, 3))
    decibels: np.ndarray = 10 * np.log10(255**2 / np.maximum(mse, 1e-3))
    return decibels


def summarise(subject: Subject, forecasts: Forecasts) -> list[dict[str, Any]]:
    """Per number of steps ahead: means over forecasts, with 95 % intervals in which whole episodes are resampled.

    ``error`` is of all objects, ``error_moved`` of those that have moved since; medians beside it, because an object that is
    missed altogether counts many times as much as one that is slightly off.
    """
    table = []
    for f, step in enumerate(forecasts.steps.tolist()):
        row: dict[str, Any] = {"step": step, "moved_share": float((forecasts.moved[:, f] > subject.moved).mean())}
        for way in WAYS:
            decibels, distance = forecasts.psnr[way][:, f], forecasts.error[way][:, f] * subject.scale
            moving = np.where(forecasts.moved[:, f] > subject.moved, distance, np.nan)
            row[way] = {
                "psnr": float(decibels.mean()),
                "psnr_interval": _interval(decibels, forecasts.episode),
                "error": _mean(distance),
                "error_interval": _interval(distance.mean(1), forecasts.episode),
                "error_moved": _mean(moving),
                "error_moved_median": float(np.nanmedian(moving)) if np.isfinite(moving).any() else None,
                "seen": float(np.isfinite(distance).mean()),
                "seen_moved": _mean(np.isfinite(distance)[forecasts.moved[:, f] > subject.moved]),
            }
        table.append(row)
    return table


def _mean(values: np.ndarray) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _interval(values: np.ndarray, episode: np.ndarray, resamples: int = 2000) -> tuple[float, float] | None:
    """Of a mean over forecasts: those of one episode are alike, so episodes are drawn."""
    known = np.isfinite(values)
    groups = [values[known & (episode == e)] for e in np.unique(episode[known])]
    if not groups:
        return None
    sums, counts = (np.array([f(g) for g in groups], float) for f in (np.sum, len))
    draws = np.random.default_rng(0).multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=resamples)
    low, high = np.quantile((draws @ sums) / np.maximum(draws @ counts, 1), (0.025, 0.975))
    return float(low), float(high)


def lines(subject: Subject, table: Sequence[dict[str, Any]], count: int, episodes: int) -> list[str]:
    """The table as text."""
    unit = subject.unit
    found = [
        f"{count} futures in {episodes} held-out episodes",
        f"{'steps':>5s}  {'PSNR, dB':^42s}  {f'object error, {unit}':^27s}  {f'of those that moved, {unit}':^33s}",
        f"{'':5s}  {'imagined':^24s}{'copied':>8s}{'autoenc.':>10s}"
        + f"  {'imagined':>9s}{'copied':>8s}{'autoenc.':>10s}"
        + f"  {'imagined (median)':>18s}{'copied':>8s}  {'share':>5s}  {'seen':>5s}",
    ]
    for row in table:
        if row["step"] not in SHOWN:
            continue
        i, c, a = (row[way] for way in WAYS)
        low, high = i["psnr_interval"]
        found.append(
            f"{row['step']:5d}  {i['psnr']:6.2f} [{low:5.2f}, {high:5.2f}]   {c['psnr']:8.2f}{a['psnr']:10.2f}"
            f"  {_text(i['error']):>9s}{_text(c['error']):>8s}{_text(a['error']):>10s}"
            f"  {_text(i['error_moved']) + ' (' + _text(i['error_moved_median']) + ')':>18s}{_text(c['error_moved']):>8s}"
            f"  {row['moved_share']:5.0%}  {_share(i['seen_moved']):>5s}"
        )
    found.append("share: of objects that moved; seen: of those in imagined frames. Errors are of what is seen.")
    return found


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _draw(path: Path, forecasts: Forecasts) -> None:
    """Recorded above imagined, a column per shown step."""
    import imageio.v3 as iio

    at = [int(np.flatnonzero(forecasts.steps == step)[0]) for step in SHOWN if step in forecasts.steps]
    rows = []
    for truth, imagined in zip(forecasts.truth[:, at], forecasts.imagined[:, at], strict=True):
        rows += [np.concatenate(list(truth), axis=1), np.concatenate(list(imagined), axis=1)]
        rows.append(np.full((6, rows[0].shape[1], 3), 255, np.uint8))
    iio.imwrite(path, np.concatenate(rows[:-1]))


BENCHMARK = Benchmark("fidelity", __doc__, add_arguments, run, folder="outputs/fidelity-{task}")
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
