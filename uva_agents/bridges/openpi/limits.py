"""What a server lets its clients do."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a server. A client that breaks one loses its own request or connection, nobody else's.

    Attributes:
        message_bytes: size of one message from a client.
        items: maps' entries and lists' elements in one message, together.
        depth: maps and lists inside each other.
        connections: clients at the same time.
        waiting: requests waiting while another is worked on; one more is told that the server is busy.
        episodes: that one connection may have under way (``RemotePolicy`` has one per environment).
        samples: chunks in one answer to ``sample``.
        open_s: for a new connection to say what it wants.
        keepalive_s: between signs of life that are asked for, and until one is missed. A message that takes longer than both
            together to arrive ends its connection, and so does a peer that has gone without saying so.
        idle_s: without a request, whatever the signs of life.
        send_s: for a client to take an answer.
        close_s: for what is being worked on, when the server stops.
    """

    message_bytes: int = 32 * 2**20
    items: int = 10_000
    depth: int = 8
    connections: int = 32
    waiting: int = 16
    episodes: int = 64
    samples: int = 256
    open_s: float = 10.0
    keepalive_s: float = 20.0
    idle_s: float = 3600.0
    send_s: float = 20.0
    close_s: float = 5.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), 0 if field.name in ("waiting", "close_s") else None
            if value < 0 or (least is None and value == 0):
                raise ValueError(f"{field.name} must be {'at least 0' if least == 0 else 'positive'}, got {value}")
