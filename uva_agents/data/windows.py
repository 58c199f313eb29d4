"""Windows around a 'now': history frames, future frames, actions; never across an episode's edge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uva_agents.data.episodes import Episodes


@dataclass(frozen=True)
class WindowSpec:
    """Which steps a window takes, relative to now (step 0).

    Args:
        n_frames: frames in the history and in the future.
        stride: control steps between frames. History ends at 0, the future starts at ``stride``.
        action_steps: length of the action chunk.
        action_offset: first action relative to now: 0 is the action taken at the current observation (simulated tasks),
            1 the next recorded row (UMI).
    """

    n_frames: int = 4
    stride: int = 4
    action_steps: int = 16
    action_offset: int = 0

    @property
    def history(self) -> np.ndarray:
        return np.arange(1 - self.n_frames, 1) * self.stride

    @property
    def future(self) -> np.ndarray:
        return np.arange(1, self.n_frames + 1) * self.stride

    @property
    def actions(self) -> np.ndarray:
        return np.arange(self.action_steps) + self.action_offset


class WindowIndex:
    """Every step of every chosen episode as a 'now'; steps outside the episode repeat its first or last one.

    Args:
        episodes: the data.
        spec: the window.
        chosen: episode numbers to take windows from; all by default.
    """

    def __init__(self, episodes: Episodes, spec: WindowSpec, chosen: np.ndarray | None = None) -> None:
        chosen = np.arange(len(episodes)) if chosen is None else np.asarray(chosen)
        starts, ends = episodes.starts[chosen], episodes.ends[chosen]
        self.spec = spec
        self.now = np.concatenate([np.arange(s, e) for s, e in zip(starts, ends, strict=True)])
        lengths = ends - starts
        self.first = np.repeat(starts, lengths)
        self.last = np.repeat(ends - 1, lengths)

    def __len__(self) -> int:
        return len(self.now)

    def steps(self, windows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Dataset rows of ``offsets`` (K,) in ``windows`` (B,): (B, K), clamped to each window's episode."""
        rows = self.now[windows][:, None] + offsets[None]
        clamped: np.ndarray = np.clip(rows, self.first[windows][:, None], self.last[windows][:, None])
        return clamped
