"""Imagined futures, from whatever imagined them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uva_agents.agents.arguments import integer
from uva_agents.errors import InputError


@dataclass(frozen=True)
class Rollout:
    """Imagined futures of S candidates, at the F frames that were asked for.

    Attributes:
        frames: uint8 (S, F, H, W, 3); (S, 0, H, W, 3) where nothing was decoded.
        latents: tensor (S, F, tokens, channels), network units; ``None`` from a simulator.
        frame_steps: (F,) control steps from now at which the frames lie.
        actions: (S, T, A) environment units: what was done, or what was sampled along with the frames (``imagine``).
        all_steps: control steps of every frame that could have been asked for; ``None`` if those are ``frame_steps``.
        now: uint8 (H, W, 3), the frame from which the futures start, where there is one.
        keypoints: (S, F, K, 2) their positions, in the units of the data; ``None`` from weights that move no keypoints.
        states: per candidate the simulator's state at each frame; ``None`` from a network.
    """

    frames: np.ndarray
    latents: Any
    frame_steps: np.ndarray
    actions: np.ndarray | None = None
    all_steps: np.ndarray | None = None
    now: np.ndarray | None = None
    states: tuple[tuple[Any, ...], ...] | None = None
    keypoints: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def decoded(self) -> bool:
        """Whether there are frames to look at."""
        return int(self.frames.shape[1]) == len(self.frame_steps)

    def pictures(self) -> np.ndarray:
        """Its frames uint8 (S, F, H, W, 3), of an objective that judges pictures.

        Raises:
            InputError: they were not decoded.
        """
        if not self.decoded or not len(self.frame_steps):
            raise InputError(
                "the futures were not decoded: roll out with decode=True, at the frames that the objective requires"
            )
        return self.frames

    def select(self, frames: Sequence[int] | None) -> Rollout:
        """Only these frames.

        Args:
            frames: indices among all frames of the future, negative ones from the end; ``None`` means all.

        Raises:
            ValueError: one of them does not exist, or was not asked for when the futures were imagined.
        """
        steps = self.frame_steps if self.all_steps is None else self.all_steps
        wanted = steps[frame_indices(frames, len(steps))]
        if np.array_equal(wanted, self.frame_steps):
            return self
        place = {int(step): i for i, step in enumerate(self.frame_steps)}
        missing = [int(step) for step in wanted if int(step) not in place]
        if missing:
            raise InputError(
                f"the rollout has no frames at control steps {missing}, only at {self.frame_steps.tolist()}: "
                "ask for them with frames= (None for all)"
            )
        at = [place[int(step)] for step in wanted]
        return replace(
            self,
            frames=self.frames[:, at] if self.decoded else self.frames,
            latents=None if self.latents is None else self.latents[:, at],
            frame_steps=self.frame_steps[at],
            all_steps=steps,
            states=None if self.states is None else tuple(tuple(row[i] for i in at) for row in self.states),
            keypoints=None if self.keypoints is None else self.keypoints[:, at],
        )

    def take(self, rows: Sequence[int] | np.ndarray) -> Rollout:
        """Only these candidates, in this order."""
        rows = np.asarray(rows, dtype=int)
        return replace(
            self,
            frames=self.frames[rows],
            latents=None if self.latents is None else self.latents[rows.tolist()],
            actions=None if self.actions is None else self.actions[rows],
            states=None if self.states is None else tuple(self.states[i] for i in rows),
            keypoints=None if self.keypoints is None else self.keypoints[rows],
        )

    @staticmethod
    def concatenate(parts: Sequence[Rollout]) -> Rollout:
        """Candidates of several rollouts from the same moment at the same frames."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        latents = None
        if first.latents is not None:
            import torch

            latents = torch.cat([part.latents for part in parts])
        return replace(
            first,
            frames=np.concatenate([part.frames for part in parts]),
            latents=latents,
            actions=None if first.actions is None else np.concatenate([np.asarray(part.actions) for part in parts]),
            states=None if first.states is None else tuple(row for part in parts for row in part.states or ()),
            keypoints=None
            if first.keypoints is None
            else np.concatenate([np.asarray(part.keypoints) for part in parts]),
        )


def frame_indices(frames: Sequence[int] | None, count: int) -> list[int]:
    """Indices among ``count`` frames, ascending and each once; negative ones count from the end, ``None`` means all.

    Raises:
        ValueError: an index out of range.
    """
    if frames is None:
        return list(range(count))
    try:
        frames = [integer(i, "a frame") for i in frames]
    except (TypeError, InputError) as error:
        raise InputError(f"frames={frames!r} must be a sequence of integers, or None for all") from error
    wrong = [i for i in frames if not -count <= i < count]
    if wrong:
        raise InputError(f"frames={list(frames)}: the future has {count} frames, {wrong[0]} is not one of them")
    return sorted({int(i) % count for i in frames})
