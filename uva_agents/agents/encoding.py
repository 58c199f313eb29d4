"""Network contexts from memories: frames encoded once, history padded with the first frame."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from uva_agents.agents.memory import Memory, remember
from uva_agents.agents.observations import Frames, read_observation
from uva_agents.agents.weights import UVA, FrameCode
from uva_agents.errors import InputError
from uva_agents.model import Context


def read(uva: UVA, obs: Any) -> Frames:
    """Checked observation; see :func:`~uva_agents.agents.observations.read_observation`."""
    return read_observation(obs, uva.bundle.spec, uva.bundle.model.config.proprio_dim)


def frames_kept(uva: UVA) -> int:
    """Newest observations that any decision may look at."""
    return int(1 - min(uva.history_offsets[0], proprio_offsets(uva)[0]))


def proprio_offsets(uva: UVA) -> np.ndarray:
    """Control steps of the proprioception rows relative to now, ending in 0: at the frames, or every step."""
    c = uva.bundle.model.config
    if not c.proprio_dim or c.proprio_steps == c.n_frames:
        return uva.history_offsets
    return np.arange(1 - c.proprio_steps, 1)


def observe(uva: UVA, memory: Memory, frames: Frames, row: int) -> Memory:
    """Memory with one environment's newest observation added."""
    return memory.observed(
        frames.pixels[row],
        None if frames.proprio is None else frames.proprio[row],
        frames_kept(uva),
        wrist=None if frames.wrist is None else frames.wrist[row],
        task=frames.task[row] if frames.task else None,
    )


def context(uva: UVA, memories: Sequence[Memory]) -> tuple[Context, list[Memory]]:
    """Context of a batch of memories, and the memories with the codes that had to be computed.

    Missing history repeats the episode's first frame, as in training.
    """
    c = uva.bundle.model.config
    wanted = [np.maximum(len(m.frames) - 1 + uva.history_offsets, 0) for m in memories]
    updated = _encoded(uva, memories, wanted)
    seen = [[_known(m, j) for j in index] for m, index in zip(updated, wanted, strict=True)]
    proprio = None
    if c.proprio_dim:
        rows = [np.maximum(len(m.proprio) - 1 + proprio_offsets(uva), 0) for m in updated]
        proprio = torch.stack(
            [
                uva.normalize_proprio(np.stack([m.proprio[j] for j in index]), _start(m))
                for m, index in zip(updated, rows, strict=True)
            ]
        )
    return Context(
        history=torch.stack([torch.stack([code.tokens for code in row]) for row in seen]),
        proprio=proprio,
        text=_text(uva, updated),
        history_actions=_history_actions(uva, updated),
        wrist_history=_stacked([[code.wrist for code in row] for row in seen]) if c.wrist_image else None,
        history_points=_stacked([[code.points for code in row] for row in seen]) if c.frame_points else None,
    ), updated


def look_ahead(uva: UVA, memory: Memory, calls: int) -> Memory:
    """Memory with its newest frame encoded, if the decision ``calls`` calls from now will look at it.

    A decision then has only its own frame to encode, and the others are done in calls that would have been idle.
    """
    if -calls not in uva.history_offsets or memory.codes[-1] is not None:
        return memory
    return _encoded(uva, [memory], [np.array([len(memory.frames) - 1])])[0]


def _encoded(uva: UVA, memories: Sequence[Memory], wanted: list[np.ndarray]) -> list[Memory]:
    """Memories with the codes of the wanted frames; only those that are missing are computed."""
    missing = [(i, j) for i, m in enumerate(memories) for j in sorted(set(wanted[i].tolist())) if m.codes[j] is None]
    updated = list(memories)
    if not missing:
        return updated
    wrist = np.stack([memories[i].wrist[j] for i, j in missing]) if uva.bundle.spec.wrist_shape else None
    codes = uva.encode(np.stack([memories[i].frames[j] for i, j in missing]), wrist)
    for i in range(len(memories)):
        mine = [k for k, (row, _) in enumerate(missing) if row == i]
        updated[i] = memories[i].with_codes([missing[k][1] for k in mine], [codes[k] for k in mine])
    return updated


def _text(uva: UVA, memories: Sequence[Memory]) -> torch.Tensor | None:
    """Instruction vectors (B, D); ``None`` when the network takes none or nobody has one."""
    if not uva.bundle.model.config.text_dim:
        return None
    vectors = [uva.embed_task(m.task) for m in memories]
    if all(v is None for v in vectors):
        return None
    if any(v is None for v in vectors):
        raise InputError("some observations of the batch have a 'task' and some have none: give all or none")
    return torch.stack([v for v in vectors if v is not None])


def _history_actions(uva: UVA, memories: Sequence[Memory]) -> torch.Tensor | None:
    """(B, history_steps, A) normalised; ``None`` until every environment has executed that many."""
    c = uva.bundle.model.config
    if not c.history_actions or any(len(m.done) < c.history_steps for m in memories):
        return None
    rows = [uva.normalize_actions(np.stack(m.done[-c.history_steps :]), _now(m)) for m in memories]
    return torch.stack(rows)


def _stacked(rows: list[list[torch.Tensor | None]]) -> torch.Tensor:
    return torch.stack([torch.stack([part for part in row if part is not None]) for row in rows])


def _start(memory: Memory) -> np.ndarray:
    assert memory.start is not None
    return memory.start


def _now(memory: Memory) -> np.ndarray | None:
    return memory.proprio[-1] if memory.proprio else None


def memories_from(uva: UVA, obs: Any, history: Any | None) -> tuple[list[Memory], bool]:
    """See :func:`~uva_agents.agents.memory.remember`."""
    return remember(partial(read, uva), partial(observe, uva), obs, history)


def _known(memory: Memory, index: int) -> FrameCode:
    code = memory.codes[index]
    assert code is not None
    return code
