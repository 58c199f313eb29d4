"""Network contexts from memories: frames encoded once, history padded with the first frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from uva_agents.agents.core import UVA, FrameCode
from uva_agents.agents.memory import Memory
from uva_agents.agents.observations import Frames, read_observation
from uva_agents.model import Context


def read(uva: UVA, obs: Any) -> Frames:
    """Checked observation; see :func:`~uva_agents.agents.observations.read_observation`."""
    return read_observation(obs, uva.bundle.spec, uva.bundle.model.config.proprio_dim)


def frames_kept(uva: UVA) -> int:
    """Newest frames that any decision may look at."""
    return int(1 - uva.history_offsets[0])


def observe(uva: UVA, memory: Memory, frames: Frames, row: int) -> Memory:
    """Memory with one environment's newest observation added."""
    proprio = None if frames.proprio is None else frames.proprio[row]
    return memory.observed(frames.pixels[row], proprio, frames_kept(uva))


def context(uva: UVA, memories: Sequence[Memory]) -> tuple[Context, list[Memory]]:
    """Context of a batch of memories, and the memories with the codes that had to be computed.

    Missing history repeats the episode's first frame, as in training.
    """
    wanted = [np.maximum(len(m.frames) - 1 + uva.history_offsets, 0) for m in memories]
    missing = [(i, j) for i, m in enumerate(memories) for j in sorted(set(wanted[i].tolist())) if m.codes[j] is None]
    updated = list(memories)
    if missing:
        codes = uva.encode(np.stack([memories[i].frames[j] for i, j in missing]))
        for i in range(len(memories)):
            mine = [k for k, (row, _) in enumerate(missing) if row == i]
            updated[i] = memories[i].with_codes([missing[k][1] for k in mine], [codes[k] for k in mine])
    seen = [[_known(m, j) for j in index] for m, index in zip(updated, wanted, strict=True)]
    history = torch.stack([torch.stack([code.tokens for code in row]) for row in seen])
    points = proprio = None
    if uva.bundle.model.config.frame_points:
        points = torch.stack([torch.stack([code.points for code in row if code.points is not None]) for row in seen])
    if uva.bundle.model.config.proprio_dim:
        rows = np.stack([np.stack([m.proprio[j] for j in index]) for m, index in zip(updated, wanted, strict=True)])
        proprio = uva.normalize_proprio(rows)
    return Context(history=history, proprio=proprio, history_points=points), updated


def memories_from(uva: UVA, obs: Any, history: Any | None, seed: int = 0) -> tuple[list[Memory], bool]:
    """Fresh memories that have seen ``history`` (observations with a leading time axis, oldest first) and then ``obs``.

    Returns the memories and whether the observation was a batch.
    """
    frames = read(uva, obs)
    memories = [Memory(seed + i) for i in range(len(frames))]
    if history is not None:
        past = read(uva, history)
        if frames.batched:
            raise ValueError("history= goes with a single observation; call once per environment for a batch")
        for step in range(len(past)):
            memories[0] = observe(uva, memories[0], past, step)
    return [observe(uva, m, frames, i) for i, m in enumerate(memories)], frames.batched


def _known(memory: Memory, index: int) -> FrameCode:
    code = memory.codes[index]
    assert code is not None
    return code
