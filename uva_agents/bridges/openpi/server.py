"""An agent on a port: openpi's websocket wire, one decision at a time, whatever clients do."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import http
import logging
import signal
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Any, Self, get_args

from uva_agents.bridges.openpi.addresses import cannot_listen, check_listening
from uva_agents.bridges.openpi.desk import Desk
from uva_agents.bridges.openpi.episodes import NewEpisodes
from uva_agents.bridges.openpi.fitting import Resize
from uva_agents.bridges.openpi.keys import KeyMap
from uva_agents.bridges.openpi.limits import Limits
from uva_agents.bridges.openpi.service import Service
from uva_agents.bridges.openpi.session import ClientSession
from uva_agents.bridges.openpi.warmup import warm_up
from uva_agents.bridges.openpi.wire import pack
from uva_agents.errors import InputError

try:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.asyncio.server import serve as listen
    from websockets.exceptions import ConnectionClosed
    from websockets.frames import CloseCode
    from websockets.http11 import Request, Response
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this bridge needs websockets: pip install 'uva-agents[serve]'") from error

log = logging.getLogger("uva_agents.serve")


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
        stateless: every request is an episode of one observation, as for openpi's own servers. For clients that keep one
            connection for all their episodes and never say that one begins, as openpi's.
        new_episode_after_s: a pause of so many seconds without requests begins a new episode.
        resize: images of another size are resized: those of the same aspect ratio (``True``, ``"aspect"``), or all, others
            between black bars (``"letterbox"``).
        clock: seconds; what pauses are measured with.

    Raises:
        TypeError, ValueError: an agent that cannot be served; an empty token; options that exclude each other.
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
        stateless: bool = False,
        new_episode_after_s: float | None = None,
        resize: bool | Resize = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if token is not None and not token.strip():
            raise InputError("an empty token: anybody could give it. Leave it out, or choose one")
        self.host, self.port, self.limits = host, port, limits or Limits()
        self._service = Service(
            agent,
            execute=execute,
            keys=keys,
            limits=self.limits,
            name=name,
            new_episodes=NewEpisodes(stateless, new_episode_after_s),
            resize=_resize(resize),
        )
        self._token, self._tls, self._clock = token, tls, clock
        self._connections = 0
        self._open: set[ServerConnection] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def new_episodes(self) -> NewEpisodes:
        """What begins an episode of a client that does not say so."""
        return self._service.new_episodes

    @property
    def url(self) -> str:
        """Of this server, with the port that it has."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self._tls else 'ws'}://{host}:{self.port}"

    # -- running -----------------------------------------------------------------------------------------------------

    def serve_forever(self, ready: Callable[[], None] | None = None) -> None:
        """Serve until SIGINT or SIGTERM: what is being worked on is then answered, the rest told.

        Args:
            ready: called once, when the agent has decided once and clients are heard.

        Raises:
            AddressError, PortError: the address is none of this machine's, the port is taken; both are OSErrors.
            Exception: whatever the agent raised at its first decision; no client has been heard then.
        """

        async def main() -> None:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                with contextlib.suppress(
                    NotImplementedError, ValueError, RuntimeError
                ):  # not the main thread, not Unix
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
        try:
            up.wait()
        except BaseException:  # Ctrl-C while the agent makes its first decision
            self.stop()
            raise
        if failure:
            self._thread.join()
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
        check_listening(self.host, self.port)
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._desk = Desk(limits, self._send)
        self._worker = self._desk.worker
        try:
            await self._warm_up()
            if self._stop.is_set():
                return
            self._metadata = pack(self._service.metadata())
            async with self._listening() as server:
                self.port = next(iter(server.sockets)).getsockname()[1]
                if ready is not None:
                    ready()
                await self._stop.wait()
                self._desk.closing = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(limits.close_s):
                        while self._desk.busy:
                            await asyncio.sleep(0.01)
                self._loop.call_later(limits.close_s, _abort, list(self._open))
        finally:
            self._worker.stop()

    async def _warm_up(self) -> None:
        """A first decision, in the thread that will make all others, unless the server is stopped before it is made."""
        assert self._stop is not None
        first = asyncio.wrap_future(self._worker.submit(functools.partial(warm_up, self._service)))
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({first, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if first.done():
            first.result()
        first.cancel()

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[Server]:
        limits = self.limits
        try:
            server = await listen(
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
            )
        except OSError as error:
            raise cannot_listen(self.host, self.port, error) from error
        try:
            yield server
        finally:
            server.close()
            await server.wait_closed()

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
            session, previous_s = ClientSession(self._service), None
            answered_at = self._clock()
            while True:
                async with asyncio.timeout(self.limits.idle_s):
                    message = await connection.recv()
                # Here and not where it is answered: waiting for other clients' decisions is no pause of this one's.
                session.paused(self._clock() - answered_at)
                began = time.perf_counter()
                self._desk.busy += 1
                try:
                    answer = await self._desk.answer(session, connection, message, previous_s)
                    del message
                    if answer is None:
                        return
                    answered_at = self._clock()  # before it is sent: the client may have it before this goes on
                    await self._send(connection, answer)
                finally:
                    self._desk.busy -= 1
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
        OSError: the port is taken; see :meth:`PolicyServer.serve_forever`.
    """
    server = PolicyServer(agent, host=host, port=port, token=token, **options)
    server.serve_forever(None if ready is None else functools.partial(ready, server))


def _abort(connections: Iterable[ServerConnection]) -> None:
    """Hang up on whoever does not answer a goodbye."""
    for connection in connections:
        connection.transport.abort()


def _resize(how: bool | Resize) -> Resize | None:
    if how is True:
        return "aspect"
    if how is False or how is None:
        return None
    if how not in get_args(Resize):
        raise InputError(f"resize={how!r}: choose True, {' or '.join(map(repr, get_args(Resize)))}")
    return how
