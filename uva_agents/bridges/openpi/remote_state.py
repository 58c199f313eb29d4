"""What a client remembers of its environments while a server decides for them, as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RemoteRow:
    """One environment's half of an episode. Updates make new values; nothing is changed in place.

    Attributes:
        seed: of the episode.
        name: what the server keeps its half under.
        decisions: answers so far.
        executed: actions handed out of the newest answer.
        queue: (k, A) those still to hand out.
        seen: newest observations before the current one, as sent, oldest first.
        fresh: how many of them the server has not been told of.
        connection: number of the connection on which the server knows the episode.
        form: shapes of what the newest answer was about.
    """

    seed: int
    name: str = ""
    decisions: int = 0
    executed: int = 0
    queue: np.ndarray | None = None
    seen: tuple[dict[str, Any], ...] = ()
    fresh: int = 0
    connection: int = 0
    form: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def hungry(self) -> bool:
        """Whether the next action needs an answer."""
        return self.queue is None or len(self.queue) == 0

    def observed(self, sent: dict[str, Any], keep: int) -> RemoteRow:
        """With one more observation that the server has not been told of."""
        seen = (*self.seen, sent)[-keep:] if keep else ()
        return replace(self, seen=seen, fresh=min(self.fresh + 1, len(seen)))

    def answered(self, queue: np.ndarray, sent: dict[str, Any], connection: int, keep: int) -> RemoteRow:
        """With an answer, and the observation that was asked about."""
        seen = (*self.seen, sent)[-keep:] if keep else ()
        return replace(
            self,
            queue=queue,
            decisions=self.decisions + 1,
            executed=0,
            seen=seen,
            fresh=0,
            connection=connection,
            form=_form(sent),
        )

    def acted(self) -> tuple[np.ndarray, RemoteRow]:
        """The next action, and the row without it."""
        assert self.queue is not None
        return self.queue[0], replace(self, queue=self.queue[1:], executed=self.executed + 1)


@dataclass(frozen=True)
class RemoteState:
    """State over several environments: an :class:`~uva_agents.agents.base.AgentState`."""

    rows: tuple[RemoteRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> RemoteRow:
        return self.rows[index]

    @property
    def decisions(self) -> np.ndarray:
        """(n,) answers so far, per row."""
        return np.array([row.decisions for row in self.rows])

    def restarted(self, mask: np.ndarray, seeds: Sequence[int] | None = None) -> RemoteState:
        """Rows where ``mask`` is true start a new episode; without ``seeds`` they continue from their own seed plus 1."""
        mask = np.asarray(mask, dtype=bool).reshape(-1)
        if len(mask) != len(self.rows):
            raise ValueError(f"mask has {len(mask)} entries for {len(self.rows)} environments")
        rows = list(self.rows)
        for i in np.flatnonzero(mask):
            if seeds is not None:
                rows[i] = RemoteRow(int(seeds[i]))
            elif rows[i].decisions:
                # Untouched rows keep their seed: stable-baselines3 marks the very first observation as an episode start too.
                rows[i] = RemoteRow(rows[i].seed + 1)
        return RemoteState(tuple(rows))


def _form(sent: Mapping[str, Any]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, np.shape(value)) for name, value in sorted(sent.items()))


def check_form(sent: Mapping[str, Any], form: tuple[tuple[str, tuple[int, ...]], ...]) -> None:
    """The server accepted the last decision's observation; one that differs would be refused only at the next decision."""
    found = _form(sent)
    if found != form:
        raise ValueError(f"the observation is {dict(found)}, and the episode's earlier ones were {dict(form)}")
