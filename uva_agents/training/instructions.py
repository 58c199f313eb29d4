"""Instructions of datasets as vectors that a network takes, and what turns them into these vectors again at inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from uva_agents.checkpoints.text import InstructionTable, TextEncoder
from uva_agents.data.selection import format_episodes
from uva_agents.errors import DataError
from uva_agents.training.recipe import Instructions
from uva_agents.training.sources import Part

GIVEN = "task_embedding"
"""Canonical name of an array of given vectors."""


@dataclass(frozen=True)
class Texts:
    """Vectors of all episodes.

    Attributes:
        module: what is saved with the weights; ``None`` where vectors were given without the words.
        vectors: of each dataset, float32 (E, D).
    """

    module: InstructionTable | TextEncoder | None
    vectors: tuple[np.ndarray, ...]

    @property
    def dim(self) -> int:
        """D."""
        return int(self.vectors[0].shape[1])


def read_instructions(parts: Sequence[Part], source: Instructions, encoder: TextEncoder | None = None) -> Texts:
    """Of every episode of every dataset.

    Args:
        parts: the datasets; those of video alone may be without instructions, which are then unknown.
        source: see :class:`~uva_agents.training.recipe.DataConfig`.
        encoder: CLIP's text tower, for ``"clip"``.

    Raises:
        DataError: an episode has none, or vectors change within one.
    """
    if source == "given":
        return _given(parts)
    words = [_words(part) for part in parts]
    known = sorted({text for texts in words for text in texts if text is not None})
    if not known:
        raise DataError(f"{parts[0].episodes.source} has no instructions: train without them (instructions = 'none')")
    if source == "clip":
        if encoder is None:
            raise DataError("instructions are to be read by CLIP: give its text tower with --text-encoder FOLDER")
        module: InstructionTable | TextEncoder = encoder
    else:
        module = InstructionTable(_different(known))
    vectors = {text: module.embed(text).detach().cpu().numpy() for text in known}
    size = len(next(iter(vectors.values())))
    unknown = np.full(size, np.nan, np.float32)
    return Texts(module, tuple(np.stack([unknown if t is None else vectors[t] for t in texts]) for texts in words))


def _different(texts: Sequence[str]) -> list[str]:
    """Without those that differ from another in spaces or case alone."""
    return list({" ".join(text.split()).casefold(): text for text in reversed(texts)}.values())[::-1]


def _words(part: Part) -> list[str | None]:
    count = len(part.episodes)
    if part.tasks is None and not part.has_actions:
        return [None] * count
    tasks = part.tasks or ("",) * count
    missing = [i for i, text in enumerate(tasks) if not text.strip()]
    if len(missing) == count and not part.has_actions:
        return [None] * count
    if missing:
        numbers = part.episodes.numbers
        named = [missing[i] if numbers is None else int(numbers[missing[i]]) for i in range(len(missing))]
        raise DataError(
            f"{part.episodes.source}: {len(missing)} of {count} episodes have no instruction, first episode {named[0]}: add it, "
            f"leave those out (--episodes '{format_episodes(named, others=True)}'), or train without instructions "
            "(--instructions none)"
        )
    return list(tasks)


def _given(parts: Sequence[Part]) -> Texts:
    found: list[np.ndarray] = []
    table: dict[str, np.ndarray] = {}
    for part in parts:
        rows = part.episodes.arrays.get(GIVEN)
        if rows is None:
            raise DataError(
                f"{part.episodes.source} has no vectors of instructions ({GIVEN}): name their array in fields"
            )
        first = rows[part.episodes.starts]
        lengths = np.diff(part.episodes.ends, prepend=0)
        changing = np.flatnonzero((rows != np.repeat(first, lengths, axis=0)).any(1))
        if len(changing):
            episode = int(np.searchsorted(part.episodes.ends, changing[0], side="right"))
            raise DataError(f"{part.episodes.source}: {GIVEN} changes within episode {episode}: split it there")
        found.append(np.asarray(first, np.float32))
        if part.tasks is not None:
            table |= {text: vector for text, vector in zip(part.tasks, found[-1], strict=True) if text.strip()}
    if len({vectors.shape[1] for vectors in found}) > 1:
        raise DataError(f"vectors of instructions differ in size: {', '.join(str(v.shape[1]) for v in found)}")
    module = None
    if table:
        texts = _different(sorted(table))
        module = InstructionTable(texts, torch.from_numpy(np.stack([table[text] for text in texts])))
    return Texts(module, tuple(found))
