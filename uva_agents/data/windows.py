"""Windows around a 'now': history frames, future frames, actions; never across an episode's edge."""

from __future__ import annotations

import itertools
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
        rows_per_step: recorded rows in a control step. Above 1 the data are used at a lower rate than they were recorded at,
            and still every row is a 'now'. Offsets are in rows.
    """

    n_frames: int = 4
    stride: int = 4
    action_steps: int = 16
    action_offset: int = 0
    rows_per_step: int = 1

    @property
    def history(self) -> np.ndarray:
        """(n_frames,) rows of the history frames relative to now, ending in 0."""
        return np.arange(1 - self.n_frames, 1) * self.stride * self.rows_per_step

    @property
    def future(self) -> np.ndarray:
        """(n_frames,) rows of the future frames relative to now."""
        return np.arange(1, self.n_frames + 1) * self.stride * self.rows_per_step

    @property
    def actions(self) -> np.ndarray:
        """(action_steps,) rows of the actions relative to now."""
        return (np.arange(self.action_steps) + self.action_offset) * self.rows_per_step

    @property
    def steps(self) -> np.ndarray:
        """(action_steps,) rows of the control steps up to now, the last one being 0."""
        return (np.arange(self.action_steps) + 1 - self.action_steps) * self.rows_per_step

    @property
    def steps_ahead(self) -> np.ndarray:
        """(action_steps,) rows of the control steps after now."""
        return (np.arange(self.action_steps) + 1) * self.rows_per_step

    @property
    def history_actions(self) -> np.ndarray:
        """The actions just before :attr:`actions`, as many."""
        return self.actions - self.action_steps * self.rows_per_step

    def history_choices(self) -> np.ndarray:
        """Every other way to pick history frames that ends now, offsets (n, n_frames) in order, repeats allowed.

        Over 16 steps and 4 frames there are 816. The released code draws one per batch where robots and data differ in rate
        (``different_history_freq``).
        """
        steps = np.arange(1 - self.n_frames * self.stride, 1) * self.rows_per_step
        earlier = itertools.combinations_with_replacement(steps, self.n_frames - 1)
        return np.array([(*chosen, 0) for chosen in earlier])

    def distinct_histories(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Offsets (count, n_frames) of as many different steps of the history, in order; 'now' need not be among them.

        The released code draws one for every sample of UMI's recordings, in training alone.
        """
        steps = np.arange(1 - self.n_frames * self.stride, 1) * self.rows_per_step
        chosen = rng.permuted(np.broadcast_to(steps, (count, len(steps))), axis=1)[:, : self.n_frames]
        return np.sort(chosen, axis=1)


RELEASED_TRIM = (14, 9)
"""'now' is row 15 of 32, and a window may begin 1 row before its episode and end 7 rows after it."""


class WindowIndex:
    """Every step of every chosen episode as a 'now'; steps outside the episode repeat its first or last one.

    Args:
        episodes: the data.
        spec: the window.
        chosen: episode numbers to take windows from; all by default.
        trim: steps at an episode's beginning and end that are no 'now'. The released code's windows of 32 with 1 and 7 rows of
            padding are ``RELEASED_TRIM``.
    """

    def __init__(
        self,
        episodes: Episodes,
        spec: WindowSpec,
        chosen: np.ndarray | None = None,
        trim: tuple[int, int] = (0, 0),
    ) -> None:
        chosen = np.arange(len(episodes)) if chosen is None else np.asarray(chosen)
        starts, ends = episodes.starts[chosen], episodes.ends[chosen]
        self.spec = spec
        nows = [np.arange(s + trim[0], e - trim[1]) for s, e in zip(starts, ends, strict=True)]
        lengths = [len(rows) for rows in nows]
        self.now = np.concatenate(nows)
        self.first = np.repeat(starts, lengths)
        self.last = np.repeat(ends - 1, lengths)
        self.episode = np.repeat(chosen, lengths)

    def __len__(self) -> int:
        return len(self.now)

    def steps(self, windows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Dataset rows of ``offsets`` (K,), or (B, K), in ``windows`` (B,): (B, K), clamped to each window's episode."""
        rows = self.now[windows][:, None] + offsets
        clamped: np.ndarray = np.clip(rows, self.first[windows][:, None], self.last[windows][:, None])
        return clamped
