"""What a client remembers of its environments while a server decides for them, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uva_agents.agents.stateful import Rows


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
        unsent: how many of them the server does not know of.
        connection: number of the connection on which the server knows the episode.
        form: shapes of what the newest answer was about.
    """

    seed: int
    name: str = ""
    decisions: int = 0
    executed: int = 0
    queue: np.ndarray | None = None
    seen: tuple[dict[str, Any], ...] = ()
    unsent: int = 0
    connection: int = 0
    form: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def unobserved(self) -> bool:
        """Whether no answer has been given yet."""
        return not self.decisions

    @property
    def needs_replan(self) -> bool:
        """Whether the next action needs an answer."""
        return self.queue is None or len(self.queue) == 0

    def observed(self, sent: dict[str, Any], keep: int) -> RemoteRow:
        """With one more observation that the server does not know of."""
        seen = (*self.seen, sent)[-keep:] if keep else ()
        return replace(self, seen=seen, unsent=min(self.unsent + 1, len(seen)))

    def answered(self, queue: np.ndarray, sent: dict[str, Any], connection: int, keep: int) -> RemoteRow:
        """With an answer, and the observation that was asked about."""
        seen = (*self.seen, sent)[-keep:] if keep else ()
        return replace(
            self,
            queue=queue,
            decisions=self.decisions + 1,
            executed=0,
            seen=seen,
            unsent=0,
            connection=connection,
            form=_form(sent),
        )

    def acted(self) -> tuple[np.ndarray, RemoteRow]:
        """The next action, and the row without it."""
        assert self.queue is not None
        return self.queue[0], replace(self, queue=self.queue[1:], executed=self.executed + 1)


class RemoteState(Rows[RemoteRow]):
    """State over several environments."""

    row_type = RemoteRow


def _form(sent: Mapping[str, Any]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, np.shape(value)) for name, value in sorted(sent.items()))


def check_form(sent: Mapping[str, Any], form: tuple[tuple[str, tuple[int, ...]], ...]) -> None:
    """The server accepted the last decision's observation; one that differs would be refused only at the next decision."""
    found = _form(sent)
    if found != form:
        raise ValueError(f"the observation is {dict(found)}, and the episode's earlier ones were {dict(form)}")
