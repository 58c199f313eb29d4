"""Network contexts from memories: frames encoded once, history padded with the first frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from uva_agents.agents.memory import Memory, remember
from uva_agents.agents.observations import Frames, read_observation
from uva_agents.agents.weights import FrameCode, Weights
from uva_agents.errors import InputError
from uva_agents.model import Context


class ObservationEncoder:
    """Observations to contexts of the network, through memories.

    Args:
        weights: that encode.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    @property
    def frames_kept(self) -> int:
        """Newest observations that any decision may look at."""
        return int(1 - min(self.weights.history_offsets[0], self.proprio_offsets[0]))

    @property
    def proprio_offsets(self) -> np.ndarray:
        """Control steps of the proprioception rows relative to now, ending in 0: at the frames, or every step."""
        c = self.weights.config
        if not c.proprio_dim or c.proprio_steps == c.n_frames:
            return self.weights.history_offsets
        return np.arange(1 - c.proprio_steps, 1)

    def read(self, obs: Any) -> Frames:
        """Checked observation; see :func:`~uva_agents.agents.observations.read_observation`."""
        return read_observation(obs, self.weights.spec, self.weights.config.proprio_dim)

    def observe(self, memory: Memory, frames: Frames, row: int) -> Memory:
        """Memory with one environment's newest observation added."""
        return memory.observed(
            frames.pixels[row],
            None if frames.proprio is None else frames.proprio[row],
            self.frames_kept,
            wrist=None if frames.wrist is None else frames.wrist[row],
            task=frames.task[row] if frames.task else None,
        )

    def memories(self, obs: Any, history: Any | None) -> tuple[list[Memory], bool]:
        """See :func:`~uva_agents.agents.memory.remember`."""
        return remember(self.read, self.observe, obs, history)

    def context(self, memories: Sequence[Memory]) -> tuple[Context, list[Memory]]:
        """Context of a batch of memories, and the memories with the codes that had to be computed.

        Missing history repeats the episode's first frame, as in training.
        """
        c = self.weights.config
        wanted = [np.maximum(len(m.frames) - 1 + self.weights.history_offsets, 0) for m in memories]
        updated = self._encoded(memories, wanted)
        codes = [[_known(m, j) for j in index] for m, index in zip(updated, wanted, strict=True)]
        return Context(
            history=torch.stack([torch.stack([code.tokens for code in row]) for row in codes]),
            proprio=self._proprio(updated) if c.proprio_dim else None,
            text=self._text(updated),
            history_actions=self._history_actions(updated),
            wrist_history=_stacked([[code.wrist for code in row] for row in codes]) if c.wrist_image else None,
            history_keypoints=_stacked([[code.keypoints for code in row] for row in codes])
            if c.num_keypoints
            else None,
        ), updated

    def prefetch(self, memory: Memory, calls: int) -> Memory:
        """Memory with its newest frame encoded, if the decision ``calls`` calls from now will look at it.

        A decision then has only its own frame to encode, and the others are done in calls that would have been idle.
        """
        if -calls not in self.weights.history_offsets or memory.codes[-1] is not None:
            return memory
        return self._encoded([memory], [np.array([len(memory.frames) - 1])])[0]

    def _encoded(self, memories: Sequence[Memory], wanted: list[np.ndarray]) -> list[Memory]:
        """Memories with the codes of the wanted frames; only those that are missing are computed."""
        missing = [
            (i, j) for i, m in enumerate(memories) for j in sorted(set(wanted[i].tolist())) if m.codes[j] is None
        ]
        updated = list(memories)
        if not missing:
            return updated
        wrist = np.stack([memories[i].wrist[j] for i, j in missing]) if self.weights.spec.wrist_shape else None
        codes = self.weights.encode(np.stack([memories[i].frames[j] for i, j in missing]), wrist)
        for i in range(len(memories)):
            own = [k for k, (row, _) in enumerate(missing) if row == i]
            updated[i] = memories[i].with_codes([missing[k][1] for k in own], [codes[k] for k in own])
        return updated

    def _proprio(self, memories: Sequence[Memory]) -> torch.Tensor:
        """(B, proprio_steps, P) normalised, relative to each episode's first row where that matters."""
        rows = [np.maximum(len(m.proprio) - 1 + self.proprio_offsets, 0) for m in memories]
        return torch.stack(
            [
                self.weights.normalize_proprio(np.stack([m.proprio[j] for j in index]), _start(m))
                for m, index in zip(memories, rows, strict=True)
            ]
        )

    def _text(self, memories: Sequence[Memory]) -> torch.Tensor | None:
        """Instruction vectors (B, D); ``None`` when the network takes none or nobody has one."""
        if not self.weights.config.text_dim:
            return None
        vectors = [self.weights.embed_task(m.task) for m in memories]
        if all(v is None for v in vectors):
            return None
        if any(v is None for v in vectors):
            raise InputError("some observations of the batch have a 'task' and some have none: give all or none")
        return torch.stack([v for v in vectors if v is not None])

    def _history_actions(self, memories: Sequence[Memory]) -> torch.Tensor | None:
        """(B, history_steps, A) normalised; ``None`` until every environment has executed that many."""
        c = self.weights.config
        if not c.history_actions or any(len(m.done) < c.history_steps for m in memories):
            return None
        rows = [self.weights.normalize_actions(np.stack(m.done[-c.history_steps :]), _now(m)) for m in memories]
        return torch.stack(rows)


def _stacked(rows: list[list[torch.Tensor | None]]) -> torch.Tensor:
    return torch.stack([torch.stack([part for part in row if part is not None]) for row in rows])


def _start(memory: Memory) -> np.ndarray:
    assert memory.start is not None
    return memory.start


def _now(memory: Memory) -> np.ndarray | None:
    return memory.proprio[-1] if memory.proprio else None


def _known(memory: Memory, index: int) -> FrameCode:
    code = memory.codes[index]
    assert code is not None
    return code
