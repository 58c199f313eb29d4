"""Frames that are made when they are looked at, for data larger than anything that a test would write."""

import os
from pathlib import Path

import numpy as np

from uva_agents.data import Episodes, LazyFrames


class MadeFrames:
    """A source of frames that differ from one another, from their numbers alone."""

    def __init__(
        self, count: int, side: int = 8, *, frozen: tuple[int, int] = (0, 0), flag: Path | None = None
    ) -> None:
        self.count, self.side, self.frozen, self.flag = count, side, frozen, flag
        self.identity = f"made:{count}:{side}:{frozen}"

    def __len__(self) -> int:
        return self.count

    def read(self, rows: np.ndarray) -> np.ndarray:
        begin, end = self.frozen
        rows = np.where((rows >= begin) & (rows < end), begin, rows)
        base = np.random.default_rng(0).integers(0, 256, (self.side, self.side, 3), dtype=np.uint8)
        return base[None] + (rows[:, None, None, None] * np.array([1, 3, 7])).astype(np.uint8)


class DeadlyFrames(MadeFrames):
    """Ends the process that reads row 100: always, or, with a flag, once."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        if 100 in rows and (self.flag is None or not self.flag.exists()):
            if self.flag is not None:
                self.flag.touch()
            os._exit(9)
        return super().read(rows)


class DamagedFrames(MadeFrames):
    """Row 100 cannot be read."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        if 100 in rows:
            raise ValueError("the picture is damaged")
        return super().read(rows)


def lazy(source: MadeFrames) -> LazyFrames:
    return LazyFrames([source], (source.side, source.side, 3))


def made_episodes(source: MadeFrames, length: int = 50) -> Episodes:
    """Episodes of these frames, and of positions that move."""
    n = len(source)
    t = np.arange(n)[:, None] / 7
    position = (256 + 200 * np.sin(t + np.array([0.0, 1.0]))).astype(np.float32)
    ends = np.minimum(np.arange(1, -(-n // length) + 1) * length, n)
    arrays = {"pixels": lazy(source).as_array(), "action": position, "agent_pos": position}
    return Episodes(arrays, ends, source="made")
