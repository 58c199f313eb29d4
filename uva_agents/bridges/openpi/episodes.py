"""When a client that never says so begins a new episode."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from uva_agents.errors import InputError


@dataclass(frozen=True)
class NewEpisodes:
    """What begins a new episode of a client that names none, as openpi's, whose ``reset()`` sends nothing.

    A message that asks for a reset always does, and :class:`RemotePolicy <uva_agents.bridges.openpi.RemotePolicy>` names its
    episodes: for it nothing changes. By default a connection is one episode.

    Attributes:
        stateless: every request is an episode of one observation: nothing is remembered, as in openpi's own servers.
        after_s: so does a pause of this many seconds between an answer and the next request.

    Raises:
        InputError: both, or a pause that is none.
    """

    stateless: bool = False
    after_s: float | None = None

    def __post_init__(self) -> None:
        if self.after_s is not None and not (math.isfinite(self.after_s) and self.after_s > 0):
            raise InputError(f"a new episode begins after a positive number of seconds, got {self.after_s}")
        if self.stateless and self.after_s is not None:
            raise InputError(
                "stateless: every request is an episode already; leave the seconds after which one begins out"
            )

    def after_pause(self, pause_s: float) -> bool:
        """Whether a request that came ``pause_s`` after the last answer belongs to a new episode."""
        return self.after_s is not None and pause_s >= self.after_s

    def metadata(self) -> dict[str, Any]:
        """As clients are told."""
        return {"stateless": self.stateless, "new_episode_after_s": self.after_s}

    def __str__(self) -> str:
        if self.stateless:
            return "every request is an episode"
        if self.after_s is not None:
            return f"an episode ends with its connection, or after {self.after_s:g} s without requests"
        return "an episode ends with its connection"
