"""Frames of a dataset, decoded once and brought to the network's size, in shards on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from uva_agents.data.episodes import Episodes
from uva_agents.data.frozen_frames import check_frozen, equal_runs
from uva_agents.data.lazy import LazyFrames, as_lazy
from uva_agents.data.selection import format_episodes
from uva_agents.data.shard_plan import LARGEST_SHARD, ShardPlan
from uva_agents.data.shards import ShardedArray, Shards
from uva_agents.errors import DataError, InputError, MachineError
from uva_agents.utils.images import resize_frames
from uva_agents.utils.workers import run_jobs

_LOG = logging.getLogger(__name__)
_TOGETHER_BYTES = 64 << 20
"""Of frames as they are recorded, decoded together."""
_RESIZED_TOGETHER = 32
"""Frames, in floating point meanwhile."""
_ALONE_BYTES = 512 << 20
"""Less than this is decoded in this process: it takes less time than starting others."""
_MOST_WORKERS = 4
_TRIES = 2

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""


def default_workers() -> int:
    """As many as there are cores for this process, up to 4: each takes 300 MB, or 700 for films of 480 x 640."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_WORKERS, cores)


class StoredFrames:
    """Frames in shards, as a source of :class:`~uva_agents.data.lazy.LazyFrames`. Known by content, wherever they lie."""

    def __init__(self, array: ShardedArray) -> None:
        self.array = array
        self.identity = array.shards.digest

    def __len__(self) -> int:
        return len(self.array)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """See :meth:`~uva_agents.data.lazy.FrameSource.read`."""
        return self.array[rows]


class FrameStore:
    """Frames in folders of shards, one for each camera of each dataset, known by the recording's files and the size.

    Args:
        folder: where they live.
        side: of the square frames that a network sees, antialiased as by agents; as recorded when absent.
        enlarge: whether frames of fewer pixels become as large; otherwise they stay as recorded.
        workers: processes that decode; 0 for this one.
        largest_shard: bytes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        side: int | None,
        enlarge: bool = True,
        workers: int | None = None,
        largest_shard: int = LARGEST_SHARD,
    ) -> None:
        self.folder, self.side, self.enlarge = folder, side, enlarge
        self.workers = default_workers() if workers is None else workers
        if self.workers < 0:
            raise InputError(f"workers={workers}: 0 (this process decodes) or more")
        self.largest_shard = largest_shard

    def shards(self, episodes: Episodes, name: str = "pixels") -> Shards:
        """Where a camera's frames are, or will be."""
        frames = _lazy(episodes, name)
        side, shape = self.side, frames.shape[1:]
        if side is not None and (self.enlarge or shape[0] * shape[1] > side * side):
            shape = (side, side, 3)
        plan = ShardPlan.of(len(frames), shape, "uint8", largest=self.largest_shard)
        parts = [frames.fingerprint, *shape]
        return Shards(self.folder / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20], plan)

    def get(
        self,
        episodes: Episodes,
        name: str = "pixels",
        *,
        opens: Callable[[], LazyFrames] | None = None,
        moving: tuple[str, ...] = (),
        progress: Progress | None = None,
    ) -> Episodes:
        """The same episodes with a camera's frames from shards, which are made where they are missing.

        Args:
            name: of the camera.
            opens: gives the same frames in another process, for which it is pickled. Without it, this process decodes.
            moving: arrays that tell whether something moves while the camera stands still; see
                :func:`~uva_agents.data.frozen_frames.check_frozen`.

        Raises:
            DataError: a frame cannot be read, or the camera froze in an episode; both are named.
            MachineError: the disk is too full, or the processes that decode die.
        """
        shards = self.shards(episodes, name)
        if shards.missing():
            with shards.writing() as missing:  # by now, another process may have made them
                self._decode(shards, missing, episodes, name, opens, progress)
        array = shards.array()
        runs = [shards.note(number).get("equal", []) for number in range(shards.plan.count)]
        check_frozen(episodes, runs, name, moving, lambda row: np.array_equal(array[row], array[row - 1]))
        frames = LazyFrames([StoredFrames(array)], tuple(shards.plan.shape))  # type: ignore[arg-type]
        return Episodes({**episodes.arrays, name: frames.as_array()}, episodes.ends, episodes.source, episodes.numbers)

    def _decode(
        self,
        shards: Shards,
        missing: list[int],
        episodes: Episodes,
        name: str,
        opens: Callable[[], LazyFrames] | None,
        progress: Progress | None,
    ) -> None:
        frames, total = _lazy(episodes, name), len(episodes.arrays[name])
        job = Decoding(shards, name, episodes.source, episodes.ends, _numbers(episodes), frames.fingerprint)

        def report(number: int) -> None:
            left.discard(number)
            if progress is not None:
                progress(total - sum(end - begin for begin, end in map(shards.plan.bounds, left)), total)

        left = set(missing)
        size = sum(end - begin for begin, end in map(shards.plan.bounds, missing)) * int(np.prod(frames.shape[1:]))
        if opens is None or not self.workers or size < _ALONE_BYTES:
            for number in missing:
                job.write(frames, number)
                report(number)
            return
        tries = dict.fromkeys(missing, 0)
        while left:
            failed: dict[int, str] = {}
            setup, workers = partial(job.worker, opens), min(self.workers, len(left))
            for ended in run_jobs(setup, sorted(left), workers=workers, method="spawn", import_main=False):
                if ended.error is None:
                    report(ended.job)
                    continue
                if not ended.error.startswith("the worker process died"):
                    raise _as_error(ended.error)
                tries[ended.job] += 1
                failed[ended.job] = ended.error
                if tries[ended.job] >= _TRIES:
                    raise MachineError(job.died(ended.job, ended.error))
            if failed:
                _LOG.warning("%s: %s; once more", episodes.source, "; ".join(set(failed.values())))


