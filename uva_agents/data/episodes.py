"""Episodes: what every reader produces and every window is cut from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from uva_agents.data.lazy import as_lazy
from uva_agents.data.selection import format_episodes
from uva_agents.errors import DataError


@dataclass(frozen=True)
class Episodes:
    """Time-major arrays of many episodes, one after another.

    Canonical keys: ``pixels`` and other cameras ``pixels_NAME`` uint8 (N, H, W, 3), ``action`` float32 (N, A), absent in video
    without actions, ``agent_pos`` float32 (N, P), and any other float32 (N, ...) low-dimensional key.

    Args:
        arrays: arrays that share their first axis N; frames may be :class:`~uva_agents.data.lazy.LazyFrames`.
        ends: (E,) index one past each episode's last step, increasing; the last equals N.
        source: where they came from, for messages.
        numbers: of the episodes where they came from, for messages; from 0 by default.

    Raises:
        DataError: no episode, unequal lengths, bad ends, non-finite numbers, pixels that are not uint8 (N, H, W, 3).
    """

    arrays: Mapping[str, np.ndarray]
    ends: np.ndarray
    source: str = "data"
    numbers: Sequence[int] | None = None

    def __post_init__(self) -> None:
        ends = np.asarray(self.ends, dtype=np.int64)
        object.__setattr__(self, "ends", ends)
        if not self.arrays or ends.size == 0:
            raise DataError(f"{self.source}: the dataset is empty (no episode in it)")
        lengths = {key: len(value) for key, value in self.arrays.items()}
        if len(set(lengths.values())) != 1:
            raise DataError(f"{self.source}: arrays have unequal lengths {lengths}; they must share the time axis")
        n = next(iter(lengths.values()))
        if n == 0:
            raise DataError(f"{self.source}: the dataset is empty (0 steps)")
        if (np.diff(ends, prepend=0) <= 0).any() or ends[-1] != n:
            raise DataError(
                f"{self.source}: episode_ends must increase and end at the number of steps ({n}), got {ends[:3]}...{ends[-1]}"
            )
        for key, value in self.arrays.items():
            if key.startswith("pixels"):
                if value.dtype != np.uint8 or value.ndim != 4 or value.shape[-1] != 3:
                    raise DataError(f"{self.source}: {key} must be uint8 (N, H, W, 3), got {value.dtype} {value.shape}")
            elif np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
                raise DataError(self._not_finite(key, value, n))

    def _not_finite(self, key: str, value: np.ndarray, steps: int) -> str:
        rows = np.flatnonzero(~np.isfinite(value).reshape(steps, -1).all(1))
        episodes = np.unique(np.searchsorted(self.ends, rows, side="right"))
        known = [int(e) if self.numbers is None else int(self.numbers[e]) for e in episodes]
        step = int(rows[0] - (self.ends[episodes[0] - 1] if episodes[0] else 0))
        return (
            f"{self.source}: {key!r} has NaN or infinity, first at step {rows[0]} (episode {known[0]}), its row {step}; "
            f"repair the recording or leave {'that episode' if len(known) == 1 else 'those episodes'} out: "
            f"--episodes '{format_episodes(known, others=True)}'"
        )

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def steps(self) -> int:
        """Number of time steps N."""
        return int(self.ends[-1])

    @property
    def starts(self) -> np.ndarray:
        """(E,) first step of each episode."""
        return np.concatenate([[0], self.ends[:-1]])

    def select(self, episodes: np.ndarray) -> Episodes:
        """A copy with only these episodes, in this order."""
        starts = self.starts
        index = np.concatenate([np.arange(starts[e], self.ends[e]) for e in episodes])
        ends = np.cumsum([self.ends[e] - starts[e] for e in episodes])
        own = episodes if self.numbers is None else [self.numbers[e] for e in episodes]
        arrays = {k: _rows(v, index) for k, v in self.arrays.items()}
        return Episodes(arrays, ends, self.source, tuple(int(number) for number in own))

    def downsampled(self, every: int) -> Episodes:
        """A copy with each episode's first step and every ``every``-th after it."""
        if every < 1:
            raise ValueError(f"every={every}: at least 1 (keep all steps)")
        kept = [np.arange(s, e, every) for s, e in zip(self.starts, self.ends, strict=True)]
        index = np.concatenate(kept)
        ends = np.cumsum([len(rows) for rows in kept])
        return Episodes({k: _rows(v, index) for k, v in self.arrays.items()}, ends, self.source, self.numbers)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of shapes and contents (of frames on disk: of the files' names, sizes and times), to key caches by."""
        digest = hashlib.sha256(self.ends.tobytes())
        for key in sorted(self.arrays):
            value = self.arrays[key]
            if (frames := as_lazy(value)) is not None:
                digest.update(f"{key}{frames.fingerprint}".encode())
                continue
            value = np.ascontiguousarray(value)
            digest.update(f"{key}{value.dtype}{value.shape}".encode())
            digest.update(value.data)
        return digest.hexdigest()[:16]

    def frames_fingerprint(self, key: str) -> str:
        """Of a camera's frames and where episodes end: what latents of them are known by, whatever numbers go with them."""
        return Episodes({key: self.arrays[key]}, self.ends).fingerprint


def _rows(value: np.ndarray, index: np.ndarray) -> np.ndarray:
    frames = as_lazy(value)
    rows: np.ndarray = value[index] if frames is None else frames.select(index).as_array()
    return rows


def held_out_split(n_episodes: int, held_out: int, seed: int = 42) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out episode numbers, both sorted.

    Raises:
        ValueError: nothing would be left to train on.
    """
    if not 0 <= held_out < n_episodes:
        raise ValueError(f"cannot hold out {held_out} of {n_episodes} episodes: at least one must remain to train on")
    order = np.random.default_rng(seed).permutation(n_episodes)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def split_by(n_episodes: int, held_out: int | float, seed: int = 42) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out episode numbers: so many are held out, or, below 1, this share of them.

    Raises:
        ValueError: see :func:`held_out_split`; a share of a single episode.
    """
    if isinstance(held_out, int) or held_out >= 1 or held_out == 0:
        return held_out_split(n_episodes, int(held_out), seed)
    if n_episodes < 2:
        raise ValueError("cannot hold out a share of 1 episode: at least one must remain to train on")
    return released_validation_split(n_episodes, held_out, seed)


def released_validation_split(n_episodes: int, ratio: float = 0.02, seed: int = 42) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation episode numbers of the released code, both sorted; at least one on either side."""
    count = min(max(1, round(n_episodes * ratio)), n_episodes - 1)
    held = np.sort(np.random.default_rng(seed).choice(n_episodes, size=count, replace=False))
    return np.setdiff1d(np.arange(n_episodes), held), held
