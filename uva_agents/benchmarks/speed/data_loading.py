"""Opening a large dataset, windows of latents per second from memory and from shards on disk; or the peak memory of an epoch.

    python -m uva_agents.benchmarks.speed.data_loading [--frames 100000] [--threads 2]
    python -m uva_agents.benchmarks.speed.data_loading --epoch-gb 20 --folder DISK          # the peak memory, alone

Writes a synthetic dataset into a temporary folder first, which takes longer than everything that is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uva_agents.benchmarks.skeleton import Benchmark, Outcome
from uva_agents.utils.files import check_folder_target

if TYPE_CHECKING:
    from uva_agents.data.shards import Shards

OPEN_S, WINDOWS_PER_S, SHARE = 2.0, 4000.0, 0.8
"""What is aimed at, on two cores; and from shards, of the rate from memory."""
_SLICES = 10
"""Turns that memory and shards take in being measured: what else the machine does meets both."""
_EPISODE = 200


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """Measure. Status 0 when both aims are met, 1 otherwise."""
    if args.frames < _EPISODE or args.batch < 1 or args.image_size < 8:
        raise ValueError(f"at least {_EPISODE} frames of 8 pixels, and a batch of 1")
    if args.folder is not None:
        check_folder_target(args.folder, space=args.frames * args.image_size**2 // 20)
    with contextlib.ExitStack() as stack:
        folder = Path(args.folder or stack.enter_context(tempfile.TemporaryDirectory()))
        if args.epoch_gb:
            return (yield from _epoch(args, folder))
        frames = args.frames // _EPISODE * _EPISODE
        data, tokens = folder / f"synthetic-{frames}-{args.image_size}.zarr", folder / f"tokens-{frames}.npy"
        if not data.exists():
            began = time.perf_counter()
            make_dataset(data, frames, args.image_size)
            yield f"wrote {frames:,} frames of {args.image_size} x {args.image_size} in {time.perf_counter() - began:.0f} s"
        if not tokens.exists():
            make_tokens(tokens, frames)
        opened, rate, shards = measure(data, tokens, args.batch, args.seconds)
    share = shards.cpu_s / rate.cpu_s
    yield f"batches of {args.batch}"
    yield (
        f"opens in                 {opened.wall_s:8.2f} s           {opened.cpu_s:.2f} s of processor time  (aim: < {OPEN_S:g} s)"
    )
    yield (
        f"windows from memory      {rate.wall_s:8.0f} per second  {rate.cpu_s:.0f} per second of processor time  "
        f"(aim: >= {WINDOWS_PER_S:g})"
    )
    yield (
        f"windows from shards      {shards.wall_s:8.0f} per second  {shards.cpu_s:.0f} per second of processor time: "
        f"{share:.2f} of that from memory  (aim: >= {SHARE:g})"
    )
    named = {"opened": opened, "windows_per_s": rate, "windows_per_s_from_shards": shards}
    rows = {name: dataclasses.asdict(value) for name, value in named.items()}
    met = opened.wall_s < OPEN_S and rate.wall_s >= WINDOWS_PER_S and share >= SHARE
    return Outcome({"frames": frames, "batch": args.batch, "share": share, **rows}, status=0 if met else 1)


def _epoch(args: argparse.Namespace, folder: Path) -> Generator[str, None, Outcome]:
    from uva_agents.benchmarks.speed.large_epoch import MEMORY_GB, lines, measure_epoch, numbers
    from uva_agents.data.frame_store import default_workers

    workers = default_workers()
    check_folder_target(folder, space=int(args.epoch_gb * 1.2e9 * (args.stored_size / args.image_size) ** 2))
    found = measure_epoch(
        folder,
        args.epoch_gb,
        args.image_size,
        stored_side=args.stored_size,
        workers=workers,
        variants=args.variants,
        batch=args.batch,
    )
    yield from lines(found, workers)
    return Outcome(numbers(found), status=0 if found.peak_gb + workers * found.worker_gb < MEMORY_GB else 1)


@dataclass(frozen=True)
class Measured:
    """By the clock, and by the processor time of this process: on a machine that others use, too, only the latter repeats."""

    wall_s: float
    cpu_s: float


def measure(data: Path, tokens: Path, batch_size: int, seconds: float) -> tuple[Measured, Measured, Measured]:
    """Seconds to open dataset, latents and windows; windows per second, in training's order, over ``seconds``: from latents that
    are in memory, and from shards of them.
    """
    from uva_agents.data import LatentWindows, LinearNormalizer, Variant, WindowSpec, open_dataset
    from uva_agents.data.rows import RowArray

    shards = _shards(tokens)
    began, used = time.perf_counter(), time.process_time()
    episodes = open_dataset(data).episodes
    normalizer = LinearNormalizer.fit({name: episodes.arrays[name] for name in ("action", "agent_pos")})

    def windows(rows: RowArray) -> LatentWindows:
        return LatentWindows(episodes, [rows], [Variant()], normalizer, WindowSpec())

    stored = windows(shards.array())
    opened = Measured(time.perf_counter() - began, time.process_time() - used)
    served = [windows(np.load(tokens)), stored]
    order = stored.order(batch_size)
    for each in served:
        each.batch(*order.at(0))  # shuffling the epoch is part of no step
    rates = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    for _ in range(_SLICES):
        for each, rate in zip(served, rates, strict=True):
            began, used = time.perf_counter(), time.process_time()
            while time.perf_counter() - began < seconds / _SLICES:
                each.batch(*order.at(1 + int(rate[0])))
                rate[0] += 1
            rate[1] += time.perf_counter() - began
            rate[2] += time.process_time() - used
    memory, disk = (Measured(steps * batch_size / wall, steps * batch_size / cpu) for steps, wall, cpu in rates)
    return opened, memory, disk


def _shards(tokens: Path) -> Shards:
    """The same latents in shards, as the store keeps them."""
    from uva_agents.data.latent_store import token_plan
    from uva_agents.data.shards import Shards

    values = np.load(tokens, mmap_mode="r")
    shards = Shards(tokens.with_suffix(".shards"), token_plan(len(values), values.shape[1:]))
    with shards.writing() as missing:
        for number in missing:
            begin, end = shards.plan.bounds(number)
            shards.write(number, [values[begin:end]])
    return shards


def make_dataset(path: Path, frames: int, side: int) -> None:
    """A replay buffer of episodes of moving squares; written beside and renamed."""
    from uva_agents.data import write_replay_buffer_by_episode

    partial = path.with_name(f"{path.name}.partial")
    write_replay_buffer_by_episode(partial, _episodes(frames, side), attributes={"control_hz": 10.0})
    partial.rename(path)


def _episodes(frames: int, side: int) -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    size = max(1, side // 8)
    for _ in range(frames // _EPISODE):
        positions = np.clip(np.cumsum(rng.normal(0, 4, (_EPISODE, 2)), axis=0) + 256, 0, 512).astype(np.float32)
        images = np.full((_EPISODE, side, side, 3), 255, np.uint8)
        for image, (x, y) in zip(images, positions / 512 * (side - size), strict=True):
            image[int(y) : int(y) + size, int(x) : int(x) + size] = (200, 30, 30)
        yield {"img": images, "action": np.roll(positions, -1, axis=0), "agent_pos": positions}


def make_tokens(path: Path, frames: int) -> None:
    """Latents of the shape that the shipped model's autoencoder gives, as the cache stores them."""
    from uva_agents.training.uva.recipes import pusht_nano

    config = pusht_nano().model
    shape = (frames, config.tokens_per_frame, config.token_dim)
    rng = np.random.default_rng(0)
    np.save(path, rng.standard_normal(shape, dtype=np.float32).astype(np.float16))


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=int, default=100_000, help="default %(default)s")
    parser.add_argument("--image-size", type=int, default=96, help="side of the pictures (default %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="windows in a batch (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of serving windows (default %(default)s)")
    text = (
        "measure the peak memory of an epoch over so many gigabytes of frames instead; takes as much disk, and minutes"
    )
    parser.add_argument("--epoch-gb", type=float, default=0.0, metavar="GB", help=text)
    parser.add_argument(
        "--stored-size", type=int, default=96, help="side of the network's pictures, in that (default 96)"
    )
    parser.add_argument("--variants", type=int, default=2, help="of the data, in that (default %(default)s)")
    parser.add_argument("--folder", default=None, help="keep the synthetic dataset here, and use it again")


BENCHMARK = Benchmark("data-loading", __doc__, _add_arguments, run)
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