@dataclass(frozen=True)
class Decoding:
    """Everything that a process must know to write any shard of a camera's frames.

    Attributes:
        shards: what is written.
        name: of the camera.
        source: the dataset, for messages.
        ends: of its episodes.
        numbers: of the episodes where they came from.
        fingerprint: of the frames.
    """

    shards: Shards
    name: str
    source: str
    ends: np.ndarray
    numbers: tuple[int, ...] = field(repr=False)
    fingerprint: str

    def worker(self, opens: Callable[[], LazyFrames]) -> Callable[[int], None]:
        """In another process: opens the dataset there, and gives what writes a shard.

        Raises:
            DataError: the dataset is another one by now.
        """
        import torch

        from uva_agents.data.video import read_forwards

        torch.set_num_threads(1)
        read_forwards()
        frames = opens()
        if frames.fingerprint != self.fingerprint:
            raise DataError(f"{self.source} changed while it was read: start again")
        return partial(self.write, frames)

    def write(self, frames: LazyFrames, number: int) -> None:
        """Decode and write a shard.

        Raises:
            DataError: a frame cannot be read; the message names the episode.
            MachineError: it cannot be written.
        """
        note: dict[str, list[tuple[int, int]]] = {}
        self.shards.write(
            number, equal_runs(self._chunks(frames, number), self.shards.plan.bounds(number)[0], note), note
        )

    def _chunks(self, frames: LazyFrames, number: int) -> Iterator[np.ndarray]:
        begin, end = self.shards.plan.bounds(number)
        together = max(1, min(512, _TOGETHER_BYTES // int(np.prod(frames.shape[1:]))))
        for first in range(begin, end, together):
            last = min(first + together, end)
            try:
                found = frames[first:last]
            except ValueError:
                found = self._by_episode(frames, first, last)
            if found.shape[1:] != self.shards.plan.shape:
                found = resize_frames(found, self.shards.plan.shape[0], batch_size=_RESIZED_TOGETHER)
            yield found

    def _by_episode(self, frames: LazyFrames, first: int, last: int) -> np.ndarray:
        parts = []
        for episode in range(*self._episodes(first, last)):
            begin = first if episode == 0 else max(first, int(self.ends[episode - 1]))
            try:
                parts.append(frames[begin : min(last, int(self.ends[episode]))])
            except ValueError as error:
                known = self.numbers[episode]
                raise DataError(
                    f"{self.source}: {self.name} of episode {known} cannot be read: {error}; repair it, or leave that episode out: "
                    f"--episodes '!{known}' (uva data inspect --every-frame finds all that are damaged)"
                ) from error
        return np.concatenate(parts)

    def died(self, number: int, how: str) -> str:
        """What is said of a shard whose processes died."""
        begin, end = self.shards.plan.bounds(number)
        known = [self.numbers[episode] for episode in range(*self._episodes(begin, end))]
        which = f"episode {known[0]}" if len(known) == 1 else f"episodes {known[0]} to {known[-1]}"
        return (
            f"{self.source}: decoding {self.name} of {which} failed twice: {how}. If memory was not short, a file may be damaged: "
            f"leave those out: "
            f"--episodes '{format_episodes(known, others=True)}'"
        )

    def _episodes(self, first: int, last: int) -> tuple[int, int]:
        """Episodes that rows are of: the first, and one past the last."""
        found = np.searchsorted(self.ends, [first, last - 1], side="right")
        return int(found[0]), int(found[1]) + 1


def _lazy(episodes: Episodes, name: str) -> LazyFrames:
    """A camera's frames, on disk or in memory."""
    if (frames := as_lazy(episodes.arrays[name])) is not None:
        return frames
    array = episodes.arrays[name]
    return LazyFrames([ArrayFrames(array)], (array.shape[1], array.shape[2], array.shape[3]))


class ArrayFrames:
    """Frames in memory, as a source."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames
        self.identity = hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest()

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """See :meth:`~uva_agents.data.lazy.FrameSource.read`."""
        found: np.ndarray = self.frames[rows]
        return found


def _numbers(episodes: Episodes) -> tuple[int, ...]:
    return tuple(range(len(episodes))) if episodes.numbers is None else tuple(int(n) for n in episodes.numbers)


def _as_error(text: str) -> Exception:
    """What a worker process told of an error of its own."""
    kind, _, message = text.partition(": ")
    known: dict[str, type[Exception]] = {"DataError": DataError, "MachineError": MachineError}
    return known[kind](message) if kind in known else MachineError(text)
