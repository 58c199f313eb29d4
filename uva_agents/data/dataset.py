"""Training batches: windows over cached latents, drawn in a reproducible, resumable order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from uva_agents.data.augment import Variant, move_coordinates
from uva_agents.data.episodes import Episodes
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.data.rows import JoinedRows, RowArray
from uva_agents.data.transforms import Transform
from uva_agents.data.window_numbers import WindowNumbers
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
        frames, wrist_frames: uint8 (B, 2 T, H, W, 3), the cameras' frames of history and future, where they are encoded in the
            training step; then ``history`` and ``future`` have no rows.
        has_actions: bool (B,), false for samples of video without actions, which have zeros; ``None`` when all have them.
        wrist_history, wrist_future: (B, T, S, C) tokens of the second camera, or ``None``.
        text: (B, D) vectors of instructions, or ``None``.
        proprio_target: (B, action_steps, Q) proprioception of the steps after now, or ``None``.
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
    wrist_history: Tensor | None = None
    wrist_future: Tensor | None = None
    text: Tensor | None = None
    proprio_target: Tensor | None = None
    frames: Tensor | None = None
    wrist_frames: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """On a device."""
        values = {name: value for name, value in vars(self).items() if value is not None}
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in values.items()})


@dataclass(frozen=True)
class Extras:
    """What only some networks take of a dataset beside frames, actions and proprioception.

    Attributes:
        wrist: float16 (N, S, C) tokens of the second camera, per variant.
        text: (E, D) vector of each episode's instruction; NaN where it is unknown.
        action_transforms, proprio_transforms: conventions, see :mod:`uva_agents.data.transforms`.
        every_step: proprioception of every control step up to now, as many as actions, instead of that at the frames.
        proprio_target: numbers of future proprioception that are predicted, the last ones of each row; 0 for none.
        trim: see :class:`~uva_agents.data.windows.WindowIndex`.
        pose_delay: rows from an action's own to the one that says where the robot was then; the window's ``action_offset`` by
            default.
        start_key: array with the pose at the start of each row's episode; the episode's first row says it otherwise.
    """

    wrist: Sequence[RowArray] | None = None
    text: np.ndarray | None = None
    action_transforms: tuple[Transform, ...] = ()
    proprio_transforms: tuple[Transform, ...] = ()
    every_step: bool = False
    proprio_target: int = 0
    trim: tuple[int, int] = (0, 0)
    pose_delay: int | None = None
    start_key: str | None = None


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
        world_size: see :func:`~uva_agents.data.augment.apply_variant`; ``None`` leaves coordinates where they are.
        keypoints: float32 (N, 2K) per variant, read from its frames.
        history_actions: whether batches have the actions before now.
        action_dim: numbers in an action, for episodes without actions: they train the video task only.
        extras: what only some networks take.

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
        world_size: float | None = 512.0,
        keypoints: Sequence[np.ndarray] | None = None,
        history_actions: bool = False,
        action_dim: int | None = None,
        extras: Extras | None = None,
    ) -> None:
        if len(tokens) != len(variants):
            raise ValueError(f"{len(tokens)} latent arrays for {len(variants)} variants")
        self.extras = extras = extras or Extras()
        self.index = WindowIndex(episodes, spec, chosen, extras.trim)
        self.spec = spec
        self.history_actions = history_actions
        self.variants = len(variants)
        self.rows_per_variant = episodes.steps
        self.tokens = JoinedRows(tokens)
        self.wrist = None if extras.wrist is None else JoinedRows(extras.wrist)
        self.keypoints = None if keypoints is None else torch.from_numpy(np.concatenate(keypoints))
        self.text = None if extras.text is None else torch.from_numpy(np.asarray(extras.text, np.float32))
        self.has_actions = "action" in episodes.arrays
        if not self.has_actions and action_dim is None:
            raise ValueError(f"{episodes.source} has no actions: pass action_dim to train the video task on it")
        self.action_dim = action_dim or 0
        moved = [move_coordinates(episodes, variant, world_size=world_size) for variant in variants]
        firsts = np.repeat(episodes.starts, np.diff(episodes.ends, prepend=0))
        self.actions = self.proprio = None
        if self.has_actions:
            self.actions = WindowNumbers(
                moved,
                "action",
                normalizer,
                extras.action_transforms,
                pose_key=proprio_key,
                delay=spec.action_offset if extras.pose_delay is None else extras.pose_delay,
                firsts=firsts,
            )
            self.action_dim = self.actions.size
        if proprio_key:
            self.proprio = WindowNumbers(
                moved,
                proprio_key,
                normalizer,
                extras.proprio_transforms,
                pose_key=proprio_key,
                start_key=extras.start_key,
            )
        states = [WindowNumbers(moved, key, normalizer).joined() for key in frame_state_keys]
        self.frame_state = torch.cat(states, dim=-1) if states else None

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
        start_noise: np.ndarray | None = None,
    ) -> Batch:
        """The windows with these numbers (B,), each from its variant.

        Args:
            tokens: without them, frames have no rows (0, ...).
            history: offsets (T,) of the history frames, or (B, T), instead of the window's own.
            start_noise: (B, 6) added to the pose at the start of each window's episode, where proprioception refers to it.
        """
        windows = np.asarray(windows)
        base = (np.asarray(variant) * self.rows_per_variant).reshape(-1, 1)
        history = self.spec.history if history is None else history
        now, start = (self._rows(windows, base, "now"), self._rows(windows, base, "first"))

        def at(offsets: np.ndarray) -> np.ndarray:
            rows: np.ndarray = self.index.steps(windows, offsets) + base
            return rows

        past, ahead = at(history), at(self.spec.future)
        frames = torch.from_numpy(past), torch.from_numpy(ahead)
        history_tokens, future_tokens = _frame_tokens(self.tokens, past, ahead, wanted=tokens)
        wrist_history = wrist_future = None
        if self.wrist is not None:
            wrist_history, wrist_future = _frame_tokens(self.wrist, past, ahead, wanted=tokens)
        frame_state = None
        if self.frame_state is not None:
            frame_state = torch.stack([self.frame_state[rows] for rows in frames], dim=1)
        proprio = target = None
        if self.proprio is not None:
            steps = at(self.spec.steps) if self.extras.every_step else past
            proprio = self.proprio.take(steps, now, start, start_noise)
            if kept := self.extras.proprio_target:
                target = self.proprio.take(at(self.spec.steps_ahead), now, start, start_noise)[..., -kept:]
        return Batch(
            history=history_tokens,
            future=future_tokens,
            actions=self._actions(at(self.spec.actions), now, start),
            proprio=proprio,
            frame_state=frame_state,
            history_keypoints=None if self.keypoints is None else self.keypoints[frames[0]],
            future_keypoints=None if self.keypoints is None else self.keypoints[frames[1]],
            history_actions=self._history_actions(at(self.spec.history_actions), now, start),
            has_actions=None if self.has_actions else torch.zeros(len(windows), dtype=torch.bool),
            wrist_history=wrist_history,
            wrist_future=wrist_future,
            text=None if self.text is None else self.text[torch.from_numpy(self.index.episode[windows])],
            proprio_target=target,
        )

    def _rows(self, windows: np.ndarray, base: np.ndarray, what: str) -> np.ndarray:
        """Row of each window's 'now' or of its episode's 'first' step, among those of all variants."""
        rows: np.ndarray = getattr(self.index, what)[windows] + base[:, 0]
        return rows

    def _actions(self, rows: np.ndarray, now: np.ndarray, start: np.ndarray) -> Tensor:
        if self.actions is None:
            return torch.zeros(*rows.shape, self.action_dim)
        return self.actions.take(rows, now, start)

    def _history_actions(self, rows: np.ndarray, now: np.ndarray, start: np.ndarray) -> Tensor | None:
        if not self.history_actions:
            return None
        if self.actions is None:  # NaN is what the network reads as unknown
            return torch.full((*rows.shape, self.action_dim), float("nan"))
        return self.actions.take(rows, now, start)


def _frame_tokens(rows: JoinedRows, past: np.ndarray, ahead: np.ndarray, *, wanted: bool) -> tuple[Tensor, Tensor]:
    """float32 tokens of these frames (B, T) each; without rows (0, ...) where they are not wanted."""
    if not wanted:
        none = rows[:0].float()
        return none, none
    # Taken together: for shards on disk, every look has its price.
    found = rows[np.concatenate([past.reshape(-1), ahead.reshape(-1)])].float()
    history, future = found[: past.size], found[past.size :]
    return history.view(*past.shape, *found.shape[1:]), future.view(*ahead.shape, *found.shape[1:])


@lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, windows: int, variants: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, epoch])
    return rng.permutation(windows), rng.integers(0, variants, windows)


@dataclass(frozen=True)
class EpochOrder:
    """Which window and variant each step of training sees: a pure function of (seed, step), so a resumed run repeats it.

    Where there are fewer windows than a step takes, epochs follow one another within it.

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
        if self.windows < 1:
            raise ValueError("there is no window to train on")

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, a batch per process each; windows that fill no whole step are left out."""
        return max(1, self.windows // (self.batch_size * self.world))

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Windows and variants (batch_size,) of a global step; the two change together with the epoch."""
        together = self.batch_size * self.world
        if self.windows < together:
            return self._through_epochs(step * together + self.rank * self.batch_size)
        epoch, within = divmod(step, self.steps_per_epoch)
        order, variant = _epoch(self.seed, epoch, self.windows, self.variants)
        begin = (within * self.world + self.rank) * self.batch_size
        chosen = order[begin : begin + self.batch_size]
        return chosen, variant[chosen]

    def _through_epochs(self, first: int) -> tuple[np.ndarray, np.ndarray]:
        places = np.arange(first, first + self.batch_size)
        windows, variants = np.empty_like(places), np.empty_like(places)
        for epoch in range(places[0] // self.windows, places[-1] // self.windows + 1):
            here = places // self.windows == epoch
            order, variant = _epoch(self.seed, epoch, self.windows, self.variants)
            windows[here] = order[places[here] % self.windows]
            variants[here] = variant[windows[here]]
        return windows, variants
