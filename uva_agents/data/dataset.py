"""Training batches: windows over cached latents, drawn in a reproducible, resumable order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from uva_agents.data.augment import Variant, move_coordinates
from uva_agents.data.episodes import Episodes
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.data.rows import JoinedRows, RowArray
from uva_agents.data.windows import WindowIndex, WindowSpec


@dataclass(frozen=True)
class Batch:
    """One batch of windows, normalised. Shapes as in :class:`uva_agents.model.Context`.

    Attributes:
        history, future: (B, T, S, C) float32 tokens.
        actions: (B, action_steps, A).
        proprio: (B, T, P) at the history frames, or ``None``.
        frame_state: (B, 2, T, R) low-dimensional state at history and future frames, or ``None``.
        history_keypoints, future_keypoints: (B, T, 2K) keypoints read from the frames, or ``None``.
        history_actions: (B, action_steps, A) that led here, or ``None``.
        has_actions: bool (B,), false for samples of video without actions, which have zeros; ``None`` when all have them.
    """

    history: Tensor
    future: Tensor
    actions: Tensor
    proprio: Tensor | None
    frame_state: Tensor | None
    history_keypoints: Tensor | None = None
    future_keypoints: Tensor | None = None
    history_actions: Tensor | None = None
    has_actions: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """On a device."""

        def move(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device, non_blocking=True)

        return Batch(
            self.history.to(device),
            self.future.to(device),
            self.actions.to(device),
            move(self.proprio),
            move(self.frame_state),
            move(self.history_keypoints),
            move(self.future_keypoints),
            move(self.history_actions),
            move(self.has_actions),
        )


class LatentWindows:
    """Windows over several cached variants of a dataset. A whole batch is one fancy-index per array, no worker processes.

    Args:
        episodes: the data (its pixels are not used).
        tokens: float16 (N, S, C) per variant, as the network sees them, in memory or in shards.
        variants: what was done to each.
        normalizer: has ``action``, and the proprioception and frame state keys.
        spec: the window.
        chosen: episode numbers to use.
        proprio_key: low-dimensional key given as proprioception.
        frame_state_keys: keys concatenated into the frame state target.
        world_size: see :func:`~uva_agents.data.augment.apply_variant`.
        keypoints: float32 (N, 2K) per variant, read from its frames.
        history_actions: whether batches have the actions before now.
        action_dim: numbers in an action, for episodes without actions: they train the video task only.

    Raises:
        ValueError: tokens and variants do not match; no actions and no ``action_dim``.
    """

    def __init__(
        self,
        episodes: Episodes,
        tokens: Sequence[RowArray],
        variants: Sequence[Variant],
        normalizer: LinearNormalizer,
        spec: WindowSpec,
        *,
        chosen: np.ndarray | None = None,
        proprio_key: str | None = "agent_pos",
        frame_state_keys: Sequence[str] = (),
        world_size: float = 512.0,
        keypoints: Sequence[np.ndarray] | None = None,
        history_actions: bool = False,
        action_dim: int | None = None,
    ) -> None:
        if len(tokens) != len(variants):
            raise ValueError(f"{len(tokens)} latent arrays for {len(variants)} variants")
        self.index = WindowIndex(episodes, spec, chosen)
        self.spec = spec
        self.history_actions = history_actions
        self.variants = len(variants)
        self.rows_per_variant = episodes.steps
        self.tokens = JoinedRows(tokens)
        self.keypoints = None if keypoints is None else torch.from_numpy(np.concatenate(keypoints))
        low: dict[str, list[Tensor]] = {}
        self.has_actions = "action" in episodes.arrays
        if not self.has_actions and action_dim is None:
            raise ValueError(f"{episodes.source} has no actions: pass action_dim to train the video task on it")
        keys = [*(["action"] if self.has_actions else []), *([proprio_key] if proprio_key else []), *frame_state_keys]
        for variant in variants:
            moved = move_coordinates(episodes, variant, world_size=world_size)
            for key in set(keys):
                low.setdefault(key, []).append(normalizer.normalize(key, torch.from_numpy(moved[key])))
        joined = {key: torch.cat(parts) for key, parts in low.items()}
        # Rows that are never looked at: one for all of them, expanded.
        blank = torch.zeros(1, action_dim or 0).expand(len(self.tokens), -1)
        self.actions = joined["action"] if self.has_actions else blank
        self.proprio = joined[proprio_key] if proprio_key else None
        self.frame_state = torch.cat([joined[k] for k in frame_state_keys], dim=-1) if frame_state_keys else None

    def __len__(self) -> int:
        return len(self.index)

    def order(self, batch_size: int, *, seed: int = 0, rank: int = 0, world: int = 1) -> EpochOrder:
        """What training sees, step by step."""
        return EpochOrder(len(self), self.variants, batch_size, seed, rank, world)

    def batch(
        self,
        windows: np.ndarray | Sequence[int],
        variant: np.ndarray | int = 0,
        *,
        tokens: bool = True,
        history: np.ndarray | None = None,
    ) -> Batch:
        """The windows with these numbers (B,), each from its variant.

        Args:
            tokens: without them, frames have no rows (0, ...).
            history: offsets (T,) of the history frames, instead of the window's own.
        """
        windows = np.asarray(windows)
        base = (np.asarray(variant) * self.rows_per_variant).reshape(-1, 1)
        rows = {
            name: torch.from_numpy(self.index.steps(windows, offsets) + base)
            for name, offsets in (
                ("history", self.spec.history if history is None else history),
                ("future", self.spec.future),
                ("action", self.spec.actions),
                ("history_action", self.spec.history_actions),
            )
        }
        frame_state = None
        if self.frame_state is not None:
            frame_state = torch.stack([self.frame_state[rows["history"]], self.frame_state[rows["future"]]], dim=1)
        return Batch(
            history=self.tokens[rows["history"]].float() if tokens else self.tokens[:0].float(),
            future=self.tokens[rows["future"]].float() if tokens else self.tokens[:0].float(),
            actions=self.actions[rows["action"]],
            proprio=None if self.proprio is None else self.proprio[rows["history"]],
            frame_state=frame_state,
            history_keypoints=None if self.keypoints is None else self.keypoints[rows["history"]],
            future_keypoints=None if self.keypoints is None else self.keypoints[rows["future"]],
            history_actions=self._history_actions(rows["history_action"]),
            has_actions=None if self.has_actions else torch.zeros(len(windows), dtype=torch.bool),
        )

    def _history_actions(self, rows: Tensor) -> Tensor | None:
        if not self.history_actions:
            return None
        # NaN is what the network reads as unknown.
        return self.actions[rows] if self.has_actions else torch.full_like(self.actions[rows], float("nan"))


@lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, windows: int, variants: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, epoch])
    return rng.permutation(windows), rng.integers(0, variants, windows)


@dataclass(frozen=True)
class EpochOrder:
    """Which window and variant each step of training sees: a pure function of (seed, step), so a resumed run repeats it.

    Args:
        windows: number of windows.
        variants: number of variants.
        batch_size: per process.
        seed: of the order.
        rank, world: this process, and how many share each step.
    """

    windows: int
    variants: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.windows < self.batch_size * self.world:
            raise ValueError(
                f"{self.windows} windows do not fill one batch of {self.batch_size} x {self.world}: lower batch_size"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, a batch per process each; windows that fill no whole step are left out."""
        return self.windows // (self.batch_size * self.world)

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Windows and variants (batch_size,) of a global step; the two change together with the epoch."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order, variant = _epoch(self.seed, epoch, self.windows, self.variants)
        begin = (within * self.world + self.rank) * self.batch_size
        chosen = order[begin : begin + self.batch_size]
        return chosen, variant[chosen]
