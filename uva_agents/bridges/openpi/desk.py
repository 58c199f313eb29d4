"""From a message to its answer: read, decided in the worker's thread, and what goes wrong put into words."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode

from uva_agents.bridges.openpi.decision_thread import DecisionThread
from uva_agents.bridges.openpi.limits import Limits
from uva_agents.bridges.openpi.session import ClientSession
from uva_agents.bridges.openpi.wire import WireError, pack, unpack
from uva_agents.errors import InputError, UVAError

log = logging.getLogger("uva_agents.serve")

_BIG = 2**18
"""Bytes of a message that is read in a thread, because reading it would hold up the event loop."""
_LONGEST_TEXT = 2000
"""Letters of an error: it may quote what a client sent."""

Send = Callable[[ServerConnection, bytes | str], Awaitable[None]]


class Desk:
    """Answers the messages of all clients, one decision at a time.

    Attributes:
        worker: makes the decisions.
        busy: messages that are being answered.
        closing: whether requests are turned away.
    """

    def __init__(self, limits: Limits, send: Send) -> None:
        self.worker = DecisionThread()
        self.busy, self.closing = 0, False
        self._limits, self._send = limits, send

    async def answer(
        self, session: ClientSession, connection: ServerConnection, message: bytes | str, previous_s: float | None
    ) -> bytes | str | None:
        """A frame, text where something is wrong; ``None`` where the connection has been ended instead."""
        try:
            if isinstance(message, str):
                raise WireError("requests are binary messages, and this one is text")
            read = functools.partial(unpack, message, self._limits)
            request = await asyncio.to_thread(read) if len(message) > _BIG else read()
        except WireError as error:
            # Whoever speaks another language will go on to do so.
            await self._send(connection, f"WireError: {error}")
            await connection.close(CloseCode.INVALID_DATA, "not a message of this wire")
            return None
        if self.closing:
            return "busy: the server is stopping"
        if self.worker.unfinished > self._limits.waiting:
            return f"busy: {self.worker.unfinished - 1} requests are waiting already, try again in a moment"
        asked = time.perf_counter()
        begun: list[float] = []

        def work() -> dict[str, Any] | str:
            begun.append(time.perf_counter())
            return session.answer(request)

        job = asyncio.wrap_future(self.worker.submit(work))
        gone = asyncio.ensure_future(connection.wait_closed())
        try:
            await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                job.cancel()  # nobody waits for the answer: if it has not been begun, it need not be
                return None
            answer = job.result()
        except (TypeError, KeyError, ValueError, UVAError) as error:
            # What does not fit is the client's to mend; what the agent's networks or machine did, its owner should see as well.
            own = isinstance(error, UVAError) and not isinstance(error, InputError)
            log.log(logging.ERROR if own else logging.INFO, "%s: %s", connection.remote_address, _text(error))
            return _text(error)
        except Exception as error:
            log.exception("the agent failed")
            await self._send(connection, _text(error))
            await connection.close(CloseCode.INTERNAL_ERROR, "the agent failed: see the frame before")
            return None
        finally:
            gone.cancel()
        if isinstance(answer, str):
            return answer
        now = time.perf_counter()
        timing = {"infer_ms": 1e3 * (now - begun[0]), "queue_ms": 1e3 * (begun[0] - asked)}
        answer["policy_timing"] = {"infer_ms": timing["infer_ms"]}
        answer["server_timing"] = timing if previous_s is None else {**timing, "prev_total_ms": 1e3 * previous_s}
        try:
            return pack(answer)
        except WireError as error:
            log.error("%s: the agent's answer cannot be sent: %s", connection.remote_address, error)
            return f"WireError: the agent's answer cannot be sent: {error}"


def _text(error: Exception) -> str:
    """One line: the error's name, under which clients know it, and its message."""
    # A KeyError's own text is in quotes, as if it were a key.
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    known = (InputError, "ValueError"), (TypeError, "TypeError"), (KeyError, "KeyError")
    name = next((name for kind, name in known if isinstance(error, kind)), type(error).__name__)
    return " ".join(f"{name}: {message}".split())[:_LONGEST_TEXT]
