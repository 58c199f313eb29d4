"""What an agent remembers of one environment, as a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uva_agents.agents.guards import Inputs
from uva_agents.agents.observations import Frames, Instruction
from uva_agents.agents.stateful import Rows
from uva_agents.agents.weights import FrameCode
from uva_agents.errors import InputError


@dataclass(frozen=True)
class Memory:
    """One environment's memory. Updates make new values; nothing is changed in place.

    Attributes:
        seed: of this episode's random stream.
        decisions: chunks sampled so far; (seed, decisions) determines the next chunk's noise.
        frames: the newest frames, oldest first, each uint8 (H, W, 3).
        proprio: the rows that go with them, float32 (P,).
        start: (P,) proprioception at the episode's first observation.
        wrist: frames of the wrist camera that go with ``frames``, where there is one.
        task: the instruction.
        codes: what the network sees of the frames, where it has been computed already: a frame is encoded once.
        queue: (k, A) actions of the current chunk still to execute.
        done: the newest executed actions, each (A,), oldest first.
    """

    seed: int
    decisions: int = 0
    frames: tuple[np.ndarray, ...] = ()
    proprio: tuple[np.ndarray, ...] = ()
    codes: tuple[FrameCode | None, ...] = ()
    queue: np.ndarray | None = None
    start: np.ndarray | None = None
    wrist: tuple[np.ndarray, ...] = ()
    task: Instruction = None
    done: tuple[np.ndarray, ...] = ()

    @property
    def unobserved(self) -> bool:
        """Whether nothing has been observed yet."""
        return not self.frames

    def observed(
        self,
        frame: np.ndarray,
        proprio: np.ndarray | None,
        keep: int,
        *,
        wrist: np.ndarray | None = None,
        task: Instruction = None,
    ) -> Memory:
        """With one more observation, keeping the newest ``keep``."""
        rows = self.proprio if proprio is None else (*self.proprio, proprio)
        return replace(
            self,
            frames=(*self.frames, frame)[-keep:],
            proprio=rows[-keep:],
            start=proprio if self.start is None else self.start,
            wrist=self.wrist if wrist is None else (*self.wrist, wrist)[-keep:],
            task=task,
            codes=(*self.codes, None)[-keep:],
        )

    def acted(self, keep: int) -> Memory:
        """With the queue's first action moved to ``done``, of which the newest ``keep`` stay."""
        assert self.queue is not None
        done = (*self.done, self.queue[0])[-keep:] if keep else ()
        return replace(self, queue=self.queue[1:], done=done)

    def with_codes(self, index: Sequence[int], codes: Sequence[FrameCode]) -> Memory:
        """With the codes of some frames filled in."""
        filled = list(self.codes)
        for i, value in zip(index, codes, strict=True):
            filled[i] = value
        return replace(self, codes=tuple(filled))


def inputs_of(memory: Memory, what: str) -> Inputs:
    """What a decision was made from, for errors."""
    arrays = {
        "pixels": np.stack(memory.frames) if memory.frames else None,
        "pixels_wrist": np.stack(memory.wrist) if memory.wrist else None,
        "proprioception": np.stack(memory.proprio) if memory.proprio else None,
    }
    computed = [part for code in memory.codes if code is not None for part in code.computed]
    return Inputs(what, arrays, computed)


def row_name(i: int, n: int, batched: bool = True) -> str:
    """Of one observation, for errors."""
    return f"observation {i} of {n} (counted from 0)" if batched else "the observation"


class PolicyState(Rows[Memory]):
    """State of a policy over several environments."""

    row_type = Memory


def remember(
    read: Callable[[Any], Frames], observe: Callable[[Memory, Frames, int], Memory], obs: Any, history: Any | None
) -> tuple[list[Memory], bool]:
    """Fresh memories that have seen ``history`` (observations with a leading time axis, oldest first) and then ``obs``.

    Args:
        read: checks observations.
        observe: adds one environment's observation to a memory.

    Returns:
        The memories, and whether the observation was a batch.
    """
    frames = read(obs)
    memories = [Memory(i) for i in range(len(frames))]
    if history is not None:
        past = read(history)
        if frames.batched:
            raise InputError("history= goes with a single observation; call once per environment for a batch")
        for step in range(len(past)):
            memories[0] = observe(memories[0], past, step)
    return [observe(m, frames, i) for i, m in enumerate(memories)], frames.batched
