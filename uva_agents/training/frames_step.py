"""The first step of every run that looks at frames: decode them once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from accelerate import PartialState

from uva_agents.data import FrameStore, LazyFrames
from uva_agents.data.frame_store import ArrayFrames
from uva_agents.training.sources import Part
from uva_agents.utils.images import resize_frames
from uva_agents.utils.progress import progress_bar


@dataclass(frozen=True)
class FramesStep:
    """Frames of all cameras of all datasets into shards on disk, at the network's size, by several processes.

    Args:
        parts: the datasets, as they were opened.
        take: what is done with them when their frames come from shards.
        store: where those are.
        moving: arrays that move when the robot does, see :class:`~uva_agents.data.FrameStore`.
        show: a progress bar.
    """

    parts: Sequence[Part]
    take: Callable[[list[Part]], None]
    store: FrameStore
    moving: tuple[str, ...]
    show: bool
    name: str = "frames"
    needs: tuple[str, ...] = ()
    makes: str = "frames"

    def done(self) -> bool:
        """Whether all shards are there."""
        return not any(self.store.shards(part.episodes, name).missing() for part, name in self._cameras())

    def begun(self) -> bool:
        """Whether some camera was begun."""
        return any(self.store.shards(part.episodes, name).folder.exists() for part, name in self._cameras())

    def load(self) -> None:
        """Open them, and make what is missing."""
        # Of several processes, one makes them while the others wait for its lock: without a limit, unlike at a barrier.
        self.take([self._stored(part) for part in self.parts])

    def run(self) -> bool:
        """The same."""
        self.load()
        return True

    def rehearse(self) -> int:
        """A few frames of every camera stand for all of them; bytes that all of them take."""
        written, taken = 0, []
        for part in self.parts:
            arrays = dict(part.episodes.arrays)
            for name in part.cameras:
                plan = self.store.shards(part.episodes, name).plan
                written += plan.rows * plan.row_bytes
                arrays[name] = repeated_frames(arrays[name], (plan.shape[0], plan.shape[1])).as_array()
            taken.append(dataclasses.replace(part, episodes=dataclasses.replace(part.episodes, arrays=arrays)))
        self.take(taken)
        return written

    def _cameras(self) -> list[tuple[Part, str]]:
        return [(part, name) for part in self.parts for name in part.cameras]

    def _stored(self, part: Part) -> Part:
        episodes = part.episodes
        for name in part.cameras:
            camera = "" if name == "pixels" else f" ({name})"
            with progress_bar(disable=not (self.show and PartialState().is_main_process)) as bar:
                task = bar.add_task(f"frames of {episodes.source}{camera}", total=episodes.steps)
                stored = self.store.get(
                    part.episodes,
                    name,
                    opens=None if part.reopens is None else partial(part.reopens.frames, name),
                    moving=self.moving,
                    progress=lambda done, total, bar=bar, task=task: bar.update(task, completed=done, total=total),  # type: ignore[misc]
                )
                bar.update(task, completed=episodes.steps)
            episodes = dataclasses.replace(episodes, arrays={**episodes.arrays, name: stored.arrays[name]})
        return dataclasses.replace(part, episodes=episodes)


def repeated_frames(frames: np.ndarray, shape: tuple[int, int], count: int = 64) -> LazyFrames:
    """As many frames (N, H, W, 3) at this height and width, the first few of them again and again."""
    sample = np.asarray(frames[: min(count, len(frames))])
    if sample.shape[1:3] != shape:
        sample = resize_frames(sample, shape[0])
    return LazyFrames([ArrayFrames(sample)], (*shape, 3), rows=np.arange(len(frames)) % len(sample))
