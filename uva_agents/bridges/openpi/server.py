"""An agent on a port: openpi's websocket wire, one decision at a time, whatever clients do."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import http
import ipaddress
import logging
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from uva_agents.bridges.openpi.keys import KeyMap
from uva_agents.bridges.openpi.limits import Limits
from uva_agents.bridges.openpi.session import Service, Session
from uva_agents.bridges.openpi.wire import WireError, pack, unpack
from uva_agents.bridges.openpi.worker import Worker

try:
    from websockets.asyncio.server import ServerConnection
    from websockets.asyncio.server import serve as listen
    from websockets.exceptions import ConnectionClosed
    from websockets.frames import CloseCode
    from websockets.http11 import Request, Response
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this bridge needs websockets: pip install 'uva-agents[serve]'") from error

log = logging.getLogger("uva_agents.serve")

_BIG = 2**18
"""Bytes of a message that is read in a thread, because reading it would hold up the event loop."""


class PolicyServer:
    """Serves an agent to clients of openpi's wire, each with an episode of its own.

    >>> with PolicyServer(policy, port=0) as server:          # doctest: +SKIP
    ...     RemotePolicy(server.url).act(obs)

    In a ``with`` it runs in a thread; :meth:`serve_forever` runs it here until SIGINT or SIGTERM.

    Args:
        agent: a policy, a planner, or anything with stable-baselines3's ``predict``.
        host, port: where to listen; port 0 takes a free one.
        token: clients must give it, in the header ``Authorization: Api-Key TOKEN`` (as openpi's do) or ``Bearer TOKEN``.
        execute: actions that clients carry out before they ask again, where they do not say; the agent's own number by default.
        keys: what clients call the parts of an observation.
        limits: what they may do.
        tls: certificate and key, as a server's context.
        name: of the agent, in the metadata; its own by default.

    Raises:
        TypeError, ValueError: an agent that cannot be served; an empty token.
    """

    def __init__(
        self,
        agent: Any,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        execute: int | None = None,
        keys: KeyMap | None = None,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        name: str | None = None,
    ) -> None:
        if token is not None and not token.strip():
            raise ValueError("an empty token: anybody could give it. Leave it out, or choose one")
        self.host, self.port, self.limits = host, port, limits or Limits()
        self._service = Service(agent, execute=execute, keys=keys, limits=self.limits, name=name)
        self._token, self._tls = token, tls
        self._connections = 0
        self._open: set[ServerConnection] = set()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """Of this server, with the port that it has."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self._tls else 'ws'}://{host}:{self.port}"

    # -- running -----------------------------------------------------------------------------------------------------

    def serve_forever(self, ready: Callable[[], None] | None = None) -> None:
        """Serve until SIGINT or SIGTERM: what is being worked on is then answered, the rest told. ``ready`` is called once.

        Raises:
            OSError: the port is taken, or the address is none of this machine's.
        """

        async def main() -> None:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                with contextlib.suppress(NotImplementedError, ValueError):  # not the main thread, not Unix
                    loop.add_signal_handler(number, self.stop)
            await self._run(ready)

        asyncio.run(main())

    def __enter__(self) -> Self:
        up = threading.Event()
        failure: list[BaseException] = []

        def run() -> None:
            try:
                asyncio.run(self._run(up.set))
            except BaseException as error:
                failure.append(error)
            finally:
                up.set()

        self._thread = threading.Thread(target=run, name="uva-serve-loop", daemon=True)
        self._thread.start()
        up.wait()
        if failure:
            raise failure[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """Begin to stop, from any thread."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # stopped already
                self._loop.call_soon_threadsafe(self._stop.set)

    async def _run(self, ready: Callable[[], None] | None) -> None:
        limits = self.limits
        self._loop, self._stop, self._closing = asyncio.get_running_loop(), asyncio.Event(), False
        self._worker = Worker()
        self._metadata = pack(self._service.metadata())
        try:
            async with listen(
                self._serve,
                self.host,
                self.port,
                process_request=self._welcome,
                origins=[None],  # a page in a browser has an origin: none may reach the robot of whoever looks at it
                compression=None,
                max_size=limits.message_bytes,
                max_queue=(1, 0),  # of a client that does not wait for answers, one message is kept and no more read
                open_timeout=limits.open_s,
                ping_interval=limits.keepalive_s,
                ping_timeout=limits.keepalive_s,
                close_timeout=min(limits.open_s, 2.0),
                ssl=self._tls,
                logger=logging.getLogger("uva_agents.serve.websockets"),
            ) as server:
                self.port = next(iter(server.sockets)).getsockname()[1]
                if ready is not None:
                    ready()
                await self._stop.wait()
                self._closing = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(limits.close_s):
                        while self._worker.unfinished:
                            await asyncio.sleep(0.01)
                        await asyncio.sleep(0.05)  # for the answer to be on its way
                self._loop.call_later(limits.close_s, _abort, list(self._open))
        finally:
            self._worker.stop()

    # -- clients -----------------------------------------------------------------------------------------------------

    def _welcome(self, connection: ServerConnection, request: Request) -> Response | None:
        """What HTTP can answer: the health check, and who may not come in."""
        if request.path.partition("?")[0] == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self._token is not None and not self._may(request):
            response = connection.respond(
                http.HTTPStatus.UNAUTHORIZED, "a token is needed: Authorization: Api-Key TOKEN, or Bearer TOKEN\n"
            )
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        if self._connections >= self.limits.connections:
            return connection.respond(
                http.HTTPStatus.SERVICE_UNAVAILABLE, f"busy: {self._connections} clients are connected already\n"
            )
        return None

    def _may(self, request: Request) -> bool:
        assert self._token is not None
        given = request.headers.get_all("Authorization")
        kind, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        same = hmac.compare_digest(token.strip().encode("utf-8", "replace"), self._token.encode())
        return same and kind.lower() in ("api-key", "bearer")

    async def _serve(self, connection: ServerConnection) -> None:
        """One client, from its first frame to its last."""
        who = connection.remote_address
        if self._connections >= self.limits.connections:  # several came in at the same moment
            await connection.close(CloseCode.TRY_AGAIN_LATER, "busy: too many clients")
            return
        self._connections += 1
        self._open.add(connection)
        gone = asyncio.ensure_future(connection.wait_closed())
        gone.add_done_callback(lambda _: self._open.discard(connection))
        log.info("%s connected (%d in all)", who, self._connections)
        try:
            await self._send(connection, self._metadata)
            session, previous_s = Session(self._service), None
            while True:
                async with asyncio.timeout(self.limits.idle_s):
                    message = await connection.recv()
                began = time.perf_counter()
                answer = await self._answer(session, connection, message, previous_s)
                del message
                if answer is None:
                    return
                await self._send(connection, answer)
                previous_s = time.perf_counter() - began
        except ConnectionClosed as closed:
            log.info("%s left (%s)", who, closed)
        except TimeoutError:
            log.info("%s timed out", who)
            if not connection.transport.get_write_buffer_size():
                await connection.close(CloseCode.POLICY_VIOLATION, "timed out")
        finally:
            self._connections -= 1
            if connection.transport.get_write_buffer_size():
                # It does not take what it was sent, and would not take a goodbye either: closing would wait for it.
                connection.transport.abort()

    async def _answer(
        self, session: Session, connection: ServerConnection, message: bytes | str, previous_s: float | None
    ) -> bytes | str | None:
        """A frame, text where something is wrong; ``None`` where the connection has been ended instead."""
        try:
            if isinstance(message, str):
                raise WireError("requests are binary messages, and this one is text")
            read = functools.partial(unpack, message, self.limits)
            request = await asyncio.to_thread(read) if len(message) > _BIG else read()
        except WireError as error:
            # Whoever speaks another language will go on to do so.
            await self._send(connection, f"WireError: {error}")
            await connection.close(CloseCode.INVALID_DATA, "not a message of this wire")
            return None
        if self._closing:
            return "busy: the server is stopping"
        if self._worker.unfinished > self.limits.waiting:
            return f"busy: {self._worker.unfinished - 1} requests are waiting already, try again in a moment"
        asked = time.perf_counter()
        begun: list[float] = []

        def work() -> dict[str, Any] | str:
            begun.append(time.perf_counter())
            return session.answer(request)

        job = asyncio.wrap_future(self._worker.submit(work))
        gone = asyncio.ensure_future(connection.wait_closed())
        try:
            await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                job.cancel()  # nobody waits for the answer: if it has not been begun, it need not be
                return None
            answer = job.result()
        except (TypeError, KeyError, ValueError) as error:
            log.info("%s: %s: %s", connection.remote_address, type(error).__name__, error)
            return f"{type(error).__name__}: {_text(error)}"
        except Exception as error:
            log.exception("the agent failed")
            await self._send(connection, f"{type(error).__name__}: {_text(error)}")
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
        return pack(answer)

    async def _send(self, connection: ServerConnection, frame: bytes | str) -> None:
        async with asyncio.timeout(self.limits.send_s):
            await connection.send(frame)


def serve(
    agent: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    ready: Callable[[PolicyServer], None] | None = None,
    **options: Any,
) -> None:
    """Serve ``agent`` until SIGINT or SIGTERM; ``options`` as :class:`PolicyServer`. ``ready`` is called once it listens.

    Raises:
        TypeError, ValueError: an agent that cannot be served.
        OSError: the port is taken.
    """
    server = PolicyServer(agent, host=host, port=port, token=token, **options)
    server.serve_forever(None if ready is None else functools.partial(ready, server))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _abort(connections: Iterable[ServerConnection]) -> None:
    """Hang up on whoever does not answer a goodbye."""
    for connection in connections:
        connection.transport.abort()


def _text(error: Exception) -> str:
    # A KeyError's own text is in quotes, as if it were a key.
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
